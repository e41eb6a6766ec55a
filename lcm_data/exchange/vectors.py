"""Columns of vectors as Arrow has them (lists of any sort, tensors) to arrays, with the reason of each that is none."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Reasons = dict[int, tuple[str, str]]
"""Row -> reason and error of a reject."""


def list_item(kind: pa.DataType) -> pa.DataType | None:
    """Type of the items of a list of any sort, None if it is no list (as tensors of several dimensions are none)."""
    if isinstance(kind, pa.FixedShapeTensorType) and len(kind.shape) != 1:
        return None
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    known = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return kind.value_type if any(is_kind(kind) for is_kind in known) else None


def width_of(kind: pa.DataType) -> int | None:
    """Items of a list of fixed size, None if it is of any size."""
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    return int(kind.list_size) if pa.types.is_fixed_size_list(kind) else None


def one_array(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """A column as one array of its storage type."""
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    return column.storage if isinstance(column, pa.ExtensionArray) else column


def lengths_of(lists: pa.Array) -> npt.NDArray[np.int64]:
    """Items of each list, -1 where it is null."""
    if pa.types.is_fixed_size_list(lists.type):
        full = np.full(len(lists), lists.type.list_size, np.int64)
        return np.where(np.asarray(lists.is_valid()), full, -1)
    lengths = lists.value_lengths().fill_null(-1).to_numpy(zero_copy_only=False)
    return lengths.astype(np.int64)  # type: ignore[no-any-return]


def dense(vectors: pa.Array, dim: int) -> tuple[npt.NDArray[Any], Reasons]:
    """Vectors of ``dim`` numbers as an array [N, dim], float16 if stored so, else float32; NaN where there is none.

    Nulls, nulls inside of vectors and vectors of another width are named with their reasons.
    """
    vectors = one_array(vectors)
    lengths_N = lengths_of(vectors)
    flat = one_array(vectors.flatten())
    dtype = np.float16 if pa.types.is_float16(flat.type) else np.float32
    reasons: Reasons = {
        int(row): ("null_embedding", "the vector is null")
        if lengths_N[row] < 0
        else ("wrong_dimension", f"the vector has {lengths_N[row]} numbers, {dim} are expected")
        for row in np.flatnonzero(lengths_N != dim)
    }
    if flat.null_count:
        row_of = np.repeat(np.arange(len(vectors)), np.maximum(lengths_N, 0))
        for row in np.unique(row_of[np.asarray(pc.is_null(flat))]):
            reasons.setdefault(int(row), ("null_embedding", "a number of the vector is null"))
        flat = flat.fill_null(0)
    with np.errstate(over="ignore"):
        numbers = flat.to_numpy(zero_copy_only=False).astype(dtype, copy=False)
    if not reasons:
        return numbers.reshape(-1, dim), reasons
    x_ND = np.full((len(vectors), dim), np.nan, dtype)
    begins_N = np.cumsum(np.maximum(lengths_N, 0)) - np.maximum(lengths_N, 0)
    good = np.setdiff1d(np.arange(len(vectors)), list(reasons))
    x_ND[good] = numbers[begins_N[good, None] + np.arange(dim)]
    return x_ND, reasons

"""Checks of embedding matrices before any kernel sees them.

FAISS answers NaN with unit -1 and reads out of bounds, silently; so nothing unchecked may reach it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from lcm_data.errors import UsageError

Array = np.ndarray[Any, Any]

BLOCK_ROWS = 4096
"""Rows per block: large enough for the matrix product, small enough that no scratch grows with the corpus."""

TOO_LARGE = 1e16
"""Numbers from here on are refused: their squares, summed up, are more than float32 can hold."""

_LIMITS = {
    "float16": (np.uint16, 0x7FFF, 0x7C00),
    "float32": (np.uint32, 0x7FFFFFFF, int(np.float32(TOO_LARGE).view(np.uint32))),
}


def valid_rows(x_ND: Array) -> Array:
    """Mask [N] of the rows that can be quantized: every value finite and less than 1e16, at least one not zero.

    Raises:
        UsageError: not a float16, float32 or float64 matrix.
    """
    check_matrix(x_ND)
    if x_ND.shape[1] == 0:
        return np.zeros(len(x_ND), dtype=bool)
    if x_ND.dtype.name not in _LIMITS:
        return np.asarray((np.abs(x_ND) < TOO_LARGE).all(axis=1) & x_ND.any(axis=1))
    # One pass over the bits answers both questions, four times as fast as isfinite on half floats.
    integer, magnitude, limit = _LIMITS[x_ND.dtype.name]
    valid = np.empty(len(x_ND), dtype=bool)
    for rows in blocks(len(x_ND)):
        largest = (np.ascontiguousarray(x_ND[rows]).view(integer) & integer(magnitude)).max(axis=1)
        valid[rows] = (largest > 0) & (largest < limit)
    return valid


def check_matrix(x_ND: Array, dim: int | None = None, name: str = "vectors") -> None:
    """Raise ``UsageError`` unless ``x_ND`` is a 2-D float matrix (``dim`` columns if given)."""
    if not isinstance(x_ND, np.ndarray):
        raise UsageError(f"{name}: got {type(x_ND).__name__}, expected a numpy array [rows, dimensions].")
    if x_ND.dtype.name not in ("float16", "float32", "float64"):
        raise UsageError(f"{name}: got dtype {x_ND.dtype}, expected float16, float32 or float64.")
    if x_ND.ndim != 2:
        raise UsageError(f"{name}: got shape {x_ND.shape}, expected two dimensions [rows, dimensions].")
    if dim is not None and x_ND.shape[1] != dim:
        raise UsageError(
            f"{name}: got {x_ND.shape[1]} dimensions, expected {dim}. Use vectors of the encoder the codebook is for."
        )


def check_finite(x_ND: Array, name: str = "vectors") -> None:
    """Raise ``UsageError`` with the number of rows that hold NaN, infinity or what is too large, if there are any."""
    bad = [
        rows.start + i
        for rows in blocks(len(x_ND))
        for i in np.flatnonzero(~(np.abs(x_ND[rows], dtype=np.float64) < TOO_LARGE).all(axis=1))
    ]
    if bad:
        first = ", ".join(map(str, bad[:5]))
        raise UsageError(
            f"{name}: {len(bad)} of {len(x_ND)} rows hold NaN, infinity or numbers from 1e16 on (first: row {first}). "
            "Drop them first; valid_rows() gives the mask."
        )


def blocks(num_rows: int, block_rows: int = BLOCK_ROWS) -> Iterator[slice]:
    """Consecutive slices that cover ``range(num_rows)``."""
    for start in range(0, num_rows, block_rows):
        yield slice(start, min(start + block_rows, num_rows))

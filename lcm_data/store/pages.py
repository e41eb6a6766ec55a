"""Vectors of a Parquet column chunk copied from where they lie in the file, without decoding.

Our shards store vectors plain and uncompressed, so a page is a header, two short runs of levels, and the numbers as
they are in memory. Arrow takes ten times as long, because it rebuilds lists from levels. Anything that is not laid out
just so is left to Arrow: ``plain_vectors`` says None.

Shapes: N vectors of D dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow.parquet as pq

Array = np.ndarray[Any, Any]

_DATA_PAGE, _PLAIN = 0, 0
_STOP, _TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _BINARY, _STRUCT = 0, 1, 2, 3, 4, 5, 6, 8, 12


def plain_vectors(file: Array, group: pq.RowGroupMetaData, column: str, dtype: np.dtype[Any], dim: int) -> Array | None:
    """The vectors of a row group [N, D], or None if they cannot be copied as they are.

    Args:
        file: the bytes of the file, memory-mapped uint8.
        column: of the vectors, fixed-size lists of ``dim`` numbers of ``dtype``, none of them null.
    """
    chunk = _chunk(group, column)
    if chunk is None or chunk.compression != "UNCOMPRESSED" or chunk.has_dictionary_page:
        return None
    if chunk.num_values != group.num_rows * dim:
        return None
    out_ND = np.empty((group.num_rows, dim), dtype)
    out = out_ND.reshape(-1).view(np.uint8)
    begin, filled = chunk.data_page_offset, 0
    try:
        for start, stop in _pages(file, begin, begin + chunk.total_compressed_size, dtype.itemsize):
            out[filled : filled + stop - start] = file[start:stop]
            filled += stop - start
    except (ValueError, IndexError):  # what the parser, or a page that does not fit, raises
        return None
    return out_ND if filled == len(out) else None


def _chunk(group: pq.RowGroupMetaData, column: str) -> pq.ColumnChunkMetaData | None:
    for index in range(group.num_columns):
        chunk = group.column(index)
        if chunk.path_in_schema.split(".")[0] == column:
            return chunk
    return None


def _pages(file: Array, at: int, end: int, itemsize: int) -> Iterator[tuple[int, int]]:
    """Where the numbers of each page begin and end in the file. Raises ``ValueError`` for other kinds of pages."""
    while at < end:
        header, at = _struct(file, at)
        kind, size, data = header.get(1), header.get(3), header.get(5)
        if kind != _DATA_PAGE or size is None or size != header.get(2) or not isinstance(data, dict):
            raise ValueError("not an uncompressed data page")
        if data.get(2) != _PLAIN:
            raise ValueError("not plain numbers")
        num_bytes = data.get(1, 0) * itemsize
        # Repetition and definition levels, each with its length in front. With nulls there would be fewer numbers.
        levels = 4 + _length(file, at)
        levels += 4 + _length(file, at + levels)
        if levels + num_bytes != size or at + size > end:
            raise ValueError("not as many numbers as there are places")
        yield at + levels, at + size
        at += size


def _length(file: Array, at: int) -> int:
    return int.from_bytes(file[at : at + 4].tobytes(), "little")


def _struct(file: Array, at: int) -> tuple[dict[int, Any], int]:
    """Fields of a struct in Thrift's compact protocol by number, and where it ends; text is passed over."""
    fields: dict[int, Any] = {}
    number = 0
    while (head := int(file[at])) != _STOP:
        at += 1
        kind = head & 15
        if head >> 4:
            number += head >> 4
        else:
            number, at = _integer(file, at)
        if kind in (_TRUE, _FALSE):
            fields[number] = kind == _TRUE
        elif kind in (_I16, _I32, _I64):
            fields[number], at = _integer(file, at)
        elif kind == _BYTE:
            at += 1
        elif kind == _BINARY:
            length, at = _varint(file, at)
            at += length
        elif kind == _STRUCT:
            fields[number], at = _struct(file, at)
        else:
            raise ValueError(f"a field of type {kind}")
    return fields, at + 1


def _integer(file: Array, at: int) -> tuple[int, int]:
    value, at = _varint(file, at)
    return (value >> 1) ^ -(value & 1), at


def _varint(file: Array, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = int(file[at])
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7

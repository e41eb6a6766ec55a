"""Parquet: slices are ranges of rows, cut at row groups where these are small enough.

Only the columns of text, id, language and recordings are read. Text may be a string, large string, string view, binary
or a dictionary of these. A column of text that is missing or of another type is refused when the file is scanned.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lcm_data.documents.inputs import InputFile
from lcm_data.documents.model import Columns, Document, ReadOptions, Reject
from lcm_data.documents.rows import ABSENT, RowMaker, key_array, row_key
from lcm_data.documents.slices import Piece, ScannedSlice, Slice
from lcm_data.documents.streams import file_system, storage_errors
from lcm_data.errors import InputError

_BATCH_ROWS = 1024
_KEY_BATCH_ROWS = 65_536


class ParquetReader:
    """Reader of ``.parquet``."""

    def scan(
        self, piece: Piece, columns: Columns, slice_bytes: int, default_lang: str | None, options: ReadOptions
    ) -> Iterator[ScannedSlice]:
        """Cut by the sizes in the footer; of the rows only ids and languages are read."""
        (file,) = piece.files
        with _open(file.uri, options) as parquet:
            names = _usable_columns(parquet.schema_arrow, file, columns)
            ranges = _ranges(parquet.metadata, names, slice_bytes, options.most_rows(columns))
            given = _key_rows(parquet, names)
            for start, stop, num_bytes in ranges:
                keys = [row_key(*next(given), default_lang) for _ in range(start, stop)]
                part = Slice(
                    format="parquet",
                    uri=file.uri,
                    name=file.name,
                    fingerprint=file.fingerprint,
                    compression=None,
                    start=start,
                    stop=stop,
                    first_row=start,
                    num_rows=stop - start,
                    num_bytes=num_bytes,
                )
                yield ScannedSlice(part, key_array(keys))

    def read(self, part: Slice, columns: Columns, options: ReadOptions) -> Iterator[Document | Reject]:
        """The rows of a slice."""
        make = RowMaker(part.name, part.first_row, options, part.uri)
        row = 0
        with _rows_from(part, columns, options) as rows:
            while row < part.num_rows:
                batch = rows.take(part.num_rows - row)
                if batch is None:
                    return
                for fields in zip(*batch, strict=True):
                    yield make.make(row, *fields)
                    row += 1


@contextlib.contextmanager
def _open(uri: str, options: ReadOptions) -> Iterator[pq.ParquetFile]:
    fs, path = file_system(uri, options.storage_options)
    with _parquet_errors(uri), fs.open(path, "rb") as file:
        yield pq.ParquetFile(file, buffer_size=1 << 20)


@contextlib.contextmanager
def _parquet_errors(uri: str) -> Iterator[None]:
    with storage_errors(uri):
        try:
            yield
        except pa.ArrowInvalid as error:
            raise InputError(f"{uri!r} is no readable Parquet file: {error}. Copy or write it again.") from error


def _usable_columns(schema: pa.Schema, file: InputFile, columns: Columns) -> list[str | None]:
    """The names of the text, id, language and recording columns, None for one that is not there and need not be."""
    names: list[str | None] = []
    has_either = columns.text in schema.names or columns.audio in schema.names
    for name, option in zip(_wanted(columns), ("text", "id", "lang", "audio"), strict=True):
        if name not in schema.names:
            if getattr(columns, option) is None or (option in ("text", "audio") and has_either):
                names.append(None)
                continue
            listed = ", ".join(f"{field.name} ({field.type})" for field in schema)
            raise InputError(
                f"{file.uri!r} has no column {name!r}. Columns: {listed[:1000]}. "
                f"Name the right one with --{option}-column."
            )
        kind = schema.field(name).type
        if not _is_usable(kind, numbers=option == "id"):
            raise InputError(
                f"{file.uri!r}: the {option} column {name!r} has type {kind}, strings are needed. "
                f"Name another with --{option}-column, or convert it."
            )
        names.append(name)
    return names


def _is_usable(kind: pa.DataType, numbers: bool) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if numbers and (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        return True
    return pa.types.is_null(kind) or _is_string(kind) or pa.types.is_fixed_size_binary(kind)


def _is_string(kind: pa.DataType) -> bool:
    t = pa.types
    views = (t.is_string_view, t.is_binary_view)
    return (
        t.is_string(kind)
        or t.is_large_string(kind)
        or t.is_binary(kind)
        or t.is_large_binary(kind)
        or any(is_view(kind) for is_view in views)
    )


def _values(column: pa.Array) -> Sequence[Any]:
    """Python values; strings as bytes, since one that is not UTF-8 would make ``to_pylist`` fail for all."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.dictionary_decode()
        kind = column.type
    if _is_string(kind):
        column = column.cast(pa.large_binary())
    values: Sequence[Any] = column.to_pylist()
    return values


def _wanted(columns: Columns) -> tuple[str, str, str, str | None]:
    return columns.text, columns.id or "id", columns.lang or "lang", columns.audio


def _ranges(
    metadata: pq.FileMetaData, names: Sequence[str | None], slice_bytes: int, most_rows: int
) -> list[tuple[int, int, int]]:
    """Row ranges (start, stop, bytes of text) of about ``slice_bytes``, by the sizes of the row groups."""
    column = names[0] or names[3]
    at = next(i for i in range(metadata.num_columns) if metadata.schema.column(i).path == column)
    ranges: list[tuple[int, int, int]] = []
    start = row = num_bytes = 0
    for group in range(metadata.num_row_groups):
        info = metadata.row_group(group)
        size = info.column(at).total_uncompressed_size
        if row > start and (num_bytes + size > slice_bytes or row + info.num_rows - start > most_rows):
            ranges.append((start, row, num_bytes))
            start, num_bytes = row, 0
        num_parts = max(1, min(info.num_rows, max(-(-size // slice_bytes), -(-info.num_rows // most_rows))))
        for k in range(1, num_parts):
            stop = row + info.num_rows * k // num_parts
            ranges.append((start, stop, size // num_parts))
            start = stop
        row += info.num_rows
        num_bytes += size // num_parts
    if row > start:
        ranges.append((start, row, num_bytes))
    return ranges


def _key_rows(parquet: pq.ParquetFile, names: list[str | None]) -> Iterator[tuple[Any, Any]]:
    """Id and language of each row."""
    _, id_name, lang_name, _ = names
    wanted = [name for name in (id_name, lang_name) if name is not None]
    if id_name is None:
        for _ in range(parquet.metadata.num_rows):
            yield ABSENT, ABSENT
        return
    for batch in parquet.iter_batches(_KEY_BATCH_ROWS, columns=wanted):
        langs = _values(batch.column(lang_name)) if lang_name else [ABSENT] * batch.num_rows
        yield from zip(_values(batch.column(id_name)), langs, strict=True)


class _RowStream:
    """Rows of a file from ``row`` on, read forward."""

    def __init__(self, part: Slice, columns: Columns, options: ReadOptions) -> None:
        self._opened = contextlib.ExitStack()
        parquet = self._opened.enter_context(_open(part.uri, options))
        self._uri = part.uri
        self._names = _wanted(columns)
        wanted = [name for name in self._names if name in parquet.schema_arrow.names]
        groups: list[int] = []
        self.row = 0
        for group in range(parquet.metadata.num_row_groups):
            num_rows = parquet.metadata.row_group(group).num_rows
            if self.row + num_rows <= part.start and not groups:
                self.row += num_rows
            else:
                groups.append(group)
        skip = part.start - self.row
        self._batches = parquet.iter_batches(_BATCH_ROWS, row_groups=groups, columns=wanted)
        self._batch: pa.RecordBatch | None = None
        while skip > 0 and (batch := self._next(skip)) is not None:
            skip -= batch.num_rows

    def take(self, num_rows: int) -> list[Sequence[Any]] | None:
        """Up to ``num_rows`` rows: texts, ids, languages, recordings; None at the end of the file."""
        batch = self._next(num_rows)
        if batch is None:
            return None
        return [
            _values(batch.column(name)) if name in batch.schema.names else [ABSENT] * batch.num_rows
            for name in self._names
        ]

    def _next(self, num_rows: int) -> pa.RecordBatch | None:
        if self._batch is None:
            with _parquet_errors(self._uri):
                self._batch = next(self._batches, None)
            if self._batch is None:
                return None
        taken = self._batch.slice(0, num_rows)
        rest = self._batch.slice(taken.num_rows)
        self._batch = rest if rest.num_rows else None
        self.row += taken.num_rows
        return taken

    def close(self) -> None:
        """Close the file."""
        self._opened.close()


_kept: dict[str, _RowStream] = {}
"""The file read last, as in ``streams``: the next slice of a big row group goes on where the last one ended."""


@contextlib.contextmanager
def _rows_from(part: Slice, columns: Columns, options: ReadOptions) -> Iterator[_RowStream]:
    key = f"{part.fingerprint} {part.uri} {columns}"
    rows = _kept.pop(key, None)
    if rows is None or rows.row != part.start:
        if rows is not None:
            rows.close()
        rows = _RowStream(part, columns, options)
    try:
        yield rows
    except BaseException:
        rows.close()
        raise
    for other in _kept.values():
        other.close()
    _kept.clear()
    _kept[key] = rows

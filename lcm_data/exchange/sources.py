"""Rows of files of vectors, whatever their kind: a schema, a number of rows, and any range of them as an Arrow table.

A source is read forward in slices; what is between is not held. Which column means what is in
``lcm_data.exchange.columns``.
"""

from __future__ import annotations

import bisect
import contextlib
import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, cast

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from lcm_data import schema
from lcm_data.documents.streams import file_system, storage_errors
from lcm_data.errors import InputError, MissingExtraError
from lcm_data.exchange.inputs import SourceFile
from lcm_data.store.shard import METADATA_PREFIX
from lcm_data.tables import resolve

NPY_COLUMN = "emb"
"""What the array of a .npy is called."""

_BATCH_ROWS, _BATCH_NUMBERS = 1024, 1 << 22

SOURCES: dict[str, str] = {
    "parquet": "lcm_data.exchange.sources:ParquetSource",
    "npy": "lcm_data.exchange.sources:NpySource",
    "arrow": "lcm_data.exchange.sources:ArrowSource",
    "lance": "lcm_data.exchange.sources:LanceSource",
}
"""Kind -> class, built with a ``SourceFile``."""


class Source(Protocol):
    """The rows of one file. Implementations are context managers that close it."""

    schema: pa.Schema
    num_rows: int

    def batches(self, start: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Rows from ``start`` on, of some columns, in batches."""
        ...

    def begin_of(self, row: int) -> int:
        """The first row that must be decoded to get at ``row``."""
        ...

    def close(self) -> None: ...


def open_source(file: SourceFile) -> contextlib.closing[Source]:
    """Open a file to read it; closes with the context.

    Raises:
        InputError: it is not what its suffix says.
        StorageError: reading failed.
    """
    return contextlib.closing(cast(Source, resolve(SOURCES, file.kind, "kind of source")(file)))


def provenance_of(found: pa.Schema) -> dict[str, str]:
    """What files of this project say of their vectors."""
    pairs = {key.decode(): value.decode("utf-8", "replace") for key, value in (found.metadata or {}).items()}
    return {key.removeprefix(METADATA_PREFIX): value for key, value in pairs.items() if key.startswith(METADATA_PREFIX)}


class RangeReader:
    """Ranges of the rows of one source after another; the next goes on where the last ended, if it can."""

    def __init__(self, file: SourceFile, columns: Sequence[str]) -> None:
        self.key = (file, tuple(columns))
        self._columns = columns
        self._source = cast(Source, resolve(SOURCES, file.kind, "kind of source")(file))
        self._uri = file.uri
        self._row = -1
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._left: pa.RecordBatch | None = None

    def read(self, start: int, stop: int) -> pa.Table:
        """The rows from ``start`` to ``stop``.

        Raises:
            InputError: there are fewer, or the file is damaged.
        """
        if not self._source.begin_of(start) <= self._row <= start:
            self._batches, self._left, self._row = (
                readable(self._uri, self._source.batches(start, self._columns)),
                None,
                start,
            )
        parts: list[pa.RecordBatch] = []
        while self._row < stop:
            batch = self._next()
            if batch is None:
                raise InputError(f"{self._uri!r} has fewer rows than when it was listed: it has changed. Restore it.")
            first, last = max(start - self._row, 0), min(batch.num_rows, stop - self._row)
            if last > first:
                parts.append(batch.slice(first, last - first))
            if last < batch.num_rows:
                self._left = batch.slice(last)
            self._row += last
        empty = pa.schema([self._source.schema.field(name) for name in self._columns]).remove_metadata()
        return pa.Table.from_batches(parts, parts[0].schema if parts else empty)

    def _next(self) -> pa.RecordBatch | None:
        if self._left is not None:
            batch, self._left = self._left, None
            return batch
        return next(self._batches, None)

    def close(self) -> None:
        self._source.close()


_kept: list[RangeReader] = []
"""The file read last: units are slices of it, mostly read in order."""


def read_range(file: SourceFile, start: int, stop: int, columns: Sequence[str]) -> pa.Table:
    """Some rows of a file; the file is kept open for the next call."""
    reader = _kept.pop() if _kept else None
    if reader is None or reader.key != (file, tuple(columns)):
        if reader is not None:
            reader.close()
        reader = RangeReader(file, columns)
    try:
        table = reader.read(start, stop)
    except BaseException:
        reader.close()
        raise
    _kept.append(reader)
    return table


@contextlib.contextmanager
def _errors(uri: str) -> Iterator[None]:
    with storage_errors(uri):
        try:
            yield
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, EOFError) as error:
            raise InputError(f"{uri!r} cannot be read: {error}. Copy or write it again.") from error


def readable(uri: str, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The batches; damage is an ``InputError`` that names the file."""
    while True:
        with _errors(uri):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


class ParquetSource:
    """A Parquet file."""

    def __init__(self, file: SourceFile) -> None:
        fs, path = file_system(file.uri)
        self._uri = file.uri
        with _errors(file.uri):
            self._stream = fs.open(path, "rb")
            self._file = pq.ParquetFile(self._stream, buffer_size=1 << 20)
        self.schema: pa.Schema = self._file.schema_arrow
        self.num_rows: int = self._file.metadata.num_rows
        groups = [self._file.metadata.row_group(group) for group in range(self._file.num_row_groups)]
        sizes = [group.num_rows for group in groups]
        # In the nested layout a row is a document, of any length: what a batch holds is counted in numbers.
        a_row = max((chunk.num_values / max(1, size) for group, size in zip(groups, sizes, strict=True)
                     for chunk in map(group.column, range(group.num_columns))), default=1)  # fmt: skip
        self._batch_rows = max(1, min(_BATCH_ROWS, int(_BATCH_NUMBERS / max(1, a_row))))
        self._begins: list[int] = [0, *itertools.accumulate(sizes)][: max(1, len(sizes))]

    def batches(self, start: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Row groups before ``start`` are not touched."""
        first = self._group_of(start)
        groups = [*range(first, self._file.num_row_groups)]
        batches = self._file.iter_batches(self._batch_rows, row_groups=groups, columns=[*columns])
        return _skip(batches, start - self._begins[first])

    def begin_of(self, row: int) -> int:
        return self._begins[self._group_of(row)]

    def _group_of(self, row: int) -> int:
        return max(0, bisect.bisect_right(self._begins, row) - 1)

    def close(self) -> None:
        self._file.close()
        self._stream.close()


def _skip(batches: Iterator[pa.RecordBatch], num_rows: int) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        if num_rows < batch.num_rows:
            yield batch.slice(num_rows)
        num_rows = max(0, num_rows - batch.num_rows)


class ArrowSource:
    """An Arrow IPC file or stream, such as ``datasets`` writes with ``save_to_disk``; local ones are memory-mapped."""

    def __init__(self, file: SourceFile) -> None:
        self._file = file
        with _errors(file.uri):
            self.schema: pa.Schema = self._open().schema
            self.num_rows = sum(batch.num_rows for batch in self._open())

    def _open(self) -> Any:
        fs, path = file_system(self._file.uri)
        source = pa.memory_map(path) if "file" in fs.protocol else pa.PythonFile(fs.open(path, "rb"), "r")
        try:
            reader = pyarrow.ipc.open_file(source)
            batches = (reader.get_batch(number) for number in range(reader.num_record_batches))
            return pa.RecordBatchReader.from_batches(reader.schema, batches)
        except pa.ArrowInvalid:
            source.seek(0)
            return pyarrow.ipc.open_stream(source)

    def batches(self, start: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        return _skip((batch.select([*columns]) for batch in self._open()), start)

    def begin_of(self, row: int) -> int:
        return row

    def close(self) -> None:
        pass


class NpySource:
    """A .npy file of one vector a row, with the rows of a Parquet or JSON Lines file beside it, if there is one."""

    def __init__(self, file: SourceFile) -> None:
        self._uri = file.uri
        fs, path = file_system(file.uri)
        with _errors(file.uri):
            self._stream = fs.open(path, "rb")
            self.num_rows, self._dim, self._dtype = self._read_header()
            self._begin = self._stream.tell()
        item = pa.from_numpy_dtype(self._dtype)
        array = pa.field(NPY_COLUMN, schema.vector_type(item, self._dim))
        self._rows = None if file.metadata_uri is None else _rows_beside(file.metadata_uri, file.fingerprint)
        others = [] if self._rows is None else [each for each in self._rows.schema if each.name != NPY_COLUMN]
        self.schema = pa.schema([*others, array], metadata=None if self._rows is None else self._rows.schema.metadata)
        if self._rows is not None and self._rows.num_rows != self.num_rows:
            raise InputError(
                f"{file.uri!r} holds {self.num_rows:,} vectors, {file.metadata_uri!r} {self._rows.num_rows:,} rows. "
                "They must be as many, in the same order: write them again together."
            )

    def _read_header(self) -> tuple[int, int, np.dtype[Any]]:
        try:
            version = np.lib.format.read_magic(self._stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, is_fortran, dtype = read(self._stream)
        except ValueError as error:
            raise InputError(f"{self._uri!r} is no .npy file: {error}. Write it with numpy.save.") from error
        if dtype.kind in "fiu" and (not dtype.isnative or dtype.itemsize > 8):
            raise InputError(
                f"{self._uri!r} holds numbers of type {dtype.str}, which this machine or Arrow does not know. Write it "
                'anew: numpy.save(file, array.astype("float32")).'
            )
        if len(shape) != 2 or shape[1] == 0 or is_fortran or dtype.kind not in "fiu":
            raise InputError(
                f"{self._uri!r} holds an array of shape {list(shape)} and type {dtype}"
                f"{' in Fortran order' if is_fortran else ''}. Write one of shape [rows, dimensions] of numbers: "
                "numpy.save(file, numpy.ascontiguousarray(array))."
            )
        return int(shape[0]), int(shape[1]), dtype

    def batches(self, start: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        width = self._dim * self._dtype.itemsize
        kind = self.schema.field(NPY_COLUMN).type
        self._stream.seek(self._begin + start * width)
        others = [name for name in columns if name != NPY_COLUMN]
        for row in range(start, self.num_rows, _BATCH_ROWS):
            size = min(_BATCH_ROWS, self.num_rows - row)
            made = {}
            if NPY_COLUMN in columns:
                data = self._stream.read(size * width)
                if len(data) != size * width:
                    raise InputError(f"{self._uri!r} ends before its last vector: it was cut. Write it again.")
                made[NPY_COLUMN] = schema.vector_array(np.frombuffer(data, self._dtype).reshape(size, -1), kind)
            if others:
                assert self._rows is not None
                table = self._rows.slice(row, size)
                made |= {name: table[name].combine_chunks() for name in others}
            yield pa.RecordBatch.from_arrays([made[name] for name in columns], names=[*columns])

    def begin_of(self, row: int) -> int:
        return row

    def close(self) -> None:
        self._stream.close()


@functools.lru_cache(maxsize=2)
def _rows_beside(uri: str, fingerprint: str) -> pa.Table:
    """The rows that belong to a .npy: small beside the vectors, so they are held."""
    fs, path = file_system(uri)
    with _errors(uri), fs.open(path, "rb") as stream:
        if uri.endswith(".jsonl"):
            from pyarrow import json

            table = json.read_json(stream)
            dates = [each.name for each in table.schema if pa.types.is_timestamp(each.type)]
            if not dates:
                return table
            as_text = pa.schema([(name, pa.string()) for name in dates])  # "2024-01-01" is an id, or a sentence
            stream.seek(0)
            return json.read_json(stream, parse_options=json.ParseOptions(explicit_schema=as_text))
        return pq.read_table(stream)


class LanceSource:
    """A Lance dataset."""

    def __init__(self, file: SourceFile) -> None:
        try:
            import lance
        except ImportError as error:
            raise MissingExtraError("reading Lance datasets", "pylance", "lance") from error
        with _errors(file.uri):
            self._data = lance.dataset(file.uri, version=file.version)
            self.num_rows: int = self._data.count_rows()
        self.schema: pa.Schema = self._data.schema

    def batches(self, start: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        found: Iterator[pa.RecordBatch] = self._data.to_batches(
            columns=[*columns], offset=start, batch_size=_BATCH_ROWS, scan_in_order=True
        )
        return found

    def begin_of(self, row: int) -> int:
        return row

    def close(self) -> None:
        pass

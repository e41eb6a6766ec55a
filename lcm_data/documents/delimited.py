"""CSV and TSV with a header line.

CSV follows RFC 4180, strictly: a stray or missing quote spoils its own record, which becomes a reject, and does not
silently swallow those after it. TSV follows the IANA type: no quoting, so a quote is a character like any other and
a field holds neither tabs nor newlines. Blank lines are no rows.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lcm_data.documents.inputs import InputFile
from lcm_data.documents.model import Columns, Document, ReadOptions, Reject
from lcm_data.documents.rows import RowError, RowMaker, key_array, pick, row_key
from lcm_data.documents.slices import Piece, ScannedSlice, Slice
from lcm_data.documents.streams import LineStream, line_stream
from lcm_data.errors import InputError


@dataclass(frozen=True, slots=True)
class _Record:
    """One record: its fields, or what is wrong with it and its first bytes."""

    fields: list[str]
    error: RowError | None = None
    raw: str = ""


class _Lines:
    """Feeds decoded lines to ``csv.reader`` and knows what the record being read has taken so far.

    Bytes that are not UTF-8 become lone surrogates (``surrogateescape``), so that they spoil one field only. This is
    an iterator, not a generator: it goes on after it has raised.
    """

    def __init__(self, stream: LineStream, stop: int | None, limit: int) -> None:
        self._lines = stream.lines(stop)
        self._limit = limit
        self.begin()

    def begin(self) -> None:
        """A record ends here."""
        self.head = ""
        self.num_lines = 0
        self._size = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        text = line.data.decode("utf-8", "surrogateescape")
        self.head = self.head or text[:1000]
        self.num_lines += 1
        self._size += line.size
        if line.is_cut or self._size > self._limit:
            raise RowError("too_long", f"a record of over {self._limit:,} bytes (max_row_bytes); is a quote missing?")
        return text + "\n"


def _records(stream: LineStream, stop: int | None, delimiter: str, limit: int) -> Iterator[_Record]:
    """The records that begin before ``stop``, good and bad; after each, ``stream`` is where the next one begins."""
    # The default, 128 KiB, refuses long documents. The setting is global to the process; it is only ever raised.
    csv.field_size_limit(max(csv.field_size_limit(), limit))
    lines = _Lines(stream, stop, limit)
    if delimiter == "\t":
        reader = csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE, strict=True)
    else:
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        lines.begin()
        try:
            fields = next(reader)
        except StopIteration:
            return
        except RowError as error:
            yield _Record([], error, lines.head)
        except csv.Error as error:
            took = f", after {lines.num_lines} lines" if lines.num_lines > 1 else ""
            yield _Record([], RowError("invalid_csv", f"{error}{took}"), lines.head)
        else:
            if fields:
                yield _Record(fields, raw=lines.head)


class CsvReader:
    """Reader of ``.csv``."""

    delimiter = ","

    def scan(
        self, piece: Piece, columns: Columns, slice_bytes: int, default_lang: str | None, options: ReadOptions
    ) -> Iterator[ScannedSlice]:
        """Cut at record ends; the whole file is parsed, since only that tells where records end."""
        (file,) = piece.files
        with line_stream(file, 0, options) as stream:
            records = _records(stream, None, self.delimiter, options.max_row_bytes)
            header = self._header(records, file, columns)
            start, first_row, keys = stream.position, 0, list[bytes]()

            def cut() -> ScannedSlice:
                part = Slice(
                    format=file.format,
                    uri=file.uri,
                    name=file.name,
                    fingerprint=file.fingerprint,
                    compression=file.compression,
                    start=start,
                    stop=stream.position,
                    first_row=first_row,
                    num_rows=len(keys),
                    num_bytes=stream.position - start,
                    fields=header,
                )
                return ScannedSlice(part, key_array(keys))

            for record in records:
                _, given_id, given_lang, _ = pick(_fields(record, header), columns)
                keys.append(row_key(given_id, given_lang, default_lang))
                if stream.position - start >= slice_bytes or len(keys) >= options.most_rows(columns):
                    yield cut()
                    start, first_row, keys = stream.position, first_row + len(keys), []
            if keys:
                yield cut()

    def _header(self, records: Iterator[_Record], file: InputFile, columns: Columns) -> tuple[str, ...]:
        first = next(records, None)
        if first is None:
            return ()
        if first.error is not None:
            raise InputError(f"{file.uri!r}: the header line cannot be read: {first.error.error}.")
        header = tuple(first.fields)
        asked = ((columns.text, "text"), (columns.id, "id"), (columns.lang, "lang"), (columns.audio, "audio"))
        for name, option in asked:
            if name not in header and option in ("text", "audio") and {columns.text, columns.audio} & {*header}:
                continue  # recordings need no transcript, and texts no recording
            if name is not None and header.count(name) != 1:
                problem = "no column" if name not in header else "more than one column"
                listed = ", ".join(header).encode("utf-8", "replace").decode()
                raise InputError(
                    f"{file.uri!r} has {problem} {name!r}. Columns, separated by {self.delimiter!r}: {listed[:1000]}. "
                    f"Name the right one with --{option}-column."
                )
        return header

    def read(self, part: Slice, columns: Columns, options: ReadOptions) -> Iterator[Document | Reject]:
        """The records of a slice."""
        make = RowMaker(part.name, part.first_row, options, part.uri)
        limit = options.max_row_bytes
        with line_stream(part, part.start, options) as stream:
            for row, record in enumerate(_records(stream, part.stop, self.delimiter, limit)):
                error = record.error
                if error is None and len(record.fields) != len(part.fields):
                    error = RowError("wrong_fields", self._wrong_fields(len(record.fields), len(part.fields)))
                if error is not None:
                    yield make.reject(row, error, record.raw)
                else:
                    yield make.make(row, *pick(_fields(record, part.fields), columns))

    def _wrong_fields(self, num_fields: int, num_names: int) -> str:
        return f"{num_fields} fields, the header has {num_names}"


class TsvReader(CsvReader):
    """Reader of ``.tsv``."""

    delimiter = "\t"

    def _wrong_fields(self, num_fields: int, num_names: int) -> str:
        return f"{super()._wrong_fields(num_fields, num_names)} (a .tsv has no quoting; quoted data belongs in a .csv)"


def _fields(record: _Record, header: tuple[str, ...]) -> dict[str, Any]:
    """Field values by name; empty for a record that does not fit the header.

    Values that were not UTF-8 are turned back into the bytes they were.
    """
    if len(record.fields) != len(header):
        return {}
    return {name: _original(value) for name, value in zip(header, record.fields, strict=True)}


def _original(value: str) -> str | bytes:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return value.encode("utf-8", "surrogateescape")
    return value

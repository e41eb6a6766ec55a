"""JSON Lines: one object a line, plain or compressed.

Blank lines are no rows. A line that is not an object with usable fields is a reject; a file that is one JSON array
or one pretty-printed object is refused at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import orjson

from lcm_data.documents.inputs import InputFile
from lcm_data.documents.model import Columns, Document, ReadOptions, Reject
from lcm_data.documents.rows import ABSENT, NO_KEY, RowError, RowMaker, key_array, pick, row_key, wanted_fields
from lcm_data.documents.slices import Piece, ScannedSlice, Slice
from lcm_data.documents.streams import Line, LineStream, line_stream
from lcm_data.errors import InputError

_PROBE_ROWS = 10


class JsonlReader:
    """Reader of ``.jsonl``, ``.ndjson`` and ``.json`` files of lines."""

    def scan(
        self, piece: Piece, columns: Columns, slice_bytes: int, default_lang: str | None, options: ReadOptions
    ) -> Iterator[ScannedSlice]:
        """Cut at line ends; every line is parsed for its id and language."""
        (file,) = piece.files
        # One byte early: then the line that is skipped is the one that the piece before this one owns, and a line
        # that begins exactly at the start of the piece is not.
        offset = max(piece.start - 1, 0)
        with line_stream(file, offset, options) as stream:
            if piece.start:
                stream.skip_line()
            most_rows = options.most_rows(columns)
            yield from self._cut(stream, piece.stop, file, columns, slice_bytes, most_rows, default_lang)

    def _cut(
        self,
        stream: LineStream,
        stop: int | None,
        file: InputFile,
        columns: Columns,
        slice_bytes: int,
        most_rows: int,
        default_lang: str | None,
    ) -> Iterator[ScannedSlice]:
        start, first_row, keys = stream.position, 0, list[bytes]()
        probe = _Probe(file, columns)

        def cut() -> ScannedSlice:
            part = Slice(
                format="jsonl",
                uri=file.uri,
                name=file.name,
                fingerprint=file.fingerprint,
                compression=file.compression,
                start=start,
                stop=stream.position,
                first_row=first_row,
                num_rows=len(keys),
                num_bytes=stream.position - start,
            )
            return ScannedSlice(part, key_array(keys))

        for line in _rows(stream, stop):
            row = _object_or_none(line)
            probe.see(line, row)
            if row is None:
                keys.append(NO_KEY)
            else:
                _, given_id, given_lang, _ = _pick_exact(row, line, columns)
                keys.append(row_key(given_id, given_lang, default_lang))
            if stream.position - start >= slice_bytes or len(keys) >= most_rows:
                yield cut()
                start, first_row, keys = stream.position, first_row + len(keys), []
        if keys:
            yield cut()

    def read(self, part: Slice, columns: Columns, options: ReadOptions) -> Iterator[Document | Reject]:
        """The lines of a slice."""
        make = RowMaker(part.name, part.first_row, options, part.uri)
        with line_stream(part, part.start, options) as stream:
            for row, line in enumerate(_rows(stream, part.stop)):
                try:
                    picked = _pick_exact(parse_line(line, options.max_row_bytes), line, columns)
                except RowError as error:
                    yield make.reject(row, error, line.data)
                    continue
                item = make.make(row, *picked)
                if picked[0] is ABSENT and picked[3] in (ABSENT, None, ""):
                    item = make.reject(row, RowError("missing_text", _no_field(columns)), line.data, item.doc_id)
                yield item


def _no_field(columns: Columns) -> str:
    return f"the row has no field {wanted_fields(columns)}"


def _rows(stream: LineStream, stop: int | None) -> Iterator[Line]:
    """The lines that are rows: not blank."""
    for line in stream.lines(stop):
        if line.data.strip() or line.is_cut:
            yield line


def parse_line(line: Line, limit: int) -> dict[str, Any]:
    """The object of a line. Raises ``RowError``."""
    if line.is_cut:
        raise RowError("too_long", f"a line of {line.size:,} bytes, {limit:,} are allowed (max_row_bytes)")
    try:
        row = orjson.loads(line.data)
    except orjson.JSONDecodeError:
        row = _lenient(line.data)
    if not isinstance(row, dict):
        raise RowError("wrong_type", f"a JSON {type(row).__name__}, an object is needed")
    return row


def _lenient(data: bytes) -> Any:
    """What Python's own JSON reader takes beyond orjson: NaN, huge integers, and escaped halves of surrogate pairs."""
    try:
        return json.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise RowError("invalid_utf8", f"the line is not UTF-8: {error.reason} at byte {error.start}") from error
    except (ValueError, RecursionError) as error:
        raise RowError("invalid_json", f"not JSON: {error}") from error


def _pick_exact(row: dict[str, Any], line: Line, columns: Columns) -> tuple[Any, Any, Any, Any]:
    """The four fields of a row; an id that became a float, as orjson makes of big integers, as it is written."""
    text, given_id, given_lang, audio = pick(row, columns)
    if isinstance(given_id, float):
        _, given_id, _, _ = pick(json.loads(line.data.decode("utf-8"), parse_float=str), columns)
    return text, given_id, given_lang, audio


def _object_or_none(line: Line) -> dict[str, Any] | None:
    try:
        return parse_line(line, 0)
    except RowError:
        return None


class _Probe:
    """Looks at the first rows of a piece for signs that the whole file is not what it should be."""

    def __init__(self, file: InputFile, columns: Columns) -> None:
        self._file = file
        self._columns = columns
        self._seen = self._without = 0
        self._fields: dict[str, None] = {}

    def see(self, line: Line, row: dict[str, Any] | None) -> None:
        """Take note of one row."""
        if line.start == 0:
            self._check_first(line.data)
        if row is None or self._seen >= _PROBE_ROWS:
            return
        self._seen += 1
        self._without += self._columns.text not in row and self._columns.audio not in row
        self._fields.update(dict.fromkeys(list(row)[:50]))
        if self._without == _PROBE_ROWS:
            raise InputError(
                f"{self._file.uri!r}: none of the first {_PROBE_ROWS} rows has a field {wanted_fields(self._columns)}. "
                f"They have: {', '.join(self._fields) or 'no fields'}. Name the one of the text with --text-column, of "
                "recordings with --audio-column."
            )

    def _check_first(self, data: bytes) -> None:
        head = data[:256].lstrip()
        if head.rstrip() in (b"[", b"{") or head.startswith(b"[{"):
            raise InputError(
                f"{self._file.uri!r} is one JSON value, not one object a line. "
                "Convert it: jq -c '.[]' (an array) or jq -c . (an object)"
            )

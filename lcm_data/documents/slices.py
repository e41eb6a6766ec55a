"""Cutting inputs into slices, the parts of the input that units are made of, and reading one slice.

``pieces`` gives independent scan tasks, ``scan`` cuts one into slices in a streaming pass, ``read`` gives the rows
of a slice. What a record is, is left to the reader of each format (the table ``READERS``); which slices a unit
takes, and which of its documents are duplicates, is left to the planner.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from lcm_data.documents.inputs import InputFile
from lcm_data.documents.model import Columns, Document, ReadOptions, Reject
from lcm_data.errors import InputError
from lcm_data.tables import resolve

READERS: dict[str, str] = {
    "jsonl": "lcm_data.documents.jsonl:JsonlReader",
    "parquet": "lcm_data.documents.parquet:ParquetReader",
    "csv": "lcm_data.documents.delimited:CsvReader",
    "tsv": "lcm_data.documents.delimited:TsvReader",
    "text": "lcm_data.documents.plaintext:TextReader",
    "audio": "lcm_data.documents.recordings:RecordingReader",
}
"""Format -> reader, a ``Reader`` built without arguments."""

_PIECE_FILES = 10_000
_GROUPED = ("text", "audio")
"""Formats whose files are one document each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One scan task: a file, a byte range of one, or a group of text files or recordings."""

    format: str
    files: tuple[InputFile, ...]
    """One file, or for ``text`` and ``audio`` the group."""
    start: int
    stop: int | None
    """Byte range; records that begin in it belong to the piece. None: to the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """A part of the input that holds whole records; every field is a JSON value or a tuple of such."""

    format: str
    uri: str
    """Of the file; of the first for a group of text files or recordings."""
    name: str
    fingerprint: str
    """Of the file when it was listed."""
    compression: str | None
    start: int
    stop: int
    """Where its records are: bytes of the uncompressed file, or rows of a Parquet file."""
    first_row: int
    """Number in the file of its first record, once ``number_rows`` has been called."""
    num_rows: int
    num_bytes: int
    """Bytes of input text, a measure of work; an estimate for Parquet and compressed text files."""
    fields: tuple[str, ...] = ()
    """CSV: the names in the header."""
    group: tuple[tuple[str, str, str | None], ...] = ()
    """Text files and recordings: URI, name and compression of each."""

    def to_json(self) -> dict[str, Any]:
        """As a dict of JSON values; defaults are left out."""
        given = dataclasses.asdict(self)
        return {key: value for key, value in given.items() if value not in ((), None)}

    @classmethod
    def from_json(cls, given: dict[str, Any]) -> Slice:
        """The inverse of ``to_json``, also after a trip through JSON (which turns tuples into lists)."""
        group = tuple((uri, name, compression) for uri, name, compression in given.get("group", ()))
        fields = tuple(given.get("fields", ()))
        return cls(**{"compression": None, **given, "fields": fields, "group": group})


@dataclass(frozen=True, slots=True)
class ScannedSlice:
    """A slice and the keys of its rows."""

    slice: Slice
    keys: npt.NDArray[np.uint64]
    """Shape (num_rows, 2): the xxh64 of the id a row gives, and of its language and id.

    The second number is 0 where the language is not known before it is detected, both are where the row gives no
    usable id of its own. Rows can only be the same document if their first numbers are equal, and their second ones
    are equal or one is 0; whether they are, only reading them tells. The language is part of it: the two sides of a
    parallel corpus share ids and differ in language.
    """


class Reader(Protocol):
    """Reads one format. All methods stream: memory does not grow with the size of the file."""

    def scan(
        self, piece: Piece, columns: Columns, slice_bytes: int, default_lang: str | None, options: ReadOptions
    ) -> Iterator[ScannedSlice]:
        """See ``scan``."""
        ...

    def read(self, part: Slice, columns: Columns, options: ReadOptions) -> Iterator[Document | Reject]:
        """See ``read``."""
        ...


def pieces(files: Sequence[InputFile], piece_bytes: int = 1 << 30) -> list[Piece]:
    """Independent scan tasks over ``files``, in their order.

    Plain JSON Lines are cut into byte ranges of ``piece_bytes``; other formats can only be scanned a file at a time;
    text files are put together in groups, and so are recordings.
    """
    assert piece_bytes > 0, piece_bytes
    found: list[Piece] = []
    groups: dict[str, list[InputFile]] = {name: [] for name in _GROUPED}
    sizes = dict.fromkeys(_GROUPED, 0)

    def close(name: str) -> None:
        if groups[name]:
            found.append(Piece(format=name, files=tuple(groups[name]), start=0, stop=None))
            groups[name], sizes[name] = [], 0

    for file in files:
        if file.format in _GROUPED:
            if sizes[file.format] + file.size > piece_bytes or len(groups[file.format]) >= _PIECE_FILES:
                close(file.format)
            groups[file.format].append(file)
            sizes[file.format] += file.size
        elif file.format == "jsonl" and file.compression is None:
            for start in range(0, file.size, piece_bytes):
                stop = min(start + piece_bytes, file.size)
                found.append(Piece(format="jsonl", files=(file,), start=start, stop=stop))
        else:
            found.append(Piece(format=file.format, files=(file,), start=0, stop=None))
    for name in _GROUPED:
        close(name)
    return found


def grouped(files: Sequence[InputFile], slice_bytes: int, most: int) -> Iterator[ScannedSlice]:
    """Slices of whole files that are one document each: about ``slice_bytes`` as stored, at most ``most`` files."""
    group: list[InputFile] = []
    num_bytes = 0
    for file in files:
        if group and (num_bytes + file.size > slice_bytes or len(group) == most):
            yield _group_slice(group, num_bytes)
            group, num_bytes = [], 0
        group.append(file)
        num_bytes += file.size
    if group:
        yield _group_slice(group, num_bytes)


def _group_slice(files: list[InputFile], num_bytes: int) -> ScannedSlice:
    part = Slice(
        format=files[0].format,
        uri=files[0].uri,
        name=files[0].name,
        fingerprint=files[0].fingerprint,
        compression=None,
        start=0,
        stop=len(files),
        first_row=0,
        num_rows=len(files),
        num_bytes=num_bytes,
        group=tuple((file.uri, file.name, file.compression) for file in files),
    )
    return ScannedSlice(part, np.zeros((len(files), 2), np.uint64))


def scan(
    piece: Piece,
    columns: Columns,
    *,
    slice_bytes: int = 8 << 20,
    default_lang: str | None = None,
    options: ReadOptions | None = None,
) -> list[ScannedSlice]:
    """Cut a piece into slices of about ``slice_bytes`` of input text, in one pass.

    Every record of the piece is in exactly one slice; a record is never cut. ``default_lang`` is the language of
    rows that give none, and only enters the keys.

    Raises:
        InputError: the file is damaged, is not of its format, or a whole column is missing.
        StorageError: reading failed.
    """
    assert slice_bytes > 0, slice_bytes
    reader = _reader(piece.format)
    return list(reader.scan(piece, columns, slice_bytes, default_lang, options or ReadOptions()))


def read(part: Slice, columns: Columns, options: ReadOptions | None = None) -> Iterator[Document | Reject]:
    """The rows of a slice in order, ``part.num_rows`` of them, each a document or the reason why it is none.

    A bad row never raises. Languages are parsed, not detected: see ``detect.resolve_language``.

    Raises:
        InputError: the file cannot be read any more, or has other rows than when it was scanned.
        StorageError: reading failed.
    """
    num_rows = 0
    for item in _reader(part.format).read(part, columns, options or ReadOptions()):
        num_rows += 1
        if num_rows > part.num_rows:
            break
        yield item
    if num_rows != part.num_rows:
        raise InputError(
            f"{part.uri!r}: {part.num_rows} rows were found at {part.start}-{part.stop} when it was scanned, now "
            "there are others: the file has changed. Restore it, or start a new corpus."
        )


def number_rows(parts: Sequence[Slice]) -> list[Slice]:
    """Set ``first_row`` of all slices of an input, in the given order.

    The byte ranges of one big file are scanned independently, so none knows how many rows come before it. Call this
    once with the slices of all pieces; ids made from row numbers are only right afterwards.
    """
    order = sorted(range(len(parts)), key=lambda i: (parts[i].uri, parts[i].start))
    numbered = list(parts)
    next_row: dict[str, int] = {}
    for i in order:
        part = parts[i]
        if part.group:
            continue
        numbered[i] = dataclasses.replace(part, first_row=next_row.get(part.uri, 0))
        next_row[part.uri] = next_row.get(part.uri, 0) + part.num_rows
    return numbered


def _reader(name: str) -> Reader:
    return cast(Reader, resolve(READERS, name, "input format")())

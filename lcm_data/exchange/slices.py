"""Rows of a slice of a source to sentences of documents: ids, languages, splits, places, texts, places of vectors.

A row that cannot be one is a reject with its reason; vectors are looked at later (``lcm_data.exchange.vectors``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lcm_data.documents.model import safe_text
from lcm_data.documents.rows import ABSENT, RowError, decode, usable_id, usable_lang
from lcm_data.exchange.columns import FoundColumns
from lcm_data.exchange.inputs import SPLIT_NAMES, SourceFile, place_of
from lcm_data.exchange.vectors import lengths_of, one_array
from lcm_data.splits import SplitRule
from lcm_data.store.commits import RejectRow

UNKNOWN_SPLIT, WRONG_POSITION, WRONG_LENGTH = "unknown_split", "wrong_position", "wrong_length"
NULL_DOCUMENT, EMPTY_DOCUMENT, DUPLICATE = "null_embedding", "empty_document", "duplicate_id"


@dataclass(frozen=True)
class SourceSlice:
    """Rows ``start`` to ``stop`` of a file; every field is a JSON value. ``duplicates`` are ranges of rows from 0."""

    file: SourceFile
    columns: FoundColumns
    start: int
    stop: int
    duplicates: tuple[tuple[int, int], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As a dict of JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, given: dict[str, Any]) -> SourceSlice:
        """The inverse of ``to_json``, also after a trip through JSON."""
        own = {"file": SourceFile(**given["file"]), "columns": FoundColumns(**given["columns"])}
        return cls(**{**given, **own, "duplicates": tuple((a, b) for a, b in given["duplicates"])})


@dataclass(frozen=True)
class Defaults:
    """What holds for rows that do not say themselves: a language, and how documents are held out."""

    lang: str | None
    splits: SplitRule


@dataclass
class Sentence:
    """One sentence; ``row`` is that of the slice it came from, ``vector`` its place among the vectors of the slice."""

    row: int
    vector: int
    doc_id: str
    lang: str
    split: str
    sent_idx: int
    text: str


@dataclass
class Document:
    """The sentences of one document in order, and how many it has, those that are rejects included."""

    sentences: list[Sentence]
    num_sentences: int


@dataclass
class ReadSlice:
    """Documents in the order of the source; ``rejects`` name rows of the slice."""

    documents: list[Document] = field(default_factory=list)
    rejects: list[RejectRow] = field(default_factory=list)
    num_without_text: int = 0


class RowFacts:
    """Id, language and split of rows, as the row, its folder and the settings say."""

    def __init__(self, part: SourceSlice, defaults: Defaults) -> None:
        self._part, self._defaults, self._place = part, defaults, place_of(part.file.name)

    def key(self, row: int, given_id: Any, given_lang: Any) -> tuple[str, str]:
        """Id and language of a row of the slice. Raises ``RowError``."""
        doc_id = usable_id(given_id) or f"{self._part.file.name}#{self._part.start + row}"
        lang = usable_lang(given_lang) or self._place.lang or self._defaults.lang
        if lang is None:
            raise RowError("unknown_language", "neither the row nor its folder nor --lang says the language")
        return doc_id, lang

    def split(self, given: Any, doc_id: str) -> str | None:
        """The split of a row; None if it names one that there is not."""
        if given is ABSENT or given is None:
            return self._place.split or self._defaults.splits.split_of(doc_id)
        name = given.decode("utf-8", "replace") if isinstance(given, bytes) else str(given)
        return SPLIT_NAMES.get(name.strip().lower())


def values(table: pa.Table, name: str | None) -> Sequence[Any]:
    """Python values of a column, strings as bytes (one that is not UTF-8 would fail for all); ABSENT without one."""
    if name is None:
        return [ABSENT] * table.num_rows
    return _plain(one_array(table[name]))


def _plain(column: pa.Array) -> Sequence[Any]:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    is_text = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    if any(is_kind(column.type) for is_kind in is_text):
        column = column.cast(pa.large_binary())
    found: Sequence[Any] = column.to_pylist()
    return found


def read_slice(part: SourceSlice, table: pa.Table, defaults: Defaults) -> ReadSlice:
    """The documents of the rows of a slice; ``table`` has its columns (of nested ones also the vectors)."""
    return _read_nested(part, table, defaults) if part.columns.nested else _read_flat(part, table, defaults)


def _duplicate_rows(part: SourceSlice) -> npt.NDArray[np.bool_]:
    marked = np.zeros(part.stop - part.start, np.bool_)
    for start, stop in part.duplicates:
        marked[start:stop] = True
    return marked


def _text(value: Any) -> str:
    return "" if value is ABSENT or value is None else decode(value, "text")


def _read_flat(part: SourceSlice, table: pa.Table, defaults: Defaults) -> ReadSlice:
    """Rows that follow each other with one id and language are a document."""
    columns, facts, found = part.columns, RowFacts(part, defaults), ReadSlice()
    duplicates = _duplicate_rows(part)
    places = values(table, columns.position)
    own_columns = (columns.id, columns.lang, columns.split, columns.text)
    rows = zip(*(values(table, name) for name in own_columns), strict=True)
    document, key, at = Document([], 0), None, -1
    split: str | None = None
    for row, (given_id, given_lang, given_split, given_text) in enumerate(rows):
        try:
            own = facts.key(row, given_id, given_lang)
        except RowError as error:
            found.rejects.append(_reject(row, error.reason, error.error, None, given_text))
            continue
        if own != key:
            document, key, split, at = Document([], 0), own, None, -1
            found.documents.append(document)
        place = at + 1 if places[row] is ABSENT else places[row]
        own_split = facts.split(given_split, own[0])
        problem = _problem(duplicates[row], own_split, split, given_split) or _place_problem(place, at)
        split, text = split or own_split, ""
        if problem is None:
            try:
                text = _text(given_text)
            except RowError as error:
                problem = error.reason, error.error
        if problem is None:
            assert split is not None
            document.sentences.append(Sentence(row, row, *own, split, place, text))
            found.num_without_text += not text
        else:
            found.rejects.append(_reject(row, *problem, own[0], given_text))
        if problem is None or places[row] is ABSENT:
            at = place
        document.num_sentences = at + 1
    found.documents = [document for document in found.documents if document.sentences]
    return found


def _problem(duplicate: Any, split: str | None, of_document: str | None, given: Any) -> tuple[str, str] | None:
    """What keeps a row whose document is known from being of use."""
    if duplicate:
        return DUPLICATE, (
            "rows of this id and language came before, with others between; the rows of a document must follow each "
            "other in one file"
        )
    if split is None:
        return UNKNOWN_SPLIT, f"{given!r} names no split; known are {', '.join(sorted(SPLIT_NAMES))}"
    if of_document not in (None, split):
        return UNKNOWN_SPLIT, f"the row is of {split}, its document of {of_document}"
    return None


def _place_problem(place: Any, before: int) -> tuple[str, str] | None:
    if place is None:
        return WRONG_POSITION, "the position in the document is null"
    if not before < place < 1 << 31:
        return WRONG_POSITION, f"the position {place} does not come after {before}, that of the row before"
    return None


def _read_nested(part: SourceSlice, table: pa.Table, defaults: Defaults) -> ReadSlice:
    columns, facts, found = part.columns, RowFacts(part, defaults), ReadSlice()
    duplicates = _duplicate_rows(part)
    lengths = lengths_of(one_array(table[columns.embedding]))
    begins = np.cumsum(np.maximum(lengths, 0)) - np.maximum(lengths, 0)
    texts, places = _Lists(table, columns.text), _Lists(table, columns.position)
    rows = zip(*(values(table, name) for name in (columns.id, columns.lang, columns.split)), strict=True)
    for row, (given_id, given_lang, given_split) in enumerate(rows):
        doc_id = None
        try:
            doc_id, lang = facts.key(row, given_id, given_lang)
            split = facts.split(given_split, doc_id)
            problem = _nested_problem(int(lengths[row]), texts, places, row) or _problem(
                duplicates[row], split, None, given_split
            )
            if problem is not None:
                found.rejects.append(_reject(row, *problem, doc_id, next(iter(texts.of(row)), "")))
                continue
            assert split is not None
            own = [_text(value) for value in texts.of(row)] if texts else [""] * int(lengths[row])
            index = places.of(row) if places else range(len(own))
            document = [
                Sentence(row, int(begins[row]) + at, doc_id, lang, split, int(place), text)
                for at, (place, text) in enumerate(zip(index, own, strict=True))
            ]
            found.documents.append(Document(document, max(len(document), document[-1].sent_idx + 1)))
            found.num_without_text += sum(not text for text in own)
        except RowError as error:
            found.rejects.append(_reject(row, error.reason, error.error, doc_id, next(iter(texts.of(row)), "")))
    return found


class _Lists:
    """A column of lists: the items of each row, or its length; falsy where there is no such column."""

    def __init__(self, table: pa.Table, name: str | None) -> None:
        self._name = name
        if name is not None:
            lists = one_array(table[name])
            self.lengths = lengths_of(lists)
            self._ends = np.cumsum(np.maximum(self.lengths, 0))
            self._items = _plain(one_array(lists.flatten()))

    def __bool__(self) -> bool:
        return self._name is not None

    def of(self, row: int) -> Sequence[Any]:
        """The items of a row, none where it is null."""
        if self._name is None:
            return []
        end = int(self._ends[row])
        return self._items[end - max(int(self.lengths[row]), 0) : end]


def _nested_problem(length: int, texts: _Lists, places: _Lists, row: int) -> tuple[str, str] | None:
    if length < 0:
        return NULL_DOCUMENT, "the list of vectors is null"
    if not length:
        return EMPTY_DOCUMENT, "the document has no vectors"
    for lists, what in ((texts, "sentences"), (places, "positions")):
        if lists and lists.lengths[row] != length:
            return WRONG_LENGTH, f"the document has {max(lists.lengths[row], 0)} {what} and {length} vectors"
    if places:
        own = places.of(row)
        if any(place is None for place in own) or any(a >= b for a, b in pairwise([-1, *own])) or own[-1] >= 1 << 31:
            return WRONG_POSITION, "positions must not be null and rise from 0"
    return None


def _reject(row: int, reason: str, error: str, doc_id: str | None, text: Any) -> RejectRow:
    shown = text if isinstance(text, str | bytes) else ""
    return RejectRow(row, reason, error[:500], doc_id, text=safe_text(shown))

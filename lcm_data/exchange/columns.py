"""Which column of a source is what: vectors, text, id, language, split, position; and whether a row is a document.

A row is one sentence with one vector, or (nested, the layout of the official LCM trainer) one document with a list of
vectors and, beside it, a list of sentences. Columns that are not named are found by the names files of this project,
of that trainer and of Hugging Face use.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import pyarrow as pa

from lcm_data.errors import InputError, UsageError
from lcm_data.exchange.inputs import SourceFile
from lcm_data.exchange.sources import RangeReader
from lcm_data.exchange.vectors import list_item, one_array, width_of

EMBEDDING_NAMES = ("emb", "text_sentences_sonar_emb", "embedding", "embeddings", "vector")
TEXT_NAMES = ("text", "sentence")
NESTED_TEXT_NAMES = ("text_sentences",)
ID_NAMES = ("doc_id", "id")
POSITION_NAMES = ("sent_idx",)

_LOOK_ROWS = 256
"""Rows read to learn what the type of a column does not say."""


@dataclass(frozen=True)
class WantedColumns:
    """Names of columns as given; None: found by its usual names, where there is one."""

    embedding: str | None = None
    text: str | None = None
    id: str | None = None
    lang: str | None = None
    split: str | None = None
    position: str | None = None


@dataclass(frozen=True)
class FoundColumns:
    """The columns of one file, None where it has none such."""

    embedding: str
    nested: bool
    text: str | None
    id: str | None
    lang: str | None
    split: str | None
    position: str | None

    @property
    def of_keys(self) -> list[str]:
        """Columns that say which document a row is of."""
        return [name for name in (self.id, self.lang) if name is not None]

    @property
    def of_facts(self) -> list[str]:
        """All columns but the vectors."""
        own = (self.text, self.id, self.lang, self.split, self.position)
        return list(dict.fromkeys(name for name in own if name is not None))


def find_columns(found: pa.Schema, wanted: WantedColumns, where: str) -> FoundColumns:
    """The columns of a file.

    Raises:
        UsageError: a named one is missing or of a type that cannot be used, or none holds vectors.
    """
    embedding = _embedding(found, wanted.embedding, where)
    inner = list_item(found.field(embedding).type)
    nested = inner is not None and list_item(inner) is not None
    position_names = POSITION_NAMES
    if nested:
        text = _one(found, wanted.text, NESTED_TEXT_NAMES, _is_text_list, "lists of strings", "text", where)
        is_position, position_kind = _is_integer_list, "lists of whole numbers"
    else:
        text = _one(found, wanted.text, TEXT_NAMES, _is_text, "strings", "text", where)
        is_position, position_kind = _is_integer, "whole numbers"
    return FoundColumns(
        embedding=embedding,
        nested=nested,
        text=text,
        id=_one(found, wanted.id, ID_NAMES, _is_id, "strings or whole numbers", "id", where),
        lang=_one(found, wanted.lang, ("lang",), _is_text, "strings", "lang", where),
        split=_one(found, wanted.split, ("split",), _is_text, "strings", "split", where),
        position=_one(found, wanted.position, position_names, is_position, position_kind, "position", where),
    )


def _embedding(found: pa.Schema, name: str | None, where: str) -> str:
    usable = [str(field.name) for field in found if _holds_vectors(field.type)]
    listed = ", ".join(f"{field.name} ({field.type})" for field in found)[:1000]
    if name is None:
        for usual in EMBEDDING_NAMES:
            if usual in usable:
                return usual
        if len(usable) == 1:
            return usable[0]
        which = f"several columns of vectors: {', '.join(usable)}" if usable else f"no column of vectors: {listed}"
        raise UsageError(f"{where} has {which}. Name it with --embedding-column.")
    if name not in found.names:
        raise UsageError(
            f"{where} has no column {name!r}. Columns: {listed}. Name the vectors with --embedding-column."
        )
    if name not in usable:
        raise UsageError(
            f"the column {name!r} of {where} is {found.field(name).type}; vectors are lists of numbers, or (a document "
            f"a row) lists of such lists. Columns that would do: {', '.join(usable) or 'none'}."
        )
    return name


def _holds_vectors(kind: pa.DataType) -> bool:
    inner = list_item(kind)
    if inner is None:
        return False
    deeper = list_item(inner)
    return _is_number(inner if deeper is None else deeper)


def _one(
    found: pa.Schema, name: str | None, usual: Sequence[str], fits: object, kind: str, option: str, where: str
) -> str | None:
    """A column by its given name or one of its usual names. Its type must be right: none is left out silently."""
    assert callable(fits)
    if name is None:
        name = next((each for each in usual if each in found.names), None)
        if name is None:
            return None
    if found.names.count(name) > 1:
        raise UsageError(f"{where} has several columns named {name!r}. Rename or drop all but one.")
    if name not in found.names:
        raise UsageError(
            f"{where} has no column {name!r}. Columns: {', '.join(found.names)[:1000]}. Name another with "
            f"--{option}-column."
        )
    if not fits(found.field(name).type):
        raise UsageError(
            f"the column {name!r} of {where} is {found.field(name).type}, {kind} are needed. Name another with "
            f"--{option}-column, or convert, rename or drop it."
        )
    return name


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _is_integer(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind))


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    known = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
    return any(is_kind(kind) for is_kind in known)


def _is_id(kind: pa.DataType) -> bool:
    return _is_text(kind) or _is_integer(kind)


def _is_text_list(kind: pa.DataType) -> bool:
    inner = list_item(kind)
    return inner is not None and _is_text(inner)


def _is_integer_list(kind: pa.DataType) -> bool:
    inner = list_item(kind)
    return inner is not None and _is_integer(inner)


@dataclass(frozen=True)
class Shape:
    """The width of the vectors of a file, whether its type says so of all of them, and how many a row has, about."""

    dim: int
    is_fixed: bool
    a_row: float


def shape_of(file: SourceFile, found: pa.Schema, columns: FoundColumns, num_rows: int) -> Shape | None:
    """Look at the type of the vectors and at the first rows; None if these hold no vector."""
    kind = found.field(columns.embedding).type
    inner = list_item(kind) if columns.nested else kind
    assert inner is not None
    width = width_of(inner)
    is_fixed = width is not None
    if width is not None and not columns.nested:
        return Shape(width, is_fixed, 1.0)
    reader = RangeReader(file, [columns.embedding])
    try:
        array = one_array(reader.read(0, min(num_rows, _LOOK_ROWS))[columns.embedding])
    finally:
        reader.close()
    outer, a_row = array, 1.0
    if columns.nested:
        outer = one_array(array.flatten())
        a_row = max(1.0, len(outer) / max(1, len(array)))
    if width is None:
        width = next((len(vector) for vector in outer if vector.is_valid and len(vector)), None)
    return None if width is None else Shape(width, is_fixed, a_row)


def check_same_columns(first: FoundColumns, other: FoundColumns, first_is: str, other_is: str) -> None:
    """Files of one import must agree on which columns they have.

    Raises:
        InputError: they do not.
    """
    for field in fields(FoundColumns):
        one, two = getattr(first, field.name), getattr(other, field.name)
        if one != two:
            raise InputError(
                f"{first_is} and {other_is} differ: the column of {field.name} is {one!r} in the first, {two!r} in the "
                "second. Import them one after the other into corpora of their own, or name the columns."
            )

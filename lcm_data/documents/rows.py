"""One row of any format to a document or a reject: types of fields, ids, languages, recordings, limits of length.

Readers hand over the raw values of the four fields. A value that cannot be used raises ``RowError`` here, which no
function of this package lets out: it becomes a reject.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from lcm_data.documents.model import Columns, Document, ReadOptions, Reason, Reject, safe_text
from lcm_data.errors import UnknownNameError
from lcm_data.languages import is_undetermined, parse_language

ABSENT: Any = object()
"""The value of a field that a row does not have."""

_MAX_ID_CHARS = 4096
_NO_HASH = bytes(8)
NO_KEY = bytes(16)
"""The key of a row that gives no usable id."""


class RowError(Exception):
    """A row cannot be used; becomes a reject."""

    def __init__(self, reason: Reason, error: str) -> None:
        super().__init__(error)
        self.reason: Reason = reason
        self.error = error


class RowMaker:
    """Makes the documents and rejects of one file.

    Args:
        name: name of the file, for generated ids and as ``source``.
        first_row: number in the file of the row numbered 0 here.
        uri: of the file; the paths of recordings are relative to its folder.
    """

    def __init__(self, name: str, first_row: int, options: ReadOptions, uri: str = "") -> None:
        self._name = name
        self._first_row = first_row
        self._uri = uri
        self._options = options

    def generated_id(self, row: int) -> str:
        """The id of a row that gives none."""
        return f"{self._name}#{self._first_row + row}"

    def make(self, row: int, text: Any, given_id: Any, given_lang: Any, audio: Any = None) -> Document | Reject:
        """The document of a row, or the reject that says why there is none. Absent fields are ``ABSENT``."""
        doc_id = self.generated_id(row)
        try:
            doc_id = usable_id(given_id) or doc_id
            lang = usable_lang(given_lang)
            uri = usable_audio(audio, self._uri)
            is_bare = uri is not None and (text is ABSENT or text is None)
            checked = usable_text("" if is_bare else text, self._options.max_doc_chars, may_be_empty=uri is not None)
        except RowError as error:
            shown = text if isinstance(text, (str, bytes)) else "" if text is ABSENT or text is None else repr(text)
            return Reject(row, error.reason, error.error, doc_id, safe_text(shown))
        return Document(doc_id, checked, lang, None, row, self._name, uri)

    def reject(self, row: int, error: RowError, raw: str | bytes, doc_id: str | None = None) -> Reject:
        """The reject of a row whose fields cannot even be told apart."""
        return Reject(row, error.reason, error.error, doc_id or self.generated_id(row), safe_text(raw))


def usable_text(value: Any, max_chars: int, may_be_empty: bool = False) -> str:
    """The text of a row. Raises ``RowError``."""
    if value is ABSENT:
        raise RowError("missing_text", "the row has no text field")
    if value is None:
        raise RowError("null_text", "the text is null")
    text = decode(value, "text")
    if len(text) > max_chars:
        raise RowError("too_long", f"{len(text):,} characters, {max_chars:,} are allowed (max_doc_chars)")
    if (not text or text.isspace()) and not may_be_empty:
        raise RowError("empty_text", "the text is empty" if not text else "the text is only whitespace")
    return text


def usable_audio(value: Any, manifest: str) -> str | None:
    """The place of the recording that a row names, None if it names none. Raises ``RowError``.

    Args:
        manifest: URI of the file that the row is in; relative paths begin at its folder.
    """
    if value is ABSENT or value is None:
        return None
    place = decode(value, "path of the recording")
    if not place.strip():
        return None
    if "\0" in place:
        raise RowError("missing_audio", "the path of the recording has a null character")
    if "://" in place:
        return place.removeprefix("file://")
    if "://" in manifest:
        return f"{manifest.rpartition('/')[0]}/{place}"
    return os.path.normpath(os.path.join(os.path.dirname(manifest), os.path.expanduser(place)))


def usable_id(value: Any) -> str | None:
    """The id a row gives, None if it gives none. Numbers become strings. Raises ``RowError``."""
    if value is ABSENT or value is None:
        return None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return None if value != value else str(value)  # NaN is how pandas writes a missing id
    doc_id = decode(value, "id")
    if len(doc_id) > _MAX_ID_CHARS:
        raise RowError("too_long", f"the id has {len(doc_id):,} characters, {_MAX_ID_CHARS:,} are allowed")
    return doc_id or None


def usable_lang(value: Any) -> str | None:
    """The FLORES-200 code of the language a row gives, None if it gives none. Raises ``RowError``."""
    if value is ABSENT or value is None:
        return None
    name = decode(value, "language")
    if not name.strip() or is_undetermined(name):
        return None
    code, error = _parse(name)
    if code is None:
        raise RowError("unknown_language", error)
    return code


@functools.lru_cache(maxsize=4096)
def _parse(name: str) -> tuple[str | None, str]:
    """As ``parse_language``, but remembers failures too: a column of wrong names would cost a search in each row."""
    try:
        return parse_language(name), ""
    except UnknownNameError as error:
        message = str(error)
        # Without the list of all 202 names, which every reject would repeat.
        return None, message if len(message) < 200 else message.partition(" Known:")[0]


def decode(value: Any, what: str) -> str:
    """A string that can be written as UTF-8. Raises ``RowError``."""
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise RowError("invalid_utf8", f"the {what} is not UTF-8: {error.reason} at byte {error.start}") from error
    if not isinstance(value, str):
        raise RowError("wrong_type", f"the {what} is of type {type(value).__name__}, a string is needed")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        unit = ord(value[error.start])
        raise RowError(
            "lone_surrogate", f"half a surrogate pair, U+{unit:04X}, in the {what} at {error.start}"
        ) from error
    return value


def row_key(given_id: Any, given_lang: Any, default_lang: str | None) -> bytes:
    """Hashes of a row's id and of its language and id (xxh64, 8 bytes each).

    The second is zero if the language is not known before it is detected; both are if the row gives no usable id.
    """
    try:
        doc_id = usable_id(given_id)
        if doc_id is None:
            return NO_KEY
        lang = usable_lang(given_lang) or default_lang
    except RowError:
        return NO_KEY  # a reject anyway
    both = _NO_HASH if lang is None else xxhash.xxh64_digest(f"{lang}\0{doc_id}".encode())
    return xxhash.xxh64_digest(doc_id.encode()) + both


def id_hashes(ids: Iterable[str]) -> npt.NDArray[np.uint64]:
    """The first numbers of the keys of rows with these ids, shape (N,)."""
    # A generated id holds the name of a file, which need not be Unicode.
    digests = b"".join(xxhash.xxh64_digest(doc_id.encode("utf-8", "surrogatepass")) for doc_id in ids)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def identity(lang: str, doc_id: str) -> bytes:
    """The identity of a document, its language and id, as a hash (xxh128, 16 bytes)."""
    return xxhash.xxh3_128_digest(f"{lang}\0{doc_id}".encode("utf-8", "surrogatepass"))


def key_array(keys: list[bytes]) -> npt.NDArray[np.uint64]:
    """Keys or identities as an (N, 2) array."""
    return np.frombuffer(b"".join(keys), dtype="<u8").astype(np.uint64).reshape(-1, 2)


def wanted_fields(columns: Columns) -> str:
    """The fields of which a row must have one, for messages."""
    return repr(columns.text) if columns.audio is None else f"{columns.audio!r} or {columns.text!r}"


def pick(row: dict[str, Any], columns: Columns) -> tuple[Any, Any, Any, Any]:
    """Text, id, language and recording fields of a row; ``ABSENT`` for a field it does not have."""
    get = row.get
    audio = ABSENT if columns.audio is None else get(columns.audio, ABSENT)
    return get(columns.text, ABSENT), get(columns.id or "id", ABSENT), get(columns.lang or "lang", ABSENT), audio

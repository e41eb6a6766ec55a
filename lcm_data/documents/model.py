"""The records of this room: a document, a row that could not become one, and how to read rows.

Finding files is in ``inputs``, cutting them into slices in ``slices``, turning rows into these records in ``rows``.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from lcm_data.errors import UsageError

Reason = Literal[
    "missing_text",
    "null_text",
    "empty_text",
    "wrong_type",
    "wrong_fields",
    "invalid_json",
    "invalid_csv",
    "invalid_utf8",
    "lone_surrogate",
    "too_long",
    "unknown_language",
    "uncertain_language",
    "duplicate_id",
    "missing_audio",
    "empty_audio",
    "broken_audio",
    "truncated_audio",
    "silent_audio",
    "no_speech",
    "too_short",
]

REASONS: dict[Reason, str] = {
    "missing_text": "the row has no field of the name of the text column",
    "null_text": "the text is null",
    "empty_text": "the text is empty or only whitespace",
    "wrong_type": "the row, its text, id or language is not of a type that can be used",
    "wrong_fields": "a CSV record has more or fewer fields than the header",
    "invalid_json": "a line is not JSON",
    "invalid_csv": "a CSV record breaks the quoting rules",
    "invalid_utf8": "bytes that are not UTF-8",
    "lone_surrogate": "half of a surrogate pair, which no UTF-8 file can hold",
    "too_long": "the text has more than max_doc_chars characters, the row more than max_row_bytes bytes, or the "
    "recording lasts longer than max_hours",
    "unknown_language": "the language given with the row is not one of FLORES-200",
    "uncertain_language": "the language was not given and could not be detected with enough certainty",
    "duplicate_id": "another row of the input has the same id and language and was kept",
    "missing_audio": "the row names no recording, or one that is not there or may not be read",
    "empty_audio": "the recording has no bytes, no audio stream or no samples",
    "broken_audio": "the recording cannot be decoded, in whole or in large part, or holds numbers that are no sound",
    "truncated_audio": "the recording ends before the length that its header names, or without its end mark",
    "silent_audio": "the recording is silence",
    "no_speech": "the recording has sound but no speech",
    "too_short": "the recording is shorter than a segment may be",
}
"""Why a row becomes a reject. ``duplicate_id`` is only known to who sees all rows, that is the planner."""

REJECT_TEXT_CHARS = 200


@dataclass(frozen=True, slots=True)
class Document:
    """One text or recording of one language."""

    doc_id: str
    """The id the row gives, else ``<source>#<row number in the file>`` (a text file: its name)."""
    text: str
    lang: str | None
    """FLORES-200 code; None until ``detect.resolve_language`` has found one."""
    lid_score: float | None
    """Certainty of a detected language, in [0, 1]; None where the language was given."""
    row: int
    """Position inside the slice, from 0."""
    source: str
    """Name of the input file, relative to the folder or pattern it was found by."""
    uri: str | None = None
    """Of a recording its absolute path or URL; ``text`` is its transcript then, empty if it has none."""


@dataclass(frozen=True, slots=True)
class Reject:
    """One row that could not become a document."""

    row: int
    reason: Reason
    error: str
    doc_id: str | None
    text: str
    """The first 200 characters of the text, or of the raw row; always valid UTF-8."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Which fields of a row are its text, id and language, and the path or URL of its recording.

    None for ``id`` or ``lang`` means automatic: the field ``"id"`` or ``"lang"`` where a row has it. With ``audio`` a
    row that names a recording is one, and its text is the transcript, which it need not have; None means that no
    row is.
    """

    text: str = "text"
    id: str | None = None
    lang: str | None = None
    audio: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions:
    """Limits of a row and access to the storage. ``scan`` and ``read`` of one input need the same limits."""

    max_doc_chars: int = 2_000_000
    max_row_bytes: int = 64 << 20
    """A line or record above it is skipped without being held in memory, and rejected as ``too_long``."""
    audio_slice_bytes: int = 64 << 20
    """Recordings of a slice, in bytes as stored."""
    manifest_rows: int = 32
    """Rows of a slice where rows may name recordings (``Columns.audio``)."""
    storage_options: Mapping[str, Any] | None = field(default=None, repr=False)
    """Passed to fsspec; may hold credentials, so it is in no repr, plan or slice."""

    def most_rows(self, columns: Columns) -> int:
        """Most rows of a slice: a row that names a recording can be hours of work."""
        return sys.maxsize if columns.audio is None else self.manifest_rows

    def __post_init__(self) -> None:
        for name in ("max_doc_chars", "max_row_bytes", "audio_slice_bytes", "manifest_rows"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, got {getattr(self, name)}")


def safe_text(text: str | bytes) -> str:
    """The beginning of a text for a reject: 200 characters that can be written as UTF-8."""
    if isinstance(text, bytes):
        text = text[: 4 * REJECT_TEXT_CHARS].decode("utf-8", "replace")
    return text[:REJECT_TEXT_CHARS].encode("utf-8", "replace").decode("utf-8")

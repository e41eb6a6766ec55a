"""Which clips there are and what they say: the rows of tables and of corpora with segments of speech."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lcm_data.corpus import open_corpus
from lcm_data.errors import InputError
from lcm_data.languages import LANGUAGE_NAMES, parse_language
from lcm_data.quality.rows import table_records
from lcm_data.schema import SPEECH


@dataclass(frozen=True)
class Clip:
    """A stretch of a recording and what it says.

    Attributes:
        uri: absolute path or URL.
        channel: from 0; None for the mean of all.
        start, end: in seconds; None for all of the recording.
        lang: spoken language.
        texts: the transcript and translations of it by language.
    """

    uri: str
    channel: int | None
    start: float | None
    end: float | None
    lang: str
    texts: Mapping[str, str]


def read_clips(uri: str) -> Iterator[Clip]:
    """The clips of a table (see docs/speech.md), or those of a corpus whose transcripts are known.

    Raises:
        InputError: neither, or a row that cannot be used.
    """
    if Path(uri).is_dir():
        yield from _of_corpus(uri)
        return
    for number, record in enumerate(table_records(uri), 1):
        try:
            yield _of_record(record, uri)
        except (KeyError, TypeError, ValueError) as error:
            what = f"it has no {error}" if isinstance(error, KeyError) else str(error)
            raise InputError(
                f"row {number:,} of {uri!r} is no clip: {what}. Columns: audio (path or URL), lang (spoken), text "
                "(what it says); optional start, end (seconds), channel, and translations in columns such as eng_Latn."
            ) from error


def _of_record(record: Mapping[str, Any], table: str) -> Clip:
    lang = parse_language(str(record["lang"]))
    texts = {name: record[name] for name in record if name in LANGUAGE_NAMES} | {lang: record.get("text")}
    for name, text in texts.items():
        if text is not None and not isinstance(text, str):
            raise TypeError(f"its text in {name} is a {type(text).__name__}")
    audio = record["audio"]
    if not isinstance(audio, str) or not audio:
        raise TypeError(f"its audio is {audio!r}")
    start, end, channel = (_number(record.get(name), name) for name in ("start", "end", "channel"))
    if (start is None) != (end is None):
        raise ValueError("start and end belong together")
    known = {name: " ".join(text.split()) for name, text in texts.items() if text and text.strip()}
    return Clip(_beside(audio, table), None if channel is None else int(channel), start, end, lang, known)


def _number(value: object, name: str) -> float | None:
    if value is None or value == "":
        return None
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise ValueError(f"its {name} is {value!r}, not a number") from None


def _beside(audio: str, table: str) -> str:
    """A path in a table is relative to the table."""
    if "://" in audio or posixpath.isabs(audio):
        return audio
    if "://" in table:
        return posixpath.join(posixpath.dirname(table), audio)
    return str(Path(table).resolve().parent / audio)


def _of_corpus(uri: str) -> Iterator[Clip]:
    columns = ["modality", "text", "audio_uri", "channel", "t_start", "t_end"]
    for batch in open_corpus(uri).segments.batches(columns=columns):
        for row in zip(*(batch[name] for name in columns), strict=True):
            modality, text, audio, channel, start, end = row
            if modality == SPEECH and text:
                yield Clip(audio, channel, start, end, batch.lang, {batch.lang: " ".join(text.split())})

"""The speech of a shard for the encode worker: which rows are clips, reading them ahead, and the encoders by language.

Clips are read in the order of their recordings on a thread of their own, a few minutes of sound at a time, while the
network works on those before. Decoding sound is ``lcm_data.audio``, the networks are ``lcm_data.encode``.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from lcm_data import schema
from lcm_data.encode import EncoderOptions, Prepared, SpeechEncoder, load_speech_encoder
from lcm_data.encode.speech import SAMPLE_RATE, Float32
from lcm_data.errors import InputError, MissingExtraError, UsageError
from lcm_data.store.files import Files
from lcm_data.store.shard import open_shard
from lcm_data.workers.output import check_identity, each_or_error, refuse_to_blame_all, shaped

COLUMNS = ("modality", "audio_uri", "channel", "t_start", "t_end")

_TOO_MANY = 8
"""So many clips that cannot be read, and no other: then it is not the recordings."""

_BLOCK_SAMPLES = 600 * SAMPLE_RATE
"""Sound in memory at once, twice: that being encoded and that being read, 38 MB each."""

_KEPT = 2
"""Speech encoders a worker holds: one of a language is some gigabytes, and units of languages alternate."""


class Clip(NamedTuple):
    """Where a row's speech is; equal ones are encoded once."""

    uri: str
    channel: int | None
    start_s: float
    end_s: float


class Failure(NamedTuple):
    """Why a clip has no embedding."""

    reason: str
    error: str


def clips_of(table: pa.Table) -> list[Clip | None]:
    """The clip of every row of a shard, None for rows of text."""
    columns = [table[name].to_pylist() for name in COLUMNS]
    return [Clip(*where) if modality == schema.SPEECH else None for modality, *where in zip(*columns, strict=True)]


def num_clips(segments: Files, path: str) -> int:
    """How many rows of a shard are clips; only its footer is read."""
    with open_shard(segments, path) as shard:
        names = shard.schema_arrow.names
        if "audio_uri" not in names:
            return 0
        column, footer = names.index("audio_uri"), shard.metadata
        groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
        if all(group.column(column).is_stats_set for group in groups):
            return int(sum(group.num_rows - group.column(column).statistics.null_count for group in groups))
        uris = shard.read(["audio_uri"])["audio_uri"]
        return len(uris) - int(uris.null_count)


@dataclass
class SpeechEncoders:
    """The encoders of a worker by language, loaded when a unit needs them.

    ``planned`` holds the revision of each language's weights, as the run was planned with.
    """

    options: Mapping[str, EncoderOptions]
    planned: Mapping[str, str]

    def __post_init__(self) -> None:
        self._loaded: OrderedDict[str, SpeechEncoder] = OrderedDict()

    def get(self, lang: str) -> SpeechEncoder:
        """The encoder of a language.

        Raises:
            PlanMismatchError: its weights are not those planned with.
        """
        options = self.options[lang]
        key = options.model
        if key not in self._loaded:
            while len(self._loaded) >= _KEPT:
                self._loaded.popitem(last=False)
            encoder = load_speech_encoder(options)
            planned = {"encoder_revision": self.planned[lang]} if lang in self.planned else {}
            check_identity("speech encoder", planned, encoder.provenance, ("encoder_revision",))
            self._loaded[key] = encoder
        self._loaded.move_to_end(key)
        return self._loaded[key]


@dataclass
class Encoded:
    """The clips of a block that were tried: their numbers, and what became of them."""

    done: list[tuple[list[int], Prepared, Float32]]
    failed: dict[int, Failure]


def encode_clips(
    encoder: SpeechEncoder, clips: Mapping[int, Clip], storage_options: Mapping[str, Any] | None = None
) -> Iterator[Encoded]:
    """Embed clips by their numbers, block by block; ``storage_options`` are those of fsspec for the recordings.

    Raises:
        InputError: none of many clips can be read: the recordings are not where they were.
        LcmDataError: the encoder fails on all clips of a block.
        StorageError, MissingExtraError: see ``lcm_data.audio.read.ClipReader``.
    """
    unread = 0
    reading = ThreadPoolExecutor(1, thread_name_prefix="clips")
    with contextlib.closing(_blocks(clips, storage_options)) as blocks, reading:
        ahead = reading.submit(next, blocks, None)
        while (block := ahead.result()) is not None:
            ahead = reading.submit(next, blocks, None)
            waves, failed = block
            unread += len(failed)
            if unread == len(clips) >= _TOO_MANY:
                raise InputError(next(iter(failed.values())).error)
            yield _encode_block(encoder, waves, failed)


def _encode_block(encoder: SpeechEncoder, waves: Mapping[int, Float32], failed: dict[int, Failure]) -> Encoded:
    encoded = Encoded([], failed)
    numbers = list(waves)
    parts, errors = each_or_error(lambda some: encoder.prepare([waves[number] for number in some]), numbers)
    failed |= {number: Failure("unusable_clip", str(error)) for number, error in errors}
    for some, prepared in parts:
        done, errors = each_or_error(
            lambda rows, prepared=prepared: encoder.embed(prepared, np.array(rows)),  # type: ignore[misc]
            list(range(len(some))),
        )
        for rows, values in done:
            vectors = shaped(values, (len(rows), encoder.dim), "vectors")
            encoded.done.append(([some[row] for row in rows], _rows_of(prepared, rows), vectors))
        refuse_to_blame_all("speech encoder", "clips", len(some), errors)
        failed |= {some[row]: Failure("encoder_error", f"{type(e).__name__}: {e}") for row, e in errors}
    return encoded


def _rows_of(prepared: Prepared, rows: Sequence[int]) -> Prepared:
    """The facts of some rows, without the sound."""
    facts = (prepared.num_tokens[rows], prepared.truncated[rows], prepared.num_unknown[rows])
    return Prepared(*facts, payload=None)


def _blocks(
    clips: Mapping[int, Clip], storage_options: Mapping[str, Any] | None
) -> Generator[tuple[dict[int, Float32], dict[int, Failure]], None, None]:
    """The sound of clips, a few minutes at a time, and those that cannot be read."""
    from lcm_data.audio.read import ClipReader

    waves: dict[int, Float32] = {}
    failed: dict[int, Failure] = {}
    held = 0
    with contextlib.ExitStack() as opened:
        reader, uri = None, ""
        for number, clip in sorted(clips.items(), key=lambda item: (item[1].uri, item[1].start_s, item[0])):
            try:
                if reader is None or clip.uri != uri:
                    opened.close()
                    reader, uri = None, clip.uri
                    reader = opened.enter_context(ClipReader(uri, storage_options))
                waves[number] = reader.read(clip.channel, clip.start_s, clip.end_s)
                held += len(waves[number])
            except MissingExtraError:
                raise
            except (InputError, UsageError) as error:
                failed[number] = Failure("unreadable_clip", str(error))
            if held >= _BLOCK_SAMPLES:
                yield waves, failed
                waves, failed, held = {}, {}, 0
    if waves or failed:
        yield waves, failed

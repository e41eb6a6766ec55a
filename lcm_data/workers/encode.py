"""The worker of the ``embeddings`` stage: sentences and clips of one shard in, their embeddings out, row for row.

Equal sentences of a unit are encoded once, and so are equal clips of speech (``lcm_data.workers.speech``). Rows the
encoder fails on, or answers with something that is no embedding, become rejects.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from lcm_data import schema
from lcm_data.encode import EncoderOptions, SpeechEncoder, load_encoder
from lcm_data.encode.base import Encoder, Prepared
from lcm_data.end_of_text import Concept
from lcm_data.errors import UnknownNameError
from lcm_data.store.commits import Commit, RejectRow
from lcm_data.store.files import Files, open_files
from lcm_data.store.shard import parse_shard_path, read_shard
from lcm_data.workers.base import Task
from lcm_data.workers.output import (
    CRASHED,
    UnitOutput,
    check_identity,
    commit_output,
    each_or_error,
    refuse_to_blame_all,
    row_reject,
    shaped,
    shard_facts,
)
from lcm_data.workers.speech import COLUMNS, Clip, SpeechEncoders, clips_of, encode_clips
from lcm_data.workers.storable import Float32, is_storable, norms_of

logger = logging.getLogger(__name__)

_COLUMNS = (*schema.ID_COLUMNS, "text")

SPEECH_ENCODER, SPEECH_REVISION = "speech_encoder", "speech_encoder_revision"
"""Keys of the metadata, each followed by a dot and a language: the model and the sha256 of its weights."""


@dataclass
class _Loaded:
    """A shard with its sentences tokenised.

    ``inverse_N`` maps each kept row to its distinct item, a sentence or a clip; ``num_items`` is how many of these
    there are. ``parts`` are the sentences and ``clips`` the clips among them, by number. ``num_blank`` is how many
    tokens a text without any content has.
    """

    task: Task
    table: pa.Table
    rows_N: np.ndarray[Any, np.dtype[np.int64]]
    inverse_N: np.ndarray[Any, np.dtype[np.int64]]
    parts: list[tuple[list[int], Prepared]]
    rejects: list[RejectRow]
    num_items: int
    clips: dict[int, Clip]
    num_blank: int = 0


@dataclass
class _Seen:
    """What the network got to see of each distinct item."""

    num_tokens: np.ndarray[Any, np.dtype[np.int32]]
    truncated: np.ndarray[Any, np.dtype[np.bool_]]
    num_unknown: np.ndarray[Any, np.dtype[np.int32]]

    def fill(self, rows: list[int], prepared: Prepared) -> None:
        for name in ("num_tokens", "truncated", "num_unknown"):
            getattr(self, name)[rows] = shaped(getattr(prepared, name), (len(rows),), name)


@dataclass
class EncodeWorker:
    """Settings of the work; the encoder of text is loaded in ``setup``, those of speech when a unit needs them.

    ``encoder`` is None where there are no rows of text, ``speech`` names the encoder of each language with speech.
    """

    source: str
    target: str
    encoder: EncoderOptions | None
    plan_hash: str
    store_dtype: schema.StoreDtype = "float16"
    with_text: bool = True
    metadata: dict[str, str] = field(default_factory=dict)
    corpus: str | None = None
    """Folder that gets the embedding of the end of a text; none if it is not wanted."""
    speech: Mapping[str, EncoderOptions] = field(default_factory=dict)
    storage_options: Mapping[str, Any] | None = field(default=None, repr=False)
    """Passed to fsspec where recordings are read."""
    _speakers: SpeechEncoders | None = field(default=None, init=False, repr=False)
    _encoder: Encoder | None = field(default=None, init=False, repr=False)
    _end_of_text: Concept | None = field(default=None, init=False, repr=False)

    @property
    def files(self) -> Files:
        return open_files(self.target)

    def setup(self) -> None:
        prefix = f"{SPEECH_REVISION}."
        planned = {k.removeprefix(prefix): value for k, value in self.metadata.items() if k.startswith(prefix)}
        self._speakers = SpeechEncoders(self.speech, planned)
        if self.encoder is None:
            return
        self._encoder = load_encoder(self.encoder)
        keys = ("encoder_revision", "tokenizer_revision", "num_heads")
        check_identity("encoder", self.metadata, self._encoder.provenance, keys)
        if self.corpus is not None:
            try:
                self._end_of_text = Concept.encode(self._encoder)
            except Exception as error:  # an encoder need not know English; training then says what is missing
                logger.warning("the encoder has no embedding of the end of a text: %s", error)

    def read(self, task: Task) -> _Loaded:
        path = task.unit.spec["shard"]
        _, lang, _ = parse_shard_path(path)
        spoken = lang in self.speech
        table = read_shard(open_files(self.source), path, (*_COLUMNS, *COLUMNS) if spoken else _COLUMNS)
        first, last = task.rows or (0, table.num_rows)
        skip = set(task.skip)
        rows = [row for row in range(first, last) if row not in skip]
        items: list[str | Clip] = table["text"].to_pylist()
        if spoken:
            items = [clip or text for clip, text in zip(clips_of(table), items, strict=True)]
        rejects = [row_reject(table, row, CRASHED, "encoding this row ended the worker") for row in sorted(skip)]
        order: dict[str | Clip, int] = {}
        inverse = [order.setdefault(items[row], len(order)) for row in rows]
        clips = {number: item for item, number in order.items() if isinstance(item, Clip)}
        texts = {number: item for item, number in order.items() if isinstance(item, str)}
        loaded = _Loaded(
            task, table, np.array(rows, np.int64), np.array(inverse, np.int64), [], rejects, len(order), clips
        )
        if texts:
            self._tokenize(loaded, texts, lang)
        return loaded

    def _tokenize(self, loaded: _Loaded, texts: Mapping[int, str], lang: str) -> None:
        assert self._encoder is not None
        encoder = self._encoder
        try:
            loaded.num_blank = int(encoder.prepare([""], lang).num_tokens[0])
        except UnknownNameError as error:
            _drop(loaded, dict.fromkeys(texts, ("unsupported_language", str(error))))
            return
        loaded.parts, errors = each_or_error(lambda some: encoder.prepare([texts[i] for i in some], lang), list(texts))
        _drop(loaded, {number: ("tokenizer_error", str(error)) for number, error in errors})

    def work(self, loaded: _Loaded) -> UnitOutput:
        speaker = self._speaker(loaded)
        encoders = [encoder for encoder in (self._encoder, speaker) if encoder is not None]
        emb = np.full((loaded.num_items, encoders[0].dim), np.nan, np.float32)
        seen = _Seen(*(np.zeros(loaded.num_items, dtype) for dtype in (np.int32, bool, np.int32)))
        busy_before = sum(encoder.busy_seconds for encoder in encoders)
        failed = self._encode_texts(loaded, emb, seen)
        if speaker is not None:
            for block in encode_clips(speaker, loaded.clips, self.storage_options):
                failed |= block.failed
                for numbers, prepared, vectors in block.done:
                    seen.fill(numbers, prepared)
                    emb[numbers] = vectors
        norms = norms_of(emb)
        for index in np.flatnonzero(~is_storable(emb, norms, self.store_dtype)):
            error = f"not finite, or too large or too small for {self.store_dtype}: its length is {norms[index]:g}"
            failed.setdefault(int(index), ("invalid_embedding", error))
        busy = sum(encoder.busy_seconds for encoder in encoders) - busy_before
        stats = {"distinct": float(loaded.num_items - len(failed)), "busy_seconds": busy}
        _drop(loaded, failed)
        return self._assemble(loaded, emb, norms, seen, stats)

    def _speaker(self, loaded: _Loaded) -> SpeechEncoder | None:
        """The speech encoder of a shard, if it has speech (or nothing else tells the width of vectors)."""
        _, lang, _ = parse_shard_path(loaded.task.unit.spec["shard"])
        assert self._speakers is not None
        return self._speakers.get(lang) if loaded.clips or self._encoder is None else None

    def _encode_texts(self, loaded: _Loaded, emb: Float32, seen: _Seen) -> dict[int, tuple[str, str]]:
        """Fill in the vectors of sentences; gives those that failed."""
        failed: dict[int, tuple[str, str]] = {}
        encoder = self._encoder
        for numbers, prepared in loaded.parts:
            assert encoder is not None
            seen.fill(numbers, prepared)
            done, errors = each_or_error(
                lambda some, prepared=prepared, by=encoder: by.embed(prepared, np.array(some)),  # type: ignore[misc]
                list(range(len(numbers))),
            )
            for some, values in done:
                emb[[numbers[i] for i in some]] = shaped(values, (len(some), encoder.dim), "vectors")
            refuse_to_blame_all("encoder", "sentences", len(numbers), errors)
            failed |= {numbers[i]: ("encoder_error", f"{type(error).__name__}: {error}") for i, error in errors}
        return failed

    def _assemble(
        self,
        loaded: _Loaded,
        emb: Float32,
        norms: Float32,
        seen: _Seen,
        stats: dict[str, float],
    ) -> UnitOutput:
        table, rows, inverse = loaded.table, loaded.rows_N, loaded.inverse_N
        target = schema.embeddings_schema(emb.shape[1], self.store_dtype, self.with_text)
        stored = emb.astype(self.store_dtype)[inverse]
        values = {
            "n_tokens": pa.array(seen.num_tokens[inverse]),
            "n_unk": pa.array(seen.num_unknown[inverse]),
            "truncated": pa.array(seen.truncated[inverse]),
            "norm": pa.array(norms[inverse]),
            "emb": schema.vector_array(stored, target.field("emb").type),
        }
        names = [name for name in target.names if name not in values]
        kept = table.select(names).take(pa.array(rows))
        columns = [values[name] if name in values else kept[name] for name in target.names]
        spoken = np.isin(inverse, list(loaded.clips))
        stats |= {
            "sentences": float(len(rows)),
            "tokens": float(seen.num_tokens[inverse[~spoken]].sum(dtype=np.int64)),
            "truncated": float(seen.truncated[inverse].sum()),
            "unknown": float((seen.num_unknown[inverse] > 0).sum()),
            "blank": float((seen.num_tokens[inverse[~spoken]] <= loaded.num_blank).sum()),
        }
        if spoken.any():
            stats |= {"clips": float(spoken.sum()), "positions": float(seen.num_tokens[inverse[spoken]].sum())}
        output = UnitOutput(loaded.task.unit.id, table.num_rows, rows_done=len(rows), stats=stats)
        output.rejects = loaded.rejects
        output.tables[loaded.task.unit.spec["shard"]] = pa.Table.from_arrays(columns, schema=target)
        return output

    def write(self, output: UnitOutput) -> Commit:
        if self.corpus is not None and self._end_of_text is not None:
            self._end_of_text.publish(self.files, open_files(self.corpus))
            self._end_of_text = None
        return commit_output(self.files, output, self.plan_hash, self._shard_metadata)

    def _shard_metadata(self, path: str) -> dict[str, str]:
        _, lang, _ = parse_shard_path(path)
        others = tuple(f".{other}" for other in self.speech if other != lang)
        facts = {k: v for k, v in self.metadata.items() if not (k.startswith(SPEECH_ENCODER) and k.endswith(others))}
        return shard_facts(facts, "embeddings", path)


def _drop(loaded: _Loaded, failed: dict[int, tuple[str, str]]) -> None:
    """Turn the rows of the distinct sentences in ``failed`` into rejects."""
    if not failed:
        return
    bad = np.isin(loaded.inverse_N, list(failed))
    for row, index in zip(loaded.rows_N[bad], loaded.inverse_N[bad], strict=True):
        loaded.rejects.append(row_reject(loaded.table, int(row), *failed[int(index)]))
    loaded.rows_N, loaded.inverse_N = loaded.rows_N[~bad], loaded.inverse_N[~bad]

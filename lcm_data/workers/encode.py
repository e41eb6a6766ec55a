"""The worker of the ``embeddings`` stage: sentences of one shard in, their embeddings out, row for row.

Equal sentences of a unit are encoded once. Rows the encoder fails on, or answers with something that is no embedding,
become rejects.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from lcm_data import schema
from lcm_data.encode import EncoderOptions, load_encoder
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
    shaped,
)

Float32 = np.ndarray[Any, np.dtype[np.float32]]

logger = logging.getLogger(__name__)

_COLUMNS = (*schema.ID_COLUMNS, "text")


@dataclass
class _Loaded:
    """A shard with its sentences tokenised.

    ``inverse_N`` maps each kept row to its distinct sentence; ``num_blank`` is how many tokens a text without any
    content has.
    """

    task: Task
    table: pa.Table
    rows_N: np.ndarray[Any, np.dtype[np.int64]]
    inverse_N: np.ndarray[Any, np.dtype[np.int64]]
    parts: list[tuple[list[int], Prepared]]
    rejects: list[RejectRow]
    num_blank: int = 0


@dataclass
class _Seen:
    """What the network got to see of each distinct sentence."""

    num_tokens: np.ndarray[Any, np.dtype[np.int32]]
    truncated: np.ndarray[Any, np.dtype[np.bool_]]
    num_unknown: np.ndarray[Any, np.dtype[np.int32]]

    def fill(self, rows: list[int], prepared: Prepared) -> None:
        for name in ("num_tokens", "truncated", "num_unknown"):
            getattr(self, name)[rows] = shaped(getattr(prepared, name), (len(rows),), name)


@dataclass
class EncodeWorker:
    """Settings of the work; the encoder is loaded in ``setup``."""

    source: str
    target: str
    encoder: EncoderOptions
    plan_hash: str
    store_dtype: schema.StoreDtype = "float16"
    with_text: bool = True
    metadata: dict[str, str] = field(default_factory=dict)
    corpus: str | None = None
    """Folder that gets the embedding of the end of a text; none if it is not wanted."""
    _encoder: Encoder | None = field(default=None, init=False, repr=False)
    _end_of_text: Concept | None = field(default=None, init=False, repr=False)

    @property
    def files(self) -> Files:
        return open_files(self.target)

    def setup(self) -> None:
        self._encoder = load_encoder(self.encoder)
        keys = ("encoder_revision", "tokenizer_revision", "num_heads")
        check_identity("encoder", self.metadata, self._encoder.provenance, keys)
        if self.corpus is not None:
            try:
                self._end_of_text = Concept.encode(self._encoder)
            except Exception as error:  # an encoder need not know English; training then says what is missing
                logger.warning("the encoder has no embedding of the end of a text: %s", error)

    def read(self, task: Task) -> _Loaded:
        assert self._encoder is not None
        encoder = self._encoder
        path = task.unit.spec["shard"]
        table = read_shard(open_files(self.source), path, _COLUMNS)
        _, lang, _ = parse_shard_path(path)
        first, last = task.rows or (0, table.num_rows)
        skip = set(task.skip)
        rows = [row for row in range(first, last) if row not in skip]
        texts = table["text"].to_pylist()
        rejects = [_reject(table, row, CRASHED, "encoding this sentence ended the worker") for row in sorted(skip)]
        order: dict[str, int] = {}
        inverse = [order.setdefault(texts[row], len(order)) for row in rows]
        distinct = list(order)
        loaded = _Loaded(task, table, np.array(rows, np.int64), np.array(inverse, np.int64), [], rejects)
        try:
            loaded.num_blank = int(encoder.prepare([""], lang).num_tokens[0])
        except UnknownNameError as error:
            _drop(loaded, dict.fromkeys(range(len(distinct)), ("unsupported_language", str(error))))
            return loaded
        loaded.parts, errors = each_or_error(
            lambda some: encoder.prepare([distinct[i] for i in some], lang), list(range(len(distinct)))
        )
        _drop(loaded, {index: ("tokenizer_error", str(error)) for index, error in errors})
        return loaded

    def work(self, loaded: _Loaded) -> UnitOutput:
        assert self._encoder is not None
        encoder = self._encoder
        num_distinct = int(loaded.inverse_N.max()) + 1 if len(loaded.inverse_N) else 0
        num_distinct = max([num_distinct, *(max(rows) + 1 for rows, _ in loaded.parts)])
        emb = np.full((num_distinct, encoder.dim), np.nan, np.float32)
        seen = _Seen(*(np.zeros(num_distinct, dtype) for dtype in (np.int32, bool, np.int32)))
        failed: dict[int, tuple[str, str]] = {}
        busy_before = encoder.busy_seconds
        for rows, prepared in loaded.parts:
            seen.fill(rows, prepared)
            done, errors = each_or_error(
                lambda some, prepared=prepared: encoder.embed(prepared, np.array(some)),  # type: ignore[misc]
                list(range(len(rows))),
            )
            for some, values in done:
                emb[[rows[i] for i in some]] = shaped(values, (len(some), encoder.dim), "vectors")
            refuse_to_blame_all("encoder", "sentences", len(rows), errors)
            failed |= {rows[i]: ("encoder_error", f"{type(error).__name__}: {error}") for i, error in errors}
        norms = _norms(emb)
        for index in np.flatnonzero(~self._storable(emb, norms)):
            error = f"not finite, or too large or too small for {self.store_dtype}: its length is {norms[index]:g}"
            failed.setdefault(int(index), ("invalid_embedding", error))
        stats = {"distinct": float(num_distinct - len(failed)), "busy_seconds": encoder.busy_seconds - busy_before}
        _drop(loaded, failed)
        return self._assemble(loaded, emb, norms, seen, stats)

    def _storable(self, emb: Float32, norms: Float32) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Rows that are finite in the type they are stored in, and so long that it keeps 99 % of them at least."""
        with np.errstate(over="ignore", invalid="ignore"):
            stored = emb.astype(self.store_dtype, copy=False)
        # Among the smallest numbers of a type, rounding moves each by up to half a step, however small it is.
        rounding = 0.5 * float(np.finfo(self.store_dtype).smallest_subnormal) * np.sqrt(emb.shape[1])
        return np.isfinite(stored).all(1) & np.isfinite(norms) & (norms > 100 * rounding)  # type: ignore[no-any-return]

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
        stats |= {
            "sentences": float(len(rows)),
            "tokens": float(seen.num_tokens[inverse].sum(dtype=np.int64)),
            "truncated": float(seen.truncated[inverse].sum()),
            "unknown": float((seen.num_unknown[inverse] > 0).sum()),
            "blank": float((seen.num_tokens[inverse] <= loaded.num_blank).sum()),
        }
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
        split, lang, _ = parse_shard_path(path)
        return {**self.metadata, "stage": "embeddings", "split": split, "lang": lang}


def _norms(emb: Float32) -> Float32:
    """Lengths [N] of vectors [N, D]; squares are summed in float64, where they neither overflow nor vanish."""
    with np.errstate(over="ignore", invalid="ignore"):
        norms: Float32 = np.sqrt(np.einsum("nd,nd->n", emb, emb, dtype=np.float64)).astype(np.float32)
    return norms


def _drop(loaded: _Loaded, failed: dict[int, tuple[str, str]]) -> None:
    """Turn the rows of the distinct sentences in ``failed`` into rejects."""
    if not failed:
        return
    bad = np.isin(loaded.inverse_N, list(failed))
    for row, index in zip(loaded.rows_N[bad], loaded.inverse_N[bad], strict=True):
        loaded.rejects.append(_reject(loaded.table, int(row), *failed[int(index)]))
    loaded.rows_N, loaded.inverse_N = loaded.rows_N[~bad], loaded.inverse_N[~bad]


def _reject(table: pa.Table, row: int, reason: str, error: str) -> RejectRow:
    ids = {name: table[name][row].as_py() for name in ("doc_id", "sid", "text")}
    return RejectRow(row, reason, error[:500], doc_id=ids["doc_id"], sid=ids["sid"], text=ids["text"][:200])

"""The worker that decodes: vectors of a run of row groups in, sentences in one language out, row for row.

The rows keep the ids of their vectors. Equal vectors of a unit are decoded once, unless sentences are drawn by chance.
Rows that have no sound vector, or get no sound sentence, become rejects.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from lcm_data import schema
from lcm_data.decode import Decoded, Decoder, DecoderOptions, load_decoder
from lcm_data.store.commits import Commit, RejectRow
from lcm_data.store.files import Files, open_files
from lcm_data.store.shard import parse_shard_path, read_shard, shard_path
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

Int64 = np.ndarray[Any, np.dtype[np.int64]]

COLUMNS = (*schema.ID_COLUMNS, "n_tokens", "emb")


@dataclass
class _Loaded:
    """Rows of a shard. ``first_M`` is the row of each distinct vector, ``inverse_N`` the distinct vector of a row."""

    task: Task
    table: pa.Table
    rows_N: Int64
    first_M: Int64
    inverse_N: Int64
    rejects: list[RejectRow]


@dataclass
class DecodeWorker:
    """Settings of the work; the decoder is loaded in ``setup``."""

    source: str
    target: str
    decoder: DecoderOptions
    lang: str
    plan_hash: str
    metadata: dict[str, str] = field(default_factory=dict)
    _decoder: Decoder | None = field(default=None, init=False, repr=False)

    @property
    def files(self) -> Files:
        return open_files(self.target)

    def setup(self) -> None:
        self._decoder = load_decoder(self.decoder)
        found = decoder_metadata(self._decoder.provenance)
        keys = ("decoder_revision", "decoder_tokenizer_revision", "decoder_num_heads")
        check_identity("decoder", self.metadata, found, keys)
        # A language the model does not know is found here, before anything is written.
        self._decoder.decode(np.zeros((0, self._decoder.dim), np.float32), self.lang)

    def read(self, task: Task) -> _Loaded:
        spec = task.unit.spec
        groups = None if "groups" not in spec else range(*spec["groups"])
        table = read_shard(open_files(self.source), spec["shard"], COLUMNS, groups)
        first, last = task.rows or (0, table.num_rows)
        keep = np.zeros(table.num_rows, np.bool_)
        keep[first:last] = True
        keep[list(task.skip)] = False
        rejects = [
            row_reject(table, row, CRASHED, "decoding this vector ended the worker") for row in sorted(task.skip)
        ]
        vectors = schema.vectors(table["emb"])
        finite = np.isfinite(vectors).all(axis=1)
        rejects += [
            row_reject(table, int(row), "invalid_embedding", "not finite") for row in np.flatnonzero(keep & ~finite)
        ]
        rows = np.flatnonzero(keep & finite)
        if self.decoder.mode == "sample":  # each row has chances of its own
            distinct = inverse = np.arange(len(rows))
        else:
            distinct, inverse = _distinct(vectors[rows])
        return _Loaded(task, table, rows, rows[distinct], inverse, rejects)

    def work(self, loaded: _Loaded) -> UnitOutput:
        assert self._decoder is not None
        decoder, table = self._decoder, loaded.table
        vectors = schema.vectors(table["emb"])
        sids = table["sid"].to_numpy()
        busy_before = decoder.busy_seconds

        def decode(some: list[int]) -> Decoded:
            rows = loaded.first_M[some]
            said = decoder.decode(vectors[rows].astype(np.float32), self.lang, sids[rows])
            _check_texts(said)
            return said

        # Sentences of like length end together, so that none waits for the longest of all in its batch.
        lengths_M = table["n_tokens"].to_numpy()[loaded.first_M]
        parts, errors = each_or_error(decode, np.argsort(lengths_M, kind="stable").tolist())
        refuse_to_blame_all("decoder", "vectors", len(loaded.first_M), errors)
        said = _in_order(parts, len(loaded.first_M))
        failed = {
            int(index): ("invalid_score", "the score of the sentence is not finite")
            for index in np.flatnonzero(~np.isfinite(said.scores))
        }
        failed |= {index: ("decoder_error", f"{type(error).__name__}: {error}") for index, error in errors}
        stats = {
            "distinct": float(len(loaded.first_M) - len(failed)),
            "busy_seconds": decoder.busy_seconds - busy_before,
        }
        return self._assemble(loaded, said, failed, stats)

    def _assemble(
        self, loaded: _Loaded, said: Decoded, failed: dict[int, tuple[str, str]], stats: dict[str, float]
    ) -> UnitOutput:
        table, unit = loaded.table, loaded.task.unit
        bad_N = np.isin(loaded.inverse_N, list(failed))
        for row, index in zip(loaded.rows_N[bad_N], loaded.inverse_N[bad_N], strict=True):
            loaded.rejects.append(row_reject(table, int(row), *failed[int(index)]))
        rows, inverse = loaded.rows_N[~bad_N], loaded.inverse_N[~bad_N]
        split, source_lang, _ = parse_shard_path(unit.spec["shard"])
        texts = [said.texts[index] for index in inverse]
        num_tokens, truncated, scores = said.num_tokens[inverse], said.truncated[inverse], said.scores[inverse]
        values: dict[str, Any] = {
            "text": texts,
            "n_chars": [len(text) for text in texts],
            "source_lang": [source_lang] * len(rows),
            "score": scores,
            "n_tokens": num_tokens,
            "truncated": truncated,
            "modality": ["text"] * len(rows),
            "source": [unit.spec["shard"]] * len(rows),
        }
        kept = table.select(schema.ID_COLUMNS).take(pa.array(rows))
        columns = [
            pa.array(values[each.name], each.type) if each.name in values else kept[each.name]
            for each in schema.DECODED
        ]
        output = UnitOutput(unit.id, table.num_rows, rows_done=len(rows), rejects=loaded.rejects)
        output.stats = stats | {
            "sentences": float(len(rows)),
            "tokens": float(num_tokens.sum(dtype=np.int64)),
            "truncated": float(truncated.sum()),
            "empty": float(texts.count("")),
            "score_sum": float(scores.sum(dtype=np.float64)),
        }
        output.tables[shard_path(split, self.lang, unit.id)] = pa.Table.from_arrays(columns, schema=schema.DECODED)
        return output

    def write(self, output: UnitOutput) -> Commit:
        return commit_output(self.files, output, self.plan_hash, partial(shard_facts, self.metadata, "segments"))


def decoder_metadata(provenance: Mapping[str, str]) -> dict[str, str]:
    """Facts of a decoder under names that begin with ``decoder``: an encoder of these sentences has its own."""
    return {key if key.startswith("decoder") else f"decoder_{key}": value for key, value in provenance.items()}


def _distinct(vectors_ND: np.ndarray[Any, Any]) -> tuple[Int64, Int64]:
    """The first of each set of vectors that are the same to the bit, and for each vector the number of its set."""
    bytes_N = np.ascontiguousarray(vectors_ND).view(np.dtype((np.void, vectors_ND.shape[1] * vectors_ND.itemsize)))
    _, first_M, inverse_N = np.unique(bytes_N[:, 0], return_index=True, return_inverse=True)
    return first_M, inverse_N


def _check_texts(said: Decoded) -> None:
    """Refuse what cannot be stored as a text: None, bytes, half a character. It is an error of that row."""
    for text in said.texts:
        if not isinstance(text, str):
            raise TypeError(f"the decoder gave {text!r} instead of a text")
        text.encode()


def _in_order(parts: list[tuple[list[int], Decoded]], num: int) -> Decoded:
    """The results of all parts in the order of the distinct vectors; those that failed have the score NaN."""
    found = Decoded([""] * num, np.full(num, np.nan, np.float32), np.zeros(num, np.int32), np.zeros(num, np.bool_))
    for some, said in parts:
        for index, text in zip(some, shaped(said.texts, (len(some),), "texts"), strict=True):
            found.texts[index] = text
        for name in ("scores", "num_tokens", "truncated"):
            getattr(found, name)[some] = shaped(getattr(said, name), (len(some),), name)
    return found

"""The worker of the ``codes`` stage: embeddings of one shard in, their RVQ codes out, row for row."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from lcm_data import schema
from lcm_data.quantize.codebook import Codebook
from lcm_data.quantize.encode import Encoder
from lcm_data.quantize.storage import load_codebook
from lcm_data.store.commits import Commit, RejectRow
from lcm_data.store.files import Files, open_files
from lcm_data.store.shard import read_shard
from lcm_data.workers.base import Task
from lcm_data.workers.output import CRASHED, UnitOutput, check_identity, commit_output, row_reject, shard_facts

_COLUMNS = (*schema.ID_COLUMNS, "emb")


@dataclass
class _Loaded:
    task: Task
    table: pa.Table
    rows: np.ndarray[Any, np.dtype[np.int64]]
    rejects: list[RejectRow]


@dataclass
class QuantizeWorker:
    """Settings of the work; the codebook is loaded in ``setup``."""

    source: str
    target: str
    codebook: str
    plan_hash: str
    metadata: dict[str, str] = field(default_factory=dict)
    engine: str = "faiss"
    device: str = "auto"
    beam: int = 1
    _loaded: Codebook | None = field(default=None, init=False, repr=False)
    _encoder: Encoder | None = field(default=None, init=False, repr=False)

    @property
    def files(self) -> Files:
        return open_files(self.target)

    def setup(self) -> None:
        self._loaded = load_codebook(self.codebook)
        check_identity("codebook", self.metadata, {"codebook": self._loaded.fingerprint}, ("codebook",))
        self._encoder = self._loaded.encoder(self.engine, beam=self.beam, device=self.device)

    def read(self, task: Task) -> _Loaded:
        table = read_shard(open_files(self.source), task.unit.spec["shard"], _COLUMNS)
        first, last = task.rows or (0, table.num_rows)
        keep = np.ones(table.num_rows, dtype=bool)
        keep[:first], keep[last:] = False, False
        keep[list(task.skip)] = False
        rejects = [row_reject(table, row, CRASHED, "quantizing this row ended the worker") for row in task.skip]
        return _Loaded(task, table, np.flatnonzero(keep), rejects)

    def work(self, loaded: _Loaded) -> UnitOutput:
        assert self._loaded is not None
        codebook = self._loaded
        table, rows, rejects = loaded.table, loaded.rows, loaded.rejects
        emb = schema.vectors(table["emb"])[rows].astype(np.float32)
        valid = codebook.valid_rows(emb)
        why = "not finite, too large for float32 arithmetic, or zero"
        rejects += [row_reject(table, int(row), "invalid_embedding", why) for row in rows[~valid]]
        rows, emb = rows[valid], emb[valid]
        codes, resid_norm = codebook.encode(emb, self._encoder)
        target = schema.codes_schema(codes.shape[1])
        columns = [table[name].take(pa.array(rows)) for name in schema.ID_COLUMNS]
        columns += [schema.vector_array(codes, target.field("codes").type), pa.array(resid_norm, pa.float32())]
        result = pa.Table.from_arrays(columns, schema=target)
        sums = {"sentences": float(len(rows)), "resid_energy": float(np.square(resid_norm, dtype=np.float64).sum())}
        sums["energy"] = float(np.square(emb, dtype=np.float64).sum())
        output = UnitOutput(loaded.task.unit.id, table.num_rows, rows_done=len(rows), rejects=rejects, stats=sums)
        output.tables[loaded.task.unit.spec["shard"]] = result
        return output

    def write(self, output: UnitOutput) -> Commit:
        return commit_output(self.files, output, self.plan_hash, partial(shard_facts, self.metadata, "codes"))

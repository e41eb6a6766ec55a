"""The worker of ``dequantize``: codes of one shard in, the vectors they stand for out, row for row, as embeddings.

The rows keep their ids. Where the corpus has the embeddings that were quantized, the sentences and what is known of
their tokens come from there; else token facts are 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from lcm_data import schema
from lcm_data.quantize.codebook import Codebook
from lcm_data.quantize.storage import load_codebook
from lcm_data.store.commits import Commit, RejectRow
from lcm_data.store.files import Files, open_files
from lcm_data.store.shard import read_shard
from lcm_data.workers.base import Task
from lcm_data.workers.output import CRASHED, UnitOutput, check_identity, commit_output, row_reject, shard_facts

COLUMNS = (*schema.ID_COLUMNS, "codes")


@dataclass
class _Loaded:
    task: Task
    table: pa.Table
    facts: pa.Table | None
    rows: np.ndarray[Any, np.dtype[np.int64]]
    rejects: list[RejectRow]


@dataclass
class DequantizeWorker:
    """Settings of the work. ``facts`` is the stage of embeddings to take ``columns`` from, if there is one."""

    source: str
    target: str
    codebook: str
    levels: int
    store_dtype: schema.StoreDtype
    plan_hash: str
    facts: str | None = None
    columns: tuple[str, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)
    _loaded: Codebook | None = field(default=None, init=False, repr=False)

    @property
    def files(self) -> Files:
        return open_files(self.target)

    def setup(self) -> None:
        self._loaded = load_codebook(self.codebook)
        check_identity("codebook", self.metadata, {"codebook": self._loaded.fingerprint}, ("codebook",))

    def read(self, task: Task) -> _Loaded:
        shard = task.unit.spec["shard"]
        table = read_shard(open_files(self.source), shard, COLUMNS)
        facts = None if self.facts is None else read_shard(open_files(self.facts), shard, ("sid", *self.columns))
        first, last = task.rows or (0, table.num_rows)
        keep = np.zeros(table.num_rows, dtype=bool)
        keep[first:last] = True
        keep[list(task.skip)] = False
        rejects = [row_reject(table, row, CRASHED, "decoding this code ended the worker") for row in sorted(task.skip)]
        return _Loaded(task, table, facts, np.flatnonzero(keep), rejects)

    def work(self, loaded: _Loaded) -> UnitOutput:
        assert self._loaded is not None
        table, rows, rejects = loaded.table, loaded.rows, loaded.rejects
        codes = schema.vectors(table["codes"])[rows]
        known = (codes < self._loaded.num_units).all(axis=1)
        rejects += [row_reject(table, int(row), "invalid_code", "no unit of the codebook") for row in rows[~known]]
        rows = rows[known]
        exact = self._loaded.decode(codes[known], self.levels)
        with np.errstate(over="ignore"):
            emb = exact.astype(self.store_dtype)
        sound = np.isfinite(emb).all(axis=1)
        error = f"not finite as {self.store_dtype}"
        rejects += [row_reject(table, int(row), "invalid_embedding", error) for row in rows[~sound]]
        rows, emb, exact = rows[sound], emb[sound], exact[sound]
        values = {"emb": emb, "norm": np.linalg.norm(exact, axis=1).astype(np.float32)}
        output = UnitOutput(loaded.task.unit.id, table.num_rows, rows_done=len(rows), rejects=rejects)
        output.stats = {"sentences": float(len(rows))}
        output.tables[loaded.task.unit.spec["shard"]] = self._table(table.take(pa.array(rows)), loaded.facts, values)
        return output

    def _table(self, ids: pa.Table, facts: pa.Table | None, values: dict[str, Any]) -> pa.Table:
        assert self._loaded is not None
        target = schema.embeddings_schema(self._loaded.dim, self.store_dtype, with_text="text" in self.columns)
        found = None
        if facts is not None:
            place = {sid: row for row, sid in enumerate(facts["sid"].to_pylist())}
            found = facts.take(pa.array([place[sid] for sid in ids["sid"].to_pylist()], pa.int64()))
        columns = []
        for each in target:
            if each.name == "emb":
                columns.append(schema.vector_array(values["emb"], each.type))
            elif each.name in values:
                columns.append(pa.array(values[each.name], each.type))
            elif found is not None and each.name in self.columns:
                columns.append(found[each.name])
            elif each.name in schema.ID_COLUMNS:
                columns.append(ids[each.name])
            else:
                columns.append(pa.array(np.zeros(len(ids), np.int32)).cast(each.type))
        return pa.Table.from_arrays(columns, schema=target)

    def write(self, output: UnitOutput) -> Commit:
        return commit_output(self.files, output, self.plan_hash, partial(shard_facts, self.metadata, "embeddings"))

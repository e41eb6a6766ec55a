"""A stage of integer rows: real shards, real commits, and rows that misbehave on request.

Everything a worker process must know travels in the worker or in the environment, so the same module serves the
driver, local worker processes and Ray actors.

    TOY_PIDS    folder: every ready worker leaves a file named after its process id
    TOY_PAUSE   seconds slept before and after each storage step, so that kills land between them
    TOY_EXIT    "after publish part-000003": the process dies at that point, once (needs TOY_FLAGS)
    TOY_FLAGS   folder of the flags that make things happen once, and of "fixed", which ends the action ``error``
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lcm_data import schema
from lcm_data.errors import MissingExtraError
from lcm_data.store.commits import Commit, RejectRow
from lcm_data.store.files import Files, LocalFiles, RemoteFiles, open_files
from lcm_data.store.plan import Plan, Unit
from lcm_data.store.shard import parse_shard_path, shard_path
from lcm_data.workers.base import Task
from lcm_data.workers.output import CRASHED, UnitOutput, commit_output, each_or_error
from pipelines.stage import Stage

LANGS = ("eng_Latn", "deu_Latn", "fra_Latn")


@dataclass(frozen=True)
class Toy:
    """A corpus to make. ``special`` maps "unit:row" to an action: raise, hang, kill, segv, error, slow."""

    units: int = 6
    rows: int = 40
    kind: str = "codes"
    dim: int = 8
    doc_rows: int = 7
    pause: float = 0.0
    special: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=lambda: {"toy.jsonl": "v1"})


def toy_stage(root: str, toy: Toy) -> Stage:
    """The stage that makes ``toy`` in ``root``."""
    files = open_files(root)
    config = {"kind": toy.kind, "rows": toy.rows, "dim": toy.dim, "special": dict(toy.special), **toy.config}
    inputs = dict(toy.inputs)

    def make_plan() -> Plan:
        return Plan(toy.kind, config, inputs, tuple(toy_unit(toy, unit) for unit in range(toy.units)))

    def make_worker(plan: Plan) -> ToyWorker:
        return ToyWorker(root, plan.hash, toy.kind, toy.dim, toy.doc_rows, toy.pause)

    return Stage(toy.kind, files, config, inputs, make_plan, make_worker)


def toy_unit(toy: Toy, unit: int) -> Unit:
    split = "validation" if unit % 5 == 4 else "train"
    own = {row: action for key, action in toy.special.items() for of, _, row in [key.partition(":")] if int(of) == unit}
    return Unit(unit, toy.rows, {"path": shard_path(split, LANGS[unit % len(LANGS)], unit), "special": own})


@dataclass
class Loaded:
    task: Task
    rows: list[int]
    rejects: list[RejectRow]


@dataclass
class ToyWorker:
    target: str
    plan_hash: str
    kind: str
    dim: int
    doc_rows: int
    pause: float

    @property
    def files(self) -> Files:
        return toy_files(self.target)

    def setup(self) -> None:
        sys.meta_path.insert(0, NoPandas())
        if folder := os.environ.get("TOY_PIDS"):
            Path(folder, str(os.getpid())).touch()

    def read(self, task: Task) -> Loaded:
        start, stop = task.rows or (0, task.unit.rows)
        rows = [row for row in range(start, stop) if row not in task.skip]
        return Loaded(task, rows, [RejectRow(row, CRASHED, "this row ended the worker") for row in task.skip])

    def work(self, loaded: Loaded) -> UnitOutput:
        unit, special = loaded.task.unit, loaded.task.unit.spec["special"]
        time.sleep(self.pause)

        def touch(rows: list[int]) -> list[int]:
            for row in rows:
                act(special.get(str(row), ""))
            return rows

        if "error" in special.values() and not Path(os.environ["TOY_FLAGS"], "fixed").exists():
            raise RuntimeError("the toy is broken")
        parts, errors = each_or_error(touch, loaded.rows)
        done = sorted(row for rows, _ in parts for row in rows)
        output = UnitOutput(unit.id, unit.rows, rows_done=len(done), rejects=list(loaded.rejects))
        output.rejects += [RejectRow(row, "bad_row", str(error)) for row, error in errors]
        output.stats["sentences"] = float(len(done))
        path = unit.spec["path"]
        output.tables[path] = toy_table(unit.id, unit.rows, done, self.kind, self.dim, self.doc_rows, path)
        return output

    def write(self, output: UnitOutput) -> Commit:
        return commit_output(self.files, output, self.plan_hash, self._metadata)

    def _metadata(self, path: str) -> dict[str, str]:
        split, lang, _ = parse_shard_path(path)
        return {"stage": self.kind, "split": split, "lang": lang}


class NoPandas(MetaPathFinder):
    """Where pandas is installed, pyarrow imports it for the first array: half a second that no toy needs."""

    def find_spec(self, name: str, *_: Any) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name)


class DiesInSetup(ToyWorker):
    def setup(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class DiesInWrite(ToyWorker):
    """Dies when unit 2 is written, whatever rows it has."""

    def write(self, output: UnitOutput) -> Commit:
        if output.unit == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().write(output)


def act(action: str) -> None:
    """What a special row does to the process that touches it."""
    if action == "raise":
        raise ValueError("this row cannot be done")
    if action == "hang":
        time.sleep(3600)
    elif action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "segv":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif action == "slow":
        time.sleep(1.0)


def toy_table(unit: int, num: int, rows: list[int], kind: str, dim: int, doc_rows: int, path: str) -> pa.Table:
    """The rows ``rows`` of a unit of ``num`` rows."""
    lang = parse_shard_path(path)[1]
    docs = [f"doc-{unit:04d}-{row // doc_rows:05d}" for row in rows]
    index = [row % doc_rows for row in rows]
    ids = [schema.sentence_id(lang, doc, at) for doc, at in zip(docs, index, strict=True)]
    columns = [pa.array(ids, pa.int64()), pa.array(docs), pa.array(index, pa.int32())]
    number = np.array([unit * num + row for row in rows], dtype=np.int64)[:, None]
    if kind == "codes":
        target = schema.codes_schema(dim)
        codes = (number * np.arange(1, dim + 1) % 65536).astype(np.uint16)
        columns += [schema.vector_array(codes, target.field("codes").type), pa.array(np.ones(len(rows)), pa.float32())]
        return pa.Table.from_arrays(columns, schema=target)
    target = schema.embeddings_schema(dim)
    emb = np.random.default_rng(unit).standard_normal((num, dim))[rows].astype(np.float16)
    norm = np.linalg.norm(emb.astype(np.float32), axis=1)
    columns += [pa.array([f"row {n}" for n in number[:, 0]]), pa.array(np.ones(len(rows)), pa.int32())]
    columns += [pa.array(np.zeros(len(rows)), pa.int32())]
    columns += [pa.array([False] * len(rows)), pa.array(norm, pa.float32())]
    columns += [schema.vector_array(emb, target.field("emb").type)]
    return pa.Table.from_arrays(columns, schema=target)


class Hooks:
    """Storage whose every step can be slow or the last one of its process."""

    def publish(self, local: Path, path: str) -> None:
        point("before publish", path)
        super().publish(local, path)  # type: ignore[misc]
        point("after publish", path)

    def create(self, path: str, data: bytes) -> bool:
        point("before create", path)
        created: bool = super().create(path, data)  # type: ignore[misc]
        point("after create", path)
        return created

    def write(self, path: str, data: bytes) -> None:
        point("before write", path)
        super().write(path, data)  # type: ignore[misc]
        point("after write", path)


class HookedLocal(Hooks, LocalFiles):
    pass


class HookedRemote(Hooks, RemoteFiles):
    pass


def toy_files(root: str) -> Files:
    if "TOY_PAUSE" not in os.environ and "TOY_EXIT" not in os.environ:
        return open_files(root)
    return HookedRemote(root) if "://" in root else HookedLocal(root)


def point(step: str, path: str) -> None:
    time.sleep(float(os.environ.get("TOY_PAUSE", 0)))
    name = path.rpartition("/")[2].partition(".")[0]
    if os.environ.get("TOY_EXIT") == f"{step} {name}" and first_time("exit"):
        os.kill(os.getpid(), signal.SIGKILL)


def first_time(flag: str) -> bool:
    """True once over all processes that share TOY_FLAGS."""
    try:
        os.close(os.open(Path(os.environ["TOY_FLAGS"], flag), os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


class NeedsExtra(ToyWorker):
    def setup(self) -> None:
        raise MissingExtraError("the toy", "toys", "toys")


class FailsInSetup(ToyWorker):
    def setup(self) -> None:
        raise FileNotFoundError("the toy has no wheels")


class Talks(ToyWorker):
    """Prints, as libraries do, and says where it found the standard library."""

    def setup(self) -> None:
        import queue

        print("chatter on stdout", queue.__file__, repr(sys.stdin.read()), os.environ.get("OMP_NUM_THREADS"))

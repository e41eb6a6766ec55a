"""What the three stage workers share: a unit in the making, and its shards on the way to a commit."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from lcm_data.errors import LcmDataError, PlanMismatchError, UsageError
from lcm_data.machine import peak_memory
from lcm_data.store.commits import Commit, RejectRow, publish_unit
from lcm_data.store.files import Files
from lcm_data.store.shard import parse_shard_path, write_shard

T = TypeVar("T")

CRASHED = "crashed_worker"
"""Reason of a row that ended the worker process each time it was touched."""

_TOO_MANY_TO_BLAME = 8


@dataclass
class UnitOutput:
    """The rows a unit made: one table per shard path, the rejects, and sums for the commit record."""

    unit: int
    rows_in: int
    tables: dict[str, pa.Table] = field(default_factory=dict)
    rows_done: int = 0
    rejects: list[RejectRow] = field(default_factory=list)
    stats: dict[str, float] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)


def check_identity(kind: str, planned: Mapping[str, str], found: Mapping[str, str], keys: Sequence[str]) -> None:
    """Refuse to work with something else than the run was planned with: it may have been replaced on disk since.

    Raises:
        PlanMismatchError: one of ``keys`` differs.
    """
    for key in keys:
        if key in planned and planned[key] != found.get(key):
            raise PlanMismatchError(
                f"this worker loaded another {kind} than the run was planned with ({key} {planned[key][:16]}, found "
                f"{str(found.get(key))[:16]}). Put the planned one back on every node and run the same command again, "
                "or use --overwrite."
            )


def commit_output(
    files: Files, output: UnitOutput, plan_hash: str, metadata: Callable[[str], Mapping[str, str]]
) -> Commit:
    """Write the tables of a unit as shards and commit them; ``metadata`` gives the file metadata of a shard path."""
    start = time.perf_counter()
    with files.scratch() as folder:
        shards = []
        for number, (path, table) in enumerate(sorted(output.tables.items())):
            file = folder / f"{number}.parquet"
            write_shard(file, table, {**metadata(path), "unit": str(output.unit), "plan_hash": plan_hash})
            shards.append((file, path, table.num_rows))
        rejects = sorted(output.rejects, key=lambda reject: reject.row)
        commit = Commit(
            unit=output.unit,
            plan_hash=plan_hash,
            rows_in=output.rows_in,
            rows_done=output.rows_done,
            rejects=dict(sorted(Counter(reject.reason for reject in rejects).items())),
            stats=output.stats,
            timings={**output.timings, "write": time.perf_counter() - start},
            peak_rss=peak_memory(),
            finished=time.time(),
        )
        return publish_unit(files, commit, shards, rejects)


def shard_facts(facts: Mapping[str, str], stage: str, path: str) -> dict[str, str]:
    """The metadata of a shard: ``facts`` of the run, and what its path says."""
    split, lang, _ = parse_shard_path(path)
    return {**facts, "stage": stage, "split": split, "lang": lang}


def row_reject(table: pa.Table, at: int, reason: str, error: str, row: int | None = None) -> RejectRow:
    """A row of a shard as a reject, with the beginning of its text if it has one; ``row``: its number in the unit."""
    ids = {name: table[name][at].as_py() for name in ("doc_id", "sid")}
    text = (table["text"][at].as_py() or "")[:200] if "text" in table.column_names else ""
    return RejectRow(at if row is None else row, reason, error[:500], **ids, text=text)


def shaped(values: Any, shape: tuple[int, ...], what: str) -> Any:
    """An answer of a backend, if it has the shape asked for: numpy would spread a smaller one over all rows.

    Raises:
        UsageError: it has another shape.
    """
    if np.shape(values) != shape:
        raise UsageError(
            f"the backend gave {what} of shape {list(np.shape(values))}, expected {list(shape)}: one for each row it "
            "was given. Correct the backend."
        )
    return values


def each_or_error(
    function: Callable[[list[int]], T], rows: list[int]
) -> tuple[list[tuple[list[int], T]], list[tuple[int, Exception]]]:
    """Apply ``function`` to ``rows``, halving them after an exception until only the rows that cause one are left.

    Returns the parts that succeeded with their rows, and each failing row with its exception. A row is only blamed
    if one that succeeded still does: otherwise it is the machine that fails (a GPU lost half-way, say), and the
    exception is raised for the unit to be done again.
    """
    done, errors = _halve(function, rows)
    if errors and done:
        function(done[0][0][:1])
    return done, errors


def refuse_to_blame_all(who: str, what: str, num: int, errors: Sequence[tuple[int, Exception]]) -> None:
    """If all of many rows fail, it is the backend: the unit fails and can be done again, no row is rejected.

    ``who`` and ``what`` are for the message: "encoder", "sentences".

    Raises:
        LcmDataError: ``errors`` of ``each_or_error`` are of all ``num`` rows, and these are not few.
    """
    if len(errors) == num >= _TOO_MANY_TO_BLAME:
        cause = errors[0][1]
        raise LcmDataError(
            f"the {who} fails on all {num} {what} of the unit: {type(cause).__name__}: {cause}"
        ) from cause


def _halve(
    function: Callable[[list[int]], T], rows: list[int]
) -> tuple[list[tuple[list[int], T]], list[tuple[int, Exception]]]:
    if not rows:
        return [], []
    try:
        return [(rows, function(rows))], []
    except MemoryError:
        raise
    except Exception as error:
        if len(rows) == 1:
            return [], [(rows[0], error)]
    middle = len(rows) // 2
    first, first_errors = _halve(function, rows[:middle])
    second, second_errors = _halve(function, rows[middle:])
    return [*first, *second], [*first_errors, *second_errors]

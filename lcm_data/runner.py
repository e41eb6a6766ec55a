"""Runs the open units of a plan on a pool: what goes where, what follows an error or a death, when to stop.

Workers commit units themselves (``lcm_data.store.commits``), so the driver may be killed at any moment. A death is
blamed on the unit that was alone on its worker; ``lcm_data.suspects`` then narrows it down to the row that kills.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from lcm_data.errors import (
    LcmDataError,
    RejectRateError,
    StorageError,
    UnitsFailedError,
    UsageError,
)
from lcm_data.pool import POOLS, Event, Pool, PoolOptions
from lcm_data.signals import StopSignal
from lcm_data.store.commits import Commit
from lcm_data.store.plan import Plan
from lcm_data.suspects import Suspect
from lcm_data.tables import resolve
from lcm_data.workers.base import STEPS, Outcome, StageWorker, Task, read_marker

log = logging.getLogger("lcm_data.runner")

_DEPTH = len(STEPS)
_STORAGE_TRIES, _ERROR_TRIES, _STARTS = 4, 2, 3
_REJECT_RATE_ROWS = 1000


@dataclass(frozen=True)
class RunOptions:
    """How to run a plan; nothing here changes what is produced.

    ``executor`` None picks ``local`` for one worker and ``ray`` for more. ``unit_timeout`` (seconds, 0 for none) ends
    a worker that holds units but finishes none for longer. ``max_reject_rate`` aborts once that share is rejected.
    """

    executor: str | None = None
    workers: int = 1
    threads: int = 0
    gpus_per_worker: float = 0.0
    ray_address: str | None = None
    unit_timeout: float = 0.0
    max_reject_rate: float = 0.1

    def make_pool(self, worker: StageWorker) -> Pool:
        """Build the pool for ``worker``; no process is started yet."""
        if self.workers < 1:
            raise UsageError(f"--workers must be 1 or more, got {self.workers}.")
        name = self.executor or ("local" if self.workers == 1 and not self.ray_address else "ray")
        options = PoolOptions(self.workers, self.threads, self.gpus_per_worker, self.ray_address)
        pool: Pool = resolve(POOLS, name, "executor")(worker, options)
        return pool


@dataclass
class RunState:
    """Where a run stands; handed to the progress display after every step.

    ``rows`` are the input rows of all committed units, ``rejects`` the rejected ones by reason.
    """

    total_units: int
    total_rows: int
    commits: dict[int, Commit]
    began: float = field(default_factory=time.monotonic)
    rows_before: int = 0
    workers: int = 0
    failed: dict[int, str] = field(default_factory=dict)
    oldest_unit_seconds: float = 0.0
    rows: int = 0
    rejects: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        for commit in self.commits.values():
            self._count(commit)

    def add(self, commit: Commit) -> None:
        """Take in the commit of a unit; sums are kept, for there may be a million units."""
        if commit.unit not in self.commits:
            self._count(commit)
        self.commits[commit.unit] = commit

    def _count(self, commit: Commit) -> None:
        self.rows += commit.rows_in
        self.rejects.update(commit.rejects)


class Runner:
    """One run over the units of ``plan`` that have no commit yet."""

    def __init__(self, plan: Plan, worker: StageWorker, commits: dict[int, Commit], options: RunOptions) -> None:
        self._worker, self._options = worker, options
        self._queue = deque(Task(unit) for unit in plan.units if unit.id not in commits)
        self._alone: deque[Task] = deque()
        self._later: list[tuple[float, Task]] = []
        self._suspects: dict[int, Suspect] = {}
        self._tries: Counter[int] = Counter()
        self._starts: Counter[int] = Counter()
        self._storage_failures = 0
        self._ready: set[int] = set()
        self._flight: dict[int, dict[int, tuple[Task, float]]] = {}
        self._isolated: set[int] = set()
        self._stopping = False
        self._begin: Callable[[], None] | None = None
        self.state = RunState(len(plan.units), plan.rows, commits)
        self.state.rows_before = self.state.rows
        self._pool: Pool

    def run(self, show: Callable[[RunState], None], begin: Callable[[], None] = lambda: None) -> RunState:
        """Do all open units. ``begin`` is called once, when the first worker is ready and before any unit starts.

        Raises:
            InterruptedRunError: a signal asked to stop; running units were committed first.
            StorageError, RejectRateError, UnitsFailedError: see ``lcm_data.errors``.
        """
        self._check_reject_rate()
        if not self._queue:
            begin()
            return self.state
        self._begin = begin
        self._pool = self._options.make_pool(self._worker)
        slots = range(min(self._options.workers, len(self._queue)))
        with StopSignal() as stop:
            try:
                for slot in slots:
                    self._start(slot)
                while self._busy():
                    self._stopping = stop.number is not None
                    if stop.count > 1:
                        self._kill_all()
                        break
                    self._assign()
                    for event in self._pool.poll(0.2):
                        self._handle(event)
                    self._watch()
                    show(self.state)
            finally:
                self._pool.close()
            stop.raise_if_set(len(self.state.commits), self.state.total_units)
        self._report_failures()
        return self.state

    def _busy(self) -> bool:
        if any(self._flight.values()):
            return True
        return not self._stopping and bool(self._queue or self._alone or self._later)

    def _kill_all(self) -> None:
        for slot in self._flight:
            self._pool.kill(slot)

    def _start(self, slot: int, last_death: str = "") -> None:
        self._starts[slot] += 1
        if self._starts[slot] > _STARTS:
            raise LcmDataError(
                f"workers die before they are ready ({_STARTS} times in a row, {last_death}). Most often memory is too "
                "small for the model: use fewer --workers or a smaller --dtype."
            )
        self._flight[slot] = {}
        self._pool.start(slot)

    def _assign(self) -> None:
        if self._stopping:
            return
        now = time.monotonic()
        for _, task in (due for due in self._later if due[0] <= now):
            (self._alone if task.rows else self._queue).append(task)
        self._later = [(when, task) for when, task in self._later if when > now]
        quarantine = min(self._ready, default=-1) if self._alone else -1
        for slot in sorted(self._ready - self._isolated):
            if slot == quarantine:
                if not self._flight[slot]:
                    self._submit(slot, self._alone.popleft(), isolated=True)
                continue
            while self._queue and len(self._flight[slot]) < _DEPTH:
                self._submit(slot, self._queue.popleft())

    def _submit(self, slot: int, task: Task, isolated: bool = False) -> None:
        self._flight[slot][task.unit.id] = (task, time.monotonic())
        if isolated:
            self._isolated.add(slot)
        self._pool.submit(slot, task)

    def _handle(self, event: Event) -> None:
        slot = event.slot
        if event.kind == "ready":
            if self._begin is not None:
                self._begin()
                self._begin = None
            self._ready.add(slot)
            self._starts[slot] = 0
        elif event.kind == "broken":
            raise event.cause or LcmDataError(event.error)
        elif event.kind == "died":
            self._bury(slot, event.error)
        elif event.outcome is not None:
            task, _ = self._flight[slot].pop(event.outcome.unit)
            # The units behind it start to count now: waiting in line is not hanging.
            self._flight[slot] = {unit: (other, time.monotonic()) for unit, (other, _) in self._flight[slot].items()}
            self._isolated.discard(slot)
            self._settle(task, event.outcome)
        self.state.workers = len(self._ready)

    def _bury(self, slot: int, error: str) -> None:
        log.warning("%s; its units are done again", error)
        self._ready.discard(slot)
        tasks = [task for task, _ in self._flight.pop(slot, {}).values()]
        if slot in self._isolated:
            self._isolated.discard(slot)
            for task in tasks:
                self._blame(task, error)
        else:
            self._alone.extend(tasks)
        if not self._stopping and (self._queue or self._alone or self._later):
            self._start(slot, error)

    def _blame(self, task: Task, error: str) -> None:
        unit = task.unit
        suspect = self._suspects.setdefault(unit.id, Suspect(unit))
        following = suspect.after_death(task, read_marker(self._worker.files, unit.id))
        if following is None:
            self._fail(unit.id, f"{error}, {suspect.deaths} times, and no single row was found to cause it")
        else:
            self._alone.append(following)

    def _settle(self, task: Task, outcome: Outcome) -> None:
        unit = task.unit
        if outcome.kind == "done" and outcome.commit is not None:
            self._storage_failures = 0
            self.state.add(outcome.commit)
            self._check_reject_rate()
        elif outcome.kind == "probed":
            self._alone.append(Task(unit, skip=task.skip))
        elif outcome.kind == "storage":
            self._retry_storage(task, outcome.error)
        else:
            self._tries[unit.id] += 1
            if outcome.kind == "input" or self._tries[unit.id] >= _ERROR_TRIES:
                self._fail(unit.id, outcome.error)
            else:
                log.warning("unit %06d is tried again: %s", unit.id, outcome.error)
                self._alone.append(Task(unit, skip=task.skip))

    def _retry_storage(self, task: Task, error: str) -> None:
        unit = task.unit
        self._tries[unit.id] += 1
        self._storage_failures += 1
        if self._tries[unit.id] >= _STORAGE_TRIES or self._storage_failures > _STORAGE_TRIES:
            raise StorageError(error)
        log.warning("unit %06d is tried again: %s", unit.id, error)
        self._later.append((time.monotonic() + 0.25 * 2 ** self._tries[unit.id], task))

    def _fail(self, unit: int, error: str) -> None:
        log.error("unit %06d failed: %s", unit, error)
        self.state.failed[unit] = error

    def _watch(self) -> None:
        """Notice units that take too long; end their workers if a limit is set."""
        now = time.monotonic()
        self.state.oldest_unit_seconds = 0.0
        for slot, tasks in self._flight.items():
            age = max((now - begun for _, begun in tasks.values()), default=0.0)
            self.state.oldest_unit_seconds = max(self.state.oldest_unit_seconds, age)
            if self._options.unit_timeout and age > self._options.unit_timeout and slot in self._ready:
                log.warning("worker %d finished no unit for %.0f s, over --unit-timeout: it is ended", slot, age)
                self._pool.kill(slot)

    def _check_reject_rate(self) -> None:
        rows, rejects = self.state.rows, self.state.rejects
        rejected = sum(rejects.values())
        if rows >= _REJECT_RATE_ROWS and rejected > self._options.max_reject_rate * rows:
            reasons = ", ".join(f"{reason} {count}" for reason, count in rejects.most_common(5))
            raise RejectRateError(
                f"{rejected} of {rows} rows were rejected ({rejected / rows:.1%}; {reasons}), more than the allowed "
                f"{self._options.max_reject_rate:.1%}. See _lcm/rejects/, fix the input or raise --max-reject-rate."
            )

    def _report_failures(self) -> None:
        failed = self.state.failed
        if failed:
            shown = "\n".join(f"  unit {unit:06d}: {error.strip()}" for unit, error in [*failed.items()][:5])
            raise UnitsFailedError(
                f"{len(failed)} of {self.state.total_units} units failed, the others are committed:\n{shown}\n"
                "Run the same command again to try them once more."
            )


def busy_share(commits: Iterable[Commit], workers: int, seconds: float) -> float:
    """Share of the workers' time spent in the ``work`` step."""
    work = sum(commit.timings.get("work", 0.0) for commit in commits)
    return work / (workers * seconds) if seconds else 0.0

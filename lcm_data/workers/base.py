"""The contract of a stage worker and the harness that runs its steps overlapped.

A worker is a small picklable description of the work; it loads weights in ``setup`` on the process that uses them and
handles one unit in three steps: ``read`` and ``write`` touch storage, ``work`` computes. While one unit is worked on,
the next is read and the last one written. Which unit runs where, and what follows a death, is the business of
``lcm_data.runner``.
"""

from __future__ import annotations

import contextlib
import json
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, TypeVar

from lcm_data.errors import InputError, LcmDataError, StorageError
from lcm_data.store.commits import Commit
from lcm_data.store.files import Files
from lcm_data.store.plan import Unit

T = TypeVar("T")
STEPS = ("read", "work", "write")


@dataclass(frozen=True)
class Task:
    """A unit to do. ``skip`` names rows known to kill a worker: they become rejects without being touched.

    With ``rows`` (start, stop) the task is only a probe of these rows: they are worked on and nothing is written.
    ``step`` is the number of rows between two marks of a probe.
    """

    unit: Unit
    skip: tuple[int, ...] = ()
    rows: tuple[int, int] | None = None
    step: int = 0


@dataclass(frozen=True)
class Outcome:
    """How a task ended on a worker that is still alive."""

    unit: int
    kind: Literal["done", "probed", "input", "storage", "error"]
    commit: Commit | None = None
    error: str = ""


class StageWorker(Protocol):
    """The work of a stage. Implementations are dataclasses of plain settings; what is heavy is made in ``setup``."""

    @property
    def files(self) -> Files:
        """The stage written to."""
        ...

    def setup(self) -> None:
        """Load what the work needs; called once in the worker process."""
        ...

    def read(self, task: Task) -> Any:
        """Fetch the rows of a task from storage."""
        ...

    def work(self, loaded: Any) -> Any:
        """Compute; no input or output. Rows that fail become rejects, never exceptions."""
        ...

    def write(self, worked: Any) -> Commit:
        """Build the shards, publish them and commit the unit."""
        ...


def marker_path(unit: int) -> str:
    """Where a probe notes which rows it is about to touch."""
    return f"_lcm/tmp/probe-{unit:06d}.json"


def read_marker(files: Files, unit: int) -> int | None:
    """First row of the chunk a probe was in when its worker died."""
    try:
        return int(json.loads(files.read(marker_path(unit)))["row"])
    except FileNotFoundError:
        return None


class Harness:
    """Runs tasks on one worker: each step has its own thread, so up to three units are under way."""

    def __init__(self, worker: StageWorker) -> None:
        self.worker = worker
        self._threads = {step: ThreadPoolExecutor(1, thread_name_prefix=step) for step in STEPS}

    def setup(self) -> None:
        """Prepare the worker on the thread that will do the work (some libraries bind state to a thread)."""
        self._threads["work"].submit(self.worker.setup).result()

    def run(self, task: Task) -> Outcome:
        """Do one task; called from several threads at once to overlap units. Never raises."""
        unit = task.unit.id
        try:
            if task.rows is not None:
                self._probe(task)
                return Outcome(unit, "probed")
            timings: dict[str, float] = {}
            loaded = self._step("read", self.worker.read, task, timings)
            worked = self._step("work", self.worker.work, loaded, timings)
            del loaded
            worked.timings.update(timings)
            return Outcome(unit, "done", self._step("write", self.worker.write, worked, timings))
        except StorageError as error:
            return Outcome(unit, "storage", error=str(error))
        except InputError as error:
            return Outcome(unit, "input", error=str(error))
        except LcmDataError as error:
            return Outcome(unit, "error", error=str(error))
        except Exception:  # a defect of ours: the unit fails with its traceback, the run goes on
            return Outcome(unit, "error", error=traceback.format_exc(limit=-6))

    def _step(self, name: str, function: Callable[[Any], T], argument: Any, timings: dict[str, float]) -> T:
        def timed() -> T:
            start = time.perf_counter()
            result = function(argument)
            timings[name] = time.perf_counter() - start
            return result

        return self._threads[name].submit(timed).result()

    def _probe(self, task: Task) -> None:
        assert task.rows is not None
        assert task.step > 0
        start, stop = task.rows
        for row in range(start, stop, task.step):
            self.worker.files.write(marker_path(task.unit.id), json.dumps({"row": row}).encode())
            chunk = replace(task, rows=(row, min(row + task.step, stop)))
            loaded = self._threads["read"].submit(self.worker.read, chunk).result()
            self._threads["work"].submit(self.worker.work, loaded).result()
        with contextlib.suppress(StorageError):
            self.worker.files.remove(marker_path(task.unit.id))

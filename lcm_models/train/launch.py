"""Where a run's processes come from: this one, torchrun's, new ones on this machine, or Ray Train's workers."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from lcm_data.errors import InterruptedRunError, LcmDataError, UsageError
from lcm_data.pool import num_cores
from lcm_data.signals import StopSignal
from lcm_data.store.files import LocalFiles
from lcm_data.store.lock import stage_lock
from lcm_data.tables import resolve
from lcm_models.train.distributed import Place
from lcm_models.train.errors import ProcessLostError
from lcm_models.train.run import Run, TrainReport

LAUNCHERS = {
    "local": "lcm_models.train.launch:launch_local",
    "ray": "lcm_models.train.ray_launch:launch_ray",
}
_GRACE_SECONDS = 5.0


@dataclass(frozen=True)
class Launch:
    """How many processes and what each may use; ``threads`` 0 shares the machine's cores out.

    CPUs, GPUs and restarts are for Ray; local processes take a GPU each where there are any.
    """

    executor: str = "local"
    workers: int = 1
    threads: int = 0
    gpus_per_worker: float = 0.0
    cpus_per_worker: float = 1.0
    ray_address: str | None = None
    max_restarts: int = 0


def start(run: Run, launch: Launch) -> TrainReport:
    """Train where ``launch`` says, or in this process as one of torchrun's if it was started by that.

    Raises:
        UsageError: torchrun and another launcher at once.
        LcmDataError: whatever ended the run; see ``process.train_here``.
    """
    from lcm_models.train.process import train_here

    place = Place.from_environment()
    if place.size > 1 and (launch.workers > 1 or launch.executor != "local"):
        raise UsageError("torchrun has started this process: leave --workers and --executor out.")
    if launch.executor == "local" and launch.workers == 1:
        return train_here(run, place)
    if run.overwrite:  # here and now, not each time a worker is started again
        with stage_lock(LocalFiles(run.folder)):
            run.clear()
        run = replace(run, overwrite=False)
    report: TrainReport = resolve(LAUNCHERS, launch.executor, "executor")(run, launch)
    return report


def launch_local(run: Run, launch: Launch) -> TrainReport:
    """Train in ``launch.workers`` new processes of this machine.

    Raises:
        ProcessLostError: one ended without a word; the others were stopped.
        LcmDataError: what the first of them raised.
    """
    with tempfile.TemporaryDirectory() as folder, StopSignal() as stop:
        group = _Group(run, launch, f"file://{folder}/rendezvous")
        try:
            return group.wait(stop)
        finally:
            group.end()


class _Group:
    """The processes of a run, watched by the one that started them."""

    def __init__(self, run: Run, launch: Launch, rendezvous: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._run = run
        self._processes: list[SpawnProcess] = []
        self._pipes: list[Connection] = []
        self._results: dict[int, TrainReport] = {}
        for rank in range(launch.workers):
            ours, theirs = context.Pipe(duplex=False)
            place = Place(rank, launch.workers, rank, rendezvous)
            process = context.Process(target=_child, args=(run, place, theirs), name=f"train-{rank}")
            with _environment(_variables(launch)):
                process.start()
            theirs.close()
            self._processes.append(process)
            self._pipes.append(ours)

    def wait(self, stop: StopSignal) -> TrainReport:
        """The report of process 0 once all are done, passing signals on."""
        passed_on = 0
        lost: ProcessLostError | None = None
        deadline = float("inf")
        open_ranks = set(range(len(self._processes)))
        while open_ranks and time.monotonic() < deadline:
            if stop.count > passed_on and stop.number is not None:
                passed_on += 1
                for process in self._processes:
                    _signal(process, stop.number)
            for ready in wait([self._pipes[rank] for rank in open_ranks], timeout=0.2):
                rank = self._pipes.index(ready)  # type: ignore[arg-type]
                open_ranks.discard(rank)
                error = self._receive(rank)
                if error is not None and not isinstance(error, ProcessLostError):
                    raise error
                # What only sees that another is gone knows less than that other: give it a moment to speak.
                lost = lost or error
                deadline = min(deadline, time.monotonic() + _GRACE_SECONDS) if lost else deadline
        if lost is not None and stop.number is not None:  # it came before they could listen to it
            number = stop.number if stop.number == signal.SIGINT else signal.SIGTERM
            raise InterruptedRunError(f"stopped before training began. {self._run.how_to_go_on()}", number)
        if lost is not None:
            raise self._who_died() or lost
        return self._results[0]

    def _receive(self, rank: int) -> LcmDataError | None:
        """Take the result of a process; what it raised, or that it said nothing."""
        try:
            kind, value = self._pipes[rank].recv()
        except (EOFError, OSError):
            self._processes[rank].join()
            unknown = f"process {rank} of this run ended without a word. {self._run.how_to_go_on()}"
            return self._who_died() or ProcessLostError(unknown)
        if kind == "done":
            self._results[rank] = value
            return None
        assert isinstance(value, BaseException)
        if isinstance(value, LcmDataError):
            return value
        raise value

    def _who_died(self) -> ProcessLostError | None:
        for rank, process in enumerate(self._processes):
            code = process.exitcode
            if code is not None and code != 0:
                how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
                return ProcessLostError(f"process {rank} of this run {how}. {self._run.how_to_go_on()}")
        return None

    def end(self) -> None:
        """Leave none behind; those that are ending may do so by themselves."""
        deadline = time.monotonic() + _GRACE_SECONDS
        for process in self._processes:
            process.join(timeout=max(0.0, deadline - time.monotonic()))
        for process in self._processes:
            if process.is_alive():
                process.kill()
            process.join()
        for pipe in self._pipes:
            pipe.close()


def _variables(launch: Launch) -> dict[str, str]:
    threads = launch.threads or max(1, num_cores() // launch.workers)
    # Read when a library is loaded, so set before the process starts.
    return {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Meanwhile this process has these variables, and what it starts inherits them."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _signal(process: SpawnProcess, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        if process.pid is not None and process.is_alive():
            os.kill(process.pid, number)


def _child(run: Run, place: Place, pipe: Connection) -> None:
    """Runs in the new process."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until training listens to it; no traceback
    os.setsid()  # a Ctrl-C in the terminal reaches the starter alone, which passes it on once
    threading.Thread(target=_die_with_parent, daemon=True).start()
    from lcm_models.train.process import train_here

    message: tuple[str, Any]
    try:
        message = "done", train_here(run, place)
    except LcmDataError as error:  # the starter says it, once
        message = "failed", error
    except Exception as error:
        import traceback

        traceback.print_exc()
        message = "failed", error
    try:
        pipe.send(message)
    except (TypeError, AttributeError, ValueError):  # an error that cannot travel
        pipe.send(("failed", RuntimeError(f"process {place.rank}: {message[1]!r}")))


def _die_with_parent() -> None:
    """A starter that was killed must not leave processes that hold the run's folder."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def folder_of(path: str) -> str:
    """A run's folder as an absolute path, for processes that start elsewhere."""
    if "://" in path:
        raise UsageError(f"a run is written to a disk that all processes see, got {path!r}: give a folder.")
    return str(Path(path).expanduser().absolute())

"""Worker processes behind one interface: ``LocalPool`` on this machine, ``RayPool`` on a Ray cluster.

A pool starts workers, carries tasks to them and reports what happened. It decides nothing: order, retries and what a
death means belong to ``lcm_data.runner``. This is the only module that imports ray.
"""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Literal, Protocol

from lcm_data.errors import LcmDataError, MissingExtraError, UsageError
from lcm_data.workers.base import Harness, Outcome, StageWorker, Task

POOLS = {"local": "lcm_data.pool:LocalPool", "ray": "lcm_data.pool:RayPool"}

_START_HINT_SECONDS, _CONNECT_SECONDS = 60.0, 10.0

_CHILD = "import sys; sys.path[:] = sys.argv[2:]; from lcm_data.workers.process import main; main(int(sys.argv[1]))"
"""Not ``python -m``, which puts the working directory first: a ``queue.py`` there would break the workers alone."""


@dataclass(frozen=True)
class PoolOptions:
    """How many workers and what each may use. ``threads`` 0 shares the machine's cores between the workers."""

    workers: int = 1
    threads: int = 0
    gpus_per_worker: float = 0.0
    ray_address: str | None = None

    @property
    def threads_per_worker(self) -> int:
        return self.threads or max(1, num_cores() // self.workers)


@dataclass(frozen=True)
class Event:
    """Something that happened to the worker in ``slot``: it became ready, finished a task, died or cannot start."""

    slot: int
    kind: Literal["ready", "outcome", "died", "broken"]
    outcome: Outcome | None = None
    error: str = ""
    cause: LcmDataError | None = None


class Pool(Protocol):
    """Slots 0..workers-1, each holding one worker process at a time."""

    def start(self, slot: int) -> None:
        """Start (or after a death, restart) the worker of a slot; a ``ready`` event follows."""
        ...

    def submit(self, slot: int, task: Task) -> None: ...

    def poll(self, timeout: float) -> list[Event]:
        """Events since the last call, waiting up to ``timeout`` seconds for the first."""
        ...

    def kill(self, slot: int) -> None:
        """End a worker at once; a ``died`` event follows."""
        ...

    def close(self) -> None:
        """End all workers."""
        ...


def num_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def thread_environment(threads: int) -> dict[str, str]:
    """Variables that keep the numeric libraries of one worker to ``threads`` threads."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return {
        **dict.fromkeys(names, str(threads)),
        "TOKENIZERS_PARALLELISM": "false",
        "RAYON_NUM_THREADS": str(threads),
        # Waiting threads sleep: spinning, they take the cores from the tokenizer, the writer and other workers.
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
    }


def visible_gpus() -> list[str]:
    """The NVIDIA GPUs of this machine that this process may use, without loading a GPU library."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name for name in chosen.split(",") if name.strip()]
    folder = Path("/proc/driver/nvidia/gpus")
    return [str(number) for number in range(len(list(folder.iterdir())))] if folder.is_dir() else []


def gpus_of_slot(slot: int, share: float, gpus: Sequence[str]) -> str:
    """The GPUs of a local worker, as ``CUDA_VISIBLE_DEVICES`` wants them; fractions put several workers on one.

    Raises:
        UsageError: there are too few.
    """
    first = int(slot * share + 1e-9)
    mine = gpus[first : first + max(1, round(share))]
    if len(mine) < max(1, round(share)):
        raise UsageError(
            f"worker {slot} has no GPU left: {share:g} GPUs a worker, {len(gpus)} visible on this machine. "
            "Use fewer --workers or a smaller --gpus-per-worker."
        )
    return ",".join(mine)


@dataclass
class _Process:
    process: subprocess.Popen[bytes]
    connection: Connection


class LocalPool:
    """One child process per slot, started afresh (never forked) and fed through a pipe."""

    def __init__(self, worker: StageWorker, options: PoolOptions) -> None:
        self._worker, self._options = worker, options
        self._processes: dict[int, _Process] = {}
        self._lost: deque[int] = deque()

    def start(self, slot: int) -> None:
        ours, theirs = Pipe()
        environment = {**os.environ, **thread_environment(self._options.threads_per_worker)}
        if self._options.gpus_per_worker:
            environment["CUDA_VISIBLE_DEVICES"] = gpus_of_slot(slot, self._options.gpus_per_worker, visible_gpus())
        process = subprocess.Popen(
            [sys.executable, "-c", _CHILD, str(theirs.fileno()), *sys.path],
            pass_fds=[theirs.fileno()],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=2,  # what libraries print must not mix with the result on stdout
            start_new_session=True,  # a Ctrl-C in the terminal reaches the driver alone
        )
        theirs.close()
        self._processes[slot] = _Process(process, ours)
        self._send(slot, self._worker)

    def submit(self, slot: int, task: Task) -> None:
        self._send(slot, task)

    def _send(self, slot: int, message: Any) -> None:
        try:
            self._processes[slot].connection.send(message)
        except OSError:
            self._lost.append(slot)

    def poll(self, timeout: float) -> list[Event]:
        slots = {worker.connection: slot for slot, worker in self._processes.items()}
        if not slots:
            time.sleep(timeout)
            return []
        events = []
        for connection in wait(list(slots), 0 if self._lost else timeout):
            assert isinstance(connection, Connection)
            events.append(self._receive(slots[connection], connection))
        while self._lost:
            slot = self._lost.popleft()
            if slot in self._processes:
                events.append(self._bury(slot))
        return events

    def _receive(self, slot: int, connection: Connection) -> Event:
        try:
            kind, value = connection.recv()
        except (EOFError, OSError, pickle.UnpicklingError):
            return self._bury(slot)
        if kind == "broken":
            self._bury(slot)
            return Event(slot, "broken", error=str(value), cause=value)
        return Event(slot, "outcome", outcome=value) if kind == "outcome" else Event(slot, "ready")

    def _bury(self, slot: int) -> Event:
        worker = self._processes.pop(slot)
        worker.connection.close()
        code = worker.process.wait()
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return Event(slot, "died", error=f"worker process {worker.process.pid} ended with {how}")

    def kill(self, slot: int) -> None:
        if slot in self._processes:
            self._processes[slot].process.kill()

    def close(self) -> None:
        for slot in self._processes:
            self._send(slot, None)
        deadline = time.monotonic() + 5
        for worker in self._processes.values():
            try:
                worker.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
            worker.connection.close()
        self._processes.clear()


@dataclass
class _Actor:
    handle: Any
    setup: Any
    tasks: dict[Any, Task] = field(default_factory=dict)


class RayPool:
    """One Ray actor per slot, placed by Ray on any node that has the cores (and GPUs) for it.

    Only tasks, outcomes and the small worker description travel through Ray; rows never enter its object store.
    """

    def __init__(self, worker: StageWorker, options: PoolOptions) -> None:
        ray = load_ray()
        self._ray, self._options = ray, options
        self._started = connect_ray(options)
        environment = {"env_vars": thread_environment(options.threads_per_worker)}
        self._actor_class = ray.remote(
            num_cpus=1 if options.threads == 0 else options.threads,
            num_gpus=options.gpus_per_worker,
            max_concurrency=4,
            max_restarts=0,
            max_task_retries=0,
            runtime_env=environment,
        )(Harness)
        self._worker = ray.put(worker)
        self._actors: dict[int, _Actor] = {}
        self._begun = time.monotonic()
        self._any_ready = False

    def start(self, slot: int) -> None:
        handle = self._actor_class.remote(self._worker)
        self._actors[slot] = _Actor(handle, handle.setup.remote())

    def submit(self, slot: int, task: Task) -> None:
        actor = self._actors[slot]
        actor.tasks[actor.handle.run.remote(task)] = task

    def poll(self, timeout: float) -> list[Event]:
        pending = {ref: slot for slot, actor in self._actors.items() for ref in actor.tasks}
        pending |= {actor.setup: slot for slot, actor in self._actors.items() if actor.setup is not None}
        if not pending:
            time.sleep(timeout)
            return []
        self._check_capacity()
        ready, _ = self._ray.wait(list(pending), num_returns=1, timeout=timeout)
        if ready:
            ready, _ = self._ray.wait(list(pending), num_returns=len(pending), timeout=0)
        events: list[Event] = []
        for ref in ready:
            slot = pending[ref]
            if slot in self._actors:
                events += self._collect(slot, ref)
        return events

    def _collect(self, slot: int, ref: Any) -> list[Event]:
        actor = self._actors[slot]
        try:
            value = self._ray.get(ref)
        except self._ray.exceptions.RayTaskError as error:
            del self._actors[slot]
            cause = error.cause if isinstance(error.cause, LcmDataError) else None
            return [Event(slot, "broken", error=str(error), cause=cause)]
        except self._ray.exceptions.RayError as error:  # an actor, its process or its whole node is gone
            del self._actors[slot]
            self._ray.kill(actor.handle)  # one that is only out of reach must not come back
            return [Event(slot, "died", error=f"worker actor died: {str(error).strip().splitlines()[0]}")]
        if ref == actor.setup:
            actor.setup, self._any_ready = None, True
            return [Event(slot, "ready")]
        del actor.tasks[ref]
        return [Event(slot, "outcome", outcome=value)]

    def _check_capacity(self) -> None:
        """Say why nothing starts instead of waiting in silence for resources the cluster does not have."""
        if self._any_ready or time.monotonic() - self._begun < _START_HINT_SECONDS:
            return
        needs = {"CPU": 1.0 if self._options.threads == 0 else float(self._options.threads)}
        if self._options.gpus_per_worker:
            needs["GPU"] = self._options.gpus_per_worker
        has = self._ray.cluster_resources()
        short = [f"{name} {need:g} (cluster has {has.get(name, 0):g})" for name, need in needs.items()]
        if any(has.get(name, 0) < need for name, need in needs.items()):
            raise UsageError(f"the Ray cluster cannot start one worker: it needs {', '.join(short)}.")
        self._begun = time.monotonic()

    def kill(self, slot: int) -> None:
        if slot in self._actors:
            self._ray.kill(self._actors[slot].handle)

    def close(self) -> None:
        for actor in self._actors.values():
            self._ray.kill(actor.handle)
        self._actors.clear()
        if self._started:
            self._ray.shutdown()


def load_ray() -> Any:
    """Import ray, the only place that does.

    Raises:
        MissingExtraError: it is not installed.
    """
    token = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    if "ray" not in sys.modules and ("RAY_AUTH_TOKEN" in os.environ or token.is_file()):
        # 'ray start' asks for the token once a machine has one, but ray.init("host:port") only sends it in this mode,
        # which is read when ray is imported. Later it would only reach the processes that ray starts, which would then
        # ask for a token that this process does not send.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError("--executor ray", "ray", "ray") from error
    return ray


def connect_ray(options: PoolOptions) -> bool:
    """Join the cluster at ``options.ray_address``, or start a local one; True if this call started or joined it.

    Raises:
        UsageError: no cluster answers at the address.
    """
    ray = load_ray()
    if ray.is_initialized():
        return False
    address = options.ray_address or os.environ.get("RAY_ADDRESS")
    if address is not None:
        _check_answers(address)
    quiet: Mapping[str, Any] = {"log_to_driver": False, "logging_level": "error", "configure_logging": True}
    try:
        if address in (None, "local"):
            cores = max(options.workers * (options.threads or 1), num_cores())
            ray.init(address="local", num_cpus=cores, include_dashboard=False, **quiet)
        else:
            ray.init(address=address, **quiet)
    except ConnectionError as error:
        raise UsageError(_no_cluster(address, error)) from error
    return True


def _check_answers(address: str) -> None:
    """Refuse an address where nothing listens: Ray itself would try for many minutes, in silence."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
    except OSError as error:
        raise UsageError(_no_cluster(address, error)) from error


def _no_cluster(address: str | None, error: Exception) -> str:
    return (
        f"no Ray cluster answers at {address!r}: {error}. Start one with 'ray start --head', or leave --ray-address "
        "out to use this machine alone."
    )

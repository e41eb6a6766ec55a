"""One run at a time per stage: a lock file that a dead run never leaves closed.

On a local disk the operating system's file lock decides, so it opens the moment its holder dies. On an object store
an object with a heartbeat decides; it counts as abandoned after ``STALE_SECONDS`` or when its process is known dead.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from lcm_data.errors import CorpusBusyError, StorageError
from lcm_data.store.files import Files, LocalFiles, storage_errors

LOCK_PATH = "_lcm/lock.json"
HEARTBEAT_SECONDS, STALE_SECONDS = 10.0, 60.0


@contextlib.contextmanager
def stage_lock(files: Files) -> Iterator[None]:
    """Hold the lock of the stage at ``files``.

    Raises:
        CorpusBusyError: another run holds it; the message says which.
    """
    with _local_lock(files) if isinstance(files, LocalFiles) else _remote_lock(files):
        yield


def is_locked(files: Files) -> bool:
    """Whether a living run holds the lock. Changes nothing."""
    try:
        content = files.read(LOCK_PATH)
    except FileNotFoundError:
        return False
    if not isinstance(files, LocalFiles):
        return not _abandoned(content)
    import fcntl

    with open(Path(files.root, LOCK_PATH), "rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _owner() -> dict[str, str | int | float]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "beat": time.time()}


def _busy(files: Files, content: bytes) -> CorpusBusyError:
    try:
        holder = json.loads(content)
        who = f"process {holder['pid']} on {holder['host']}"
    except (ValueError, KeyError):
        who = "another process"
    return CorpusBusyError(
        f"{files.root} is being written by {who}. Wait until it ends or stop it; a second run would only be in its way."
    )


@contextlib.contextmanager
def _local_lock(files: LocalFiles) -> Iterator[None]:
    import fcntl

    path = Path(files.root, LOCK_PATH)
    with contextlib.ExitStack() as stack:
        with storage_errors("write", str(path)):
            path.parent.mkdir(parents=True, exist_ok=True)
            # Opened without truncation: a refused run must not wipe the holder's name.
            stream = stack.enter_context(os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b"))
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise _busy(files, stream.read()) from error
            stream.truncate(0)
            stream.write(json.dumps(_owner()).encode())
            stream.flush()
        yield


@contextlib.contextmanager
def _remote_lock(files: Files) -> Iterator[None]:
    _acquire_remote(files)
    stop = threading.Event()
    beat = threading.Thread(target=_heartbeat, args=(files, stop), daemon=True)
    beat.start()
    try:
        yield
    finally:
        stop.set()
        beat.join()
        files.remove(LOCK_PATH)


def _acquire_remote(files: Files) -> None:
    for _ in range(2):
        if files.create(LOCK_PATH, json.dumps(_owner()).encode()):
            return
        try:
            content = files.read(LOCK_PATH)
        except FileNotFoundError:
            continue
        if not _abandoned(content):
            raise _busy(files, content)
        files.remove(LOCK_PATH)
    raise _busy(files, b"")


def _abandoned(content: bytes) -> bool:
    try:
        holder = json.loads(content)
    except ValueError:
        return True
    if holder["host"] == socket.gethostname() and not _alive(holder["pid"]):
        return True
    return bool(time.time() - holder["beat"] > STALE_SECONDS)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _heartbeat(files: Files, stop: threading.Event) -> None:
    while not stop.wait(HEARTBEAT_SECONDS):
        # A missed beat is not fatal: the next one comes before the lock goes stale.
        with contextlib.suppress(StorageError):
            files.write(LOCK_PATH, json.dumps(_owner()).encode())

"""One run at a time per stage: a lock file that a dead run never leaves closed.

On a local disk the operating system's file lock decides, so it opens the moment its holder dies. On an object store
an object with a heartbeat decides; it counts as abandoned after ``STALE_SECONDS`` or when its process is known dead.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lcm_data.errors import CorpusBusyError, StorageError
from lcm_data.store.files import Files, LocalFiles, storage_errors

log = logging.getLogger("lcm_data.lock")

LOCK_PATH = "_lcm/lock.json"
HEARTBEAT_SECONDS, STALE_SECONDS = 10.0, 60.0
_TAKEOVER_SECONDS = 1.0


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


def _owner(token: str) -> bytes:
    owner = {"host": socket.gethostname(), "pid": os.getpid(), "beat": time.time(), "token": token}
    return json.dumps(owner).encode()


def _parse(content: bytes) -> dict[str, Any]:
    """The holder a lock names, empty if it is damaged."""
    try:
        holder = json.loads(content)
        return {"host": str(holder["host"]), "pid": int(holder["pid"]), **holder}
    except (ValueError, KeyError, TypeError):
        return {}


def _busy(files: Files, content: bytes) -> CorpusBusyError:
    holder = _parse(content)
    who = f"process {holder['pid']} on {holder['host']}" if holder else "another process"
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
            # And without a buffer, which on a full disk would fail a second time when it is closed.
            stream = stack.enter_context(os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b", buffering=0))
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise _busy(files, stream.read()) from error
            stream.truncate(0)
            stream.write(_owner(uuid.uuid4().hex))
        yield


@contextlib.contextmanager
def _remote_lock(files: Files) -> Iterator[None]:
    token = uuid.uuid4().hex
    _acquire_remote(files, token)
    stop = threading.Event()
    beat = threading.Thread(target=_heartbeat, args=(files, token, stop), daemon=True)
    beat.start()
    try:
        yield
    finally:
        stop.set()
        beat.join()
        with contextlib.suppress(StorageError):  # the run is over; a lock left behind goes stale
            if _is_ours(_content(files), token):
                files.remove(LOCK_PATH)


def _acquire_remote(files: Files, token: str) -> None:
    content = b""
    for _ in range(2):
        created = files.create(LOCK_PATH, _owner(token))
        content = _content(files)
        # A create whose answer was lost is sent again and then meets itself.
        if created or _is_ours(content, token):
            return
        if content and not _abandoned(content):
            break
        _take_over(files, token)
        content = _content(files)
        if _is_ours(content, token):
            return
    raise _busy(files, content)


def _take_over(files: Files, token: str) -> None:
    log.warning("%s: the lock of a dead run is taken over", files.root)
    files.write(LOCK_PATH, _owner(token))
    # Of several runs that do this at the same moment the last writer wins, and all of them see it.
    time.sleep(_TAKEOVER_SECONDS)


def _content(files: Files) -> bytes:
    try:
        return files.read(LOCK_PATH)
    except FileNotFoundError:
        return b""


def _is_ours(content: bytes, token: str) -> bool:
    return _parse(content).get("token") == token


def _abandoned(content: bytes) -> bool:
    holder = _parse(content)
    if not holder or (holder["host"] == socket.gethostname() and not _alive(holder["pid"])):
        return True
    return bool(time.time() - float(holder.get("beat", 0.0)) > STALE_SECONDS)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _heartbeat(files: Files, token: str, stop: threading.Event) -> None:
    while not stop.wait(HEARTBEAT_SECONDS):
        # A missed beat is not fatal: the next one comes before the lock goes stale.
        with contextlib.suppress(StorageError):
            content = _content(files)
            if content and not _is_ours(content, token):
                log.error("%s: another run took over the lock while this one was unreachable", files.root)
                return
            files.write(LOCK_PATH, _owner(token))

"""One run at a time, on a disk and on an object store, and no lock outlives its run."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import pytest
from drivers import check_whole, drive, make, num_commits, pids, start_driver, wait_for
from toystage import Toy

from lcm_data.errors import CorpusBusyError
from lcm_data.store import lock
from lcm_data.store.files import Files, open_files
from lcm_data.store.lock import LOCK_PATH, stage_lock

HOST = socket.gethostname()


@pytest.fixture(params=["local", "memory", "s3"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    if request.param == "local":
        return open_files(tmp_path / "stage")
    if request.param == "memory":
        return open_files(f"memory://{uuid.uuid4().hex}/stage")
    return open_files(request.getfixturevalue("bucket") + "/stage")


@pytest.fixture
def remote() -> Files:
    return open_files(f"memory://{uuid.uuid4().hex}/stage")


def held_by(files: Files, **changes: object) -> None:
    """Put a lock there as another process would have."""
    owner = {"host": "elsewhere", "pid": 12345, "beat": time.time(), "token": "theirs"}
    files.write(LOCK_PATH, json.dumps({**owner, **changes}).encode())


def test_the_second_is_refused_and_told_who_holds_it(files: Files) -> None:
    with stage_lock(files):
        for _ in range(2):  # a refused run leaves the lock as it is
            with pytest.raises(CorpusBusyError, match=f"by process {os.getpid()} on {HOST}"), stage_lock(files):
                pass
    with stage_lock(files):
        pass


def test_the_lock_opens_after_an_error(files: Files) -> None:
    with pytest.raises(ZeroDivisionError), stage_lock(files):
        raise ZeroDivisionError
    with stage_lock(files):
        pass


def test_two_drivers_at_once(toy_env: Path) -> None:
    toy, root = Toy(units=20, pause=0.1), toy_env / "codes"
    first = start_driver(root, toy)
    wait_for(lambda: num_commits(root) > 0)
    began = time.monotonic()
    code, out, err = drive(root, toy, workers=2)
    assert time.monotonic() - began < 3
    assert (code, out) == (1, "")
    assert f"CorpusBusyError: {root} is being written by process {first.pid} on {HOST}. Wait" in err
    out, err = first.communicate(timeout=30)
    assert first.returncode == 0, err
    assert check_whole(root) == out.strip()


def test_the_lock_of_a_killed_driver_opens_at_once(toy_env: Path) -> None:
    toy, root = Toy(units=20, pause=0.2), toy_env / "codes"
    driver = start_driver(root, toy, workers=2)
    wait_for(lambda: pids(toy_env / "pids"))
    driver.kill()
    driver.wait()
    make(root, Toy(units=20))  # while its workers may still be ending
    assert driver.communicate()[1] == ""
    check_whole(root)


def test_workers_do_not_hold_the_lock(toy_env: Path) -> None:
    """A file lock is inherited with its descriptor: a worker that hangs must not keep a dead driver's lock."""
    root = toy_env / "codes"
    driver = start_driver(root, Toy(units=2, special={"0:0": "hang", "1:0": "hang"}), workers=2)
    (pid, *_) = wait_for(lambda: pids(toy_env / "pids"))
    os.kill(pid, signal.SIGSTOP)
    try:
        driver.kill()
        driver.wait()
        with stage_lock(open_files(root)):
            pass
    finally:
        os.kill(pid, signal.SIGKILL)
        driver.communicate()


# --- object stores ---


def test_a_dead_process_on_this_host_holds_nothing(remote: Files) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    held_by(remote, host=HOST, pid=dead.pid)
    with stage_lock(remote):
        assert json.loads(remote.read(LOCK_PATH))["pid"] == os.getpid()


def test_a_live_process_on_this_host_holds_it(remote: Files) -> None:
    held_by(remote, host=HOST, pid=os.getppid())
    with pytest.raises(CorpusBusyError, match=f"process {os.getppid()}"), stage_lock(remote):
        pass


def test_a_process_elsewhere_is_believed_while_its_heart_beats(remote: Files) -> None:
    held_by(remote, beat=time.time() - lock.STALE_SECONDS + 10)
    with pytest.raises(CorpusBusyError, match="process 12345 on elsewhere"), stage_lock(remote):
        pass
    held_by(remote, beat=time.time() - lock.STALE_SECONDS - 1)
    with stage_lock(remote):
        pass
    assert remote.list() == {}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"host": 1}', b'{"host": "x", "pid": "y"}'])
def test_a_damaged_lock_holds_nothing(remote: Files, content: bytes) -> None:
    remote.write(LOCK_PATH, content)
    with stage_lock(remote):
        assert json.loads(remote.read(LOCK_PATH))["pid"] == os.getpid()


def test_the_heart_beats(remote: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 0.02)
    with stage_lock(remote):
        first = json.loads(remote.read(LOCK_PATH))
        wait_for(lambda: json.loads(remote.read(LOCK_PATH))["beat"] > first["beat"])
        assert json.loads(remote.read(LOCK_PATH))["token"] == first["token"]
    assert remote.list() == {}


def test_a_run_that_lost_its_lock_leaves_it_to_the_other(remote: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """After minutes without network its lock went stale and another run took over."""
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 0.02)
    with stage_lock(remote):
        held_by(remote)
        time.sleep(0.2)
        assert json.loads(remote.read(LOCK_PATH))["token"] == "theirs"
    assert json.loads(remote.read(LOCK_PATH))["token"] == "theirs"


def test_of_several_that_take_over_one_wins(remote: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "_TAKEOVER_SECONDS", 0.2)
    held_by(remote, beat=0)
    inside, results = threading.Event(), []
    barrier = threading.Barrier(4)

    def run() -> None:
        barrier.wait()
        try:
            with stage_lock(remote):
                results.append("held")
                inside.wait(2)
        except CorpusBusyError:
            results.append("busy")

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(results) == 4)
    inside.set()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["busy", "busy", "busy", "held"]


class LosesAnswers:
    """A store whose first answer to a create is lost, so that the client sends it again."""

    def __init__(self, files: Files) -> None:
        self.files = files

    def __getattr__(self, name: str) -> object:
        return getattr(self.files, name)

    def create(self, path: str, data: bytes) -> bool:
        self.files.create(path, data)
        return self.files.create(path, data)


def test_a_create_that_was_sent_twice_does_not_refuse_itself(remote: Files) -> None:
    with stage_lock(LosesAnswers(remote)):  # type: ignore[arg-type]
        pass

"""The local pool: what each event means, and what a worker process gets from its parent. Ray: tests/test_chaos.py."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from drivers import pids, wait_for
from toystage import FailsInSetup, NeedsExtra, Talks, Toy, ToyWorker, toy_unit

from lcm_data.errors import LcmDataError, MissingExtraError, UsageError
from lcm_data.pool import Event, LocalPool, PoolOptions, connect_ray, gpus_of_slot, num_cores, thread_environment
from lcm_data.store.files import open_files
from lcm_data.workers.base import Task

Make = Callable[..., LocalPool]


@pytest.fixture
def make_pool(tmp_path: Path) -> Iterator[Make]:
    pools = []

    def make(kind: type[ToyWorker] = ToyWorker, pause: float = 0.0) -> LocalPool:
        pool = LocalPool(kind(str(tmp_path / "codes"), "plan", "codes", 8, 7, pause), PoolOptions(threads=1))
        pools.append(pool)
        return pool

    yield make
    for pool in pools:
        pool.close()


def next_events(pool: LocalPool, num: int = 1) -> list[Event]:
    events: list[Event] = []
    deadline = time.monotonic() + 20
    while len(events) < num and time.monotonic() < deadline:
        events += pool.poll(0.1)
    assert len(events) == num, events
    return events


def test_a_worker_does_units_one_behind_the_other(make_pool: Make, tmp_path: Path) -> None:
    pool, toy = make_pool(), Toy()
    pool.start(0)
    assert next_events(pool) == [Event(0, "ready")]
    for unit in range(3):
        pool.submit(0, Task(toy_unit(toy, unit)))
    outcomes = [event.outcome for event in next_events(pool, 3)]
    assert sorted(outcome.unit for outcome in outcomes if outcome and outcome.kind == "done") == [0, 1, 2]
    commit = outcomes[0].commit if outcomes[0] else None
    assert commit
    assert set(commit.timings) >= {"read", "work", "write"}
    assert len(open_files(tmp_path / "codes").list("data")) == 3


def test_a_death_names_the_signal_and_the_slot_can_be_started_again(make_pool: Make) -> None:
    pool = make_pool()
    for slot in (0, 1):
        pool.start(slot)
    assert {event.slot for event in next_events(pool, 2)} == {0, 1}
    pool.submit(1, Task(toy_unit(Toy(special={"0:0": "segv"}), 0)))
    (event,) = next_events(pool)
    assert (event.slot, event.kind) == (1, "died")
    assert event.error.endswith("ended with signal 11")
    pool.submit(0, Task(toy_unit(Toy(), 1)))
    assert next_events(pool)[0].kind == "outcome"
    pool.start(1)
    assert next_events(pool) == [Event(1, "ready")]
    pool.kill(1)
    assert next_events(pool)[0].error.endswith("ended with signal 9")
    pool.kill(1)  # nobody there: nothing happens


def test_submitting_to_a_dead_worker_is_a_death(make_pool: Make, toy_env: Path) -> None:
    pool = make_pool()
    pool.start(0)
    next_events(pool)
    os.kill(pids(toy_env / "pids")[0], signal.SIGKILL)
    wait_for(lambda: not pids(toy_env / "pids"))
    for unit in range(3):
        pool.submit(0, Task(toy_unit(Toy(), unit)))
    assert [event.kind for event in next_events(pool)] == ["died"]
    assert pool.poll(0) == []


def test_an_error_of_ours_in_setup_arrives_as_it_was(make_pool: Make) -> None:
    pool = make_pool(NeedsExtra)
    pool.start(0)
    (event,) = next_events(pool)
    assert event.kind == "broken"
    assert isinstance(event.cause, MissingExtraError)
    assert "pip install 'lcm-data[toys]'" in str(event.cause)


def test_any_other_error_in_setup_arrives_with_its_traceback(make_pool: Make) -> None:
    pool = make_pool(FailsInSetup)
    pool.start(0)
    (event,) = next_events(pool)
    assert type(event.cause) is LcmDataError
    assert "a worker could not start:\nTraceback" in event.error
    assert "FileNotFoundError: the toy has no wheels" in event.error


def test_workers_get_a_clean_place(
    make_pool: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A module in the working directory does not shadow a library, stdout is not theirs, stdin is empty."""
    (tmp_path / "queue.py").write_text("raise RuntimeError('not the library you wanted')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", ".")])
    pool = make_pool(Talks)
    pool.start(0)
    assert next_events(pool) == [Event(0, "ready")]
    pool.close()
    out, err = capfd.readouterr()
    assert out == ""
    assert "chatter on stdout" in err
    assert err.strip().endswith("queue.py '' 1")
    assert str(tmp_path) not in err


def test_close_waits_for_a_short_unit_and_ends_a_long_one(make_pool: Make, toy_env: Path) -> None:
    pool = make_pool(pause=0.3)
    pool.start(0)
    next_events(pool)
    pool.submit(0, Task(toy_unit(Toy(), 0)))
    pool.close()
    assert pids(toy_env / "pids") == []
    assert len(open_files(toy_env / "codes").list("_lcm/commits")) == 1


def test_workers_end_with_their_parent_even_in_the_middle_of_a_unit(toy_env: Path) -> None:
    """Also when the parent dies with outcomes it has not read, which resets the connection instead of closing it."""
    script = """
import sys, time
from toystage import Toy, ToyWorker, toy_unit
from lcm_data.pool import LocalPool, PoolOptions
from lcm_data.workers.base import Task
pool = LocalPool(ToyWorker(sys.argv[1], "plan", "codes", 8, 7, 0.0), PoolOptions(threads=1))
pool.start(0)
assert pool.poll(20)[0].kind == "ready"
pool.submit(0, Task(toy_unit(Toy(), 0)))
pool.submit(0, Task(toy_unit(Toy(special={"1:0": "hang"}), 1)))
time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", script, str(toy_env / "codes")], stderr=subprocess.PIPE, text=True)
    wait_for(lambda: open_files(toy_env / "codes").list("_lcm/commits"))
    time.sleep(0.1)
    assert len(pids(toy_env / "pids")) == 1
    parent.kill()
    wait_for(lambda: not pids(toy_env / "pids"), seconds=5)
    assert parent.communicate()[1] == ""


def test_threads_are_shared_out() -> None:
    assert PoolOptions(workers=1).threads_per_worker == num_cores() >= 1
    assert PoolOptions(workers=1000).threads_per_worker == 1
    assert PoolOptions(workers=2, threads=7).threads_per_worker == 7
    assert thread_environment(3)["OMP_NUM_THREADS"] == "3"


def test_a_pool_without_workers_is_patient() -> None:
    pool = LocalPool(ToyWorker("unused", "plan", "codes", 8, 7, 0.0), PoolOptions())
    began = time.monotonic()
    assert pool.poll(0.05) == []
    assert time.monotonic() - began >= 0.05


@pytest.mark.parametrize(
    ("share", "expected"),
    [(1, ["0", "1", "2"]), (2, ["0,1", "2,3"]), (0.5, ["0", "0", "1", "1", "2"]), (0.25, ["0"] * 4 + ["1"])],
)
def test_local_workers_get_their_own_gpus(share: float, expected: list[str]) -> None:
    assert [gpus_of_slot(slot, share, ["0", "1", "2", "3"]) for slot in range(len(expected))] == expected


def test_too_few_gpus_are_refused() -> None:
    with pytest.raises(UsageError, match="worker 2 has no GPU left: 1 GPUs a worker, 2 visible"):
        gpus_of_slot(2, 1, ["4", "5"])


def test_an_address_without_a_cluster_is_refused_at_once() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        for given in (address, f"ray://{address}"):
            with pytest.raises(UsageError, match=r"no Ray cluster answers at .*ray start --head"):
                connect_ray(PoolOptions(ray_address=given))


@pytest.mark.parametrize(("before", "mode"), [("", "token"), ("import ray", "None")])
def test_the_token_mode_of_ray_is_only_set_while_it_still_counts(before: str, mode: str) -> None:
    """Set after ray was imported, only the processes that ray starts would ask for the token."""
    pytest.importorskip("ray")
    code = (
        f"{before}\nimport os\nfrom lcm_data.pool import load_ray\nload_ray()\nprint(os.environ.get('RAY_AUTH_MODE'))"
    )
    env = {name: value for name, value in os.environ.items() if name != "RAY_AUTH_MODE"} | {"RAY_AUTH_TOKEN": "0" * 64}
    run = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == mode

"""Rows and workers that misbehave, units that fail, runs that are stopped."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from drivers import check_whole, digest_of, drive, kill, make, num_commits, pids, start_driver, wait_for
from toystage import DiesInSetup, DiesInWrite, Toy, toy_stage

from lcm_data.errors import InterruptedRunError, LcmDataError, RejectRateError, UnitsFailedError, UsageError
from lcm_data.runner import Runner, RunOptions, RunState, busy_share
from lcm_data.signals import StopSignal
from lcm_data.store.commits import Commit, read_commits, read_rejects
from lcm_data.store.files import open_files
from lcm_data.store.shard import read_shard

# --- rows that end their worker ---


def rejects_of(root: Path, unit: int) -> list[tuple[int, str]]:
    return [(reject["row"], reject["reason"]) for reject in read_rejects(open_files(root), unit)]


@pytest.mark.parametrize("action", ["kill", pytest.param("segv", marks=pytest.mark.slow)])
def test_a_row_that_ends_its_worker_costs_only_itself(tmp_path: Path, toy_env: Path, action: str) -> None:
    toy = Toy(units=5, special={"2:17": action, "2:3": "raise"})
    digests = []
    for workers in (1, 2):
        root = tmp_path / str(workers)
        report = make(root, toy, workers=workers)
        assert report.manifest.rejects == {"bad_row": 1, "crashed_worker": 1}
        assert report.manifest.rows == 5 * 40 - 2
        assert rejects_of(root, 2) == [(3, "bad_row"), (17, "crashed_worker")]
        digests.append(check_whole(root))
    assert digests[0] == digests[1]
    files = open_files(root)
    done = [read_shard(files, read_commits(files)[2].shards[0].path)["codes"].to_pylist()[n][0] for n in (0, 3, 15, 37)]
    assert done == [80, 84, 96, 119]  # every other row of the unit, in order


def test_two_killer_rows_in_one_unit_and_one_in_another(tmp_path: Path) -> None:
    toy = Toy(units=4, rows=200, special={"1:0": "kill", "1:199": "kill", "3:100": "segv"})
    report = make(tmp_path, toy, workers=2)
    assert report.manifest.rejects == {"crashed_worker": 3}
    assert rejects_of(tmp_path, 1) == [(0, "crashed_worker"), (199, "crashed_worker")]
    assert rejects_of(tmp_path, 3) == [(100, "crashed_worker")]
    check_whole(tmp_path)


def test_a_worker_ended_from_outside_never_costs_a_row(tmp_path: Path, toy_env: Path) -> None:
    toy = Toy(units=8, rows=50, pause=0.08)
    root, killed = tmp_path / "codes", []

    def kill_workers() -> None:
        for _ in range(3):
            seen = num_commits(root)
            wait_for(lambda seen=seen: num_commits(root) > seen)
            killed.append(kill(wait_for(lambda: pids(toy_env / "pids"))[0]))

    killer = threading.Thread(target=kill_workers)
    killer.start()
    report = make(root, toy)
    killer.join()
    assert killed == [True] * 3
    assert report.manifest.rejects == {}
    make(tmp_path / "calm", toy)
    assert check_whole(root) == check_whole(tmp_path / "calm")


def test_a_hanging_row_is_found_with_a_unit_timeout(tmp_path: Path) -> None:
    toy = Toy(units=3, rows=12, special={"1:5": "hang"})
    report = make(tmp_path, toy, unit_timeout=0.8)
    assert report.manifest.rejects == {"crashed_worker": 1}
    assert rejects_of(tmp_path, 1) == [(5, "crashed_worker")]
    check_whole(tmp_path)


def test_units_that_wait_in_line_do_not_count_as_hanging(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make(tmp_path, Toy(units=6, pause=0.5), unit_timeout=1.2)  # three in line take 1.5 s
    assert "unit-timeout" not in caplog.text
    check_whole(tmp_path)


def test_a_worker_that_always_dies_is_given_up_with_its_unit(tmp_path: Path, toy_env: Path) -> None:
    """No row is to blame when writing kills: the unit fails after some tries, the others are committed."""
    toy = Toy(units=4, rows=10)
    stage = toy_stage(str(tmp_path / "codes"), toy)
    plan = stage.make_plan()
    worker = DiesInWrite(str(tmp_path / "codes"), plan.hash, "codes", 8, 7, 0.0)
    runner = Runner(plan, worker, {}, RunOptions(executor="local", threads=1))
    with pytest.raises(UnitsFailedError, match=r"1 of 4 units failed.*\n.*000002.*signal 9, 4 times"):
        runner.run(lambda state: None)
    assert sorted(read_commits(stage.files)) == [0, 1, 3]


# --- units that fail ---


def test_failed_units_end_with_3_and_a_rerun_finishes(toy_env: Path) -> None:
    toy, root = Toy(units=5, special={"3:1": "error"}), toy_env / "codes"
    code, out, err = drive(root, toy, workers=2)
    assert (code, out) == (3, "")
    assert "UnitsFailedError: 1 of 5 units failed, the others are committed:\n  unit 000003: Traceback" in err
    assert "RuntimeError: the toy is broken" in err
    assert num_commits(root) == 4
    assert not (root / "_lcm/manifest.json").exists()
    (toy_env / "flags/fixed").touch()
    report = make(root, toy)
    assert (report.units, report.units_done) == (5, 1)
    check_whole(root)


def test_too_many_rejects_abort(tmp_path: Path) -> None:
    special = {f"{unit}:{row}": "raise" for unit in range(8) for row in range(0, 300, 2)}
    with pytest.raises(RejectRateError, match=r"of 1200 rows .* \(50\.0%; bad_row 600\).*the allowed 10\.0%"):
        make(tmp_path, Toy(units=8, rows=300, special=special))
    make(tmp_path, Toy(units=8, rows=300, special=special), max_reject_rate=0.5)
    check_whole(tmp_path)


def test_few_rows_do_not_abort(tmp_path: Path) -> None:
    report = make(tmp_path, Toy(units=2, rows=10, special={f"0:{row}": "raise" for row in range(10)}))
    assert report.manifest.rejects == {"bad_row": 10}
    assert read_commits(open_files(tmp_path))[0].shards[0].rows == 0
    check_whole(tmp_path)


# --- stopping ---


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 143)])
def test_one_signal_lets_running_units_commit(toy_env: Path, number: int, code: int) -> None:
    toy, root = Toy(units=30, pause=0.2), toy_env / "codes"
    driver = start_driver(root, toy, workers=2)
    wait_for(lambda: num_commits(root) > 1)
    # As a batch system does, the signal goes to the workers too.
    for pid in [driver.pid, *pids(toy_env / "pids")]:
        os.kill(pid, number)
    _, err = driver.communicate(timeout=10)
    assert driver.returncode == code, err
    done = num_commits(root)
    assert f"InterruptedRunError: stopped by {signal.Signals(number).name} with {done} of 30 units committed" in err
    assert "ended with" not in err  # no worker was killed
    assert open_files(root).list("_lcm/tmp") == {}
    report = make(root, Toy(units=30), workers=2)
    assert report.units_done == 30 - done
    check_whole(root)


def test_a_second_signal_ends_at_once(toy_env: Path) -> None:
    toy, root = Toy(units=30, pause=4.0), toy_env / "codes"
    driver = start_driver(root, toy)
    wait_for(lambda: pids(toy_env / "pids"))
    time.sleep(0.3)
    driver.send_signal(signal.SIGINT)
    time.sleep(0.3)
    began = time.monotonic()
    driver.send_signal(signal.SIGINT)
    _, err = driver.communicate(timeout=10)
    assert time.monotonic() - began < 1.5
    assert driver.returncode == 130
    assert "with 0 of 30 units committed" in err
    assert pids(toy_env / "pids") == []
    make(root, Toy(units=30))
    check_whole(root)


def test_a_signal_after_the_last_unit_is_no_interruption() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopSignal() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        wait_for(lambda: stop.count)
    stop.raise_if_set(done=3, total=3)
    with pytest.raises(InterruptedRunError, match="stopped by SIGTERM with 2 of 3") as caught:
        stop.raise_if_set(done=2, total=3)
    assert caught.value.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) == before


def test_stop_signal_outside_the_main_thread_does_nothing() -> None:
    counts: list[int] = []

    def use() -> None:
        with StopSignal() as stop:
            counts.append(stop.count)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert counts == [0]


# --- small things ---


def test_nothing_to_do_starts_no_worker(tmp_path: Path) -> None:
    make(tmp_path, Toy(units=2))
    began = time.monotonic()
    report = make(tmp_path, Toy(units=2))
    assert (report.units, report.units_done) == (2, 0)
    assert time.monotonic() - began < 0.2
    assert report.manifest.digest == digest_of(tmp_path)


def test_options_are_checked(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--workers must be 1 or more, got 0"):
        make(tmp_path, Toy(), workers=0)
    with pytest.raises(UsageError, match=r"unknown executor 'rya'\. Did you mean 'ray'\?"):
        make(tmp_path, Toy(), executor="rya")


def test_the_state_shown_adds_up(tmp_path: Path) -> None:
    states: list[tuple[int, int]] = []
    stage = toy_stage(str(tmp_path), Toy(units=4, special={"0:0": "raise"}))
    plan = stage.make_plan()
    runner = Runner(plan, stage.make_worker(plan), {}, RunOptions(executor="local", threads=1))

    def show(state: RunState) -> None:
        states.append((len(state.commits), state.rows))

    final = runner.run(show)
    assert states == sorted(states)
    assert states[-1] == (4, 160)
    assert final.rejects == {"bad_row": 1}
    assert final.total_rows == 160


def test_busy_share() -> None:
    commits = [Commit(unit, "", 1, 1, timings={"work": 2.0}) for unit in range(3)]
    assert busy_share(commits, workers=2, seconds=6.0) == 0.5
    assert busy_share([], workers=2, seconds=0.0) == 0.0


def test_workers_that_die_before_they_are_ready(tmp_path: Path) -> None:
    stage = toy_stage(str(tmp_path), Toy(units=2))
    plan = stage.make_plan()
    worker = DiesInSetup(str(tmp_path), plan.hash, "codes", 8, 7, 0.0)
    runner = Runner(plan, worker, {}, RunOptions(executor="local", threads=1))
    with pytest.raises(LcmDataError, match=r"before they are ready \(3 times in a row, worker .* signal 9\)"):
        runner.run(lambda state: None)

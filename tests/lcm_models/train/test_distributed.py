"""Several processes learn what one would, lose one with a clear message, and resume."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from toytrain import BrokenTask, ToyTask, assert_same, command, largest_difference, metrics, toy_run

from lcm_data.errors import InputError, PlanMismatchError, UsageError
from lcm_models.train.checkpoint import complete_ones
from lcm_models.train.errors import DivergedError
from lcm_models.train.launch import Launch, start

TWO = Launch(workers=2, threads=1)
EMA = {"ema": 0.9}
Begin = Callable[[list[str]], "subprocess.Popen[str]"]


def test_two_processes_learn_what_one_learns_with_twice_the_batches(tmp_path: Path) -> None:
    """With dropout, noise, batches of different numbers of targets, clipping and an average."""
    task, optim = ToyTask("two-tower"), {**EMA, "clip_norm": 10.0}
    start(toy_run(tmp_path / "one", task, optim=optim, accumulate=2), Launch())
    report = start(toy_run(tmp_path / "two", task, optim=optim), TWO)
    assert report.step == 6
    assert largest_difference(tmp_path / "one", tmp_path / "two") <= 1e-6
    for one, two in zip(metrics(tmp_path / "one"), metrics(tmp_path / "two"), strict=True):
        assert one == pytest.approx(two, rel=1e-5)


@pytest.mark.slow
def test_accumulation_in_two_processes_is_accumulation_too(tmp_path: Path) -> None:
    start(toy_run(tmp_path / "one", accumulate=4), Launch())
    start(toy_run(tmp_path / "two", accumulate=2), TWO)
    # Four gradients are added up in another order; dividing by the roots of tiny averages magnifies the rounding.
    assert largest_difference(tmp_path / "one", tmp_path / "two") <= 1e-5


@pytest.mark.slow
def test_two_processes_resume_to_the_bit(tmp_path: Path) -> None:
    optim = {**EMA, "schedule_steps": 6}
    start(toy_run(tmp_path / "straight", optim=optim, valid_every=0), TWO)
    start(toy_run(tmp_path / "resumed", optim=optim, valid_every=0, max_steps=3), TWO)
    report = start(toy_run(tmp_path / "resumed", optim=optim, valid_every=0), TWO)
    assert report.resumed_at == 3
    assert_same(tmp_path / "straight", tmp_path / "resumed", processes=2)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_sharded_models_learn_and_resume(tmp_path: Path, precision: str) -> None:
    task, given = ToyTask("two-tower"), {"optim": {**EMA, "schedule_steps": 6}, "precision": precision}
    start(toy_run(tmp_path / "one", task, accumulate=2, **given), Launch())
    start(toy_run(tmp_path / "straight", task, strategy="fsdp", **given), TWO)
    # AdamW divides by roots of tiny numbers, so that another order of sums shows more in weights than in gradients.
    assert largest_difference(tmp_path / "one", tmp_path / "straight") <= (1e-5 if precision == "float32" else 0.05)
    start(toy_run(tmp_path / "resumed", task, strategy="fsdp", max_steps=4, **given), TWO)
    report = start(toy_run(tmp_path / "resumed", task, strategy="fsdp", **given), TWO)
    assert report.resumed_at == 4
    assert largest_difference(tmp_path / "straight", tmp_path / "resumed") == 0
    with pytest.raises(PlanMismatchError, match=r"train\.strategy: 'fsdp' -> 'ddp'"):
        start(toy_run(tmp_path / "resumed", task, **given), TWO)


def test_another_number_of_processes_is_refused(tmp_path: Path) -> None:
    settings = Path(start(toy_run(tmp_path / "run", max_steps=2), Launch()).checkpoint, "settings.json")
    settings.write_text(settings.read_text().replace('"processes": 1', '"processes": 2'))
    with pytest.raises(PlanMismatchError, match="begun with 2 processes, this run has 1"):
        start(toy_run(tmp_path / "run"), Launch())


@pytest.mark.slow
def test_what_one_process_finds_is_what_is_reported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="shard 7 cannot be read"):
        start(toy_run(tmp_path / "run", BrokenTask()), TWO)
    with pytest.raises(DivergedError, match="step 2: loss nan"):  # batch 3 is that of process 1 in step 2
        start(toy_run(tmp_path / "bad", ToyTask(bad=frozenset({3}))), TWO)


def children(pid: int) -> list[int]:
    """The training processes that a command started."""
    words = ["ps", "-ww", "-o", "pid=", "-o", "args=", "--ppid", str(pid)]
    listed = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    found = [int(line.split()[0]) for line in listed if "spawn_main" in line]
    assert len(found) == 2, listed
    return found


def wait_for(run, num: int) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + 120
    while len(complete_ones(run.checkpoints)) < num:
        assert time.monotonic() < deadline, "no checkpoint came"
        time.sleep(0.05)


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Starts commands, and leaves none running; what they started ends with them."""
    begun: list[subprocess.Popen[str]] = []

    def start_one(words: list[str]) -> subprocess.Popen[str]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        pipe = subprocess.PIPE
        begun.append(subprocess.Popen(words, env=environment, stdout=pipe, stderr=pipe, text=True))
        return begun[-1]

    yield start_one
    for process in begun:
        process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("which", [0, 1])
def test_a_killed_process_ends_the_run_with_a_message(begin: Begin, tmp_path: Path, which: int) -> None:
    run = toy_run(tmp_path / "run", ToyTask(seconds=0.1), max_steps=1000, keep_last=1)
    process = begin(command(run, TWO))
    wait_for(run, 1)
    os.kill(children(process.pid)[which], signal.SIGKILL)
    begun = time.monotonic()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 3, err
    assert time.monotonic() - begun < 30
    assert re.search(rf"process {which} of this run was ended by signal 9. The last checkpoint is .*step-\d+", err)
    (last,) = complete_ones(run.checkpoints)
    done = int(last.name.removeprefix("step-"))
    report = start(toy_run(tmp_path / "run", ToyTask(seconds=0.1), max_steps=done + 2, keep_last=1), TWO)
    assert (report.resumed_at, report.step) == (done, done + 2)


@pytest.mark.slow
def test_signals_reach_all_processes(begin: Begin, tmp_path: Path) -> None:
    run = toy_run(tmp_path / "run", ToyTask(seconds=0.1), max_steps=1000, checkpoint_every=500)
    process = begin(command(run, TWO))
    deadline = time.monotonic() + 120
    while not (tmp_path / "run/metrics.jsonl").exists() or len(metrics(tmp_path / "run")) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert "the checkpoint is" in err
    assert len(complete_ones(run.checkpoints)) == 1


@pytest.mark.slow
def test_no_process_outlives_the_one_that_started_it(begin: Begin, tmp_path: Path) -> None:
    run = toy_run(tmp_path / "run", ToyTask(seconds=0.1), max_steps=1000)
    process = begin(command(run, TWO))
    wait_for(run, 1)
    pids = children(process.pid)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.slow
def test_torchrun(begin: Begin, tmp_path: Path) -> None:
    run = toy_run(tmp_path / "torchrun")
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "toytrain"]
    process = begin([*words, command(run, Launch())[-1]])
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    start(toy_run(tmp_path / "one", accumulate=2), Launch())
    assert largest_difference(tmp_path / "one", tmp_path / "torchrun") <= 1e-6


def test_torchrun_and_a_launcher_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("MASTER_ADDR", "localhost"), ("RANK", "0"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="torchrun has started this process"):
        start(toy_run(tmp_path / "run"), TWO)


@pytest.mark.slow
def test_ray_train(tmp_path: Path) -> None:
    if importlib.util.find_spec("ray") is None:  # importing it is lcm_data.pool's business
        pytest.skip("needs the extra 'ray'")
    report = start(toy_run(tmp_path / "ray"), Launch("ray", workers=2))
    assert report.step == 6
    start(toy_run(tmp_path / "one", accumulate=2), Launch())
    assert largest_difference(tmp_path / "one", tmp_path / "ray") <= 1e-6
    with pytest.raises(DivergedError, match="step 2: loss nan"):
        start(toy_run(tmp_path / "bad", ToyTask(bad=frozenset({3}))), Launch("ray", workers=2))


@pytest.mark.slow
def test_ray_train_goes_on_after_a_loss(begin: Begin, tmp_path: Path) -> None:
    if importlib.util.find_spec("ray") is None:
        pytest.skip("needs the extra 'ray'")
    task = ToyTask(killed=str(tmp_path / "killed"))
    process = begin(command(toy_run(tmp_path / "run", task), Launch("ray", workers=2, max_restarts=1)))
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert "resumed_at=2" in out
    start(toy_run(tmp_path / "one", accumulate=2), Launch())
    assert largest_difference(tmp_path / "one", tmp_path / "run") <= 1e-6
    (tmp_path / "killed").unlink()
    process = begin(command(toy_run(tmp_path / "lost", task), Launch("ray", workers=2)))
    _, err = process.communicate(timeout=200)
    assert process.returncode == 3, err
    assert re.search(r"The last checkpoint is .*step-00000002: run the same command again", err)


@pytest.mark.slow
def test_ray_train_stops_at_a_signal_and_goes_on(begin: Begin, tmp_path: Path) -> None:
    if importlib.util.find_spec("ray") is None:  # importing it is lcm_data.pool's business
        pytest.skip("needs the extra 'ray'")
    run = toy_run(tmp_path / "run", ToyTask(seconds=0.1), max_steps=1000, checkpoint_every=500)
    process = begin(command(run, Launch("ray", workers=2)))
    deadline = time.monotonic() + 120
    while not (tmp_path / "run/metrics.jsonl").exists() or len(metrics(tmp_path / "run")) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert "the checkpoint is" in err
    assert process.returncode == 130, err
    (made,) = complete_ones(run.checkpoints)
    assert torch.load(made / "loader-00001.pt", weights_only=True)["given"] > 0

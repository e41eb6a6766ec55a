"""A run that was killed, however often, ends with the bytes of one that was not: weights, average, optimiser, data."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from toytrain import MODELS, ToyTask, assert_same, command, same_state, toy_run, weights

from lcm_models.train.checkpoint import complete_ones
from lcm_models.train.launch import Launch, start
from lcm_models.train.run import Run

LONG = {"max_steps": 40, "checkpoint_every": 3, "valid_every": 7, "keep_last": 2}


def killed_once(run: Run, launch: Launch, after: float) -> bool:
    """Train in a process group of its own and SIGKILL all of it ``after`` seconds; False if it had ended by itself."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command(run, launch), start_new_session=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    had = len(complete_ones(run.checkpoints))
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if run.checkpoints.is_dir() and (len(complete_ones(run.checkpoints)) > had or had):
            break
        time.sleep(0.01)
    time.sleep(after)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    code = process.wait()
    assert code in (0, -signal.SIGKILL), process.stderr.read() if process.stderr else ""
    return code != 0


@pytest.mark.parametrize("variant", ["base", "two-tower"])
def test_every_place_to_stop_is_as_good(tmp_path: Path, variant: str) -> None:
    """Runs of k steps, resumed to the end, for several k: with dropout, noise, an average and accumulation."""
    given = {"optim": {"ema": 0.9, "schedule_steps": 8}, "accumulate": 2, "checkpoint_every": 3, "valid_every": 4}
    start(toy_run(tmp_path / "straight", ToyTask(variant), max_steps=8, **given), Launch())
    for stop in (1, 4, 7):
        folder = tmp_path / f"stopped-{stop}"
        start(toy_run(folder, ToyTask(variant), max_steps=stop, **{**given, "valid_every": 0}), Launch())
        start(toy_run(folder, ToyTask(variant), max_steps=8, **given), Launch())
        # A run that ends validates and logs at its own last step; what was learned is the same.
        first, second = (complete_ones(each / "checkpoints")[-1] for each in (tmp_path / "straight", folder))
        for name in MODELS:
            assert same_state(weights(first, name), weights(second, name))
        assert same_state(*(torch.load(each / "optimizer.pt", weights_only=True) for each in (first, second)))


def test_a_killed_run_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    optim = {"ema": 0.9}
    start(toy_run(tmp_path / "straight", ToyTask("two-tower"), optim=optim, **LONG), Launch())
    run = toy_run(tmp_path / "killed", ToyTask("two-tower", seconds=0.05), optim=optim, **LONG)
    assert killed_once(run, Launch(), after=0.2)
    resumed = start(run, Launch())
    assert 0 < resumed.resumed_at < 40
    assert_same(tmp_path / "straight", tmp_path / "killed")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_a_run_killed_again_and_again(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    optim = {"ema": 0.9}
    start(toy_run(tmp_path / "straight", ToyTask("two-tower"), optim=optim, **LONG), Launch())
    run = toy_run(tmp_path / "killed", ToyTask("two-tower", seconds=0.1), optim=optim, **LONG)
    kills = sum(killed_once(run, Launch(), after=rng.uniform(0, 3.0)) for _ in range(5))
    assert kills >= 2
    start(run, Launch())
    assert_same(tmp_path / "straight", tmp_path / "killed")

"""The learning rate against its formula, and against PyTorch's own schedulers."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lcm_models.train.config import OptimConfig
from lcm_models.train.schedule import lr_at, warmup_steps


def test_the_formula_at_known_places() -> None:
    config = OptimConfig(lr=1.0, warmup_steps=4, final_fraction=0.1)
    assert [lr_at(step, config, 104) for step in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert lr_at(54, config, 104) == pytest.approx(0.55)  # half way: the mean of 1 and 0.1
    assert lr_at(29, config, 104) == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2)
    assert lr_at(104, config, 104) == pytest.approx(0.1)
    assert lr_at(1000, config, 104) == pytest.approx(0.1)


def test_it_is_the_cosine_of_pytorch() -> None:
    config = OptimConfig(lr=0.5, warmup_steps=0, final_fraction=0.2)
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=0.5)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=20, eta_min=0.1)
    for step in range(20):
        assert lr_at(step, config, 20) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()


def test_the_default_warm_up_is_the_papers_share() -> None:
    assert warmup_steps(OptimConfig(), 250_000) == 10_000
    assert warmup_steps(OptimConfig(), 1000) == 40
    assert warmup_steps(OptimConfig(schedule_steps=100), 1000) == 4
    assert warmup_steps(OptimConfig(), 10_000_000) == 10_000


def test_a_constant_schedule_stays() -> None:
    config = OptimConfig(lr=0.3, schedule="constant", warmup_steps=1)
    assert [lr_at(step, config, 5) for step in range(5)] == [0.15, 0.3, 0.3, 0.3, 0.3]


@given(st.integers(1, 400), st.integers(0, 400), st.floats(0, 1))
def test_it_rises_then_falls_between_its_bounds(max_steps: int, warmup: int, final: float) -> None:
    top = min(warmup, max_steps)
    config = OptimConfig(lr=1.0, warmup_steps=top, final_fraction=final)
    rates = [lr_at(step, config, max_steps) for step in range(max_steps + 1)]
    assert all(0 < rate <= 1 or final == 0 for rate in rates)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert min(rates[top:]) >= final - 1e-12

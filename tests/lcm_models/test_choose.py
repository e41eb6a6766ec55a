"""Choosing a unit: frequencies, limits, and repeatability."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lcm_models.choose import choose

SCORES = torch.tensor([0.5, 2.0, -1.0, 1.0, 0.0])


def shares(**limits: float) -> list[float]:
    """Share of each unit over evenly spread random numbers."""
    chance = (torch.arange(20_000) + 0.5) / 20_000
    found = choose(SCORES.expand(len(chance), -1), chance, **limits)  # type: ignore[arg-type]
    return (torch.bincount(found, minlength=5) / len(chance)).tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("temperature", [0.3, 1.0, 5.0])
def test_frequencies_are_the_softmax(temperature: float) -> None:
    expected = (SCORES / temperature).softmax(dim=-1).tolist()
    assert shares(temperature=temperature) == pytest.approx(expected, abs=2e-4)


def test_top_k_and_top_p() -> None:
    p = SCORES.softmax(dim=-1)
    best = (p[1] / (p[1] + p[3])).item()
    assert shares(temperature=1.0, top_k=2) == pytest.approx([0, best, 0, 1 - best, 0], abs=2e-4)
    assert float(p[1]) < 0.7 < float(p[1] + p[3])
    assert shares(temperature=1.0, top_p=0.7) == pytest.approx([0, best, 0, 1 - best, 0], abs=2e-4)
    assert shares(temperature=1.0, top_p=0.1) == [0, 1, 0, 0, 0]
    assert shares(temperature=0.0) == shares(temperature=1.0, top_k=1) == [0, 1, 0, 0, 0]
    assert shares(temperature=1.0, top_k=99) == shares(temperature=1.0)


@given(st.lists(st.floats(-50, 50), min_size=1, max_size=8), st.floats(0, 1, exclude_max=True), st.floats(0.01, 1))
@settings(deadline=None)
def test_always_a_unit_that_is_allowed(scores: list[float], chance: float, top_p: float) -> None:
    score = torch.tensor(scores)
    unit = int(choose(score, torch.tensor(chance), 0.7, top_k=3, top_p=top_p))
    assert score[unit] >= score.sort(descending=True).values[: min(3, len(scores))][-1]

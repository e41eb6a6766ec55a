"""The line about a run: what it says, and that rates leave out what is no training."""

from __future__ import annotations

import time

import pytest

from lcm_models.train.progress import Line, Meter, describe


def meter(seconds: float, aside: float = 0.0) -> Meter:
    """21 steps of 100 concepts, the first of which (compilation) does not count, of 121 that began at step 20."""
    now = time.monotonic()
    return Meter(first_step=20, max_steps=141, began=now - seconds, aside=aside, concepts=2000, steps=21)


def test_the_line() -> None:
    assert describe(41, meter(10.0), 12.345678, None) == "step 41/141, loss 12.346, 200 concepts/s, 50 s left"
    assert describe(41, meter(10.0), 0.5, 0.25) == "step 41/141, loss 0.5, valid 0.25, 200 concepts/s, 50 s left"
    assert describe(1, Meter(0, 1000), 3.0, None) == "step 1/1,000, loss 3"


def test_validation_and_checkpoints_are_no_training_but_take_time() -> None:
    measured = meter(10.0, aside=5.0)
    assert measured.rate == pytest.approx(400, rel=0.01)
    assert measured.eta == pytest.approx(50, rel=0.01)


def test_the_first_step_does_not_count() -> None:
    measured = Meter(0, 10, began=time.monotonic() - 100)
    measured.count(5)
    assert (measured.rate, measured.eta) == (0, None)
    time.sleep(0.01)
    measured.count(5)
    assert measured.concepts == 5
    assert measured.seconds < 50


def test_lines_are_few_and_the_last_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    line = Line()
    for text in ("one", "two", "three"):
        line.show(text)
    line.show("four", last=True)
    assert capsys.readouterr().err == "train: one\ntrain: four\n"
    Line(quiet=True).show("five", last=True)
    assert capsys.readouterr().err == ""

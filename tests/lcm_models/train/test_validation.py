"""Validation: every held-out batch counts once, however many processes share them, and few are in memory."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from toytrain import ToyTask, make_batch, metrics, toy_run

from lcm_models.model import Batch
from lcm_models.train.launch import Launch, start
from lcm_models.train.validation import Turn, shared_out


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("num", [0, 1, 4, 5, 6])
def test_every_batch_counts_once_and_all_compute_equally_often(num: int, size: int) -> None:
    batches = [f"batch {number}" for number in range(num)]
    for most, given in ((num, [*batches, "one more"]), (num + 3, batches)):
        check(batches, [list(shared_out(given, most, rank, size)) for rank in range(size)])


def check(batches: list[str], turns: list[list[Turn]]) -> None:
    assert len({len(each) for each in turns}) == 1
    assert all(turn.batch in batches for each in turns for turn in each)
    counted = {turn.number: turn.batch for each in turns for turn in each if turn.counts}
    assert counted == dict(enumerate(batches))


class Watched:
    """Makes six batches anew in every pass, and sees how many of them are still there."""

    def __init__(self) -> None:
        self.alive: weakref.WeakSet[Any] = weakref.WeakSet()
        self.most = self.passes = self.open = 0

    def __iter__(self) -> Iterator[Batch]:
        self.passes += 1
        self.open += 1
        try:
            for number in range(6):
                batch = make_batch(1_000_000 + number)
                self.alive.add(batch.x_BSD)
                gc.collect()
                self.most = max(self.most, len(self.alive))
                yield batch
                del batch
        finally:
            self.open -= 1


class WatchedTask(ToyTask):
    watched = Watched()

    def validation(self) -> Watched:  # type: ignore[override]
        return self.watched


def test_batches_are_read_in_every_validation_and_not_kept(tmp_path: Path) -> None:
    watched = WatchedTask.watched
    start(toy_run(tmp_path / "run", WatchedTask(), valid_every=2, valid_batches=5, max_steps=6), Launch())
    assert watched.passes == 3
    assert watched.open == 0, "a pass that is cut short is closed"
    assert watched.most <= 3
    assert not watched.alive
    assert sum("valid_loss" in line for line in metrics(tmp_path / "run")) == 3


def test_an_iterator_is_asked_for_anew(tmp_path: Path) -> None:
    class Once(ToyTask):
        def validation(self) -> Iterator[Batch]:  # type: ignore[override]
            return iter(super().validation())

    for name, task in (("once", Once()), ("again", ToyTask())):
        start(toy_run(tmp_path / name, task, valid_every=2), Launch())
    assert metrics(tmp_path / "once") == metrics(tmp_path / "again")


def test_nothing_held_out_is_no_validation(tmp_path: Path) -> None:
    class Nothing(ToyTask):
        def validation(self) -> list[Batch]:
            return []

    report = start(toy_run(tmp_path / "run", Nothing()), Launch())
    assert report.valid_loss is None
    assert not any("valid_loss" in line for line in metrics(tmp_path / "run"))

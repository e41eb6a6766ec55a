"""Held-out batches shared out over the processes of a run, read anew each time; the loss is the trainer's business."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple


class Turn(NamedTuple):
    """A batch for one process: its number among all, and whether it counts or only fills up a last round."""

    number: int
    batch: Any
    counts: bool


def shared_out(batches: Iterable[Any], most: int, rank: int, size: int) -> Iterator[Turn]:
    """The turns of process ``rank`` of ``size`` at the first ``most`` batches: of every round of ``size`` one each.

    Each process reads all batches and holds one. All get equally many turns, as sharded models must compute equally
    often; in a last round that is not full those without a batch get the first of it, which does not count for them.
    """
    iterator = iter(batches)
    try:
        for first in range(0, most, size):
            round_of_them = islice(iterator, min(size, most - first))
            held, place = next(round_of_them, None), 0
            if held is None:
                return
            for other, batch in enumerate(round_of_them, start=1):
                if other == rank:
                    held, place = batch, other
            yield Turn(first + rank, held, place == rank)
    finally:
        if isinstance(iterator, Generator):
            iterator.close()  # ends the loader's thread

"""Groups of items that take turns: each gives its share of an epoch, and all of its own before any comes again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


class Turns:
    """Draws epochs from groups of very different sizes.

    A group's share of an epoch is its size to the power of ``1 / temperature``; in all there are as many items as the
    groups have. What an epoch holds is a function of seed and number.
    """

    def __init__(self, groups: Sequence[Array], temperature: float, seed: int) -> None:
        self.groups, self._seed = groups, seed
        weights = np.array([len(group) for group in groups]) ** (1 / temperature)
        total = sum(len(group) for group in groups)
        self.counts = [max(1, round(total * float(w))) for w in weights / weights.sum()]

    def epoch(self, number: int) -> tuple[Array, np.random.Generator]:
        """The items of an epoch in random order, and the generator to go on with."""
        items = np.concatenate([self._turn(index, number) for index in range(len(self.groups))])
        rng = np.random.default_rng([self._seed, number, 1 << 20])
        return items[rng.permutation(len(items))], rng

    def _turn(self, index: int, epoch: int) -> Array:
        """The next items of a group, in an order that is new each time through."""
        group, count = self.groups[index], self.counts[index]
        places = np.arange(epoch * count, (epoch + 1) * count)
        rounds = places // len(group)
        parts = []
        for each in np.unique(rounds):
            order = np.random.default_rng([self._seed, index, int(each)]).permutation(len(group))
            parts.append(order[places[rounds == each] % len(group)])
        taken: Array = group[np.concatenate(parts)]
        return taken


class Endless:
    """Batches of one process without end; the state is the epoch and the place in it.

    ``batches`` has ``epoch(number)``, the items of each batch, and ``make(items, rng)``.
    """

    def __init__(self, batches: Any, seed: int, rank: int = 0, world_size: int = 1) -> None:
        self._batches, self._seed = batches, seed
        self._rank, self._world_size = rank, world_size
        self._epoch = self._place = 0

    def __iter__(self) -> Iterator[Any]:
        while True:
            items = self._batches.epoch(self._epoch)
            num = len(items) // self._world_size or 1
            while self._place < num:
                index = (self._place * self._world_size + self._rank) % len(items)
                rng = np.random.default_rng([self._seed, self._epoch, index])
                self._place += 1
                yield self._batches.make(items[index], rng)
            self._epoch, self._place = self._epoch + 1, 0

    def state_dict(self) -> dict[str, Any]:
        """Where it is."""
        return {"epoch": self._epoch, "place": self._place}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go there."""
        self._epoch, self._place = int(state["epoch"]), int(state["place"])

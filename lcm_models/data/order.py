"""The order in which one process sees the documents of a source: a function of the seed, not of what was read before.

An epoch permutes the shards; ``shuffle_shards`` of them make a chapter, whose blocks are permuted; ``shuffle_blocks``
of those make a page, whose documents are permuted. So a place is four numbers, only one page is in memory, and any
place is reached by reading that page alone.

Processes share the shards where there are at least four for each, else the blocks, else the documents of all blocks.
Each document comes once an epoch, in one process.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lcm_data.errors import UsageError
from lcm_models.data.documents import Documents, Source

_ENOUGH = 4
"""Shards (or blocks) a process at least to share them out whole."""


class Order(NamedTuple):
    """What decides the order besides the source; ``number`` is that of the source in the mixture."""

    seed: int
    number: int
    rank: int
    world_size: int
    shuffle: bool
    chapter_shards: int
    page_blocks: int


class Place(NamedTuple):
    """Where a document stands."""

    epoch: int = 0
    chapter: int = 0
    page: int = 0
    document: int = 0


class Entry(NamedTuple):
    """A document: number ``which`` of a block, and its place."""

    place: Place
    documents: Documents
    which: int


class Stream:
    """The documents of a source for one process, epoch after epoch."""

    def __init__(self, source: Source, order: Order, endless: bool = True) -> None:
        self._source, self._order, self._endless = source, order, endless
        self._share = _choose_share(source, order.world_size)
        self.place = Place()
        """Of the next document."""
        self._epoch: tuple[int, list[list[int]]] = (-1, [])
        self._chapter: tuple[tuple[int, int], list[list[tuple[int, int]]]] = ((-1, -1), [])
        self._page: tuple[Place | None, list[tuple[Documents, int]]] = (None, [])
        self._empty_epochs = 0

    def next(self) -> Entry | None:
        """The document at ``place``, which moves on; None at the end of the only epoch.

        Raises:
            UsageError: a whole epoch without a document for this process.
        """
        while True:
            place = self.place
            chapters = self._chapters(place.epoch)
            if place.chapter >= len(chapters):
                if not self._endless:
                    return None
                self._empty_epochs += 1
                if self._empty_epochs > 1:  # the first may have been resumed at its end
                    raise UsageError(
                        f"{self._source.facts.name} has fewer documents than there are processes "
                        f"({self._order.world_size}): use fewer, or more data."
                    )
                self.place = Place(place.epoch + 1)
            elif place.page >= len(self._pages(place.epoch, place.chapter)):
                self.place = Place(place.epoch, place.chapter + 1)
            elif place.document >= len(page := self._documents(place)):
                self.place = Place(place.epoch, place.chapter, place.page + 1)
            else:
                self.place = place._replace(document=place.document + 1)
                self._empty_epochs = 0
                return Entry(place, *page[place.document])

    def at(self, place: Place) -> Entry:
        """The document at a place, which has one."""
        return Entry(place, *self._documents(place)[place.document])

    def _chapters(self, epoch: int) -> list[list[int]]:
        """The shards of this process in an epoch, by chapter."""
        if self._epoch[0] != epoch:
            shards = self._permutation(self._source.num_shards, epoch)
            size = self._order.chapter_shards
            if self._share == "shards":
                shards = shards[self._order.rank :: self._order.world_size]
            else:  # few: all are open to everybody
                size = len(shards)
            self._epoch = (epoch, [shards[start : start + size].tolist() for start in range(0, len(shards), size)])
        return self._epoch[1]

    def _pages(self, epoch: int, chapter: int) -> list[list[tuple[int, int]]]:
        """The blocks (shard, number) of a chapter, by page."""
        if self._chapter[0] != (epoch, chapter):
            shards = self._chapters(epoch)[chapter]
            blocks = [(shard, block) for shard in shards for block in range(self._source.num_blocks(shard))]
            blocks = [blocks[index] for index in self._permutation(len(blocks), epoch, chapter, shards[0])]
            if self._share == "blocks":
                blocks = blocks[self._order.rank :: self._order.world_size]
            size = self._order.page_blocks
            pages = [blocks[start : start + size] for start in range(0, len(blocks), size)]
            self._chapter = ((epoch, chapter), pages)
        return self._chapter[1]

    def _documents(self, place: Place) -> list[tuple[Documents, int]]:
        """The documents of the page of ``place``."""
        key = place._replace(document=0)
        if self._page[0] != key:
            blocks = self._pages(place.epoch, place.chapter)[place.page]
            read = [self._source.read(*block) for block in blocks]
            found = [(documents, index) for documents in read for index in range(len(documents))]
            order = self._permutation(len(found), place.epoch, place.chapter, place.page, *blocks[0])
            if self._share == "documents":  # another process begins at each page, so that none gets more
                first = (self._order.rank + place.page) % self._order.world_size
                order = order[first :: self._order.world_size]
            self._page = (key, [found[index] for index in order])
        return self._page[1]

    def _permutation(self, num: int, *key: int) -> npt.NDArray[np.int64]:
        """The numbers below ``num`` in an order that depends on the seed and on ``key``, which has its own length."""
        if not self._order.shuffle:
            return np.arange(num)
        seeds = [self._order.seed, self._order.number, len(key), *key]
        return np.random.default_rng(seeds).permutation(num)


def _choose_share(source: Source, world_size: int) -> str:
    if world_size == 1 or source.num_shards >= _ENOUGH * world_size:
        return "shards"
    num_blocks = sum(source.num_blocks(shard) for shard in range(source.num_shards))
    return "blocks" if num_blocks >= _ENOUGH * world_size else "documents"

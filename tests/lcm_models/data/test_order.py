"""Each document comes once an epoch in one process, whole and in order, in an order that the seed decides."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import pytest
from conceptfiles import SHAPES, config, documents_of, lengths, one_pass, seen
from hypothesis import given, settings
from hypothesis import strategies as st

from lcm_data.errors import UsageError
from lcm_models.data import ConceptLoader
from lcm_models.data.loader import open_sources
from lcm_models.data.order import Order, Place, Stream


def everything(shape: str) -> Counter[tuple[int, int, int]]:
    source = list(SHAPES).index(shape)
    flat = [length for file in lengths(shape) for group in file for length in group]
    return Counter((source, document, position) for document, n in enumerate(flat) for position in range(n))


@settings(max_examples=12)
@given(
    shape=st.sampled_from(list(SHAPES)),
    world_size=st.sampled_from([1, 2, 3, 5]),
    pack=st.booleans(),
    shuffle=st.booleans(),
    seed=st.integers(0, 9),
    sizes=st.sampled_from([(1, 1), (2, 3), (8, 16)]),
)
def test_processes_share_the_documents(
    nested: dict[str, Path], shape: str, world_size: int, pack: bool, shuffle: bool, seed: int, sizes: tuple[int, int]
) -> None:
    how = {"pack": pack, "shuffle": shuffle, "seed": seed, "shuffle_shards": sizes[0], "shuffle_blocks": sizes[1]}
    ranks = one_pass(config(nested[shape], **how), world_size)
    assert seen(itertools.chain(*ranks)) == everything(shape)


@pytest.mark.parametrize("shape", list(SHAPES))
def test_processes_get_about_the_same(nested: dict[str, Path], shape: str) -> None:
    concepts = [seen(batches).total() for batches in one_pass(config(nested[shape]), 3)]
    assert max(concepts) < 1.7 * min(concepts)


def test_concepts_of_a_window_are_neighbours_in_order(nested: dict[str, Path]) -> None:
    for window in (x for batch in one_pass(config(nested["groups"]))[0] for x in documents_of(batch)):
        assert len(set(window[:, 0])) == 1
        assert (window[1:, 1] - window[:-1, 1] == 1).all()
        assert window[0, 1] % 8 == 0  # max_len


def order(folder: Path, epoch: int = 0, shuffle: bool = True, seed: int = 0) -> list[int]:
    """The documents of an epoch in the order in which one process reads them."""
    (source,) = open_sources(config(folder))
    stream = Stream(source, Order(seed, 0, 0, 1, shuffle, chapter_shards=8, page_blocks=8))
    stream.place = Place(epoch)
    found = []
    while (entry := stream.next()) is not None and entry.place.epoch == epoch:
        found.append(int(entry.documents.x_ND[entry.documents.span(entry.which)[0], 0]))
    return found


def test_seed_and_epoch_decide_the_order(nested: dict[str, Path]) -> None:
    first = order(nested["files"], seed=1)
    assert first == order(nested["files"], seed=1)
    assert len({tuple(first), tuple(order(nested["files"], seed=2)), tuple(order(nested["files"], 1, seed=1))}) == 3
    assert sorted(first) == list(range(600))
    near = sum(abs(a - b) < 10 for a, b in itertools.pairwise(first))
    assert near < 200  # neighbours on disk are seldom read one after the other


def test_without_shuffling_documents_come_as_they_are(nested: dict[str, Path]) -> None:
    assert order(nested["files"], shuffle=False) == list(range(600))


def test_any_place_can_be_reached(nested: dict[str, Path]) -> None:
    (source,) = open_sources(config(nested["groups"]))
    how = Order(0, 0, 1, 2, True, chapter_shards=2, page_blocks=3)
    stream = Stream(source, how)
    entries = [stream.next() for _ in range(300)]
    for entry in (entries[place] for place in (299, 17, 130, 131)):
        assert entry is not None
        again = Stream(source, how).at(entry.place)
        assert again.which == entry.which
        assert (again.documents.x_ND == entry.documents.x_ND).all()


def test_epochs_are_complete_and_differ(nested: dict[str, Path]) -> None:
    loader = ConceptLoader(config(nested["groups"], max_len=32, batch_rows=1, pack=False), rank=1, world_size=2)
    own = seen(one_pass(config(nested["groups"], max_len=32, batch_rows=1, pack=False), 2)[1])
    taken: Counter[tuple[int, int, int]] = Counter()
    for batch in loader:
        taken += seen([batch])
        if taken.total() >= 4000:
            break
    # By blocks: other ones in every epoch, so the process sees more than its share of one.
    assert len(taken) > 1.2 * len(own)
    assert max(taken.values()) <= 6


def test_there_are_more_processes_than_documents(nested: dict[str, Path]) -> None:
    assert sum(bool(batches) for batches in one_pass(config(nested["little"]), 20)) == 14
    empty = next(r for r, batches in enumerate(one_pass(config(nested["little"]), 20)) if not batches)
    with pytest.raises(UsageError, match="fewer documents than there are processes"):
        next(iter(ConceptLoader(config(nested["little"]), empty, 20)))


def test_the_rank_is_checked(nested: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match="rank 2 of 2 processes: allowed are 0 to 1"):
        ConceptLoader(config(nested["little"]), 2, 2)

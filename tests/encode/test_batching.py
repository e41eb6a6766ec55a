from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcm_data.encode.batching import gather_tokens, token_batches
from lcm_data.errors import UsageError

LENGTHS = st.lists(st.integers(1, 514), max_size=60).map(lambda values: np.array(values, np.int32))


@given(lengths=LENGTHS, budget=st.integers(1, 2000))
def test_every_row_once_and_within_the_budget(lengths: np.ndarray, budget: int) -> None:
    batches = token_batches(lengths, budget)
    rows = np.concatenate(batches) if batches else np.zeros(0, int)
    assert sorted(rows.tolist()) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or lengths[batch].sum() <= budget
        assert (np.diff(lengths[batch]) <= 0).all()


@given(lengths=LENGTHS, budget=st.integers(514, 2000))
def test_batches_are_as_full_as_they_can_be(lengths: np.ndarray, budget: int) -> None:
    batches = token_batches(lengths, budget)
    for batch, following in itertools.pairwise(batches):
        assert lengths[batch].sum() + lengths[following[0]] > budget


def test_equal_lengths_keep_their_order_and_the_longest_come_first() -> None:
    batches = token_batches(np.array([2, 5, 2, 5, 2]), 10)
    assert [batch.tolist() for batch in batches] == [[1, 3], [0, 2, 4]]


def test_a_budget_of_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="at least 1, got 0"):
        token_batches(np.array([1]), 0)


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=9), data=st.data())
def test_gathering_equals_joining_slices(lengths: list[int], data: st.DataObject) -> None:
    counts = np.array(lengths, np.int32)
    ids = np.arange(counts.sum(), dtype=np.int32)
    starts = np.cumsum(counts, dtype=np.int64) - counts
    rows = np.array(data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=12)), np.int64)
    wanted = np.concatenate([ids[starts[r] : starts[r] + counts[r]] for r in rows])
    assert gather_tokens(ids, starts, counts, rows).tolist() == wanted.tolist()

"""Cuts sentences (or clips) into batches by their number of tokens. Index arithmetic only; an encoder runs them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from lcm_data.errors import UsageError

Indices = npt.NDArray[np.int64]


def token_batches(lengths: npt.NDArray[np.integer[Any]], token_budget: int) -> list[Indices]:
    """Batches of row indices with at most ``token_budget`` tokens each, longest sentences first.

    Longest first because a batch that does not fit into memory then fails at once, and because the allocator reuses
    blocks that only shrink. Within a batch sentences are sorted by length, neighbours of equal length in input order.
    The result depends on ``lengths`` and ``token_budget`` alone, so a rerun forms the same batches. A sentence longer
    than the budget is a batch of its own.

    Args:
        lengths: tokens of each sentence [N].
        token_budget: most tokens of a batch.

    Returns:
        Index arrays that together hold 0..N-1 exactly once.

    Raises:
        UsageError: the budget is not positive.
    """
    if token_budget < 1:
        raise UsageError(f"token_budget must be at least 1, got {token_budget}.")
    order = np.argsort(-lengths.astype(np.int64), kind="stable")
    ends = np.cumsum(lengths[order], dtype=np.int64)
    batches: list[Indices] = []
    start = 0
    while start < len(order):
        done = int(ends[start - 1]) if start else 0
        stop = max(int(np.searchsorted(ends, done + token_budget, side="right")), start + 1)
        batches.append(order[start:stop])
        start = stop
    return batches


def padded_batches(lengths: npt.NDArray[np.integer[Any]], budget: int) -> list[Indices]:
    """As ``token_batches`` for rows that are padded to the longest of their batch: padding counts, too.

    Raises:
        UsageError: the budget is not positive.
    """
    if budget < 1:
        raise UsageError(f"the budget of a batch must be at least 1, got {budget}.")
    order = np.argsort(-lengths.astype(np.int64), kind="stable")
    batches: list[Indices] = []
    start = 0
    while start < len(order):
        count = max(1, budget // max(1, int(lengths[order[start]])))
        batches.append(order[start : start + count])
        start += count
    return batches


def gather_tokens(
    ids: npt.NDArray[np.int32], starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int32], rows: Indices
) -> npt.NDArray[np.int32]:
    """The ids of ``rows`` one after the other, out of the concatenated ids of all sentences."""
    chosen = lengths[rows].astype(np.int64)
    before = np.cumsum(chosen) - chosen
    return ids[np.repeat(starts[rows] - before, chosen) + np.arange(int(chosen.sum()))]

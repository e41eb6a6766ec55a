"""Draws batches from prepared data: who is encoded, with which noise, and who is decoded from whose vector.

A batch is a function of (seed, epoch, number), so a loader's state is two numbers. In an epoch every language gives its
share of items, each language going through its own in an order of its own before any comes again.

Shapes: N sentences to encode, T their tokens, M sentences to decode, U their tokens, P pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lcm_data.encode.batching import gather_tokens
from lcm_data.sonar.tokenizer import EOS
from lcm_models.sonar.config import BatchConfig
from lcm_models.sonar.prepared import Array, Prepared
from lcm_models.train.turns import Endless, Turns

_MIXED_BATCHES = 100
"""Batches whose items are sorted by length together: of one length in a batch, of any in an epoch's order."""


class SonarBatch(NamedTuple):
    """Sentences are sorted by length and lie one after the other, each ``[language, pieces..., </s>]``.

    ``from_M`` says from which encoded sentence each target is decoded; ``pair_P2`` which of them are translations.
    """

    source_T: Tensor
    source_lengths: list[int]
    target_U: Tensor
    input_U: Tensor
    """The targets shifted by one: each begins with ``</s>`` and lacks its own."""
    target_lengths: list[int]
    from_M: Tensor
    pair_P2: Tensor

    def to(self, device: torch.device | str) -> SonarBatch:
        """The batch on another device."""
        parts = self._asdict().items()
        moved: dict[str, Any] = {k: v.to(device, non_blocking=True) for k, v in parts if isinstance(v, Tensor)}
        return self._replace(**moved)


class Batches:
    """The batches of every epoch of some prepared data, by number."""

    def __init__(self, data: Prepared, config: BatchConfig) -> None:
        self._data, self._config = data, config
        self._starts_S = data.starts()
        self._lengths_S = (data.ends_S - self._starts_S).astype(np.int32)
        self._turns = Turns(self._make_groups(), config.temperature, config.seed)
        order = np.argsort(data.train_N2[:, 0], kind="stable")
        self._sorted_N2 = np.asarray(data.train_N2)[order]

    def _make_groups(self) -> list[Array]:
        """The items of each language."""
        data, config = self._data, self._config
        alone_N2 = np.stack([data.alone_N.astype(np.int64), np.full(len(data.alone_N), -1)], axis=1)
        items_I2 = np.concatenate([np.asarray(data.train_N2, np.int64), alone_N2])
        if config.max_tokens is not None:
            items_I2 = items_I2[self._length(items_I2) <= config.max_tokens]
        second_I = np.where(items_I2[:, 1] < 0, items_I2[:, 0], items_I2[:, 1])
        lang_I = data.tokens[self._starts_S[second_I]].astype(np.int64) * 2 + (items_I2[:, 1] < 0)
        return [items_I2[lang_I == lang] for lang in np.unique(lang_I)]

    def _length(self, items_I2: Array) -> Array:
        second_I = np.where(items_I2[:, 1] < 0, items_I2[:, 0], items_I2[:, 1])
        longest: Array = np.maximum(self._lengths_S[items_I2[:, 0]], self._lengths_S[second_I])
        return longest

    def token_share(self) -> Array:
        """How often each token [V] is one to decode, as shares; but for pivots, which are few."""
        data, count_V = self._data, np.zeros(self._data.vocab_size)
        for items_I2, count in zip(self._turns.groups, self._turns.counts, strict=True):
            rows_N = items_I2[items_I2 >= 0]
            tokens = gather_tokens(data.tokens, self._starts_S, self._lengths_S, rows_N)
            count_V += np.bincount(tokens, minlength=len(count_V)) * (count / len(items_I2))
        share_V: Array = count_V / count_V.sum()
        return share_V

    def epoch(self, number: int) -> list[Array]:
        """The items [I, 2] of every batch of an epoch, in their order."""
        items_I2, rng = self._turns.epoch(number)
        length_I = self._length(items_I2)
        second_I = np.where(items_I2[:, 1] < 0, 0, self._lengths_S[items_I2[:, 1]])
        cost_I = self._lengths_S[items_I2[:, 0]] + second_I
        batches: list[Array] = []
        block = max(1, int(_MIXED_BATCHES * self._config.batch_tokens / max(1.0, float(cost_I.mean()))))
        for start in range(0, len(items_I2), block):
            order = start + np.argsort(length_I[start : start + block], kind="stable")
            batch_I = np.cumsum(cost_I[order]) // self._config.batch_tokens
            batches += np.split(items_I2[order], np.flatnonzero(np.diff(batch_I)) + 1)
        return [batches[index] for index in rng.permutation(len(batches))]

    def make(self, items_I2: Array, rng: np.random.Generator, *, plain: bool = False) -> SonarBatch:
        """The batch of some items; ``plain``: translations alone, in both directions, without noise and pivots."""
        config = self._config
        if not plain and config.pivot:
            items_I2 = self._with_pivots(items_I2, rng)
        # Sentences are numbered: the first of every item, then the second of those that have one.
        first_P = np.flatnonzero(items_I2[:, 1] >= 0)
        rows_N = np.concatenate([items_I2[:, 0], items_I2[first_P, 1]])
        second_P = len(items_I2) + np.arange(len(first_P))
        from_N = np.arange(len(rows_N))  # from its own vector, or that of its translation
        from_N[first_P], from_N[second_P] = second_P, first_P
        is_noised_N = np.zeros(len(rows_N), bool)
        if not plain:
            is_noised_N = rng.random(len(rows_N)) < config.noised
            from_N = np.where(rng.random(len(rows_N)) < config.autoencode, np.arange(len(rows_N)), from_N)
        ids = self._sources(rows_N, is_noised_N, rng)
        lengths_N = np.fromiter(map(len, ids), np.int64, len(ids))
        order_N = np.argsort(lengths_N, kind="stable")
        place_N = np.argsort(order_N)
        target_M = np.argsort(self._lengths_S[rows_N], kind="stable")
        target_lengths_M = self._lengths_S[rows_N[target_M]]
        target_U = gather_tokens(self._data.tokens, self._starts_S, self._lengths_S, rows_N[target_M]).astype(np.int64)
        return SonarBatch(
            source_T=torch.from_numpy(np.concatenate([ids[index] for index in order_N]).astype(np.int64)),
            source_lengths=lengths_N[order_N].tolist(),
            target_U=torch.from_numpy(target_U),
            input_U=torch.from_numpy(_shifted(target_U, target_lengths_M)),
            target_lengths=target_lengths_M.tolist(),
            from_M=torch.from_numpy(place_N[from_N[target_M]]),
            pair_P2=torch.from_numpy(np.stack([place_N[first_P], place_N[second_P]], axis=1)),
        )

    def _with_pivots(self, items_I2: Array, rng: np.random.Generator) -> Array:
        """Some pairs become translations of two other languages: those of the same English sentence."""
        items_I2 = items_I2.copy()
        swap_I = (rng.random(len(items_I2)) < self._config.pivot) & (items_I2[:, 1] >= 0)
        rows = np.flatnonzero(swap_I)
        begin = np.searchsorted(self._sorted_N2[:, 0], items_I2[rows, 0], side="left")
        end = np.searchsorted(self._sorted_N2[:, 0], items_I2[rows, 0], side="right")
        other = self._sorted_N2[begin + rng.integers(0, np.maximum(1, end - begin)), 1]
        fits = (other != items_I2[rows, 1]) & (end > begin)
        if self._config.max_tokens is not None:
            fits &= self._lengths_S[other] <= self._config.max_tokens
        items_I2[rows[fits], 0] = other[fits]
        return items_I2

    def _sources(self, rows_N: Array, is_noised_N: Array, rng: np.random.Generator) -> list[Array]:
        """The ids of each sentence; the chosen ones lose tokens and swap neighbours, never language and end."""
        ids = []
        for row, is_noised in zip(rows_N.tolist(), is_noised_N.tolist(), strict=True):
            sentence = self._data.tokens[self._starts_S[row] : self._data.ends_S[row]]
            ids.append(self._disturb(sentence, rng) if is_noised else sentence)
        return ids

    def _disturb(self, sentence: Array, rng: np.random.Generator) -> Array:
        config, inner = self._config, sentence[1:-1]
        if config.swap_distance:
            inner = inner[np.argsort(np.arange(len(inner)) + rng.random(len(inner)) * (config.swap_distance + 1))]
        kept = inner[rng.random(len(inner)) >= config.drop_tokens]
        disturbed: Array = np.concatenate([sentence[:1], kept, sentence[-1:]])
        return disturbed


def _shifted(target_U: Array, lengths_M: Array) -> Array:
    """Each target one place later, with ``</s>`` before it."""
    shifted = np.empty(len(target_U), np.int64)
    shifted[1:] = target_U[:-1]
    shifted[np.cumsum(lengths_M) - lengths_M] = EOS
    return shifted


class SonarLoader(Endless):
    """Batches of one process without end."""

    def __init__(self, data: Prepared, config: BatchConfig, rank: int = 0, world_size: int = 1) -> None:
        super().__init__(Batches(data, config), config.seed, rank, world_size)


def validation_batches(data: Prepared, config: BatchConfig) -> Iterator[SonarBatch]:
    """The held-out pairs in one pass, always the same: translations in both directions without noise."""
    batches = Batches(data, config)
    items_I2 = np.asarray(data.valid_N2, np.int64)
    if config.max_tokens is not None:
        items_I2 = items_I2[batches._length(items_I2) <= config.max_tokens]
    rng = np.random.default_rng(0)
    items_I2 = items_I2[rng.permutation(len(items_I2))]
    cost_I = batches._lengths_S[items_I2].sum(axis=1)
    batch_I = np.cumsum(cost_I) // config.batch_tokens
    for part in np.split(items_I2, np.flatnonzero(np.diff(batch_I)) + 1):
        if len(part):
            yield batches.make(part, rng, plain=True)

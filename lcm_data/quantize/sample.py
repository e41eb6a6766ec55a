"""Chooses the rows a codebook or normaliser is fitted to, from a stream of any length, with memory for the sample only.

The same corpus gives the same sample however it is cut into batches, shards and workers: a row's place depends on
hashes of its id and its vector alone. Per language the rows with the smallest hash win ("bottom-k"), of rows with
the same vector only one: a duplicate would become a unit of its own. Reading the corpus is the caller's business.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xxhash

from lcm_data.errors import UsageError
from lcm_data.quantize.vectors import Array, check_matrix, valid_rows

_EVERYTHING = np.uint64(2**64 - 1)


def language_quotas(counts: Mapping[str, int], rows: int, alpha: float = 0.5) -> dict[str, int]:
    """Divide ``rows`` among languages in proportion to ``count ** alpha``, never more than a language has.

    alpha 1 is proportional, 0 is equal shares. What small languages cannot give goes to the others; the sum is
    exactly min(rows, all rows there are).

    Raises:
        UsageError: negative numbers, or alpha outside 0 to 1.
    """
    if not 0 <= alpha <= 1 or rows < 0 or any(count < 0 for count in counts.values()):
        raise UsageError(f"alpha {alpha}, rows {rows}: allowed are alpha from 0 to 1 and counts of 0 or more.")
    quotas: dict[str, int] = dict.fromkeys(sorted(counts), 0)
    open_langs = [lang for lang in quotas if counts[lang] > 0]
    left = min(rows, sum(counts.values()))
    while open_langs and left:
        weights = {lang: counts[lang] ** alpha for lang in open_langs}
        share = left / math.fsum(weights.values())
        full = [lang for lang in open_langs if counts[lang] <= weights[lang] * share]
        if not full:
            exact = {lang: weights[lang] * share for lang in open_langs}
            quotas.update({lang: int(value) for lang, value in exact.items()})
            short = left - sum(quotas[lang] for lang in open_langs)
            for lang in sorted(open_langs, key=lambda name: (quotas[name] - exact[name], name))[:short]:
                quotas[lang] += 1
            break
        for lang in full:
            quotas[lang] = counts[lang]
            left -= counts[lang]
            open_langs.remove(lang)
    return quotas


@dataclass(frozen=True, kw_only=True)
class LanguageCount:
    """What became of the rows of one language whose vectors were offered.

    ``seen`` rows were given, ``invalid`` of them (NaN, infinity, all zeros) left out; ``train`` and ``heldout`` are in
    the sample. ``duplicates`` had the vector of a row in the sample and a hash that would have put them there too.
    """

    seen: int
    invalid: int
    duplicates: int
    train: int
    heldout: int


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The chosen vectors [N, D] and ids [N] in an order that is random and always the same; no vector is in both."""

    train: Array
    heldout: Array
    train_sid: Array
    heldout_sid: Array
    counts: dict[str, LanguageCount] = field(default_factory=dict)


class RowSampler:
    """Streaming sampler: ``add`` batches in any order, ``merge`` samplers of other workers, take the ``result``.

    ``quotas`` are rows to train on per language (see ``language_quotas``); ``heldout_rows`` are chosen in addition,
    with the same shares. Rows are kept as ``dtype``; 2.5 times the sample is the most held in memory.
    """

    def __init__(
        self, quotas: Mapping[str, int], *, heldout_rows: int = 0, seed: int = 0, dtype: str = "float16"
    ) -> None:
        if dtype not in ("float16", "float32"):
            raise UsageError(f"dtype: got {dtype!r}, allowed: 'float16', 'float32'.")
        if heldout_rows < 0 or any(quota < 0 for quota in quotas.values()):
            raise UsageError("quotas and heldout_rows: a negative number was given, allowed: 0 or more.")
        self._setup = (dict(sorted(quotas.items())), heldout_rows, seed, dtype)
        self._dtype = np.dtype(dtype)
        self._seed = splitmix64(np.array([seed % 2**64], dtype=np.uint64))[0]
        total = sum(quotas.values())
        # Which side a row is on depends on its vector, so equal vectors are never on both.
        self._heldout_below = np.uint64(heldout_rows * (2**64 - 1) // max(total + heldout_rows, 1))
        heldout = _apportion(quotas, heldout_rows)
        self._pools = {lang: (_Pool(quotas[lang]), _Pool(heldout[lang])) for lang in self._setup[0]}
        self._seen = dict.fromkeys(self._setup[0], 0)
        self._invalid = dict.fromkeys(self._setup[0], 0)
        self._dim: int | None = None

    def wanted(self, sid: Array, lang: str) -> Array:
        """Mask [n] of the rows that may still get into the sample: vectors of the others need not be read.

        Rows whose vectors are not offered to ``add`` are missing from ``seen`` and ``invalid``; the sample is the same.
        """
        key = self._keys(sid)
        return np.asarray(key <= max(pool.threshold for pool in self._pool_pair(lang)))

    def add(self, sid: Array, lang: str, emb: Array) -> None:
        """Offer rows: ids int64 [n], their language, vectors float [n, D].

        Raises:
            UsageError: shapes that do not agree, another width than before, or a language without a quota.
        """
        check_matrix(emb, self._dim, "emb")
        if sid.shape != (len(emb),):
            raise UsageError(f"sid: got shape {sid.shape} for {len(emb)} vectors, expected one id per vector.")
        self._dim = emb.shape[1]
        key = self._keys(sid)
        train, heldout = self._pool_pair(lang)
        with np.errstate(over="ignore"):  # too large for half floats: infinite, counted as invalid
            emb = emb.astype(self._dtype, copy=False)
        valid = valid_rows(emb)
        self._seen[lang] += len(emb)
        self._invalid[lang] += int(len(emb) - valid.sum())
        chosen = np.flatnonzero(valid & (key <= max(train.threshold, heldout.threshold)))
        if not len(chosen):
            return
        rows = np.ascontiguousarray(emb[chosen])
        content = np.fromiter((xxhash.xxh3_64_intdigest(row) for row in rows), dtype=np.uint64, count=len(rows))
        is_heldout = splitmix64(content ^ self._seed) < self._heldout_below
        for pool, side in ((train, ~is_heldout), (heldout, is_heldout)):
            pool.add(key[chosen][side], np.asarray(sid, dtype=np.int64)[chosen][side], content[side], rows[side])

    def merge(self, other: RowSampler) -> None:
        """Take over what ``other`` has chosen, as if its rows had been added here.

        Raises:
            UsageError: the two have different quotas, seeds or types.
        """
        if self._setup != other._setup:
            raise UsageError("cannot merge samplers with different quotas, heldout_rows, seed or dtype.")
        if None not in (self._dim, other._dim) and self._dim != other._dim:
            raise UsageError(f"cannot merge samplers of {self._dim} and {other._dim} dimensions.")
        self._dim = self._dim or other._dim
        for lang, pools in self._pools.items():
            self._seen[lang] += other._seen[lang]
            self._invalid[lang] += other._invalid[lang]
            for mine, theirs in zip(pools, other._pools[lang], strict=True):
                mine.merge(theirs)

    def result(self) -> Sample:
        """The sample of everything added so far; more can be added afterwards."""
        counts = {}
        for lang, (train, heldout) in self._pools.items():
            train.compact()
            heldout.compact()
            counts[lang] = LanguageCount(
                seen=self._seen[lang],
                invalid=self._invalid[lang],
                duplicates=train.num_duplicates + heldout.num_duplicates,
                train=train.num_rows,
                heldout=heldout.num_rows,
            )
        train_emb, train_sid = self._gather(0)
        heldout_emb, heldout_sid = self._gather(1)
        return Sample(train=train_emb, heldout=heldout_emb, train_sid=train_sid, heldout_sid=heldout_sid, counts=counts)

    def _gather(self, side: int) -> tuple[Array, Array]:
        pools = [pools[side] for pools in self._pools.values() if pools[side].num_rows]
        if not pools:
            return np.zeros((0, self._dim or 0), dtype=self._dtype), np.zeros(0, dtype=np.int64)
        # The hash of the key mixes the languages; the key alone would put the most thinned ones first.
        place = np.concatenate([splitmix64(pool.key) for pool in pools])
        sid = np.concatenate([pool.sid for pool in pools])
        order = np.argsort(place, kind="stable")
        target = np.empty(len(order), dtype=np.int64)
        target[order] = np.arange(len(order))
        emb = np.empty((len(order), self._dim or 0), dtype=self._dtype)
        start = 0
        for pool in pools:  # scattered pool by pool: no second copy of the whole sample
            emb[target[start : start + pool.num_rows]] = pool.emb
            start += pool.num_rows
        return emb, sid[order]

    def _keys(self, sid: Array) -> Array:
        return splitmix64(np.asarray(sid).astype(np.int64).view(np.uint64) ^ self._seed)

    def _pool_pair(self, lang: str) -> tuple[_Pool, _Pool]:
        pools = self._pools.get(lang)
        if pools is None:
            known = ", ".join(list(self._pools)[:20])
            raise UsageError(f"language {lang!r} has no quota. Give it one (0 to leave it out); known: {known}.")
        return pools


class _Pool:
    """The ``quota`` rows with the smallest keys among rows with distinct vectors, of one language and side."""

    def __init__(self, quota: int) -> None:
        self._quota = quota
        self._pending: list[tuple[Array, ...]] = []
        self._num_pending = 0
        self._duplicate_keys = np.zeros(0, dtype=np.uint64)
        self.threshold: Any = _EVERYTHING if quota else np.uint64(0)
        self.key = self.content = np.zeros(0, dtype=np.uint64)
        self.sid = np.zeros(0, dtype=np.int64)
        self.emb: Array = np.zeros((0, 0))

    @property
    def num_rows(self) -> int:
        return len(self.key)

    @property
    def num_duplicates(self) -> int:
        return len(self._duplicate_keys)

    def add(self, key: Array, sid: Array, content: Array, emb: Array) -> None:
        near = key <= self.threshold
        if not self._quota or not near.any():
            return
        self._pending.append((key[near], sid[near], content[near], emb[near]))
        self._num_pending += int(near.sum())
        if self._num_pending > max(self._quota // 2, 1024):
            self.compact()

    def merge(self, other: _Pool) -> None:
        other.compact()
        self._duplicate_keys = np.concatenate([self._duplicate_keys, other._duplicate_keys])
        self.add(other.key, other.sid, other.content, other.emb)
        self.compact()

    def compact(self) -> None:
        """Keep the first of each vector and the ``quota`` smallest of those.

        Dropping early is exact: a row goes only if ``quota`` distinct vectors have smaller keys, or its own does.
        """
        if not self._pending:
            self._forget_far_duplicates()
            return
        parts = [*([(self.key, self.sid, self.content, self.emb)] if self.num_rows else []), *self._pending]
        key, sid, content = (np.concatenate([part[i] for part in parts]) for i in range(3))
        by_key = np.lexsort((content, key))  # the content decides if an id was given to two different vectors
        first = np.zeros(len(key), dtype=bool)
        first[by_key[np.unique(content[by_key], return_index=True)[1]]] = True
        kept = by_key[first[by_key]][: self._quota]
        self._duplicate_keys = np.concatenate([self._duplicate_keys, key[~first]])
        self.key, self.sid, self.content = key[kept], sid[kept], content[kept]
        self.emb = _take_rows([part[3] for part in parts], kept)
        self._pending, self._num_pending = [], 0
        if self.num_rows == self._quota:
            self.threshold = self.key[-1]
        self._forget_far_duplicates()

    def _forget_far_duplicates(self) -> None:
        self._duplicate_keys = self._duplicate_keys[self._duplicate_keys <= self.threshold]


def splitmix64(x: Array) -> Array:
    """The splitmix64 mixing of unsigned 64-bit integers (Steele et al. 2014): a bijection, so ids never collide."""
    with np.errstate(over="ignore"):
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(x ^ (x >> np.uint64(31)))


def _take_rows(parts: list[Array], chosen: Array) -> Array:
    """Rows ``chosen`` of the concatenation of ``parts``, without building it."""
    rows = np.empty((len(chosen), parts[0].shape[1]), dtype=parts[0].dtype)
    start = 0
    for part in parts:
        here = np.flatnonzero((chosen >= start) & (chosen < start + len(part)))
        rows[here] = part[chosen[here] - start]
        start += len(part)
    return rows


def _apportion(quotas: Mapping[str, int], rows: int) -> dict[str, int]:
    """Divide ``rows`` in the ratio of ``quotas``, by largest remainders."""
    total = sum(quotas.values())
    exact = {lang: rows * quota / total if total else 0.0 for lang, quota in sorted(quotas.items())}
    shares = {lang: int(value) for lang, value in exact.items()}
    short = (rows if total else 0) - sum(shares.values())
    for lang in sorted(exact, key=lambda name: (shares[name] - exact[name], name))[:short]:
        shares[lang] += 1
    return shares

"""How numbers are spread, in a form that can be added up: over row groups, shards, languages and splits.

Mean, deviation, least and greatest are exact. Whole numbers are counted one by one, so their percentiles are exact,
too; others are counted in steps of 0.1 %, and so near are their percentiles. Memory does not grow with the rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

PERCENTILES = (1, 5, 25, 50, 75, 95, 99)

_STEP = 1e-3
_LEAST = 1e-9
"""Anything nearer to zero counts as zero."""

Array = npt.NDArray[Any]


@dataclass
class Distribution:
    """Counts of numbers, which may be added to; ``counts`` are by whole number, or by step of a logarithmic scale."""

    whole: bool
    num: int = 0
    total: float = 0.0
    squares: float = 0.0
    least: float = np.inf
    most: float = -np.inf
    counts: dict[int, int] = field(default_factory=dict)

    def add(self, values: Array) -> None:
        """Count more numbers, all finite."""
        if not len(values):
            return
        exact = values.astype(np.float64)
        self.num += len(values)
        self.total += float(exact.sum())
        self.squares += float(np.square(exact).sum())
        self.least, self.most = min(self.least, float(exact.min())), max(self.most, float(exact.max()))
        keys, counts = np.unique(values.astype(np.int64) if self.whole else _keys(exact), return_counts=True)
        for key, count in zip(keys.tolist(), counts.tolist(), strict=True):
            self.counts[key] = self.counts.get(key, 0) + count

    def merge(self, other: Distribution) -> None:
        """Add the numbers that another one counted."""
        assert self.whole == other.whole
        self.num += other.num
        self.total += other.total
        self.squares += other.squares
        self.least, self.most = min(self.least, other.least), max(self.most, other.most)
        for key, count in other.counts.items():
            self.counts[key] = self.counts.get(key, 0) + count

    @property
    def mean(self) -> float:
        return self.total / self.num if self.num else 0.0

    @property
    def std(self) -> float:
        return float(np.sqrt(max(0.0, self.squares / self.num - self.mean**2))) if self.num else 0.0

    def percentile(self, share: float) -> float:
        """The smallest number that so many percent do not exceed."""
        keys = sorted(self.counts)
        reached = np.cumsum([self.counts[key] for key in keys])
        key = keys[int(np.searchsorted(reached, share / 100 * self.num - 1e-9))]
        value = float(key) if self.whole else float(_values(np.array([key]))[0])
        return min(max(value, self.least), self.most)

    def histogram(self, edges: Array) -> Array:
        """Numbers between consecutive edges; those outside belong to the first and the last."""
        keys = np.array(sorted(self.counts), np.int64)
        values = keys.astype(np.float64) if self.whole else _values(keys)
        weights = [self.counts[key] for key in keys.tolist()]
        inside = np.clip(values, edges[0], np.nextafter(edges[-1], -np.inf))
        return np.histogram(inside, edges, weights=weights)[0].astype(np.int64)

    def facts(self) -> dict[str, Any]:
        """Plain values."""
        if not self.num:
            return {"count": 0}
        ends = {"min": self.least, "max": self.most}
        if self.whole:
            ends = {name: int(value) for name, value in ends.items()}
        points = {f"p{share}": round(self.percentile(share), 6) for share in PERCENTILES}
        return {"count": self.num, "mean": round(self.mean, 6), "std": round(self.std, 6), **ends, **points}


def merged(parts: Iterable[Distribution]) -> Distribution | None:
    """All of them together; None of none."""
    result: Distribution | None = None
    for part in parts:
        if result is None:
            result = Distribution(part.whole)
        result.merge(part)
    return result


def _keys(values: Array) -> npt.NDArray[np.int64]:
    """Steps of a scale that is logarithmic on both sides of zero."""
    size = np.maximum(np.abs(values), _LEAST)
    steps = 1 + np.rint(np.log(size / _LEAST) / np.log1p(_STEP)).astype(np.int64)
    return np.where(np.abs(values) <= _LEAST, 0, np.sign(values).astype(np.int64) * steps)


def _values(keys: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    size = _LEAST * np.exp((np.abs(keys) - 1) * np.log1p(_STEP))
    return np.where(keys == 0, 0.0, np.sign(keys) * size)

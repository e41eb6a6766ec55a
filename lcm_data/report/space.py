"""What a sample of vectors says about its space: a map, how near languages are to each other, how much they mix.

Shapes: N rows, D dimensions, L languages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lcm_data.report.sample import Part
from lcm_data.search.index import unit

Array = npt.NDArray[Any]

_BLOCK = 1024


@dataclass(frozen=True)
class Map:
    """Points [N, 2] of each language, and the shares of the variance that the two directions hold."""

    points: dict[str, Array]
    shares: tuple[float, float]


@dataclass(frozen=True)
class Nearness:
    """How near languages are.

    Attributes:
        langs: names of rows and columns.
        matrix_LL: mean cosine of a sentence with the nearest one of the other language, mean of both directions; on the
            diagonal with the nearest other one of its own, NaN if there is none.
        own_share: by language, how many have their nearest neighbour in their own language.
        num: sentences of each language.
    """

    langs: list[str]
    matrix_LL: Array
    own_share: dict[str, float]
    num: int


def pca_map(sample: Mapping[str, Part], per_language: int) -> Map:
    """The two directions of largest variance, with a fixed sign."""
    parts = {lang: part.emb_ND[:per_language].astype(np.float64) for lang, part in sample.items()}
    every = np.concatenate(list(parts.values()))
    mean_D = every.mean(axis=0)
    dim = len(mean_D)
    covariance = np.cov(every - mean_D, rowvar=False).reshape(dim, dim) if len(every) > 1 else np.eye(dim)
    if dim == 1:  # the second direction is nothing
        covariance, every, mean_D = np.diag([covariance[0, 0], 0.0]), _widened(every), np.append(mean_D, 0.0)
        parts = {lang: _widened(x_ND) for lang, x_ND in parts.items()}
    values, axes_DD = np.linalg.eigh(covariance)
    top_D2 = axes_DD[:, ::-1][:, :2]
    top_D2 = top_D2 * np.sign(top_D2[np.abs(top_D2).argmax(axis=0), [0, 1]])
    total = max(float(values.sum()), 1e-30)
    shares = (float(values[-1]) / total, float(values[-2]) / total)
    return Map({lang: (x_ND - mean_D) @ top_D2 for lang, x_ND in parts.items()}, shares)


def _widened(x_N1: Array) -> Array:
    return np.concatenate([x_N1, np.zeros_like(x_N1)], axis=1)


def nearness(sample: Mapping[str, Part], per_language: int) -> Nearness:
    """Compare all pairs of languages by the same number of sentences of each."""
    langs = list(sample)
    num = min([per_language, *(len(part.rows) for part in sample.values() if len(part.rows) >= 2)])
    units = [unit(part.emb_ND[:num]) for part in sample.values()]
    every = np.concatenate(units)
    ends = np.cumsum([len(x_ND) for x_ND in units])
    matrix = np.zeros((len(langs), len(langs)))
    own_share = {}
    for row, (lang, x_ND) in enumerate(zip(langs, units, strict=True)):
        best_NL = np.concatenate([
            _best(x_ND[start : start + _BLOCK], every, ends, int(ends[row] - len(x_ND) + start))
            for start in range(0, len(x_ND), _BLOCK)
        ])  # fmt: skip
        matrix[row] = best_NL.mean(axis=0)
        if len(x_ND) == 1:
            matrix[row, row] = np.nan
        own_share[lang] = float(np.mean(best_NL.argmax(axis=1) == row))
    return Nearness(langs, (matrix + matrix.T) / 2, own_share, num)


def _best(x_ND: Array, every: Array, ends: Array, first: int) -> Array:
    """The best cosine of each row, which is row ``first`` of all and on, with the rows of each language but itself."""
    cosines = x_ND @ every.T
    cosines[np.arange(len(x_ND)), first + np.arange(len(x_ND))] = -1
    return np.stack([part.max(axis=1) for part in np.split(cosines, ends[:-1], axis=1)], axis=1)

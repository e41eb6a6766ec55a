"""What the vectors of a space look like: norms, dimensions, how near unrelated ones are, what storing them costs.

Only numbers about vectors and token counts; whether the space means anything is measured elsewhere in this package.

Shapes: N sentences, D dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lcm_data.quality.sentences import Sentences

Array = np.ndarray[Any, Any]

PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
_NUM_BINS = 50


@dataclass(frozen=True)
class Spread:
    """How numbers are spread; ``percentiles`` are those of ``PERCENTILES``."""

    mean: float
    std: float
    min: float
    max: float
    percentiles: tuple[float, ...]


@dataclass(frozen=True)
class Histogram:
    """``counts`` of values between consecutive ``edges``, one more than there are counts."""

    counts: tuple[int, ...]
    edges: tuple[float, ...]


@dataclass(frozen=True)
class SpaceStatistics:
    """Facts about vectors.

    Attributes:
        num_sentences, dim: their number and width.
        norm, norms: lengths of the vectors.
        mean_cosine: mean cosine of two different vectors, over all pairs: 0 is a space that uses all directions. None
            of a single vector.
        dimension_mean, dimension_std: spread over the dimensions of each one's mean and standard deviation.
        top_dimensions: the five dimensions with the largest share of the mean squared length, and these shares.
        float16_error, float16_error_max: relative change of a vector by storing it as half floats, mean and largest;
            None of vectors that were stored so.
        float16_overflows: vectors that half floats turn infinite or into zero.
    """

    num_sentences: int
    dim: int
    norm: Spread
    norms: Histogram
    mean_cosine: float | None
    dimension_mean: Spread
    dimension_std: Spread
    top_dimensions: tuple[tuple[int, float], ...]
    float16_error: float | None
    float16_error_max: float | None
    float16_overflows: int


@dataclass(frozen=True)
class TokenStatistics:
    """Facts about the tokens of sentences; shares lie in [0, 1], ``unknown`` is None where nobody counted."""

    tokens: Spread
    truncated: float
    unknown: float | None
    sentences_with_unknown: float | None


def spread(values: Array) -> Spread:
    """Describe at least one number."""
    values = np.asarray(values, np.float64)
    points = tuple(float(value) for value in np.percentile(values, PERCENTILES))
    return Spread(float(values.mean()), float(values.std()), float(values.min()), float(values.max()), points)


def space_statistics(x_ND: Array) -> SpaceStatistics:
    """Describe at least one vector; all are finite and not zero."""
    was_stored = x_ND.dtype == np.float16
    x_ND = x_ND.astype(np.float32, copy=False)
    norms = np.linalg.norm(x_ND.astype(np.float64), axis=1)
    counts, edges = np.histogram(norms, bins=_NUM_BINS)
    squares_D = np.square(x_ND, dtype=np.float64).mean(axis=0)
    top = np.argsort(-squares_D, kind="stable")[:5]
    relative, num_overflows = _float16_errors(x_ND, norms)
    return SpaceStatistics(
        num_sentences=len(x_ND),
        dim=x_ND.shape[1],
        norm=spread(norms),
        norms=Histogram(tuple(counts.tolist()), tuple(edges.tolist())),
        mean_cosine=mean_cosine(x_ND / norms[:, None]),
        dimension_mean=spread(x_ND.mean(axis=0, dtype=np.float64)),
        dimension_std=spread(x_ND.std(axis=0, dtype=np.float64)),
        top_dimensions=tuple((int(i), float(squares_D[i] / squares_D.sum())) for i in top),
        float16_error=float(relative.mean()) if len(relative) and not was_stored else None,
        float16_error_max=float(relative.max()) if len(relative) and not was_stored else None,
        float16_overflows=num_overflows,
    )


def mean_cosine(unit_ND: Array) -> float | None:
    """Mean cosine over all pairs of different rows, exactly: |sum of rows|^2 holds every pair twice, and N ones."""
    num = len(unit_ND)
    if num < 2:
        return None
    total_D = unit_ND.sum(axis=0, dtype=np.float64)
    return float((total_D @ total_D - num) / (num * (num - 1)))


def token_statistics(sentences: Sentences) -> TokenStatistics:
    """Describe the tokens of at least one sentence."""
    unknown = sentences.num_unknown
    return TokenStatistics(
        tokens=spread(sentences.num_tokens),
        truncated=float(np.mean(sentences.truncated)),
        unknown=None if unknown is None else float(unknown.sum() / max(1, sentences.num_tokens.sum())),
        sentences_with_unknown=None if unknown is None else float(np.mean(unknown > 0)),
    )


def _float16_errors(x_ND: Array, norms: Array) -> tuple[Array, int]:
    """Relative errors of the vectors that half floats can hold, and the number of the others."""
    with np.errstate(over="ignore"):
        stored_ND = x_ND.astype(np.float16)
    held = np.isfinite(stored_ND).all(axis=1) & stored_ND.any(axis=1)
    errors = np.linalg.norm(x_ND[held].astype(np.float64) - stored_ND[held], axis=1) / norms[held]
    return errors, int((~held).sum())

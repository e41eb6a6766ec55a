"""Statistics of vectors and tokens, against numbers computed another way."""

from __future__ import annotations

import numpy as np
import pytest

from lcm_data.quality.sentences import Sentences
from lcm_data.quality.statistics import PERCENTILES, mean_cosine, space_statistics, spread, token_statistics


def vectors(num: int = 40, dim: int = 8) -> np.ndarray:
    return np.random.default_rng(3).standard_normal((num, dim)).astype(np.float32) * 0.1 + 0.02


def test_norms_and_dimensions() -> None:
    x_ND = vectors()
    x_ND[:, 5] += 1
    found = space_statistics(x_ND)
    norms = np.linalg.norm(x_ND, axis=1)
    assert (found.num_sentences, found.dim) == (40, 8)
    assert found.norm.mean == pytest.approx(norms.mean())
    assert found.norm.percentiles[PERCENTILES.index(50)] == pytest.approx(np.median(norms))
    assert sum(found.norms.counts) == 40
    assert len(found.norms.edges) == len(found.norms.counts) + 1
    assert found.dimension_mean.max == pytest.approx(x_ND[:, 5].mean())
    assert found.dimension_std.mean == pytest.approx(x_ND.std(axis=0).mean())
    dimension, share = found.top_dimensions[0]
    assert dimension == 5
    assert share == pytest.approx((x_ND[:, 5] ** 2).sum() / (x_ND**2).sum())


def test_mean_cosine_is_over_all_pairs() -> None:
    x_ND = vectors(12)
    unit = x_ND / np.linalg.norm(x_ND, axis=1, keepdims=True)
    pairs = [float(unit[i] @ unit[j]) for i in range(12) for j in range(12) if i != j]
    assert mean_cosine(unit) == pytest.approx(np.mean(pairs))
    assert mean_cosine(unit[:1]) is None
    assert mean_cosine(np.eye(5)) == pytest.approx(0)


def test_half_floats() -> None:
    exact = np.array([[0.5, -0.25], [2.0, 4.0]], np.float32)
    assert space_statistics(exact).float16_error == 0
    third = np.full((1, 4), 1 / 3, np.float32)
    assert space_statistics(third).float16_error == pytest.approx(abs(float(np.float16(1 / 3)) * 3 - 1), rel=1e-3)
    lost = space_statistics(np.array([[1e6, 0], [1e-9, 0], [1, 0]], np.float32))
    assert (lost.float16_overflows, lost.float16_error) == (2, 0)
    assert space_statistics(exact.astype(np.float16)).float16_error is None


def test_one_vector() -> None:
    found = space_statistics(np.ones((1, 3), np.float32))
    assert (found.norm.mean, found.mean_cosine) == (pytest.approx(3**0.5), None)


def test_tokens() -> None:
    sentences = Sentences(
        "eng_Latn",
        np.arange(4, dtype=np.uint64),
        None,
        vectors(4),
        num_tokens=np.array([4, 6, 10, 20], np.int32),
        truncated=np.array([False, False, False, True]),
        num_unknown=np.array([0, 1, 3, 0], np.int32),
    )
    found = token_statistics(sentences)
    assert (found.tokens.mean, found.truncated, found.unknown) == (10, 0.25, 0.1)
    assert found.sentences_with_unknown == 0.5
    assert token_statistics(Sentences(**{**vars(sentences), "num_unknown": None})).unknown is None


def test_spread() -> None:
    found = spread(np.arange(101))
    assert (found.min, found.max, found.mean) == (0, 100, 50)
    assert found.percentiles == PERCENTILES

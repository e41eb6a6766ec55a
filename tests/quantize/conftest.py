"""Synthetic embeddings and one small fitted codebook shared by the tests of quantization."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lcm_data.quantize.codebook import Codebook, Provenance
from lcm_data.quantize.fit import FitOptions, fit_codebook

Array = np.ndarray[Any, Any]


def _mixture(num_rows: int, dim: int = 32, seed: int = 0) -> Array:
    """Rows with what makes residual k-means collapse: uneven clusters, a decaying spectrum, unequal radii."""
    shared = np.random.default_rng(123)
    spread = np.arange(1, dim + 1) ** -0.375
    means = shared.standard_normal((40, dim)) * spread
    rotation = np.linalg.qr(shared.standard_normal((dim, dim)))[0]
    share = 1 / np.arange(1, 41)
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((num_rows, dim)) * spread + means[rng.choice(40, num_rows, p=share / share.sum())]
    return np.ascontiguousarray((rows * np.exp(0.3 * rng.standard_normal((num_rows, 1)))) @ rotation, dtype=np.float32)


@pytest.fixture(scope="session")
def mixture() -> Callable[..., Array]:
    return _mixture


@pytest.fixture(scope="session")
def fitted() -> Codebook:
    """6 levels of 64 units in 32 dimensions."""
    options = FitOptions(num_levels=6, num_units=64, threads=1)
    return fit_codebook(_mixture(8000, seed=1), _mixture(1000, seed=2), options, Provenance(encoder="synthetic"))

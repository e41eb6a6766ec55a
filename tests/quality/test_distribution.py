"""Distributions: what is added in parts is what is added at once, and percentiles are those of the numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lcm_data.quality.distribution import PERCENTILES, Distribution, merged

whole = st.lists(st.integers(-50, 5000), min_size=1, max_size=200)
real = st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=200)


@given(parts=st.lists(whole, min_size=1, max_size=4) | st.lists(real, min_size=1, max_size=4))
@settings(max_examples=100)
def test_parts_add_up(parts: list[list[float]]) -> None:
    is_whole = all(isinstance(value, int) for part in parts for value in part)
    distributions = []
    for part in parts:
        distributions.append(Distribution(is_whole))
        distributions[-1].add(np.array(part))
    both = merged(distributions)
    assert both is not None
    values = np.array([value for part in parts for value in part], np.float64)
    assert both.num == len(values) == sum(both.counts.values())
    assert (both.least, both.most) == (values.min(), values.max())
    scale = max(1.0, float(np.abs(values).max()))
    assert both.mean == pytest.approx(values.mean(), abs=1e-9 * scale)
    assert both.std == pytest.approx(values.std(), abs=1e-5 * scale)
    for share in PERCENTILES:
        truth = np.percentile(values, share, method="inverted_cdf")
        assert both.percentile(share) == pytest.approx(truth, rel=0 if is_whole else 1e-3, abs=2e-9)


@given(values=whole, num_bins=st.integers(1, 40))
def test_a_histogram_has_every_number_once(values: list[int], num_bins: int) -> None:
    distribution = Distribution(True)
    distribution.add(np.array(values))
    edges = np.linspace(0, 100, num_bins + 1)
    counts = distribution.histogram(edges)
    assert counts.sum() == len(values)
    inside = np.clip(values, 0, 99.999999)
    assert counts.tolist() == np.histogram(inside, edges)[0].tolist()


def test_of_nothing() -> None:
    assert merged([]) is None
    assert Distribution(True).facts() == {"count": 0}

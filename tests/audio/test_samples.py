"""Decoded samples as floats, and the mean of channels: the quick ways give the numbers of the plain ones."""

from __future__ import annotations

import numpy as np
import pytest

from lcm_data.audio.read import mixed
from lcm_data.audio.sound import _samples

KINDS = {"u8": np.uint8, "s16": np.int16, "s32": np.int32, "flt": np.float32, "dbl": np.float64}


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("layout", ["mono", "stereo", "2.1", "5.1", "6.1"])
@pytest.mark.parametrize("kind", KINDS)
def test_samples_of_every_format(kind: str, layout: str, planar: bool) -> None:
    import av

    channels = {"mono": 1, "stereo": 2, "2.1": 3, "5.1": 6, "6.1": 7}[layout]
    rng, dtype = np.random.default_rng(7), KINDS[kind]
    if kind in ("flt", "dbl"):
        given = rng.normal(0, 0.3, (channels, 500)).astype(dtype)
        expected = given.astype(np.float32)
    else:
        limits = np.iinfo(dtype)
        given = rng.integers(limits.min, limits.max, (channels, 500), dtype, endpoint=True)
        half = np.float32(1 << 8 * given.dtype.itemsize - 1)
        expected = given.astype(np.float32) / half - np.float32(1 if kind == "u8" else 0)
    packed = np.ascontiguousarray(given.T).reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(given if planar else packed, format=kind + "p" * planar, layout=layout)
    x_CN = _samples(frame)
    assert x_CN.dtype == np.float32
    assert x_CN.flags.c_contiguous
    np.testing.assert_array_equal(x_CN, expected)
    np.testing.assert_array_equal(mixed(x_CN, None), np.ascontiguousarray(expected).mean(axis=0, dtype=np.float32))
    np.testing.assert_array_equal(mixed(x_CN, channels - 1), expected[-1])

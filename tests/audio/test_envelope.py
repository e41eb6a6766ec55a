"""The shape of a recording: exact whatever the blocks, in constant memory, and of a broken file what there is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from recordings import cut_off, speech, stereo, write_float_wav, write_recording

from lcm_data.audio import AudioError
from lcm_data.audio.envelope import Shape, read_envelope


@given(
    num_samples=st.integers(0, 3000),
    cuts=st.lists(st.integers(0, 3000), max_size=6),
    size=st.integers(1, 40),
    half=st.integers(1, 20),
    seed=st.integers(0, 99),
)
def test_stretches_hold_what_is_in_them(num_samples: int, cuts: list[int], size: int, half: int, seed: int) -> None:
    x_CN = np.random.default_rng(seed).normal(0, 0.3, (2, num_samples)).astype(np.float32)
    shape = Shape(2, size, most=2 * half)
    for part in np.split(x_CN, sorted(min(cut, num_samples) for cut in cuts), axis=1):
        shape.push(part)
    low_CB, high_CB, rms_CB = shape.end()
    assert low_CB.shape[1] <= 2 * half
    assert shape.size / size in [2**power for power in range(13)]
    assert low_CB.shape[1] == -(-num_samples // shape.size)
    for place in range(low_CB.shape[1]):
        part = x_CN[:, place * shape.size : (place + 1) * shape.size]
        np.testing.assert_array_equal(low_CB[:, place], part.min(axis=1))
        np.testing.assert_array_equal(high_CB[:, place], part.max(axis=1))
        if part.shape[1] == shape.size:
            np.testing.assert_allclose(rms_CB[:, place], np.sqrt(np.square(part).mean(axis=1)), rtol=1e-4)


def test_a_recording(tmp_path: Path) -> None:
    found = read_envelope(str(write_recording(tmp_path / "a.flac", stereo(), rate=16_000)))
    assert found.seconds == pytest.approx(speech().shape[0] / 16_000)
    assert found.low_CB.shape == found.high_CB.shape == found.rms_CB.shape
    assert len(found.low_CB) == 2
    assert found.low_CB.shape[1] == pytest.approx(found.seconds / found.bin_seconds, abs=1)
    np.testing.assert_allclose(found.high_CB.max(axis=1), stereo().max(axis=1), atol=1e-4)
    assert found.error == ""


def test_a_broken_recording_shows_what_there_is(tmp_path: Path) -> None:
    whole = read_envelope(str(write_recording(tmp_path / "a.mp3")))
    cut = read_envelope(str(cut_off(write_recording(tmp_path / "b.mp3"))))
    assert 0.4 < cut.seconds / whole.seconds < 0.8
    odd = read_envelope(str(write_float_wav(tmp_path / "odd.wav", np.array([0.1, np.nan, np.inf, -0.2] * 9000))))
    assert np.isfinite(odd.high_CB).all()
    assert np.isfinite(odd.rms_CB).all()
    (tmp_path / "c.wav").write_bytes(b"no sound")
    with pytest.raises(AudioError):
        read_envelope(str(tmp_path / "c.wav"))

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from speechlike import clip, clips

from lcm_data.sonar.speech_config import MIN_SAMPLES, most_samples, num_positions
from lcm_data.sonar.speech_features import filter_bank, speech_features


@given(st.integers(1, 5000))
def test_the_longest_clip_of_so_many_positions(positions: int) -> None:
    most = most_samples(positions)
    assert [num_positions(n) for n in (most, most + 1, most + 160, most + 161)] == [positions] * 3 + [positions + 1]


def test_the_shortest_clip() -> None:
    assert [num_positions(n) for n in (0, 399, 400, MIN_SAMPLES - 1, MIN_SAMPLES, 16000)] == [0, 0, 0, 0, 1, 49]
    assert speech_features([torch.from_numpy(clip(MIN_SAMPLES))]).shape == (1, 1, 160)


def test_padding_is_zero_and_changes_nothing() -> None:
    waves = [torch.from_numpy(wave) for wave in clips()[1:4]]
    together = speech_features(waves)
    for row, wave in zip(together, waves, strict=True):
        alone = speech_features([wave])[0]
        assert len(alone) == num_positions(len(wave))
        assert torch.equal(row[: len(alone)], alone)
        assert not row[len(alone) :].any()


def test_channels_have_mean_0_and_deviation_1_over_all_frames() -> None:
    frames = speech_features([torch.from_numpy(clip(16000))])[0].view(-1, 80)
    assert frames.mean(dim=0).abs().max() < 1e-5
    torch.testing.assert_close(frames.std(dim=0), torch.ones(80), atol=1e-5, rtol=0)


def test_loudness_does_not_matter() -> None:
    wave = torch.from_numpy(clip(16000))
    torch.testing.assert_close(speech_features([wave * 0.25]), speech_features([wave]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("hz", [250.0, 1000.0, 5000.0])
def test_a_tone_is_loudest_in_its_channel(hz: float) -> None:
    """The channel is known from the mel scale: 80 triangles, evenly from 20 Hz to 8 kHz."""
    mel = [1127 * math.log1p(f / 700) for f in (20.0, 8000.0, hz)]
    channel = (mel[2] - mel[0]) / (mel[1] - mel[0]) * 81 - 1
    wave = 0.3 * torch.sin(2 * math.pi * hz * torch.arange(16000) / 16000)
    loudest = filter_bank(wave).argmax(dim=1)
    assert (loudest - channel).abs().max() <= 1


def test_a_quiet_band_beside_a_loud_one_is_not_lost() -> None:
    """In float32 the mean of 0.5 would blur the rest, which the samples hold exactly."""
    wave = torch.from_numpy(clip(16000)) / 64
    assert torch.equal(wave + 0.5 - 0.5, wave)
    torch.testing.assert_close(filter_bank(wave + 0.5), filter_bank(wave), atol=1e-6, rtol=0)


def test_a_channel_without_any_sound_is_zero() -> None:
    assert not speech_features([torch.zeros(16000)]).any()
    spectrum = torch.fft.rfft(torch.from_numpy(clip(16000)).double())
    spectrum[4000:] = 0
    narrow = (torch.fft.irfft(spectrum) * 1e-4).float()  # so soft that above 4 kHz there is nothing but the floor
    frames = speech_features([narrow])[0].view(-1, 80)
    assert frames.isfinite().all()
    assert frames.std(dim=0)[:50].min() > 0.9

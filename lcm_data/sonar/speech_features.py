"""Waveforms to what the SONAR speech encoder sees: Kaldi's log mel filter bank, standardised clip by clip.

The settings are those of sonar-space 0.5 (fairseq2's ``WaveformToFbankConverter`` over kaldi-native-fbank): frames of
25 ms every 10 ms that lie whole within the clip, no dither, mean removed, pre-emphasis 0.97, Povey's window, power
spectrum of 512 points, 80 triangles from 20 Hz to 8 kHz, logarithm, and per clip and channel mean 0 and deviation 1.
Reading and resampling audio is elsewhere; the network is ``lcm_data.sonar.speech_encoder``.

Shapes: B clips, W samples, F frames (100 a second), C mel channels (80), S positions (50 a second), two frames each.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lcm_data.sonar.speech_config import FRAME_LENGTH, FRAME_SHIFT, NUM_CHANNELS, SAMPLE_RATE, STACK

_SCALE = 2.0**15
_PREEMPHASIS = 0.97
_NUM_POINTS = 512
_LOWEST_HZ = 20.0
_CONSTANT = 1e-6
"""A deviation of float32 numbers as large as these logarithms that is none."""
_FLOOR = float(torch.finfo(torch.float32).eps)


def speech_features(waves: Sequence[Tensor]) -> Tensor:
    """What the network sees of some clips, padded with zeros: float32 [B, S, 160] on the device of the clips.

    The features of a clip depend on it alone. A channel that is the same in all frames has no deviation to divide by
    and is 0 here (the reference divides 0 by 0, and the whole clip is lost). That happens where a recording has no
    sound at all in a band, one of 8 kHz that was resampled, say.

    Args:
        waves: float32 [W], mono at 16 kHz between -1 and 1, at least ``lcm_data.sonar.speech_config.MIN_SAMPLES`` each.
    """
    return stacked([standardized(filter_bank(wave)) for wave in waves])


def stacked(features: Sequence[Tensor]) -> Tensor:
    """Standardised filter banks [F, 80] of some clips as the network sees them, padded with zeros: [B, S, 160].

    The reference cuts an odd last frame off after standardising with it.
    """
    pairs = [x_FC[: len(x_FC) // STACK * STACK].reshape(-1, STACK * NUM_CHANNELS) for x_FC in features]
    return torch.nn.utils.rnn.pad_sequence(pairs, batch_first=True)


def filter_bank(wave_W: Tensor) -> Tensor:
    """The logarithm of the energies of one clip [W] in 80 bands: float32 [F, 80].

    Computed in float64, a small part of the network's time: a quiet band beside a loud one is lost in the rounding of
    float32, as it is in the reference.
    """
    frames = (wave_W.double() * _SCALE).unfold(0, FRAME_LENGTH, FRAME_SHIFT)
    frames = frames - frames.mean(dim=1, keepdim=True)
    before = F.pad(frames[:, :-1], (1, 0))
    before[:, 0] = frames[:, 0]  # the first sample of a frame comes after itself
    window, bands = (table.to(wave_W.device) for table in (_povey_window(), _mel_bands()))
    spectrum = torch.fft.rfft((frames - _PREEMPHASIS * before) * window, n=_NUM_POINTS)
    power = torch.view_as_real(spectrum).square().sum(dim=-1)
    # The last point, 8 kHz, is in no triangle.
    return (power[:, :-1] @ bands).clamp_min(_FLOOR).log().float()


def standardized(bank_FC: Tensor) -> Tensor:
    """Mean 0 and (unbiased) deviation 1 over the frames of every channel; 0 where only rounding deviates."""
    deviation, mean = torch.std_mean(bank_FC, dim=0)
    return torch.where(deviation > _CONSTANT, (bank_FC - mean) / deviation, 0.0)


@functools.cache
def _povey_window() -> Tensor:
    """Hann's window to the power of 0.85, float64 [400]."""
    return torch.hann_window(FRAME_LENGTH, periodic=False, dtype=torch.float64).pow(0.85)


@functools.cache
def _mel_bands() -> Tensor:
    """Weights float64 [256, 80] of the points of the spectrum in triangles that are even in the mel scale."""
    points = _mel(torch.arange(_NUM_POINTS // 2, dtype=torch.float64) * SAMPLE_RATE / _NUM_POINTS).unsqueeze(1)
    lowest, highest = (_mel(torch.tensor(hz, dtype=torch.float64)) for hz in (_LOWEST_HZ, SAMPLE_RATE / 2))
    step = (highest - lowest) / (NUM_CHANNELS + 1)
    left = lowest + torch.arange(NUM_CHANNELS) * step
    return torch.minimum((points - left) / step, (left + 2 * step - points) / step).clamp_min(0.0)


def _mel(hz: Tensor) -> Tensor:
    return 1127.0 * torch.log1p(hz / 700.0)

"""Variations of a clip, made on its filter bank: speed, voice, noise, and bands and times left out.

Shapes: F frames (100 a second), C mel channels (80).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lcm_data.sonar.speech_config import NUM_CHANNELS
from lcm_models.speech.config import SpeechBatchConfig

_NOISE_DB = (0.0, 30.0)
_DB = 0.1 * float(np.log(10.0))
"""A decibel of energy in the natural logarithms of the filter bank."""


def vary(bank_FC: Tensor, config: SpeechBatchConfig, rng: np.random.Generator) -> Tensor:
    """The filter bank (logarithms of energies, not standardised) as of another speaker, room and tempo."""
    faster = 1 + config.speed * rng.uniform(-1, 1)
    higher = 1 + config.voice * rng.uniform(-1, 1)
    if config.speed or config.voice:
        bank_FC = _stretched(bank_FC, max(2, round(len(bank_FC) / faster)), higher)
    if rng.random() < config.noise_share:
        bank_FC = _with_noise(bank_FC, rng)
    return bank_FC


def _stretched(bank_FC: Tensor, num_frames: int, higher: float) -> Tensor:
    """In another tempo, and with what was in channel c now in channel ``higher * c``; linear between neighbours.

    The second is what another length of the vocal tract does, about (Jaitly and Hinton 2013).
    """
    time_F = torch.linspace(0, len(bank_FC) - 1, num_frames)
    place_C = (torch.arange(NUM_CHANNELS) / higher).clamp_max(NUM_CHANNELS - 1)
    return _between(_between(bank_FC, time_F).T, place_C).T


def _between(x_NC: Tensor, place_M: Tensor) -> Tensor:
    """Rows of ``x_NC`` at places that need not be whole numbers [M, C]."""
    first_M = place_M.long().clamp_max(len(x_NC) - 1)
    return torch.lerp(x_NC[first_M], x_NC[(first_M + 1).clamp_max(len(x_NC) - 1)], (place_M - first_M).unsqueeze(1))


def _with_noise(bank_FC: Tensor, rng: np.random.Generator) -> Tensor:
    """With steady noise of some colour; energies add up."""
    level = float(bank_FC.exp().mean().log()) - _DB * rng.uniform(*_NOISE_DB)
    tilt_C = torch.linspace(-1, 1, NUM_CHANNELS) * float(rng.uniform(-2.5, 1))
    # The energy of noise in a band of few points is far from steady itself.
    noise_FC = torch.from_numpy(rng.gamma(3.0, 1 / 3.0, bank_FC.shape).astype(np.float32)).clamp_min(1e-6).log()
    return torch.logaddexp(bank_FC, noise_FC + tilt_C - tilt_C.logsumexp(0) + float(np.log(NUM_CHANNELS)) + level)


def mask(x_FC: Tensor, config: SpeechBatchConfig, rng: np.random.Generator) -> Tensor:
    """Standardised features with two bands and two times set to 0, the mean (SpecAugment, arXiv 1904.08779)."""
    x_FC = x_FC.clone()
    for _ in range(2):
        width = int(rng.integers(0, config.mask_channels + 1))
        start = int(rng.integers(0, NUM_CHANNELS - width + 1))
        x_FC[:, start : start + width] = 0.0
        length = int(rng.integers(0, int(config.mask_time * len(x_FC)) + 1))
        start = int(rng.integers(0, len(x_FC) - length + 1))
        x_FC[start : start + length] = 0.0
    return x_FC

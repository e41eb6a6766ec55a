"""Clips that sound a little like speech, the same to the last bit everywhere: integers only, no libm, no generator."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

LENGTHS = (560, 900, 9999, 16000, 24001, 100_000)
"""Samples: the shortest clip there is, odd numbers of frames, and one whose positions attend in two blocks."""


def clip(num_samples: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """A voice (a buzz whose pitch and loudness change) over soft noise: float32 [num_samples]."""
    time = np.arange(num_samples, dtype=np.int64)
    syllable = (time // 2400 * 2654435761 + seed * 40503) % 97
    buzz = np.zeros(num_samples, np.int64)
    for harmonic in (1, 3, 5, 14):
        phase = time * harmonic * (7 + syllable % 11) % 640
        buzz += (np.abs(phase - 320) - 160) * 24 // harmonic
    loudness = np.minimum(time % 2400, 2400 - time % 2400) * (20 + syllable) // 160
    x = buzz * loudness // 800 + noise(num_samples, seed) // 64
    return (np.clip(x, -32768, 32767) / 32768).astype(np.float32)


def noise(num_samples: int, seed: int) -> npt.NDArray[np.int64]:
    """Even integers of 16 bits with a sign, by splitmix64."""
    with np.errstate(over="ignore"):
        z = (np.arange(1, num_samples + 1, dtype=np.uint64) + np.uint64(seed << 32)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (z >> np.uint64(48)).astype(np.int64) - 32768


def clips() -> list[npt.NDArray[np.float32]]:
    """One of each of ``LENGTHS``."""
    return [clip(length, seed) for seed, length in enumerate(LENGTHS)]

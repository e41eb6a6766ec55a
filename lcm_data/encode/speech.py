"""What every speech encoder backend offers, and the checks of clips they share. Reading audio is elsewhere.

Options are those of text (``EncoderOptions``): ``model`` is a speech encoder, ``token_budget`` counts positions, 50 a
second, padding included.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from lcm_data.encode.base import EncoderOptions, Prepared
from lcm_data.errors import UsageError
from lcm_data.sonar.speech_config import MIN_SAMPLES, SAMPLE_RATE, most_samples, num_positions

__all__ = ["SAMPLE_RATE", "Float32", "SpeechEncoder", "prepare_waves"]

Float32 = npt.NDArray[np.float32]


class SpeechEncoder(Protocol):
    """Clips of speech to vectors. The attributes are those of ``lcm_data.encode.base.Encoder``."""

    dim: int
    provenance: dict[str, str]
    busy_seconds: float

    def __init__(self, options: EncoderOptions) -> None: ...

    @staticmethod
    def describe(options: EncoderOptions) -> dict[str, str]:
        """The machine-independent part of ``provenance``, without loading weights."""
        ...

    def prepare(self, waves: Sequence[Float32]) -> Prepared:
        """Check and measure clips: ``num_tokens`` are positions, 50 a second. Safe on any thread.

        Args:
            waves: float32 [W], mono at 16 kHz, between -1 and 1. Kept, not copied; a clip that is longer than the
                network takes is cut and marked as truncated.

        Raises:
            UsageError: see ``prepare_waves``.
        """
        ...

    def embed(self, prepared: Prepared, rows: npt.NDArray[np.integer[Any]] | None = None) -> Float32:
        """Vectors float32 [N, E] in the order of the clips, or of ``rows`` (indices of a subset).

        A vector does not depend on the clips beside it. One call at a time.
        """
        ...


def prepare_waves(waves: Sequence[Float32], max_positions: int) -> Prepared:
    """Clips as ``SpeechEncoder.prepare`` returns them; ``payload`` is a list of arrays float32 [W].

    Raises:
        UsageError: a clip is no float32 [W], shorter than 35 ms, holds numbers that are not finite, or the same number
            throughout (digital silence, which has no features).
    """
    kept = [_checked(wave)[: most_samples(max_positions)] for wave in waves]
    positions = np.array([num_positions(len(wave)) for wave in kept], np.int32)
    truncated = np.array([num_positions(len(wave)) > max_positions for wave in waves], np.bool_)
    return Prepared(positions, truncated, np.zeros(len(kept), np.int32), payload=kept)


def _checked(wave: Float32) -> Float32:
    if not isinstance(wave, np.ndarray) or wave.ndim != 1 or wave.dtype != np.float32:
        got = f"{wave.dtype} {list(wave.shape)}" if isinstance(wave, np.ndarray) else type(wave).__name__
        raise UsageError(f"a clip must be a float32 array [samples], mono at 16 kHz, between -1 and 1; got {got}.")
    if len(wave) < MIN_SAMPLES:
        raise UsageError(
            f"a clip of {1000 * len(wave) / SAMPLE_RATE:g} ms is too short to encode; at least "
            f"{1000 * MIN_SAMPLES / SAMPLE_RATE:g} ms are needed."
        )
    lowest, highest = float(wave.min()), float(wave.max())
    if not np.isfinite([lowest, highest]).all():  # the least and the greatest of numbers are nan if one is
        raise UsageError("a clip holds samples that are not finite.")
    if lowest == highest:
        raise UsageError(f"a clip is silent: all of its {len(wave)} samples are {lowest:g}.")
    return wave

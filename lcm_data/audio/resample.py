"""Any sample rate to 16 kHz, block by block or for one stretch, with the same numbers either way.

The filter is that of FFmpeg's swresample through PyAV. It sees 32 samples of output to both sides at most, so a
stretch that begins earlier by that much, at a place where both grids meet, gives exactly what the whole file gives.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from lcm_data.audio.model import SAMPLE_RATE

FloatTrack = npt.NDArray[np.float32]

_WARM = 64
"""Samples of output computed and dropped on both sides of a stretch: twice what the filter needs."""


class Resampler:
    """One track to 16 kHz.

    Args:
        rate: samples a second of the input.
    """

    def __init__(self, rate: int) -> None:
        import av

        self._rate = rate
        self._swr = av.AudioResampler(format="fltp", layout="mono", rate=SAMPLE_RATE)

    def push(self, x_N: FloatTrack) -> FloatTrack:
        """The samples that ``x_N`` completes, float32."""
        import av

        if self._rate == SAMPLE_RATE:
            return x_N
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(x_N)[None], format="fltp", layout="mono")
        frame.sample_rate = self._rate
        return _joined([out.to_ndarray()[0] for out in self._swr.resample(frame)])

    def end(self) -> FloatTrack:
        """What is left at the end of the track."""
        if self._rate == SAMPLE_RATE:
            return np.zeros(0, np.float32)
        return _joined([out.to_ndarray()[0] for out in self._swr.resample(None)])


def _joined(parts: list[FloatTrack]) -> FloatTrack:
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def source_range(start: int, end: int, rate: int) -> tuple[int, int]:
    """The samples at ``rate`` that ``start`` to ``end`` at 16 kHz are computed from; the first is on both grids."""
    common = math.gcd(rate, SAMPLE_RATE)
    step_in, step_out = rate // common, SAMPLE_RATE // common
    first = max(0, start - _WARM) // step_out * step_in
    return first, -(-(end + _WARM) // step_out) * step_in


def resample_range(x_N: FloatTrack, first: int, rate: int, start: int, end: int) -> FloatTrack:
    """Samples ``start`` to ``end`` at 16 kHz of the stretch ``x_N``, which begins at the ``first`` at ``rate``.

    Fewer come back where the stretch ends earlier.
    """
    resampler = Resampler(rate)
    y_N = np.concatenate([resampler.push(x_N), resampler.end()])
    offset = first * SAMPLE_RATE // rate
    assert first * SAMPLE_RATE % rate == 0, (first, rate)
    return y_N[start - offset : end - offset]

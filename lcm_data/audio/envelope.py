"""The shape of a recording for a picture: lowest and highest sample and loudness of short stretches, constant memory.

How long a recording is shows only at its end, so stretches begin short, and whenever there are too many two become one.
Drawing is ``lcm_data.quality.recording_plot``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lcm_data.audio.model import AudioError
from lcm_data.audio.sound import FloatBlock, Sound

_MOST = 1 << 16
"""Stretches kept at most, an even number: of a recording of 3 hours each is 0.25 s at most."""
_FIRST_SECONDS = 0.001


@dataclass(frozen=True)
class Envelope:
    """The shape of a recording; arrays are float32 [channels, stretches], full scale is 1."""

    low_CB: FloatBlock
    high_CB: FloatBlock
    rms_CB: FloatBlock
    bin_seconds: float
    """Length of a stretch; the last one may be shorter."""
    seconds: float
    """Length of what was decoded."""
    rate: int
    error: str = ""
    """Why decoding ended early, empty if it did not."""


class Shape:
    """Collects samples; memory does not grow with them.

    Args:
        size: samples of a stretch at first.
        most: stretches kept at most, an even number.
    """

    def __init__(self, num_channels: int, size: int, most: int = _MOST) -> None:
        assert size > 0, size
        assert most % 2 == 0, most
        self.size = size
        self._parts = [np.zeros((num_channels, most), np.float32) for _ in range(3)]  # low, high, mean square
        self._filled = 0
        self._rest: FloatBlock = np.zeros((num_channels, 0), np.float32)

    def push(self, x_CN: FloatBlock) -> None:
        """More samples of all channels."""
        x_CN = np.concatenate([self._rest, x_CN], axis=1)
        while x_CN.shape[1] >= self.size:
            room = self._parts[0].shape[1] - self._filled
            if not room:
                self._halve()
                continue
            num = min(room, x_CN.shape[1] // self.size)
            self._add(x_CN[:, : num * self.size].reshape(len(x_CN), num, self.size))
            x_CN = x_CN[:, num * self.size :]
        self._rest = x_CN

    def end(self) -> tuple[FloatBlock, FloatBlock, FloatBlock]:
        """Lowest, highest and root mean square of every stretch."""
        if self._rest.shape[1]:
            if self._filled == self._parts[0].shape[1]:
                self._halve()
            self._add(self._rest[:, None])
            self._rest = self._rest[:, :0]
        low_CB, high_CB, square_CB = (part[:, : self._filled] for part in self._parts)
        return low_CB, high_CB, np.sqrt(square_CB)

    def _add(self, x_CBN: FloatBlock) -> None:
        x_CBN = np.nan_to_num(x_CBN, nan=0.0, posinf=1.0, neginf=-1.0)
        place = slice(self._filled, self._filled + x_CBN.shape[1])
        found = x_CBN.min(axis=2), x_CBN.max(axis=2), np.square(x_CBN, dtype=np.float32).mean(axis=2)
        for part, values in zip(self._parts, found, strict=True):
            part[:, place] = values
        self._filled += x_CBN.shape[1]

    def _halve(self) -> None:
        """Make one stretch of every two."""
        half = self._filled // 2
        for part, joined in zip(self._parts, (np.minimum, np.maximum, np.add), strict=True):
            part[:, :half] = joined(part[:, : self._filled : 2], part[:, 1 : self._filled : 2])
        self._parts[2][:, :half] /= 2
        self._filled, self.size = half, 2 * self.size


def read_envelope(uri: str, storage_options: Mapping[str, Any] | None = None) -> Envelope:
    """The shape of a recording; of a broken one, that of what can be decoded.

    Args:
        uri: absolute path or fsspec URL.

    Raises:
        AudioError: nothing of it can be decoded.
        StorageError: reading failed.
        MissingExtraError: PyAV is not installed.
    """
    error = ""
    with Sound(uri, storage_options) as sound:
        shape = Shape(sound.num_channels, max(1, round(_FIRST_SECONDS * sound.rate)))
        read = 0
        try:
            for place, x_CN in sound.blocks():
                shape.push(x_CN)
                read = place + x_CN.shape[1]
        except AudioError as caught:
            error = caught.error
        if not read:
            raise AudioError("empty_audio", error or "no samples could be decoded")
        low_CB, high_CB, rms_CB = shape.end()
        return Envelope(low_CB, high_CB, rms_CB, shape.size / sound.rate, read / sound.rate, sound.rate, error)

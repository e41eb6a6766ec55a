"""Reading clips: the samples of a segment, from the middle of a recording, as the whole recording has them.

    with ClipReader("talk.mp3") as reader:
        x_N = reader.read(None, 12.032, 15.264)     # float32 at 16 kHz

Formats whose timestamps are exact are jumped in; others are decoded once from the beginning, however many clips are
read, as long as these are in order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from lcm_data.audio.model import SAMPLE_RATE, AudioError
from lcm_data.audio.resample import Resampler, resample_range, source_range
from lcm_data.audio.sound import FloatBlock, Sound
from lcm_data.errors import InputError, UsageError

FloatTrack = npt.NDArray[np.float32]

_FORWARD_SECONDS = 10.0
"""A clip that begins so soon after the last one is reached by decoding on, not by a jump."""


def mixed(x_CN: FloatBlock, channel: int | None) -> FloatTrack:
    """One track of a block: a channel, or the mean of all for None."""
    x_N: FloatTrack = x_CN[channel or 0]
    if channel is not None:
        return x_N
    x_N = x_N.copy()
    for other_N in x_CN[1:]:  # numpy's mean takes several times as long over a short axis
        x_N += other_N
    x_N /= np.float32(len(x_CN))
    return x_N


def read_clip(
    uri: str,
    channel: int | None,
    start_s: float,
    end_s: float,
    *,
    storage_options: Mapping[str, Any] | None = None,
) -> FloatTrack:
    """The samples of one segment; see ``ClipReader.read``. Several clips of a file are quicker with a reader."""
    with ClipReader(uri, storage_options) as reader:
        return reader.read(channel, start_s, end_s)


def read_all(
    uri: str,
    channel: int | None = None,
    *,
    max_seconds: float = float("inf"),
    storage_options: Mapping[str, Any] | None = None,
) -> FloatTrack:
    """All samples of a short recording, float32 [N] at 16 kHz; reading ends soon after ``max_seconds``.

    Raises:
        InputError: the recording is missing or cannot be decoded.
        UsageError: no such channel.
        StorageError: reading failed.
        MissingExtraError: PyAV is not installed.
    """
    try:
        with Sound(uri, storage_options) as sound:
            _check_channel(channel, sound.num_channels, uri)
            resampler = Resampler(sound.rate)
            parts: list[FloatTrack] = []
            for place, x_CN in sound.blocks():
                parts.append(resampler.push(mixed(x_CN, channel)))
                if place > max_seconds * sound.rate:
                    break
    except AudioError as error:
        raise InputError(f"cannot read the recording {uri!r}: {error.error}.") from error
    return np.concatenate([*parts, resampler.end()])


def _check_channel(channel: int | None, num_channels: int, uri: str) -> None:
    if channel is not None and not 0 <= channel < num_channels:
        raise UsageError(f"no channel {channel} in {uri!r}, which has {num_channels}; give 0 on.")


class ClipReader:
    """An open recording that gives clips; a context manager, used by one thread.

    Args:
        uri: absolute path or fsspec URL, the column ``audio_uri``.

    Raises:
        InputError: the recording is missing or cannot be decoded (any more), here and while it is read.
        StorageError: reading failed.
        MissingExtraError: PyAV is not installed.
    """

    def __init__(self, uri: str, storage_options: Mapping[str, Any] | None = None) -> None:
        self._uri = uri
        try:
            self._sound = Sound(uri, storage_options)
        except AudioError as error:
            raise _changed(uri, error.error) from error
        self._blocks: Iterator[tuple[int, FloatBlock]] | None = None
        self._held: FloatBlock = np.zeros((self._sound.num_channels, 0), np.float32)
        self._place = 0  # of the first sample held

    def read(self, channel: int | None, start_s: float, end_s: float) -> FloatTrack:
        """Samples from ``start_s`` to ``end_s``, float32 [round(end * 16000) - round(start * 16000)] at 16 kHz.

        They are those of the whole recording decoded and resampled: to the bit, of Opus to 1e-5 (its decoder
        remembers), of AAC up to noise that its decoder makes up. Clips may come in any order; ascending is quickest.

        Args:
            channel: of the file, from 0; None for the mean of all, the column ``channel``.

        Raises:
            UsageError: no such channel, or no range of time.
            InputError: the recording ends before ``end_s``, or cannot be decoded.
        """
        start, end = round(start_s * SAMPLE_RATE), round(end_s * SAMPLE_RATE)
        if not 0 <= start < end:
            raise UsageError(f"a clip from {start_s} to {end_s} s holds no samples; give 0 <= start_s < end_s.")
        _check_channel(channel, self._sound.num_channels, self._uri)
        first, last = source_range(start, end, self._sound.rate)
        try:
            x_CN = self._fetch(first, last)
        except AudioError as error:
            raise _changed(self._uri, error.error) from error
        y_N = resample_range(mixed(x_CN, channel), first, self._sound.rate, start, end)
        if len(y_N) < end - start:
            raise _changed(self._uri, f"it ends at {(start + len(y_N)) / SAMPLE_RATE:.3f} s, before {end_s:.3f} s")
        return y_N

    def _fetch(self, first: int, last: int) -> FloatBlock:
        """Samples of the file from ``first`` to ``last`` (or its end) at its own rate."""
        ahead = first - (self._place + self._held.shape[1])
        far = self._sound.can_seek and ahead > _FORWARD_SECONDS * self._sound.rate
        if self._blocks is None or first < self._place or far:
            self._place = first if self._sound.can_seek else 0
            self._blocks = self._sound.blocks(self._place)
            self._held = self._held[:, :0]
        while self._place + self._held.shape[1] < last and (block := next(self._blocks, None)) is not None:
            self._drop(first)
            self._held = np.concatenate([self._held, block[1]], axis=1)
        self._drop(first)
        return self._held[:, : last - first]

    def _drop(self, first: int) -> None:
        """Let go of samples before ``first``."""
        drop = min(max(0, first - self._place), self._held.shape[1])
        self._held, self._place = self._held[:, drop:], self._place + drop

    def close(self) -> None:
        """Close the file."""
        self._sound.close()

    def __enter__(self) -> ClipReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _changed(uri: str, what: str) -> InputError:
    return InputError(
        f"cannot read the recording {uri!r}: {what}. Put the file back that the segments were made of, or run "
        "'lcm-data segment --overwrite'."
    )

"""Decoding: the first audio stream of any file PyAV reads, as samples on one timeline, from any place in it.

The place of a sample follows from the timestamps of its file, so that reading from the middle gives the same numbers as
reading from the beginning. Small gaps (lost packets) are filled with silence, and counted. Containers whose timestamps
are coarser than a sample (WebM, Matroska: milliseconds) are counted through from the beginning instead. Resampling
is in ``resample``.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lcm_data.audio.model import AudioError
from lcm_data.documents.streams import file_system, storage_errors
from lcm_data.errors import InputError, MissingExtraError, StorageError

if TYPE_CHECKING:
    from av import AudioFifo, AudioFrame

FloatBlock = npt.NDArray[np.float32]

_RATES = (4_000, 768_000)
_MAX_CHANNELS = 64
_PREROLL_SECONDS = 1.0
"""Decoded and dropped before a place that was jumped to: mp3, AAC and Opus need what came before."""
_BLOCK_SECONDS = 1.0
_MAX_GAP_SECONDS, _MAX_OVERLAP_SECONDS = 60.0, 1.0
_MAX_MISSING = 0.01
"""Share of a file that may be missing, or half a second of a short one."""
_VORBIS_JITTER = 0.05
"""Single frames of Vorbis, whose frames differ in length, are stamped later than they are (10 ms by usual encoders)."""
_SYNC_FRAMES = 16
"""After a jump, the earliest timestamp of so many frames tells where they are."""
_DISK_ERRORS = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN}


class Sound:
    """An open recording; a context manager, read by one thread.

    Raises:
        AudioError: the file is missing, empty, broken, or of absurd shape, here and while it is read.
        StorageError: reading failed.
        MissingExtraError: PyAV is not installed.
    """

    def __init__(self, uri: str, storage_options: Mapping[str, Any] | None = None) -> None:
        self.uri = uri
        self._storage_options = storage_options
        self._opened = contextlib.ExitStack()
        try:
            with _decoding(uri):
                self._open(storage_options)
        except BaseException:
            self.close()
            raise
        self.missing = 0
        """Samples that were lost in damaged packets and are silence now."""

    def _open(self, storage_options: Mapping[str, Any] | None) -> None:
        import av

        source = _source(self.uri, storage_options, self._opened)
        self._container = self._opened.enter_context(av.open(source, metadata_errors="replace"))
        if not self._container.streams.audio:
            raise AudioError("empty_audio", "the file has no audio stream")
        stream = self._stream = self._container.streams.audio[0]
        stream.codec_context.thread_count = 1
        self.rate = int(stream.rate or 0)
        self.num_channels = int(stream.channels or 0)
        if not _RATES[0] <= self.rate <= _RATES[1] or not 1 <= self.num_channels <= _MAX_CHANNELS:
            raise AudioError(
                "broken_audio",
                f"{self.num_channels} channels at {self.rate:,} Hz; {_RATES[0]:,} to {_RATES[1]:,} Hz and at most "
                f"{_MAX_CHANNELS} channels are read",
            )
        assert stream.time_base is not None
        tick = stream.time_base * self.rate
        self._samples_a_tick = (tick.numerator, tick.denominator)  # of the timestamps
        self.can_seek = tick <= 1
        self._jitter = round(_VORBIS_JITTER * self.rate) if stream.codec_context.name == "vorbis" else 1
        self._origin: int | None = None  # timestamp of the first sample

    @property
    def format(self) -> str:
        """FFmpeg's name of the container."""
        return str(self._container.format.name)

    @property
    def declared_seconds(self) -> float | None:
        """Length that the file itself claims, None if it does not."""
        if self._stream.duration and self._stream.time_base:
            return float(self._stream.duration * self._stream.time_base)
        return self._container.duration / 1e6 if self._container.duration else None

    def blocks(self, first: int = 0) -> Iterator[tuple[int, FloatBlock]]:
        """Samples from the ``first`` on, as (place of the first one, float32 [channels, samples]), without gaps.

        ``first`` counts samples of the file's own rate. Blocks hold about a second.
        """
        import av

        fifo = av.AudioFifo()  # frames of a few milliseconds are put together in C
        place: int | None = None
        for start, frame in self._from(first):
            if start + frame.samples <= first:
                continue
            place = start if place is None else place
            frame.pts = None
            fifo.write(frame)
            if fifo.samples >= self.rate * _BLOCK_SECONDS:
                x_CN = _emptied(fifo)
                yield max(first, place), x_CN[:, max(0, first - place) :]
                place += x_CN.shape[1]
        if place is not None and fifo.samples:
            yield max(first, place), _emptied(fifo)[:, max(0, first - place) :]

    def _from(self, first: int) -> Iterator[tuple[int, AudioFrame]]:
        """Decoded frames that hold the ``first`` sample and those after it, perhaps with some before."""
        jump = first - round(_PREROLL_SECONDS * self.rate)
        if jump > 0 and self.can_seek:
            frames = self._jumped(jump)
            head = next(frames, None)
            if head is not None and head[0] <= first:
                yield head
                yield from frames
                return
        if self._origin is not None:
            self._opened.close()
            with _decoding(self.uri):
                self._open(self._storage_options)
        yield from self._decoded(0)

    def _jumped(self, place: int) -> Iterator[tuple[int, AudioFrame]]:
        """Decoded frames from a little before ``place``."""
        if self._origin is None:
            next(self._decoded(0), None)
        timestamp = (self._origin or 0) + place * self._samples_a_tick[1] // self._samples_a_tick[0]
        with _decoding(self.uri):
            self._container.seek(timestamp, stream=self._stream, backward=True)
        return self._decoded(None)

    def _decoded(self, place: int | None) -> Iterator[tuple[int, AudioFrame]]:
        """Frames in order, each with the place of its first sample; together they leave no gap.

        ``place`` is that of the first one, None if only the timestamps tell.
        """
        frames: Iterator[AudioFrame] = self._raw()
        if place is None:
            heads = list(itertools.islice(frames, _SYNC_FRAMES))
            if not heads:
                return
            counted = itertools.accumulate((frame.samples for frame in heads), initial=0)
            place = min(self._stamp(frame.pts or 0) - count for frame, count in zip(heads, counted, strict=False))
            frames = itertools.chain(heads, frames)
        for frame in frames:
            pts = frame.pts
            if self._origin is None:
                self._origin = pts or 0
            if pts is not None and self.can_seek and abs(off := self._stamp(pts) - place) > self._jitter:
                for mended in self._mend(frame, place, off):
                    yield place, mended
                    place += mended.samples
            else:
                yield place, frame
                place += frame.samples

    def _stamp(self, pts: int) -> int:
        """The place that a timestamp names."""
        assert self._origin is not None
        ticks = (pts - self._origin) * self._samples_a_tick[0]
        return int((2 * ticks + self._samples_a_tick[1]) // (2 * self._samples_a_tick[1]))  # rounded, in integers

    def _mend(self, frame: AudioFrame, place: int, off: int) -> Iterator[AudioFrame]:
        """A frame that is stamped ``off`` samples after ``place``: silence before it, or its part that is new."""
        seconds = off / self.rate
        if seconds > _MAX_GAP_SECONDS or -seconds > _MAX_OVERLAP_SECONDS:
            raise AudioError("broken_audio", f"the timestamps jump by {seconds:+,.1f} s at {place / self.rate:,.1f} s")
        while off > 0:
            size = min(off, self.rate)
            self.missing += size
            yield self._like(frame, np.zeros((self.num_channels, size), np.float32))
            off -= size
        if off + frame.samples > 0:
            yield self._like(frame, _samples(frame)[:, -off:]) if off else frame

    def _like(self, frame: AudioFrame, x_CN: FloatBlock) -> AudioFrame:
        """A frame of these samples, in the format of ``frame``."""
        import av

        made = av.AudioFrame.from_ndarray(np.ascontiguousarray(x_CN), format="fltp", layout=frame.layout)
        made.sample_rate = self.rate
        converter = av.AudioResampler(format=frame.format, layout=frame.layout, rate=self.rate)
        return converter.resample(made)[0]

    def _raw(self) -> Iterator[AudioFrame]:
        """Frames as PyAV gives them; packets that cannot be decoded are left out."""
        import av

        shape = (self.rate, self.num_channels)
        with _decoding(self.uri):
            for packet in self._container.demux(self._stream):
                try:
                    frames = packet.decode()
                except av.error.InvalidDataError:
                    continue  # a gap in the timestamps tells how much is lost
                for frame in frames:
                    if (frame.sample_rate, frame.layout.nb_channels) != shape:
                        raise AudioError("broken_audio", "the rate or the number of channels changes on the way")
                    yield frame

    def check_missing(self, num_samples: int) -> None:
        """Refuse a recording of which too much is lost, once all of its ``num_samples`` have been read."""
        if self.missing > max(0.5 * self.rate, _MAX_MISSING * num_samples):
            lost, length = self.missing / self.rate, num_samples / self.rate
            raise AudioError("broken_audio", f"{lost:,.1f} of {length:,.1f} s cannot be decoded")

    def close(self) -> None:
        """Close the file."""
        self._opened.close()

    def __enter__(self) -> Sound:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _source(uri: str, storage_options: Mapping[str, Any] | None, opened: contextlib.ExitStack) -> Any:
    """What PyAV opens: a local path, or a file object of fsspec."""
    fs, path = file_system(uri, storage_options)
    try:
        with storage_errors(uri):
            info = fs.info(path)
            if info.get("type") == "directory":
                raise AudioError("missing_audio", "it is a directory")
            if not info["size"]:
                raise AudioError("empty_audio", "the file has no bytes")
            # The prefix keeps FFmpeg from taking the name for a protocol of its own ("concat:", "http:").
            return f"file:{path}" if "file" in fs.protocol else opened.enter_context(fs.open(path, "rb"))
    except InputError as error:
        raise AudioError("missing_audio", str(error.__cause__ or error)) from error


@contextlib.contextmanager
def _decoding(uri: str) -> Iterator[None]:
    """Errors of PyAV and of the storage behind it become ours."""
    try:
        import av
    except ImportError as error:
        raise MissingExtraError("reading recordings", "av", "audio") from error
    try:
        with storage_errors(uri):
            try:
                yield
            except av.FFmpegError as error:
                if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
                    raise StorageError(f"reading {uri!r} failed: {error}. Run the same command again.") from error
                raise AudioError("broken_audio", f"cannot be decoded: {error.strerror}") from error
    except InputError as error:
        raise AudioError("missing_audio", str(error.__cause__ or error)) from error


def _emptied(fifo: AudioFifo) -> FloatBlock:
    frame = fifo.read()
    assert frame is not None
    return _samples(frame)


def _samples(frame: AudioFrame) -> FloatBlock:
    """Samples of a frame, float32 [channels, samples], full scale ±1."""
    raw: npt.NDArray[Any] = frame.to_ndarray()
    if not frame.format.is_planar:
        raw = raw.reshape(-1, frame.layout.nb_channels).T
    if raw.dtype.kind == "f":
        return raw.astype(np.float32, order="C", copy=False)
    # Each channel in a row of its own: what is done with transposed samples takes ten times as long.
    scale = np.float32(1 / (1 << 8 * raw.dtype.itemsize - 1))
    x_CN: FloatBlock = np.empty(raw.shape, np.float32)
    for channel_N, x_N in zip(raw, x_CN, strict=True):
        np.multiply(channel_N, scale, out=x_N, dtype=np.float32, casting="unsafe")
    return x_CN - np.float32(1) if raw.dtype.kind == "u" else x_CN

"""One recording to its speech segments, in one pass and in constant memory but for 0.9 MB an hour and channel.

Decode, bring to 16 kHz, find speech, cut. A recording that cannot be used raises ``AudioError`` with the reason of its
reject. Which recordings there are, and what becomes of the segments, is left to the worker.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lcm_data.audio.cut import cut_segments
from lcm_data.audio.model import FRAME, SAMPLE_RATE, AudioError, AudioOptions, SpeechSegment
from lcm_data.audio.read import mixed
from lcm_data.audio.resample import Resampler
from lcm_data.audio.sound import Sound
from lcm_data.audio.spans import speech_spans
from lcm_data.audio.vad import Track, VoiceActivity
from lcm_data.audio.whole import check_whole

_SILENCE = 1e-7
"""Mean square below which a frame is silence: -70 dB."""
_ABSURD = 100.0
"""Mean square above which samples are no sound: +20 dB over full scale."""
_QUIETEST_DB = -120.0


@dataclass(frozen=True)
class Recording:
    """What was found in a recording."""

    segments: tuple[SpeechSegment, ...]
    """By time, then by channel; those of one channel do not overlap."""
    seconds: float
    """Length of the recording."""
    sample_rate: int
    """Of the file, in Hz."""


def segment_recording(
    uri: str,
    voice: VoiceActivity,
    options: AudioOptions,
    *,
    is_utterance: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> Recording:
    """Find and cut the speech of a recording.

    Args:
        uri: absolute path or fsspec URL.
        is_utterance: keep all speech in one segment if it is short enough, whatever its pauses (it has a transcript).

    Raises:
        AudioError: the recording is broken, empty, truncated, too short, too long, or holds no speech.
        StorageError: reading failed.
        MissingExtraError: PyAV is not installed.
    """
    with Sound(uri, storage_options) as sound:
        channels: list[int | None] = [*range(sound.num_channels)]
        if options.channels == "mix" and sound.num_channels > 1:
            channels = [None]
        tracks = _read(sound, channels, voice, options)
        num_samples = tracks[0].num_samples
        seconds = num_samples / SAMPLE_RATE
        if not num_samples:
            raise AudioError("empty_audio", "no samples could be decoded")
        check_whole(uri, sound.format, sound.declared_seconds, seconds, storage_options)
        if seconds < options.min_seconds:
            error = f"{seconds:.2f} s, a segment has {options.min_seconds:g} s or more (min_seconds)"
            raise AudioError("too_short", error)
        rate = sound.rate
    found = []
    loudest = 0.0
    for channel, track in zip(channels, tracks, strict=True):
        probs_F, energy_F = track.end()
        loudest = max(loudest, _loudest(energy_F))
        found += _segments(probs_F, energy_F, channel, num_samples, options, is_utterance and len(channels) == 1)
    if not found:
        if loudest < _SILENCE:
            raise AudioError("silent_audio", f"{seconds:,.1f} s of silence")
        raise AudioError("no_speech", f"no speech was found in {seconds:,.1f} s")
    found.sort(key=lambda segment: (segment.start, segment.channel or 0))
    return Recording(tuple(found), seconds, rate)


def _read(sound: Sound, channels: list[int | None], voice: VoiceActivity, options: AudioOptions) -> list[Track]:
    """Decode all of a recording into one track a channel."""
    tracks = [voice.track() for _ in channels]
    resamplers = [Resampler(sound.rate) for _ in channels]
    most = options.max_hours * 3600
    too_long = f"are allowed (max_hours {options.max_hours:g}). Cut it into parts, or raise the limit"
    declared = sound.declared_seconds or 0.0
    read = 0
    for place, x_CN in sound.blocks():
        read = place + x_CN.shape[1]
        if read > most * sound.rate:
            raise AudioError("too_long", f"over {most:,.0f} s, {declared:,.0f} by its header; {most:,.0f} {too_long}")
        for channel, track, resampler in zip(channels, tracks, resamplers, strict=True):
            track.push(resampler.push(mixed(x_CN, channel)))
    for track, resampler in zip(tracks, resamplers, strict=True):
        track.push(resampler.end())
    sound.check_missing(read)
    return tracks


def _loudest(energy_F: npt.NDArray[np.float32]) -> float:
    """The largest mean square of a frame. Raises ``AudioError`` for numbers that are no sound."""
    loudest = float(energy_F.max(initial=0.0))
    if not np.isfinite(energy_F).all():
        raise AudioError("broken_audio", "it holds samples that are no numbers, or infinite")
    if loudest > _ABSURD:
        raise AudioError("broken_audio", f"samples of about {loudest**0.5:,.0f}, full scale is 1")
    return loudest


def _segments(
    probs_F: npt.NDArray[np.float32],
    energy_F: npt.NDArray[np.float32],
    channel: int | None,
    num_samples: int,
    options: AudioOptions,
    is_utterance: bool,
) -> list[SpeechSegment]:
    spans = speech_spans(probs_F, options.speech_threshold)
    is_speech_F = np.zeros(len(probs_F), np.bool_)
    for start, end in spans.tolist():
        is_speech_F[start:end] = True
    if is_utterance and len(spans) and spans[-1, 1] - spans[0, 0] + 2 * options.padding_frames <= options.max_frames:
        spans = np.array([[spans[0, 0], spans[-1, 1]]])
    found = []
    for start, end in cut_segments(spans, energy_F, options):
        last = min(end * FRAME, num_samples)
        level = float(energy_F[start:end].sum(dtype=np.float64)) * FRAME / (last - start * FRAME)
        found.append(
            SpeechSegment(
                start=start * FRAME,
                end=last,
                channel=channel,
                speech_ratio=float(is_speech_F[start:end].mean()),
                loudness_db=max(_QUIETEST_DB, float(10 * np.log10(level))) if level > 0 else _QUIETEST_DB,
            )
        )
    return found

"""The words of this room: sample rate and frames, a speech segment, the settings, and why a recording is a reject.

Everything is measured on one grid, samples at 16 kHz from the first sample of the file; seconds are samples / 16,000.
Nothing here reads or computes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from lcm_data.documents.model import Reason
from lcm_data.errors import UsageError

SAMPLE_RATE = 16_000
"""Samples a second of everything after reading."""
FRAME = 512
"""Samples of a frame, the grid of speech probabilities and of segments: 32 ms."""

Channels = Literal["mix", "each"]
CHANNELS: tuple[Channels, ...] = get_args(Channels)

JOIN_MINIMA = 2
"""A segment that is too short joins a neighbour within so many times the shortest length, else silence is added."""


class AudioError(Exception):
    """A recording cannot be used; it becomes a reject."""

    def __init__(self, reason: Reason, error: str) -> None:
        super().__init__(error)
        self.reason: Reason = reason
        self.error = error

    def __reduce__(self) -> tuple[type[AudioError], tuple[Reason, str]]:
        return (AudioError, (self.reason, self.error))


class SpeechSegment(NamedTuple):
    """One sentence-like stretch of speech."""

    start: int
    """First sample at 16 kHz."""
    end: int
    """One past the last sample."""
    channel: int | None
    """Channel of the file, from 0; None for the mean of several."""
    speech_ratio: float
    """Share of its frames that are speech, in [0, 1]."""
    loudness_db: float
    """Root mean square relative to full scale, in dB."""

    @property
    def seconds(self) -> tuple[float, float]:
        """Start and end in seconds."""
        return self.start / SAMPLE_RATE, self.end / SAMPLE_RATE

    @property
    def length(self) -> float:
        """Seconds from start to end."""
        return (self.end - self.start) / SAMPLE_RATE


@dataclass(frozen=True, kw_only=True)
class AudioOptions:
    """How recordings are cut; times in seconds. All of it determines the output."""

    channels: Channels = "mix"
    """``mix``: the mean of all channels is one track. ``each``: every channel is cut for itself."""
    speech_threshold: float = 0.5
    """Probability at which speech begins; it ends 0.15 below."""
    min_pause: float = 0.25
    """Shorter pauses do not end a segment."""
    min_seconds: float = 1.0
    max_seconds: float = 30.0
    padding: float = 0.1
    """Of what is around the speech, at most half of a pause."""
    max_hours: float = 24.0
    """Longer recordings are rejected."""

    def __post_init__(self) -> None:
        if self.channels not in CHANNELS:
            raise UsageError(f"channels must be {' or '.join(CHANNELS)}, got {self.channels!r}.")
        if not 0.2 <= self.speech_threshold <= 0.95:
            raise UsageError(f"speech_threshold must be between 0.2 and 0.95, got {self.speech_threshold:g}.")
        if not 0.5 <= self.min_seconds <= self.max_seconds / 4:
            raise UsageError(
                f"min_seconds must be between 0.5 and a quarter of max_seconds ({self.max_seconds:g}), got "
                f"{self.min_seconds:g}: a longer segment is cut in two."
            )
        if not 0 <= self.padding <= self.min_seconds / 2:
            raise UsageError(f"padding must be between 0 and half of min_seconds, got {self.padding:g}.")
        for name, least, most in (("min_pause", 0.1, 10.0), ("max_seconds", 2.0, 300.0), ("max_hours", 0.01, 1000.0)):
            if not least <= getattr(self, name) <= most:
                raise UsageError(f"{name} must be between {least:g} and {most:g}, got {getattr(self, name):g}.")

    @property
    def min_frames(self) -> int:
        """Fewest frames of a segment; one more than its seconds need, since the last frame of a file may be cut."""
        return math.ceil(self.min_seconds * SAMPLE_RATE / FRAME) + 1

    @property
    def max_frames(self) -> int:
        """Most frames of a segment."""
        return int(self.max_seconds * SAMPLE_RATE / FRAME)

    @property
    def pause_frames(self) -> int:
        """Fewest frames of a pause that ends a segment."""
        return math.ceil(self.min_pause * SAMPLE_RATE / FRAME)

    @property
    def padding_frames(self) -> int:
        """Frames of padding on each side."""
        return round(self.padding * SAMPLE_RATE / FRAME)

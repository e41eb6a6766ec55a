"""From the probability of speech in each frame to spans of speech: silero-vad's rules, for a whole recording at once.

The rules are those of ``get_speech_timestamps`` in silero-vad (MIT), whose module cannot be imported without torch.
How spans become segments is in ``cut``.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_EXIT = 0.15
"""Speech goes on until the probability is so far below the threshold."""
MIN_SILENCE_FRAMES = 4
"""A silence that does not last so much longer than its first frame (0.1 s) is part of the speech."""
MIN_SPEECH_FRAMES = 8
"""Shorter speech (up to 0.25 s) is none: a click, a breath."""


def speech_spans(probs_F: npt.NDArray[np.float32], threshold: float) -> npt.NDArray[np.int64]:
    """Spans of speech in a track.

    Args:
        probs_F: probability of speech in each frame, shape (F,).
        threshold: speech begins at it and ends at the first frame that is 0.15 below.

    Returns:
        First frame and one past the last frame of each span, shape (N, 2), ascending.
    """
    num_frames = len(probs_F)
    is_low_F = probs_F < threshold - _EXIT
    state_F = np.where(probs_F >= threshold, 1, np.where(is_low_F, 0, -1))
    known_F = np.maximum.accumulate(np.where(state_F >= 0, np.arange(num_frames), 0))
    is_speech_F = state_F[known_F] == 1
    spans = np.flatnonzero(np.diff(is_speech_F, prepend=False, append=False)).reshape(-1, 2)
    if not len(spans):
        return spans
    # A silence counts if a frame of it is low that long after it began; else the speech goes on.
    last_low_F = np.maximum.accumulate(np.where(is_low_F, np.arange(num_frames), -1))
    next_starts = np.append(spans[1:, 0], num_frames)
    is_end = last_low_F[next_starts - 1] - spans[:, 1] >= MIN_SILENCE_FRAMES
    starts = spans[np.append(True, is_end[:-1]), 0]
    ends = spans[is_end, 1] if is_end[-1] else np.append(spans[is_end, 1], num_frames)
    spans = np.stack([starts, ends], axis=1)
    return spans[spans[:, 1] - spans[:, 0] >= MIN_SPEECH_FRAMES]


def merge_spans(spans_N2: npt.NDArray[np.int64], min_gap: int) -> npt.NDArray[np.int64]:
    """Ascending spans, shape (N, 2), with gaps of fewer than ``min_gap`` frames closed."""
    if len(spans_N2) < 2:
        return spans_N2
    is_apart = spans_N2[1:, 0] - spans_N2[:-1, 1] >= min_gap
    starts = spans_N2[np.flatnonzero([True, *is_apart]), 0]
    ends = spans_N2[np.flatnonzero([*is_apart, True]), 1]
    return np.stack([starts, ends], axis=1)

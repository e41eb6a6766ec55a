"""Spans of speech to segments: joined over short pauses, split at the quietest point where too long, never overlapping.

A pure function of frames; all lengths here are frames of 32 ms. What is speech is decided in ``spans``.
"""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt

from lcm_data.audio.model import JOIN_MINIMA, AudioOptions
from lcm_data.audio.spans import merge_spans

_SMOOTH = 5
"""Frames over which loudness is averaged to find the quietest point: 0.16 s, about a syllable."""

Spans = npt.NDArray[np.int64]
Span = tuple[int, int]


def cut_segments(spans_N2: Spans, energy_F: npt.NDArray[np.float32], options: AudioOptions) -> list[Span]:
    """Cut one track into segments.

    Segments are in order, do not overlap and cover all speech; each has ``min_frames`` to ``max_frames`` frames,
    padding included (a track of fewer than ``min_frames`` is one segment).

    Args:
        spans_N2: speech as ``speech_spans`` gives it, shape (N, 2).
        energy_F: mean square of each frame, shape (F,).

    Returns:
        First frame and one past the last of each segment.
    """
    num_frames = len(energy_F)
    cutter = _Cutter(spans_N2, energy_F, options)
    groups = merge_spans(spans_N2, options.pause_frames)
    cores: list[Span] = []
    for start, end in groups.tolist():
        cores += cutter.split(start, end)
    cores = _join_short(cores, cutter, options)
    # What lies between two segments belongs half to each, so nothing done within these bounds overlaps.
    middles = [(left[1] + right[0]) // 2 for left, right in itertools.pairwise(cores)]
    bounds = zip([0, *middles], [*middles, num_frames], strict=True) if cores else iter(())
    least = min(options.min_frames, num_frames)
    return [_pad(core, bound, least, options.padding_frames) for core, bound in zip(cores, bounds, strict=True)]


def _join_short(cores: list[Span], cutter: _Cutter, options: AudioOptions) -> list[Span]:
    """Join segments that stay too short with padding to their nearest neighbour, if it is near; left to right."""
    least = options.min_frames - 2 * options.padding_frames
    near = JOIN_MINIMA * options.min_frames
    done: list[Span] = []
    todo = cores[::-1]
    while todo:
        start, end = todo.pop()
        before = start - done[-1][1] if done else near + 1
        after = todo[-1][0] - end if todo else near + 1
        if end - start >= least or min(before, after) > near:
            done.append((start, end))
        elif before <= after:
            todo += cutter.split(done.pop()[0], end)[::-1]
        else:
            todo += cutter.split(start, todo.pop()[1])[::-1]
    return done


def _pad(core: Span, bound: Span, least: int, padding: int) -> Span:
    """A segment with padding, and with more of what is around it if it is shorter than ``least``."""
    start, end = max(core[0] - padding, bound[0]), min(core[1] + padding, bound[1])
    missing = max(0, least - (end - start))
    right = min(bound[1] - end, max((missing + 1) // 2, missing - (start - bound[0])))
    left = min(start - bound[0], missing - right)
    return start - left, end + right


class _Cutter:
    """Splits stretches that are too long."""

    def __init__(self, spans_N2: Spans, energy_F: npt.NDArray[np.float32], options: AudioOptions) -> None:
        self._pauses = np.stack([spans_N2[:-1, 1], spans_N2[1:, 0]], axis=1)
        self._level_F = np.convolve(energy_F.astype(np.float64), np.full(_SMOOTH, 1 / _SMOOTH), "same")
        self._least = options.min_frames
        self._most = options.max_frames - 2 * options.padding_frames

    def split(self, start: int, end: int) -> list[Span]:
        """Pieces of at most the longest length and at least the shortest: cut at the longest pause, else where it is
        quietest."""
        pieces: list[Span] = []
        todo = [(start, end)]
        while todo:
            start, end = todo.pop()
            if end - start <= self._most:
                pieces.append((start, end))
                continue
            left, right = self._longest_pause(start, end) or self._quietest(start, end)
            todo += [(right, end), (start, left)]
        return pieces

    def _longest_pause(self, start: int, end: int) -> Span | None:
        """The longest pause that leaves enough on both sides; of equals the one nearest to the middle."""
        begins, ends = self._pauses[:, 0], self._pauses[:, 1]
        first, last = np.searchsorted(begins, start + self._least), np.searchsorted(ends, end - self._least, "right")
        if first >= last:
            return None
        inside = self._pauses[first:last]
        off_middle = np.abs(inside.sum(axis=1) - (start + end))
        best = np.lexsort((off_middle, inside[:, 0] - inside[:, 1]))[0]
        return int(inside[best, 0]), int(inside[best, 1])

    def _quietest(self, start: int, end: int) -> Span:
        """The quietest frame that leaves a quarter (and enough) on both sides; it may lie in a pause near one end."""
        margin = max(self._least, (end - start) // 4)
        place = start + margin + int(np.argmin(self._level_F[start + margin : end - margin]))
        return place, place

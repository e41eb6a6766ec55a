"""Draws a recording: its waveform in rows of equal length, one lane a channel, with the segments that were cut of it.

Under each lane a bar for every segment: its height is the share of speech, its colour the loudness. What is drawn is
collected by the caller; nothing here reads or writes files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lcm_data.audio.envelope import Envelope
from lcm_data.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ROW_SECONDS = (20, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 28_800, 86_400)
_MOST_ROWS, _LEAST_ROWS, _MOST_LANES = 12, 4, 8
"""Lanes of all rows together, if that leaves some rows; lanes of a row."""
_WIDTH, _LEFT, _RIGHT, _TOP, _BOTTOM = 14.0, 0.55, 0.25, 0.85, 0.3
_LANE, _TALL_LANE, _GAP = 0.85, 1.5, 0.34
"""All inches: a lane, one where there are few, and what is between two rows."""
_FEW_LANES = 2
_WIDE, _SPARSE = 0.08, 0.7
"""Inches: segments wider than that have an edge; numbers so far apart need not fit their segment."""
_STRIP = (-1.62, -1.18)
"""Where the bars are, in units of the highest sample."""
_LOUDNESS = (-60.0, 0.0)
_BACK, _OUTSIDE, _PEAKS, _RMS = "#f6f6f4", "#b3b3b0", "#7da7d9", "#3465a4"
_SHADES, _EDGE, _NUMBER, _EMPTY = ("#dce8f6", "#c3d8f0"), "#8fb3de", "#1c3f6e", "#e4e4e1"
_REJECTED, _RED = "#f5c6c0", "#c0392b"
_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14_400)
_POINTS = 4000
"""Most points of a lane's curve, some three a pixel."""


@dataclass(frozen=True)
class Mark:
    """A segment to be drawn."""

    number: int
    start: float
    end: float
    """Both in seconds."""
    channel: int | None
    """None for all of them."""
    speech_ratio: float
    loudness_db: float
    rejected: bool = False
    """Whether a later stage rejected it."""


def draw_recording(envelope: Envelope, marks: Sequence[Mark], title: str, notes: Sequence[str] = ()) -> Figure:
    """A figure of a recording.

    Args:
        notes: lines under the title.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("drawing plots", "matplotlib", "quality") from error
    num_lanes = min(_MOST_LANES, len(envelope.low_CB))
    length = row_seconds(envelope.seconds, num_lanes)
    num_rows = max(1, int(np.ceil(envelope.seconds / length - 1e-9)))
    size = _TALL_LANE if num_rows * num_lanes <= _FEW_LANES else _LANE
    if num_lanes < len(envelope.low_CB):
        notes = [*notes, f"the first {num_lanes} of {len(envelope.low_CB)} channels"]
    top = _TOP + 0.18 * max(0, len(notes) - 1)
    height = top + _BOTTOM + num_rows * (num_lanes * size + _GAP) - _GAP
    figure = Figure(figsize=(_WIDTH, height), dpi=110)
    figure.text(_LEFT / _WIDTH, 1 - 0.16 / height, title, fontsize=12, fontweight="bold", va="top", parse_math=False)
    for place, note in enumerate(notes):
        y = 1 - (0.42 + 0.18 * place) / height
        figure.text(_LEFT / _WIDTH, y, note, fontsize=8.5, color="#444444", va="top", parse_math=False)
    scale = float(max(envelope.high_CB.max(), -envelope.low_CB.min(), 1e-4))
    for row in range(num_rows):
        for lane in range(num_lanes):
            bottom = height - top - row * (num_lanes * size + _GAP) - (lane + 1) * size
            frame = (_LEFT / _WIDTH, bottom / height, (_WIDTH - _LEFT - _RIGHT) / _WIDTH, 0.97 * size / height)
            axes = figure.add_axes(frame)
            _lane(axes, envelope, marks, lane, (row * length, (row + 1) * length), scale)
            _ticks(axes, length, envelope.seconds, is_last=lane == num_lanes - 1)
            if len(envelope.low_CB) > 1:
                axes.set_ylabel(f"ch {lane}", rotation=0, fontsize=8, ha="right", va="center", color="#555555")
    if marks:
        _legend(figure, height)
    return figure


def row_seconds(seconds: float, num_lanes: int = 1) -> float:
    """Length of a row: all of a short recording, else so much that the picture is not too long to look at."""
    if seconds <= _ROW_SECONDS[1]:
        return max(seconds, 0.1)
    most = max(_LEAST_ROWS, _MOST_ROWS // num_lanes)
    return next((each for each in _ROW_SECONDS if seconds <= each * most), seconds / most)


def _lane(
    axes: Axes, envelope: Envelope, marks: Sequence[Mark], lane: int, span: tuple[float, float], scale: float
) -> None:
    """One channel of one row."""
    start, end = span
    axes.set_xlim(start, end)
    axes.set_ylim(_STRIP[0] - 0.1, 1.25)
    axes.axvspan(start, min(end, envelope.seconds), color=_BACK, linewidth=0, zorder=0)
    first, last = int(start / envelope.bin_seconds), int(np.ceil(end / envelope.bin_seconds))
    low, high, rms = (part[lane, first:last] / scale for part in (envelope.low_CB, envelope.high_CB, envelope.rms_CB))
    step = max(1, len(low) // _POINTS)
    at = np.arange(0, len(low), step)
    if not len(at):
        return
    time = (first + at) * envelope.bin_seconds
    low, high = np.minimum.reduceat(low, at), np.maximum.reduceat(high, at)
    rms = np.maximum.reduceat(rms, at)
    mine = [(place % 2, mark) for place, mark in enumerate(mark for mark in marks if mark.channel in (None, lane))]
    mine = [(shade, mark) for shade, mark in mine if mark.end > start and mark.start < end]
    inside = np.zeros(len(at), np.bool_)
    for _, mark in mine:
        inside |= (time >= mark.start) & (time < mark.end)
    axes.fill_between(time, low, high, color=_OUTSIDE, linewidth=0.4, zorder=2)
    axes.fill_between(time, low, high, where=inside, color=_PEAKS, linewidth=0.4, zorder=3)
    axes.fill_between(time, -rms, rms, where=inside, color=_RMS, linewidth=0.2, zorder=4)
    _spans(axes, mine, span)


def _spans(axes: Axes, marks: Sequence[tuple[int, Mark]], span: tuple[float, float]) -> None:
    """Shades and bars of segments; numbers where there is room."""
    if not marks:
        return
    clipped = [(max(mark.start, span[0]), min(mark.end, span[1])) for _, mark in marks]
    widths = [(left, right - left) for left, right in clipped]
    shades = [_REJECTED if mark.rejected else _SHADES[shade] for shade, mark in marks]
    inch = (span[1] - span[0]) / (_WIDTH - _LEFT - _RIGHT)
    line = 0.5 if np.median([width for _, width in widths]) > _WIDE * inch else 0.0
    axes.broken_barh(widths, (-1.08, 2.33), facecolors=shades, edgecolors=_EDGE, linewidth=line, zorder=1)
    axes.broken_barh(widths, (_STRIP[0], _STRIP[1] - _STRIP[0]), facecolors=_EMPTY, zorder=1)
    _bars(axes, widths, [mark for _, mark in marks])
    free, labelled = span[0], span[0] - _SPARSE * inch
    for (left, right), (_, mark) in zip(clipped, marks, strict=True):
        label = str(mark.number)
        width = (0.06 * len(label) + 0.05) * inch
        fits = right - left > 0.8 * width or left - labelled > _SPARSE * inch
        if mark.start >= span[0] and left >= free and left + width < span[1] and fits:
            color = _RED if mark.rejected else _NUMBER
            axes.text(left + 0.02 * inch, 1.2, label, fontsize=7, va="top", color=color, zorder=5)
            free, labelled = left + width, left


def _bars(axes: Axes, widths: Sequence[tuple[float, float]], marks: Sequence[Mark]) -> None:
    from matplotlib.collections import PolyCollection

    floor, room = _STRIP[0], _STRIP[1] - _STRIP[0]
    tops = [floor + room * mark.speech_ratio for mark in marks]
    corners = [
        [(left, floor), (left + width, floor), (left + width, top), (left, top)]
        for (left, width), top in zip(widths, tops, strict=True)
    ]
    loudness = np.array([mark.loudness_db for mark in marks])
    colors = _map()((loudness - _LOUDNESS[0]) / (_LOUDNESS[1] - _LOUDNESS[0]))
    axes.add_collection(PolyCollection(corners, facecolors=colors, linewidth=0, zorder=2), autolim=False)


def _ticks(axes: Axes, length: float, seconds: float, is_last: bool) -> None:
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_yticks([])
    start, end = axes.get_xlim()
    step = next((each for each in _STEPS if length / each <= 15 and not start % each), _STEPS[-1])
    at = np.arange(np.ceil(start / step), np.floor(min(end, seconds) / step) + 1) * step
    axes.set_xticks(at, [clock(each) for each in at] if is_last else [""] * len(at), fontsize=7, color="#555555")
    axes.tick_params(length=2 if is_last else 0, pad=1.5, color="#999999")


def _legend(figure: Figure, height: float) -> None:
    from matplotlib import cm, colors

    axes = figure.add_axes(((_WIDTH - _RIGHT - 2.2) / _WIDTH, 1 - 0.32 / height, 2.2 / _WIDTH, 0.1 / height))
    bar = figure.colorbar(cm.ScalarMappable(colors.Normalize(*_LOUDNESS), _map()), cax=axes, orientation="horizontal")
    bar.outline.set_visible(False)
    bar.set_ticks([-60, -40, -20, 0])
    axes.tick_params(labelsize=7, length=2, pad=1)
    text = "bars: height is the share of speech, colour the loudness in dB"
    x = (_WIDTH - _RIGHT - 2.3) / _WIDTH
    figure.text(x, 1 - 0.27 / height, text, fontsize=8, ha="right", va="center", color="#444444")


def _map() -> Any:
    from matplotlib import colormaps

    return colormaps["viridis"]


def clock(seconds: float) -> str:
    """A time as people read it: 0:07, 12:30, 1:02:03."""
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"

"""Drawings as SVG text: histograms, a map, a matrix, curves. Colours and fonts are those of the page's style sheet.

Numbers come from our own counts, names are escaped; what comes out may stand in a page as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

SIZE = 1000
"""Width and height of the map in its own units."""


def histogram(counts: Array, edges: Array, unit: str, label: str, marks: Mapping[str, float]) -> str:
    """Bars with an axis and named marks (such as the median); ``label`` is read out."""
    width, height, base = 640, 220, 176
    most, (low, high) = max(1, int(counts.max(initial=1))), (float(edges[0]), float(edges[-1]))
    step = width / len(counts)

    def x_of(value: float) -> float:
        return round((min(max(value, low), high) - low) / (high - low) * width, 1)

    bars = "".join(
        f'<rect x="{i * step + 0.5:.1f}" y="{base - 150 * count / most:.1f}" width="{step - 1:.1f}" '
        f'height="{150 * count / most:.1f}"/>'
        for i, count in enumerate(counts.tolist())
    )
    ticks = "".join(
        f'<text x="{x_of(t)}" y="{base + 20}" text-anchor="{_anchor(x_of(t), width)}">{number(t)}</text>'
        for t in _ticks(low, high)
    )
    lines = "".join(
        f'<line class="mark" x1="{x_of(v)}" x2="{x_of(v)}" y1="14" y2="{base}"/><text class="mark" x="{x_of(v) + 5}" '
        f'y="24">{escape(name)} {number(v)}</text>'
        for name, v in marks.items()
    )
    axis = f'<line class="axis" x1="0" x2="{width}" y1="{base}" y2="{base}"/>'
    caption = f'<text x="{width}" y="{base + 40}" text-anchor="end" class="unit">{escape(unit)}</text>'
    return f'<svg class="hist" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">{bars}{axis}{ticks}{caption}{lines}</svg>'  # noqa: E501


def spark(counts: Array, label: str) -> str:
    """A histogram without an axis, for a line of a table."""
    most = max(1, int(counts.max(initial=1)))
    width = 120 / len(counts)
    points = "".join(f"h{width:.2f}V{24 - 22 * count / most:.1f}" for count in counts.tolist()[1:])
    path = f"M0 24V{24 - 22 * int(counts[0]) / most:.1f}{points}h{width:.2f}V24z"
    return f'<svg class="spark" viewBox="0 0 120 24" preserveAspectRatio="none" role="img" aria-label="{escape(label)}"><path d="{path}"/></svg>'  # noqa: E501


def scale(points: Mapping[str, Array]) -> dict[str, Array]:
    """Points as whole numbers within the map, without the outermost percent of each direction; one scale for both."""
    every = np.concatenate(list(points.values()))
    low, high = np.percentile(every, 0.5, axis=0), np.percentile(every, 99.5, axis=0)
    span = float(max(*(high - low), 1e-12))
    points = {lang: x_N2[((x_N2 >= low) & (x_N2 <= high)).all(axis=1)] for lang, x_N2 in points.items()}
    middle, inner = (low + high) / 2, SIZE - 40
    placed = {lang: (x_N2 - middle) / span * inner * [1, -1] + SIZE / 2 for lang, x_N2 in points.items()}
    return {lang: np.clip(np.rint(x_N2), 8, SIZE - 8).astype(int) for lang, x_N2 in placed.items()}


def box(placed: Mapping[str, Array]) -> str:
    """The part of the map that has points, as a viewBox of at least a third of its height."""
    y_N = np.concatenate([x_N2[:, 1] for x_N2 in placed.values()])
    if not len(y_N):
        return f"0 0 {SIZE} {SIZE}"
    top, bottom = max(0, int(y_N.min()) - 20), min(SIZE, int(y_N.max()) + 20)
    height = max(bottom - top, SIZE // 3)
    return f"0 {max(0, (top + bottom - height) // 2)} {SIZE} {height}"


def dots(x_N2: Array) -> str:
    """A path of points, to be drawn with round ends."""
    return "".join(f"M{x} {y}h0" for x, y in dict.fromkeys(map(tuple, x_N2.tolist())))


def heat(matrix_LL: Array, names: Sequence[str], codes: Sequence[str], label: str) -> str:
    """A matrix as coloured squares; numbers are in its cells, which narrow screens leave out."""
    num, cell, left, top = len(names), 40, 190, 54
    others = matrix_LL[~np.eye(num, dtype=bool)] if num > 1 else matrix_LL
    low, high = float(np.nanmin(others)), float(np.nanmax(others))
    parts = []
    for row in range(num):
        y = top + row * cell
        for kind, name in (("name", names[row]), ("abbr", codes[row])):
            parts.append(f'<text class="{kind}" x="{left - 10}" y="{y + 26}" text-anchor="end">{escape(name)}</text>')
        parts.append(
            f'<text transform="translate({left + row * cell + 25} {top - 8}) rotate(-60)">{escape(codes[row])}</text>'
        )
        for column in range(num):
            value = float(matrix_LL[row, column])
            known = not np.isnan(value)
            share = min(1.0, max(0.0, (value - low) / max(high - low, 1e-12))) if known else 0.0
            shown, exact = (f"{value:.2f}", f"{value:.3f}") if known else ("–", "no other sentence")
            tone = "own" if row == column else ("on" if share > 0.75 else "off")
            x = left + column * cell
            parts.append(
                f'<g class="{tone}"><rect x="{x}" y="{y}" width="{cell - 2}" height="{cell - 2}" '
                f'style="--v:{share:.3f}"/><text class="num" x="{x + cell / 2 - 1}" y="{y + 25}" '
                f'text-anchor="middle">{shown}'.replace(">0.", ">.").replace(">-0.", ">-.")
                + f"</text><title>{escape(names[row])}, {escape(names[column])}: {exact}</title></g>"
            )
    size = f"0 0 {left + num * cell + 20} {top + num * cell}"
    return f'<svg class="heat" viewBox="{size}" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'


def curve(values: Sequence[float], label: str, unit: str) -> str:
    """Values by level, from 0 up."""
    width, height, left, base = 640, 240, 40, 196
    most = max(*values, 1e-12)
    step = (width - left - 20) / max(1, len(values) - 1)
    at = [(left + i * step, base - 170 * value / most) for i, value in enumerate(values)]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
    points = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4"/>' for x, y in at)
    every = max(1, len(values) // 8)
    ticks = "".join(
        f'<text x="{x:.1f}" y="{base + 22}" text-anchor="middle">{i + 1}</text>'
        for i, (x, _) in enumerate(at)
        if i % every == 0
    )
    ends = f'<text x="{at[0][0]:.1f}" y="{at[0][1] - 10:.1f}">{number(values[0])}</text>'
    if len(values) > 1:
        ends += f'<text x="{at[-1][0]:.1f}" y="{at[-1][1] - 10:.1f}" text-anchor="end">{number(values[-1])}</text>'
    axis = f'<line class="axis" x1="{left}" x2="{width}" y1="{base}" y2="{base}"/>'
    caption = f'<text x="{width}" y="{base + 40}" text-anchor="end" class="unit">{escape(unit)}</text>'
    return f'<svg class="curve" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">{axis}<polyline points="{line}"/>{points}{ticks}{ends}{caption}</svg>'  # noqa: E501


def number(value: float) -> str:
    """A number of three digits or so, for a label."""
    if abs(value) >= 100 or float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers between two ends."""
    rough = (high - low) / 5
    power = 10.0 ** np.floor(np.log10(rough))
    step = float(next(size * power for size in (1, 2, 5, 10) if size * power >= rough * 0.999))
    first = np.ceil(low / step - 1e-9) * step
    return [round(float(value), 10) + 0.0 for value in np.arange(first, high + step * 1e-9, step)]


def _anchor(x: float, width: float) -> str:
    return "start" if x < 12 else "end" if x > width - 12 else "middle"

"""Draws a report: figures of matplotlib by file name. Writing them to files is the caller's.

Nothing is drawn of what was not measured. Drawing needs no display and changes no global state of matplotlib.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lcm_data.errors import MissingExtraError
from lcm_data.quality.report import Report
from lcm_data.quality.statistics import PERCENTILES, SpaceStatistics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BLUE, _ORANGE, _GREY = "#3465a4", "#d9822b", "#9a9a9a"
_ROW_INCHES = 0.22
_SCORE_TITLES = {
    "chrf": "chrF2",
    "bleu": "sentence BLEU",
    "cosine": "cosine, encoded again",
    "judge_cosine": "cosine, other encoder",
}


def draw(report: Report) -> dict[str, Figure]:
    """All plots that the report has figures for, by name.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figures = {
        "xsim": _xsim(report),
        "norms": _norms(report),
        "autoencoding": _autoencoding(report),
        "lengths": _lengths(report),
        "fragility": _fragility(report),
    }
    return {name: figure for name, figure in figures.items() if figure is not None}


def _xsim(report: Report) -> Figure | None:
    found = {lang: each.xsim["to_pivot"] for lang, each in report.languages.items() if each.xsim}
    if not found:
        return None
    langs = sorted(found, key=lambda lang: -found[lang].margin)
    figure, (axes,) = new_figure(7.5, 1.6 + _ROW_INCHES * len(langs))
    _bars(
        axes,
        langs,
        {
            "cosine": [100 * found[lang].cosine for lang in langs],
            "margin (ratio, k = 4)": [100 * found[lang].margin for lang in langs],
        },
    )
    pivot = report.settings["pivot"]
    axes.set_xlabel("sentences whose nearest neighbour is no translation, % (lower is better)")
    figure.suptitle(f"Similarity search error (xsim) into {pivot}")
    return figure


def _autoencoding(report: Report) -> Figure | None:
    found = {lang: each.autoencoding.scores for lang, each in report.languages.items() if each.autoencoding}
    if not found:
        return None
    langs = sorted(found, key=lambda lang: found[lang].chrf)
    figure, (axes,) = new_figure(7.5, 1.6 + _ROW_INCHES * len(langs))
    _bars(axes, langs, {"chrF2": [found[lang].chrf for lang in langs], "BLEU": [found[lang].bleu for lang in langs]})
    axes.set_xlabel("score of decoded text against the original (higher is better)")
    axes.set_xlim(0, 100)
    figure.suptitle("Auto-encoding")
    return figure


def _norms(report: Report) -> Figure:
    """All vectors as a histogram, and the percentiles of each language below each other."""
    langs = sorted(report.languages, key=lambda lang: report.languages[lang].space.norm.mean)
    height = 1.0 + _ROW_INCHES * len(langs)
    figure, (top, below) = new_figure(7.5, 3.4 + height, rows=2, heights=[2.2, height])
    _histogram(top, report.all_languages)
    top.set_title(f"All {report.all_languages.num_sentences:,} sentences", fontsize=10)
    at = np.arange(len(langs))
    spreads = [report.languages[lang].space.norm for lang in langs]
    for (low, high), width in (((1, 99), 1.0), ((5, 95), 3.0), ((25, 75), 6.0)):
        lows, highs = ([each.percentiles[PERCENTILES.index(p)] for each in spreads] for p in (low, high))
        below.hlines(at, lows, highs, color=_BLUE, linewidth=width, alpha=0.6, label=f"{low} to {high} %")
    below.plot(
        [each.percentiles[PERCENTILES.index(50)] for each in spreads], at, "o", color="black", ms=3, label="median"
    )
    _name_rows(below, langs)
    below.set_xlabel("norm of the vector")
    below.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    below.sharex(top)
    figure.suptitle("Norms")
    return figure


def _histogram(axes: Axes, space: SpaceStatistics) -> None:
    axes.stairs(space.norms.counts, space.norms.edges, fill=True, color=_BLUE, alpha=0.7)
    axes.set_ylabel("sentences")


def _lengths(report: Report) -> Figure | None:
    """Score of every decoded sentence by its length, with the median of neighbours in length."""
    if not report.points:
        return None
    figure, (axes,) = new_figure(7.5, 4.5)
    from matplotlib import ticker

    lengths = np.concatenate([points.lengths for points in report.points.values()])
    chrf = np.concatenate([points.chrf for points in report.points.values()])
    axes.plot(lengths, chrf, ".", color=_BLUE, alpha=max(0.05, min(0.6, 300 / len(lengths))), ms=4)
    order = np.argsort(lengths, kind="stable")
    parts = np.array_split(order, max(1, min(20, len(order) // 25)))
    axes.plot(
        [np.median(lengths[part]) for part in parts],
        [np.median(chrf[part]) for part in parts],
        "o-",
        color=_ORANGE,
        label="median of sentences of like length",
    )
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(ticker.ScalarFormatter())
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.set_xlabel("length of the sentence, characters")
    axes.set_ylabel("chrF2 of the decoded text")
    axes.set_ylim(0, 102)
    axes.legend(fontsize=8)
    figure.suptitle(f"Auto-encoding by length, {len(lengths):,} sentences in {len(report.points)} languages")
    return figure


def _fragility(report: Report) -> Figure | None:
    """A row of plots a score: by language with the mean, and by length."""
    found = [each.fragility for each in report.languages.values() if each.fragility]
    if not found:
        return None
    names = [name for name in _SCORE_TITLES if all(name in each.curve.scores for each in found)]
    figure, axes = new_figure(9.5, 1.0 + 2.8 * len(names), rows=len(names), columns=2)
    levels = found[0].curve.levels
    buckets = sorted(
        {name for each in found for name in each.by_length}, key=lambda name: int(name.strip("+").split("-")[0])
    )
    for row, name in enumerate(names):
        left, right = axes[2 * row], axes[2 * row + 1]
        for number, each in enumerate(found):
            label = "one language" if number == 0 else None
            left.plot(levels, each.curve.scores[name], color=_GREY, linewidth=0.8, alpha=0.6, label=label)
        mean = np.mean([each.curve.scores[name] for each in found], axis=0)
        left.plot(levels, mean, "o-", color=_BLUE, label=f"mean of {len(found)} languages")
        for place, bucket in enumerate(buckets):
            curves = [each.by_length[bucket] for each in found if bucket in each.by_length]
            weights = [curve.num_sentences for curve in curves]
            values = np.average([curve.scores[name] for curve in curves], axis=0, weights=weights)
            shade = _shade(place / max(1, len(buckets) - 1))
            right.plot(levels, values, "o-", ms=3, color=shade, label=f"{bucket} characters ({sum(weights):,})")
        for side in (left, right):
            side.set_ylabel(_SCORE_TITLES[name])
            side.set_ylim(*((0, 102) if name in ("chrf", "bleu") else (min(0.0, float(mean.min())), 1.02)))
            side.legend(fontsize=7)
            if row == len(names) - 1:
                side.set_xlabel("noise level (share of variance)")
    figure.suptitle("Decoding disturbed vectors (fragility is minus the mean over the levels above 0)")
    return figure


def _bars(axes: Axes, langs: Sequence[str], values: dict[str, list[float]]) -> None:
    """Horizontal bars, one group a language."""
    at = np.arange(len(langs))
    height = 0.8 / len(values)
    for place, ((label, numbers), color) in enumerate(zip(values.items(), (_BLUE, _ORANGE), strict=True)):
        axes.barh(at + (0.5 - place) * height, numbers, height=height, color=color, label=label)
    _name_rows(axes, langs)
    axes.set_xlim(left=0)
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)


def _name_rows(axes: Axes, langs: Sequence[str]) -> None:
    axes.set_yticks(np.arange(len(langs)), langs, fontsize=7)
    axes.set_ylim(-0.7, len(langs) - 0.3)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)


def _shade(share: float) -> tuple[float, float, float]:
    """From orange to blue."""
    start, end = np.array([0.85, 0.51, 0.17]), np.array([0.2, 0.4, 0.64])
    mixed = (1 - share) * start + share * end
    return (float(mixed[0]), float(mixed[1]), float(mixed[2]))


def new_figure(
    width: float, height: float, rows: int = 1, columns: int = 1, heights: Sequence[float] | None = None
) -> tuple[Figure, list[Axes]]:
    """An empty figure and its axes, row by row.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("drawing plots", "matplotlib", "quality") from error
    figure = Figure(figsize=(width, height), layout="constrained")
    axes: Any = figure.subplots(rows, columns, squeeze=False, height_ratios=heights)
    return figure, list(axes.ravel())

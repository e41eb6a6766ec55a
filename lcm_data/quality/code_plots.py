"""Draws a report on codes: figures of matplotlib by file name. Writing them to files is the caller's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lcm_data.quality.codes import CodesReport
from lcm_data.quality.plots import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BLUE, _ORANGE, _GREY = "#3465a4", "#d9822b", "#9a9a9a"


def draw_codes(report: CodesReport) -> dict[str, Figure]:
    """All plots that the report has figures for, by name.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figures = {"error": _error(report), "usage": _usage(report)}
    if report.text:
        figures["text"] = _text(report)
    return figures


def _error(report: CodesReport) -> Figure:
    figure, (axes,) = new_figure(7.5, 4.2)
    at = [level.level for level in report.levels]
    for number, errors in enumerate(report.languages.values()):
        label = "one language" if number == 0 else None
        axes.plot(at, errors.nmse, color=_GREY, linewidth=0.8, alpha=0.6, label=label)
    axes.plot(at, [level.nmse for level in report.levels], "o-", ms=3, color=_BLUE, label="all")
    bound = [level.yardstick for level in report.levels]
    axes.plot(at, bound, "--", color=_ORANGE, label="Gaussian of this covariance, any code")
    axes.set_yscale("log")
    axes.set_xlabel("levels")
    axes.set_ylabel("squared error over variance")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.suptitle(f"What {report.sentences:,} sentences lose by their codes")
    return figure


def _usage(report: CodesReport) -> Figure:
    figure, (axes,) = new_figure(7.5, 3.4)
    units = report.levels[0].used + report.levels[0].dead
    at = [level.level for level in report.levels]
    axes.plot(at, [level.perplexity / units for level in report.levels], "o-", ms=3, color=_BLUE, label="perplexity")
    axes.plot(at, [level.used / units for level in report.levels], color=_GREY, label="units used")
    axes.set_ylim(0, 1.05)
    axes.set_xlabel("level")
    axes.set_ylabel(f"share of {units:,} units")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.suptitle(f"Use of the units by {report.codes_read:,} codes")
    return figure


def _text(report: CodesReport) -> Figure:
    figure, (axes,) = new_figure(7.5, 4.2)
    for number, (lang, trips) in enumerate(report.text.items()):
        at = [levels for levels in trips if levels]
        (line,) = axes.plot(at, [trips[levels].scores.chrf for levels in at], "o-", ms=3, label=lang)
        top = trips[0].scores.chrf
        label = "the vector itself" if number == 0 else None
        axes.axhline(top, color=line.get_color(), linestyle=":", linewidth=0.8, label=label)
    axes.set_xscale("log", base=2)
    axes.set_ylim(0, 102)
    axes.set_xlabel("levels")
    axes.set_ylabel("chrF2 of the decoded text")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
    figure.suptitle("Text said from the first levels")
    return figure

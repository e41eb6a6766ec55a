"""What ``side_by_side`` found, as Markdown tables and as a picture of the loss curves; it measures nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lcm_data.cli.evaluate import NEXT, WRITTEN

Figures = Mapping[str, float]

UNITS = {"quant-d": "nats of a code"}
SQUARED = "squared error of a concept"


class Trained(NamedTuple):
    """A run that is done. ``concepts`` counts those read; curves are pairs of step and loss."""

    variant: str
    parameters: int
    steps: int
    concepts: int
    cpu_seconds: float
    train: list[tuple[int, float]]
    valid: list[tuple[int, float]]


class Measured(NamedTuple):
    """Figures and counts of the evaluation: by row of the table, and by ``split/lang``."""

    results: dict[str, dict[str, dict[str, float]]]
    counts: dict[str, dict[str, int]]
    skipped: list[str]


def tables(trained: Sequence[Trained], measured: Measured) -> str:
    """The budget of every variant and what its loss did, then the figures: mean, and by language if there are more."""
    places = list(measured.counts)
    sections = [_budgets(trained)]
    for title, columns in ((_where(measured.counts), NEXT), ("continuations", WRITTEN)):
        means = {name: _mean(found, columns) for name, found in measured.results.items()}
        rows = {name: figures for name, figures in means.items() if figures}
        if rows:
            sections.append(f"{title}\n\n{_figures(rows, columns)}")
        if rows and len(places) > 1:
            sections += [_by_place(name, columns[name], measured, places) for name in columns]
    sections += ["\n".join(f"not measured: {note}" for note in measured.skipped)]
    return "\n\n".join(filter(None, sections)) + "\n"


def _budgets(trained: Sequence[Trained]) -> str:
    titles = ["parameters", "CPU s", "ms a step", "training loss", "validation loss, first", "least", "last", "unit"]
    rows = []
    for each in trained:
        first, last = each.valid[0], each.valid[-1]
        least = min(each.valid, key=lambda point: point[1])
        losses = [f"{value:.{1 if value >= 10 else 3}f}" for value in (each.train[-1][1], first[1], least[1], last[1])]
        losses[2] += f" (step {least[0]})"
        cost = [f"{each.cpu_seconds:,.0f}", f"{1000 * each.cpu_seconds / each.steps:,.0f}"]
        size = f"{each.parameters / 1e6:.2f} M"
        rows.append([each.variant, size, *cost, *losses, UNITS.get(each.variant, SQUARED)])
    said = f"{trained[0].steps:,} steps, {trained[0].concepts:,} concepts each"
    return f"{said}\n\n{_markdown(['', *titles], rows)}"


def _where(counts: Mapping[str, Mapping[str, int]]) -> str:
    documents, concepts = (sum(each[name] for each in counts.values()) for name in ("documents", "places"))
    names = f"mean of {len(counts)} languages and splits" if len(counts) > 1 else next(iter(counts))
    return f"{names}: {documents:,} documents, {concepts:,} next concepts"


def _mean(found: Mapping[str, Figures], columns: Mapping[str, tuple[str, int]]) -> dict[str, float]:
    values = {name: [each[name] for each in found.values() if name in each] for name in columns}
    return {name: sum(some) / len(some) for name, some in values.items() if some}


def _figures(rows: Mapping[str, Figures], columns: Mapping[str, tuple[str, int]]) -> str:
    """A row a model; figures that no row has are left out."""
    shown = [name for name in columns if any(name in figures for figures in rows.values())]
    cells = [[row, *(_cell(figures.get(name), *columns[name]) for name in shown)] for row, figures in rows.items()]
    return _markdown(["", *(columns[name][0] for name in shown)], cells)


def _by_place(name: str, column: tuple[str, int], measured: Measured, places: Sequence[str]) -> str:
    """One figure: a row a language and split, a column a model; empty if nobody has it."""
    rows = {row: found for row, found in measured.results.items() if any(name in each for each in found.values())}
    cells = [[place, *(_cell(found.get(place, {}).get(name), *column) for found in rows.values())] for place in places]
    return f"{column[0]}\n\n{_markdown(['', *rows], cells)}" if rows else ""


def _cell(value: float | None, title: str, decimals: int) -> str:
    return "" if value is None else f"{value * (100 if title.endswith('%') else 1):.{decimals}f}"


def _markdown(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines: Iterator[Sequence[str]] = iter([titles, *rows])
    head, *others = ("| " + " | ".join(cells) + " |" for cells in lines)
    return "\n".join([head, "|" + "---|" * len(titles), *others])


def plot(trained: Sequence[Trained], path: Path) -> None:
    """A panel a variant: training and validation loss by step."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.2 * len(trained), 2.4), layout="constrained")
    panels = figure.subplots(1, len(trained), squeeze=False)[0]
    for panel, each in zip(panels, trained, strict=True):
        panel.plot(*zip(*each.train, strict=True), color="tab:blue", linewidth=1, label="training")
        panel.plot(*zip(*each.valid, strict=True), color="tab:orange", linewidth=1.5, label="validation")
        panel.set_title(each.variant, fontsize=10)
        panel.set_ylabel(UNITS.get(each.variant, SQUARED), fontsize=7)
        panel.set_xlabel("step", fontsize=7)
        panel.tick_params(labelsize=7)
    panels[0].legend(fontsize=7, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)


def plot_places(measured: Measured, path: Path) -> None:
    """Contrastive accuracy and l2 of every model, and of the baselines that have them, by language and split."""
    from matplotlib.figure import Figure

    places = list(measured.counts)
    figure = Figure(figsize=(max(5.0, 0.6 * len(places) + 2), 5.6), layout="constrained")
    panels = figure.subplots(2, 1, sharex=True)
    for panel, name in zip(panels, ("ca", "l2"), strict=True):
        title, _ = NEXT[name]
        factor = 100 if title.endswith("%") else 1
        for row, found in measured.results.items():
            if row != "truth" and all(name in found.get(place, {}) for place in places):
                style: dict[str, Any] = {"color": "gray", "marker": "x"} if row in ("copy", "mean") else {"marker": "o"}
                style["linestyle"] = {"copy": "--", "mean": ":"}.get(row, "-")
                values = [factor * found[place][name] for place in places]
                panel.plot(range(len(places)), values, label=row, linewidth=0.8, markersize=4, **style)
        panel.set_ylabel(title)
        panel.grid(alpha=0.3)
    names = {place.partition("/")[2] for place in places}
    shown = [place.partition("/")[2] if len(names) == len(places) else place for place in places]
    panels[-1].set_xticks(range(len(places)), shown, rotation=60, ha="right", fontsize=8)
    panels[0].legend(fontsize=7, frameon=False, ncols=4)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)

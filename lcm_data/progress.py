"""Showing a run on stderr: a live bar on a terminal, one plain line now and then elsewhere, nothing when quiet."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from lcm_data.runner import RunState

Show = Callable[[RunState], None]

_LINE_SECONDS = 30.0


def silent(state: RunState) -> None:
    """Show nothing."""


@contextlib.contextmanager
def progress(title: str, noun: str, quiet: bool = False) -> Iterator[Show]:
    """A display for one run; ``noun`` names its input rows (documents, sentences)."""
    if quiet:
        yield silent
    elif sys.stderr.isatty():
        with _bar(title, noun) as show:
            yield show
    else:
        yield _Lines(title, noun)


def rate_and_eta(state: RunState) -> tuple[float, float | None]:
    """Input rows a second in this run, and the seconds left at that rate (None before the first unit)."""
    elapsed = time.monotonic() - state.began
    rate = (state.rows - state.rows_before) / elapsed if elapsed > 0 else 0.0
    return rate, (state.total_rows - state.rows) / rate if rate else None


def describe(state: RunState, noun: str) -> str:
    """One line: units, rows, rate, time left, and what needs attention."""
    rate, eta = rate_and_eta(state)
    parts = [f"{len(state.commits)}/{state.total_units} units", f"{state.rows:,}/{state.total_rows:,} {noun}"]
    parts += ["starting"] if eta is None else [f"{rate:,.0f} {noun}/s", f"{_duration(eta)} left"]
    rejected = sum(state.rejects.values())
    parts += [f"{rejected:,} rejected"] if rejected else []
    parts += [f"{len(state.failed)} units failed"] if state.failed else []
    parts += [f"oldest unit {_duration(state.oldest_unit_seconds)}"] if state.oldest_unit_seconds > 60 else []
    return ", ".join(parts)


class _Lines:
    """A line at the start and every half minute."""

    def __init__(self, title: str, noun: str) -> None:
        self._title, self._noun, self._next = title, noun, 0.0

    def __call__(self, state: RunState) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _LINE_SECONDS
            print(f"{self._title}: {describe(state, self._noun)}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _bar(title: str, noun: str) -> Iterator[Show]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (TextColumn("[bold]{task.description}"), BarColumn(), TextColumn("{task.fields[detail]}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(title, total=None, detail="starting")

        def show(state: RunState) -> None:
            bars.update(task, total=state.total_rows, completed=state.rows, detail=describe(state, noun))

        yield show


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"

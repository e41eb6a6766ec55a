"""One line about a training run on stderr: live on a terminal, now and then elsewhere, nothing when quiet."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field

_LINE_SECONDS = 30.0


@dataclass
class Meter:
    """Rates since the run began here; the first step, which compiles and warms up, does not count.

    It leaves out ``aside`` seconds: validations and checkpoints.
    """

    first_step: int
    max_steps: int
    began: float = field(default_factory=time.monotonic)
    aside: float = 0.0
    concepts: int = 0
    steps: int = 0

    def count(self, concepts: int) -> None:
        """A step is done."""
        if self.steps == 0:
            self.began, self.aside = time.monotonic(), 0.0
        else:
            self.concepts += concepts
        self.steps += 1

    @property
    def seconds(self) -> float:
        """Spent training."""
        return max(1e-9, time.monotonic() - self.began - self.aside)

    @property
    def rate(self) -> float:
        """Concepts a second over all processes; 0 before the second step."""
        return self.concepts / self.seconds

    @property
    def eta(self) -> float | None:
        """Seconds left, validations and checkpoints included at their rate so far."""
        if self.steps < 2:
            return None
        return (time.monotonic() - self.began) / (self.steps - 1) * (self.max_steps - self.first_step - self.steps)


def describe(step: int, meter: Meter, loss: float, valid: float | None) -> str:
    """The line: step, loss, rate, time left."""
    parts = [f"step {step:,}/{meter.max_steps:,}", f"loss {loss:.5g}"]
    parts += [f"valid {valid:.5g}"] if valid is not None else []
    parts += [f"{meter.rate:,.0f} concepts/s"] if meter.rate else []
    parts += [f"{duration(meter.eta)} left"] if meter.eta is not None else []
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """Hours and minutes, or minutes and seconds."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


class Line:
    """Shows the newest line; ``last`` is always shown."""

    def __init__(self, quiet: bool = False) -> None:
        self._quiet, self._live, self._next = quiet, sys.stderr.isatty(), 0.0

    def show(self, text: str, last: bool = False) -> None:
        """Show it, if it is time."""
        if self._quiet:
            return
        if self._live:
            print(f"\r\x1b[Ktrain: {text}", end="\n" if last else "", file=sys.stderr, flush=True)
        elif last or time.monotonic() >= self._next:
            self._next = time.monotonic() + _LINE_SECONDS
            print(f"train: {text}", file=sys.stderr, flush=True)

"""Finding the row that kills a worker: a unit whose worker died alone is probed in ever smaller ranges.

A probe touches rows without writing anything and notes each range before it begins. After a death the noted range is
probed in sixteen finer steps; a single row must kill twice before it is named, so that a worker ended by something
else (an operator, a node going away) never costs a row. The named row becomes a reject, the rest is done as usual.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from lcm_data.store.plan import Unit
from lcm_data.workers.base import Task

_STEPS = 16
_MAX_DEATHS = 4
_MAX_ROWS = 64


@dataclass
class Suspect:
    """What is known of a unit whose worker died while doing nothing else."""

    unit: Unit
    skip: set[int] = field(default_factory=set)
    deaths: int = 0
    _killed_once: int | None = None

    def after_death(self, task: Task, marked_row: int | None) -> Task | None:
        """The task to do next after ``task`` killed its worker, None when the unit has to be given up."""
        if task.rows is None:
            self.deaths += 1
            if self.deaths >= _MAX_DEATHS or len(self.skip) >= _MAX_ROWS:
                return None
            return self._probe(0, self.unit.rows)
        start, stop = task.rows
        if marked_row is not None and start <= marked_row < stop:
            start, stop = marked_row, min(marked_row + task.step, stop)
        if stop - start > 1:
            return self._probe(start, stop)
        if self._killed_once != start:
            self._killed_once = start
            return self._probe(start, stop)
        self.skip.add(start)
        self.deaths = 0
        self._killed_once = None
        return Task(self.unit, skip=tuple(sorted(self.skip)))

    def _probe(self, start: int, stop: int) -> Task:
        step = max(1, -(-(stop - start) // _STEPS))
        return Task(self.unit, skip=tuple(sorted(self.skip)), rows=(start, stop), step=step)

"""The search for killer rows, against a simulated worker: fast enough to try every position."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lcm_data.store.plan import Unit
from lcm_data.suspects import Suspect
from lcm_data.workers.base import Task


def died_at(task: Task, killers: set[int]) -> int | None:
    """First row of the chunk in which a worker dies on ``task``; None if it lives."""
    start, stop = task.rows or (0, task.unit.rows)
    step = task.step or task.unit.rows
    for row in range(start, stop, step):
        if any(killer in killers and killer not in task.skip for killer in range(row, min(row + step, stop))):
            return row
    return None


def search(rows: int, killers: set[int]) -> tuple[Task | None, int]:
    """What is left to do once the unit survives (None: given up), and how many workers died."""
    suspect, task, deaths = Suspect(Unit(0, rows)), Task(Unit(0, rows)), 0
    while True:
        row = died_at(task, killers)
        if row is None:
            if task.rows is None:
                return task, deaths
            task = Task(task.unit, skip=task.skip)  # what the runner does after a probe that survived
            continue
        deaths += 1
        following = suspect.after_death(task, row if task.rows else None)
        if following is None:
            return None, deaths
        task = following


@given(st.integers(1, 70_000), st.data())
def test_exactly_the_killer_rows_are_named(rows: int, data: st.DataObject) -> None:
    killers = data.draw(st.sets(st.integers(0, rows - 1), max_size=5))
    task, deaths = search(rows, killers)
    assert task is not None
    assert set(task.skip) == killers
    # One death to begin with and two on the row alone; four halvings by sixteen cover 65,536 rows.
    assert deaths <= len(killers) * 8


def test_deaths_without_a_killer_row_give_the_unit_up() -> None:
    suspect, task, deaths = Suspect(Unit(0, 100)), Task(Unit(0, 100)), 0
    while True:
        following = suspect.after_death(task, None) if task.rows is None else Task(task.unit, skip=task.skip)
        deaths += task.rows is None
        if following is None:
            break
        task = following
    assert deaths == 4
    assert suspect.skip == set()


def test_one_death_on_a_single_row_is_not_enough() -> None:
    unit = Unit(0, 10)
    suspect = Suspect(unit)
    probe = suspect.after_death(Task(unit), None)
    assert probe == Task(unit, rows=(0, 10), step=1)
    again = suspect.after_death(probe, 4)
    assert again == Task(unit, rows=(4, 5), step=1)
    assert suspect.skip == set()
    assert suspect.after_death(again, 4) == Task(unit, skip=(4,))


def test_the_mark_of_an_older_probe_is_not_believed() -> None:
    unit = Unit(0, 1000)
    suspect = Suspect(unit)
    probe = suspect.after_death(Task(unit), None)
    assert probe is not None
    narrow = suspect.after_death(probe, 63 * 5)
    assert narrow is not None
    assert narrow.rows == (315, 378)
    assert suspect.after_death(narrow, 900) == narrow  # a mark outside the range: the same range again


def test_too_many_killer_rows_give_the_unit_up() -> None:
    task, deaths = search(100, set(range(70)))
    assert task is None
    assert deaths < 70 * 8

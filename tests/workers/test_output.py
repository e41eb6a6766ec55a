"""Blaming rows: exactly those that fail are named, and none when it is the machine that fails."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcm_data.workers.output import each_or_error


@given(st.integers(0, 200), st.sets(st.integers(0, 199)))
def test_exactly_the_failing_rows_are_named(num: int, bad: set[int]) -> None:
    calls = []

    def work(rows: list[int]) -> list[int]:
        calls.append(rows)
        if wrong := bad & set(rows):
            raise ValueError(f"rows {sorted(wrong)}")
        return [row * 2 for row in rows]

    rows = list(range(num))
    parts, errors = each_or_error(work, rows)
    done = {row: value for some, values in parts for row, value in zip(some, values, strict=True)}
    assert done == {row: row * 2 for row in rows if row not in bad}
    assert [row for row, _ in errors] == sorted(bad & set(rows))
    assert all(str(error) == f"rows [{row}]" for row, error in errors)
    assert not bad & set(rows) or len(calls) <= 2 + 2 * len(bad) * (num.bit_length() + 1)


@given(st.integers(2, 60), st.sets(st.integers(0, 59)), st.integers(0, 40))
def test_a_machine_that_fails_half_way_is_not_blamed_on_rows(num: int, bad: set[int], lasts: int) -> None:
    calls = 0

    def work(rows: list[int]) -> None:
        nonlocal calls
        calls += 1
        if calls > lasts:
            raise RuntimeError("out of order")
        if bad & set(rows):
            raise ValueError

    try:
        parts, errors = each_or_error(work, list(range(num)))
    except RuntimeError:
        assert calls > lasts
    else:
        assert {row for row, _ in errors} <= bad or not parts


def test_lack_of_memory_is_never_a_row() -> None:
    def work(rows: list[int]) -> None:
        raise MemoryError

    with pytest.raises(MemoryError):
        each_or_error(work, [1, 2, 3])

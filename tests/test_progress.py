from __future__ import annotations

import time

import pytest

from lcm_data.progress import describe, progress, rate_and_eta, silent
from lcm_data.runner import RunState
from lcm_data.store.commits import Commit


def state(**changes: object) -> RunState:
    commits = {unit: Commit(unit, "", 100, 99, {"bad_row": 1}) for unit in range(3)}
    began = time.monotonic() - 10
    made = RunState(total_units=10, total_rows=1000, commits=changes.pop("commits", commits), began=began)  # type: ignore[arg-type]
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def test_the_rate_is_of_this_run_alone() -> None:
    rate, eta = rate_and_eta(state(rows_before=200))
    assert rate == pytest.approx(10, rel=0.01)
    assert eta == pytest.approx(70, rel=0.01)
    assert rate_and_eta(state(rows_before=300)) == (0.0, None)


def test_one_line_says_everything() -> None:
    assert describe(state(rows_before=200), "sentences") == (
        "3/10 units, 300/1,000 sentences, 10 sentences/s, 1 min 10 s left, 3 rejected"
    )
    fresh = state(commits={}, began=time.monotonic(), failed={4: "x"}, oldest_unit_seconds=7300.0)
    assert describe(fresh, "documents") == (
        "0/10 units, 0/1,000 documents, starting, 1 units failed, oldest unit 2 h 01 min"
    )


def test_lines_come_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("encode", "sentences") as show:
        for _ in range(5):
            show(state())
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("encode: 3/10 units, 300/1,000 sentences")
    assert err.count("\n") == 1


def test_quiet_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("encode", "sentences", quiet=True) as show:
        assert show is silent
        show(state())
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    with progress("encode", "sentences") as show:
        show(state())
    out, err = capsys.readouterr()
    assert out == ""
    assert "3/10 units" in err

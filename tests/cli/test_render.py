"""Tables for people: on a narrow terminal words and numbers stay whole, and no column is lost."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcm_data.cli import render

ROW: dict[str, Any] = {
    "lang": "eng_Latn", "documents": 12, "sentences": 1640, "chars mean": 16.4, "chars max": 22, "tokens mean": 4.01,
    "tokens max": 5, "truncated": 1110, "score mean": -4.07, "score max": -1.0, "resid_norm mean": 0.3,
}  # fmt: skip


def words(text: str) -> list[str]:
    return re.findall(r"\S+", text)


def test_headings_and_numbers_stay_whole(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    render.records("title", [ROW, {**ROW, "lang": "fra_Latn"}])
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    found = words(out)
    for name in ROW:
        assert set(name.split()) <= set(found)
    assert found.count("eng_Latn") == found.count("fra_Latn") == 2  # the first column is in both tables
    assert found.count("1,640") == found.count("-4.07") == 2


def test_a_table_that_fits_is_one_line_a_row(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    render.records("title", [ROW])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert re.split(r"\s{2,}", lines[1].strip()) == list(ROW)


@given(width=st.integers(20, 200), num=st.integers(1, 11), text=st.text("ab c", max_size=60))
def test_no_cell_is_lost(width: int, num: int, text: str) -> None:
    from contextlib import redirect_stdout
    from io import StringIO

    row = {**dict(list(ROW.items())[:num]), "text": text}
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as out:
        patch.setenv("COLUMNS", str(width))
        render.records("title", [row])
    found = words(out.getvalue())
    for name in row:
        assert set(name.split()) <= set(found)
    assert "".join(found).count("a") >= text.count("a")


def test_counts_of_parameters() -> None:
    assert [render.count(n) for n in (0, 12_345, 766_100_000)] == ["0", "12,345", "766.1 M"]

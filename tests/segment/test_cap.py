"""Capping: nothing lost, nothing too long, no grapheme broken, and cuts where a reader would make them."""

from __future__ import annotations

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from lcm_data.segment.cap import cap_span


def cut(text: str, max_chars: int) -> list[str]:
    return [text[start:end] for start, end in cap_span(text, 0, len(text), max_chars)]


@given(data=st.data(), max_chars=st.integers(1, 30))
def test_covers_within_the_cap_at_graphemes(
    hard_text: st.SearchStrategy[str], data: st.DataObject, max_chars: int
) -> None:
    text = data.draw(hard_text).strip()
    spans = cap_span(text, 0, len(text), max_chars)
    assert "".join("".join(text[s:e] for s, e in spans).split()) == "".join(text.split())
    edges = {match.start() for match in regex.finditer(r"\X", text)} | {len(text)}
    for start, end in spans:
        assert start in edges
        assert end in edges
        assert text[start:end]
        assert not text[start].isspace()
        assert not text[end - 1].isspace()
        assert end - start <= max_chars or len(regex.findall(r"\X", text[start:end])) == 1


def test_short_text_is_left_alone() -> None:
    assert cut("One, two; three.", 16) == ["One, two; three."]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        (
            "We went out at noon, as planned; it rained all day, though",
            ["We went out at noon, as planned;", "it rained all day, though"],
        ),
        (
            "The old man with the long beard, who sat by the river",
            ["The old man with the long beard,", "who sat by the river"],
        ),
        (
            "the green house on the hill and the river below it",
            ["the green house on the hill", "and the river below it"],
        ),
        (
            "alpha beta gamma delta epsilon zeta eta theta iota",
            ["alpha beta gamma delta", "epsilon zeta eta theta iota"],
        ),
        (
            "这个问题比较复杂，需要大家一起来讨论，才能得到解决",
            ["这个问题比较复杂，", "需要大家一起来讨论，才能得到解决"],
        ),
    ],
)
def test_best_inner_boundary(text: str, pieces: list[str]) -> None:
    assert cut(text, len(text) * 2 // 3) == pieces


def test_pieces_are_balanced() -> None:
    lengths = [len(piece) for piece in cut("word " * 52 + "end.", 250)]
    assert len(lengths) == 2
    assert abs(lengths[0] - lengths[1]) < 10


def test_number_of_pieces_is_the_least() -> None:
    assert len(cut("word " * 200, 250)) == 4


def test_hard_split_keeps_graphemes() -> None:
    family = "👨\u200d👩\u200d👧"
    assert cut(family * 4, 12) == [family * 2, family * 2]


def test_one_grapheme_longer_than_the_cap_stays_whole() -> None:
    tower = "a" + "\u0301" * 9
    assert cut(tower + "b", 4) == [tower, "b"]


def test_scores_move_the_cut() -> None:
    text = "alpha beta gamma delta epsilon zeta eta theta"
    scores = [0.0] * len(text)
    scores[9] = 1.0  # after "beta"
    assert next(text[s:e] for s, e in cap_span(text, 0, len(text), 36, scores)) == "alpha beta"


def test_long_blob_is_cut_in_linear_time() -> None:
    blob = "x" * 200_000
    assert [len(piece) for piece in cut(blob, 250)] == [250] * 800

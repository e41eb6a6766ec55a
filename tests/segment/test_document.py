"""Documents to segments: offsets, paragraphs, the cap, and segmenters that break their promise."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from lcm_data.errors import LcmDataError, UsageError
from lcm_data.segment import Segment, Span, load_segmenter, segment_documents

RULES = load_segmenter("rules")


class Fixed:
    """Returns the same spans for every paragraph."""

    fingerprint = "fixed-7"

    def __init__(self, *spans: Span) -> None:
        self.spans = list(spans)

    def segment(self, paragraphs: Sequence[str], lang: str) -> list[list[Span]]:
        return [self.spans for _ in paragraphs]


def test_offsets_and_paragraphs() -> None:
    text = "  One here. Two there!\n \nThree? \r\n\r\n\n"
    (segments,) = segment_documents([text], "eng_Latn", RULES)
    assert segments == [Segment(2, 11, 0), Segment(12, 22, 0), Segment(25, 31, 1)]
    assert [text[s.start : s.end] for s in segments] == ["One here.", "Two there!", "Three?"]


@pytest.mark.parametrize(
    "blank", ["\n\n", "\r\n\r\n", "\n \t\n", "\u2029", "\x0c", "\r\r", "\n\u00a0\n", "\u2028\u2028"]
)
def test_paragraph_separators(blank: str) -> None:
    (segments,) = segment_documents([f"one{blank}two"], "eng_Latn", RULES)
    assert [segment.para for segment in segments] == [0, 1]


@pytest.mark.parametrize("text", ["", " ", "\n\n \t\r\n\u2029"])
def test_nothing_but_whitespace_gives_no_segment(text: str) -> None:
    assert segment_documents([text, "A."], "eng_Latn", RULES) == [[], [Segment(0, 2, 0)]]


def test_astral_characters_count_as_one() -> None:
    text = "😀 yes. 𝒩o."
    (segments,) = segment_documents([text], "eng_Latn", RULES)
    assert [text[s.start : s.end] for s in segments] == ["😀 yes.", "𝒩o."]


def test_cap_and_no_cap() -> None:
    text = "word " * 100
    assert len(segment_documents([text], "eng_Latn", RULES)[0]) == 2
    assert len(segment_documents([text], "eng_Latn", RULES, max_chars=None)[0]) == 1
    with pytest.raises(UsageError, match="at least 1, got 0"):
        segment_documents([text], "eng_Latn", RULES, max_chars=0)


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        ([(0, 3)], "'fixed-7' left out 'cd'"),
        ([(1, 5)], "'fixed-7' left out 'a'"),
        ([(0, 2), (3, 5)], "'fixed-7' left out 'b'"),
        ([(0, 3), (2, 5)], r"'fixed-7' returned the span \(2, 5\) after position 3"),
        ([(0, 9)], "inside the paragraph"),
        ([(0, 5), (0, 3)], "ascending"),
        ([], "left out"),
    ],
)
def test_broken_segmenter_is_named(spans: list[Span], message: str) -> None:
    with pytest.raises(LcmDataError, match=message):
        segment_documents(["a bcd"], "eng_Latn", Fixed(*spans))


def test_wrong_number_of_results_is_refused() -> None:
    class Deaf(Fixed):
        def segment(self, paragraphs: Sequence[str], lang: str) -> list[list[Span]]:
            return []

    with pytest.raises(LcmDataError, match="0 results for 1 paragraphs"):
        segment_documents(["a"], "eng_Latn", Deaf())


def test_spans_with_outer_whitespace_are_stripped() -> None:
    assert segment_documents(["a bcd"], "eng_Latn", Fixed((0, 2), (2, 2), (2, 5))) == [
        [Segment(0, 1, 0), Segment(2, 5, 0)]
    ]

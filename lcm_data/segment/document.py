"""Documents to segments: paragraphs, the segmenter's spans checked and stripped, long ones capped.

It keeps the promise of the segment stage: nothing of the text is lost but whitespace. Where sentences end is the
segmenter's matter, where a too long one is cut is ``cap``'s.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from lcm_data.errors import LcmDataError, UsageError
from lcm_data.segment.base import ScoredSegmenter, Segment, Segmenter, Span
from lcm_data.segment.cap import cap_span

# A line break is anything str.splitlines() knows; a blank line holds nothing but other whitespace. Form feed and
# the paragraph separator U+2029 end a paragraph by themselves.
_BREAK = r"(?:\r\n|[\n\r\x0b\x85\u2028])"
_PARAGRAPH_END = re.compile(rf"{_BREAK}[^\S\n\r\x0b\x85\u2028]*{_BREAK}\s*|\s*[\f\x1c-\x1e\u2029]\s*")
_NON_SPACE = re.compile(r"\S")


def segment_documents(
    texts: Sequence[str], lang: str, segmenter: Segmenter, max_chars: int | None = 250
) -> list[list[Segment]]:
    """Cut documents of one language into segments.

    For each text, the slices ``text[start:end]`` in order, joined, are the text without (some of) its whitespace; no
    slice is empty or begins or ends with whitespace, and none is longer than ``max_chars`` unless a single grapheme
    is. Paragraphs are separated by blank lines, and no segment spans two. All paragraphs go to the segmenter in one
    call, so that it can batch them.

    Args:
        texts: the documents.
        lang: FLORES-200 code such as ``eng_Latn``.
        segmenter: what ``load_segmenter`` returned.
        max_chars: the cap in code points (250 as in "Large Concept Models", §2.2 and §4); None for no cap.

    Raises:
        UsageError: ``max_chars`` is not positive.
        LcmDataError: the segmenter left text out, or returned spans out of order.
    """
    if max_chars is not None and max_chars < 1:
        raise UsageError(f"max_chars must be at least 1, got {max_chars}. Use None (or 250, the default) instead.")
    paras = [list(_paragraphs(text)) for text in texts]
    flat = [text[start:end] for text, spans in zip(texts, paras, strict=True) for start, end in spans]
    results = iter(_run(segmenter, flat, lang))
    documents = []
    for spans in paras:
        segments: list[Segment] = []
        for number, (offset, _end) in enumerate(spans):
            paragraph, found, scores = next(results)
            for start, end in _checked(paragraph, found, segmenter.fingerprint):
                pieces = [(start, end)] if max_chars is None else cap_span(paragraph, start, end, max_chars, scores)
                segments += [Segment(offset + s, offset + e, number) for s, e in pieces]
        documents.append(segments)
    return documents


def _paragraphs(text: str) -> Iterator[Span]:
    """Yield the paragraphs of ``text`` without the whitespace around them; none is empty."""
    start = 0
    for match in _PARAGRAPH_END.finditer(text):
        yield from _stripped(text, start, match.start())
        start = match.end()
    yield from _stripped(text, start, len(text))


def _run(
    segmenter: Segmenter, paragraphs: list[str], lang: str
) -> list[tuple[str, Sequence[Span], Sequence[float] | None]]:
    scores: Sequence[Sequence[float] | None]
    if isinstance(segmenter, ScoredSegmenter):
        scored = segmenter.segment_scored(paragraphs, lang)
        found, scores = [spans for spans, _ in scored], [values for _, values in scored]
    else:
        found = segmenter.segment(paragraphs, lang)
        scores = [None] * len(found)
    if len(found) != len(paragraphs):
        raise LcmDataError(
            f"segmenter {segmenter.fingerprint!r} returned {len(found)} results for {len(paragraphs)} paragraphs; "
            "it must return one list of spans a paragraph."
        )
    return list(zip(paragraphs, found, scores, strict=True))


def _checked(paragraph: str, spans: Sequence[Span], fingerprint: str) -> Iterator[Span]:
    """Yield the spans without whitespace around them, once they are known to lose nothing."""
    last = 0
    for start, end in spans:
        if not last <= start <= end <= len(paragraph):
            raise LcmDataError(
                f"segmenter {fingerprint!r} returned the span ({start}, {end}) after position {last} in a paragraph of "
                f"{len(paragraph)} characters; spans must be ascending, apart and inside the paragraph."
            )
        _assert_blank(paragraph, last, start, fingerprint)
        yield from _stripped(paragraph, start, end)
        last = end
    _assert_blank(paragraph, last, len(paragraph), fingerprint)


def _assert_blank(paragraph: str, start: int, end: int, fingerprint: str) -> None:
    if start < end and not paragraph[start:end].isspace():
        raise LcmDataError(
            f"segmenter {fingerprint!r} left out {paragraph[start:end][:80]!r} (characters {start} to {end} of a "
            "paragraph); its spans must cover every character that is not whitespace."
        )


def _stripped(text: str, start: int, end: int) -> Iterator[Span]:
    """Yield ``(start, end)`` without the whitespace at its ends, or nothing if there is nothing else."""
    first = _NON_SPACE.search(text, start, end)
    if first is None:
        return
    while text[end - 1].isspace():
        end -= 1
    yield first.start(), end

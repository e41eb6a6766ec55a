"""What a segmenter is: the protocol every entry of ``SEGMENTERS`` follows, and the record it leads to.

Splitting documents into paragraphs, checking what a segmenter returns and capping long sentences are in
``document``; the segmenters themselves are in ``rules`` and the ``*_adapter`` modules.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

Span: TypeAlias = tuple[int, int]


class Segment(NamedTuple):
    """One sentence of a document: ``text[start:end]``, in code points, in the ``para``-th paragraph (from 0)."""

    start: int
    end: int
    para: int


@runtime_checkable
class Segmenter(Protocol):
    """Cuts paragraphs into sentences.

    A segmenter is built on the worker that uses it (its constructor may load weights), never pickled, and used by
    one thread. It must be deterministic: the same paragraphs give the same spans however they are batched.
    """

    fingerprint: str
    """Name, version and model identity; it is written to the provenance of every shard."""

    def segment(self, paragraphs: Sequence[str], lang: str) -> list[list[Span]]:
        """Return for each paragraph its sentences as ``(start, end)`` in code points.

        Spans are ascending and do not overlap; together they cover every non-whitespace character of the
        paragraph. They may begin or end with whitespace, which the caller strips. ``lang`` is a FLORES-200 code
        such as ``eng_Latn``; a language that the segmenter cannot do is a ``UsageError``.
        """
        ...


@runtime_checkable
class ScoredSegmenter(Segmenter, Protocol):
    """A segmenter that also knows how likely each place is to end a sentence, which makes capping better."""

    def segment_scored(self, paragraphs: Sequence[str], lang: str) -> list[tuple[list[Span], Sequence[float]]]:
        """As ``segment``, with one number in [0, 1] a character: the probability that a sentence ends after it."""
        ...


def spans_between(cuts: Iterable[int], length: int) -> list[Span]:
    """Return the spans that ``cuts`` (in any order) make of ``length`` characters; they cover all of them."""
    ends = sorted({cut for cut in cuts if 0 < cut < length})
    return list(zip([0, *ends], [*ends, length], strict=True)) if length else []

"""Capping: an over-long sentence is cut at its best inner boundaries into balanced pieces.

SONAR decodes sentences beyond about 250 characters badly ("Large Concept Models", §2.2), so the segment stage caps
them. Where sentences end in the first place is the segmenters' matter.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import regex

from lcm_data.segment.base import Span

_GRAPHEME = regex.compile(r"\X")

# What one cut costs by where it falls, in the unit in which a cut half a cap away from the balanced place costs 1.
_COST_STRONG, _COST_COMMA, _COST_WORD, _COST_SPACE, _COST_GRAPHEME, _COST_INSIDE = 0.0, 0.25, 0.6, 0.9, 2.0, 4.0
_COST_EXTRA_PIECE = 1.5
_COST_SCORE = 0.8  # a segmenter's own probability moves a cut by as much as this

_STRONG = frozenset(";:.!?…؛؟۔।॥။၊។៕៖།༎።፤፥፦፧፨።·;։՝。！？；：｡︔﹔﹕．⁏⸵᙮᠃᠉\n\r\u2028\u0085")
_COMMA = frozenset(",،、，﹐﹑､︐︑՝፣ๆฯ၊߸᠂᠈꓾꘍꛵–—―-~/")
_NO_SPACE_NEEDED = frozenset("。！？；：，、､｡．…།༎༔။၊។៕፡።፣፤፥፦፧፨、")
_CLOSERS = frozenset("\"'”’»›)]}）］｝」』】〉》〕〗〙〛｣")
_OPENERS = frozenset("“‘«‹([{（［｛「『【〈《〔〖〘〚｢¿¡")
_SOFT_BREAKS = frozenset("\u200b་༌፡\u00ad")  # zero-width space, Tibetan tsheg, Ethiopic word space, soft hyphen
_LINE_BREAKS = frozenset("\n\r\u2028\u0085")
# Thai, Lao, Tibetan, Burmese, Khmer, Chinese, Japanese, Yi
_UNSPACED = re.compile(r"[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u2e80-\ua4cf\uf900-\ufaff\U00020000-\U0003ffff]")
_WORD = re.compile(r"\w+")
# Words that a clause may begin with, in languages of many speakers; a cut before one is better than elsewhere.
_CLAUSE_STARTS = (
    "and or but because which that while where when although whereas und oder aber dass weil während wobei sowie "
    "et ou mais que qui dont car lorsque y pero porque cuando donde mas quando onde ma che perché oppure en maar "
    "omdat terwijl och men eller som og sekä mutta joka jotka että és vagy hogy amely oraz ale który która które "
    "że lub nebo který která které že protože și sau dar care ve veya ama fakat çünkü и или но что который которая "
    "которые а также чтобы когда та або але що який яка які και ή αλλά που ότι և կամ բայց որ و أو لكن که اما یا "
    "और या लेकिन कि जो dan atau tetapi yang và hoặc nhưng na lakini kwamba"
)


_CLAUSE_WORDS = frozenset(_CLAUSE_STARTS.split())


def cap_span(text: str, start: int, end: int, max_chars: int, scores: Sequence[float] | None = None) -> list[Span]:
    """Cut ``text[start:end]`` into pieces of at most ``max_chars`` code points, in order, without outer whitespace.

    A cut is placed, by preference, after a mark like ``;`` or ``:``, after a comma, before a conjunction, at a space,
    between two graphemes; among equals where the pieces come out even. A grapheme cluster is never cut, so a piece is
    longer than ``max_chars`` only where one cluster is. Joined, the pieces are the span without the whitespace between
    them.

    Args:
        text: the text the offsets refer to.
        start: first character of the span.
        end: one past its last character.
        max_chars: the cap, at least 1.
        scores: for every character of ``text``, how likely a sentence ends after it; the segmenter's own opinion.
    """
    pieces = []
    while end - start > max_chars:
        stop, next_start = _best_cut(text, start, end, max_chars, scores)
        pieces.append((start, stop))
        start = next_start
    if start < end:
        pieces.append((start, end))
    return pieces


def _best_cut(text: str, start: int, end: int, max_chars: int, scores: Sequence[float] | None) -> tuple[int, int]:
    """Return the cheapest place to end the next piece, and where the one after it begins (past whitespace)."""
    length = end - start
    num_pieces = -(-length // max_chars)
    target = length / num_pieces
    best, best_cost = (-1, -1), float("inf")
    for stop, next_start in _places(text, start, end, start + max_chars):
        cost = _cut_cost(text, stop, next_start) + abs(stop - start - target) * 2 / max_chars
        if -(-(end - next_start) // max_chars) > num_pieces - 1:
            cost += _COST_EXTRA_PIECE
        if scores is not None:
            cost -= _COST_SCORE * scores[stop - 1]
        if cost <= best_cost:  # of equals the later, which leaves the shorter remainder
            best, best_cost = (stop, next_start), cost
    assert start < best[0] <= best[1] <= end
    return best


def _places(text: str, start: int, end: int, limit: int) -> Iterator[tuple[int, int]]:
    """Yield every possible cut: the end of a piece and the next start, both at grapheme boundaries.

    Ends are at most ``limit``, or after the first grapheme if that is longer.
    """
    for match in _GRAPHEME.finditer(text, start, end):
        stop = match.end()
        if stop > limit and match.start() > start:
            return
        if text[stop - 1].isspace():
            continue  # the place before the whitespace stands for it
        next_start = stop
        while next_start < end and text[next_start].isspace():
            next_start += 1
        # A combining mark may sit on the last space; such a space is no place to cut.
        if next_start > stop and next_start < end and _grapheme_end(text, next_start - 1) > next_start:
            continue
        yield stop, next_start
        if stop > limit:
            return


def _grapheme_end(text: str, start: int) -> int:
    match = _GRAPHEME.match(text, start)
    return match.end() if match else start


def _cut_cost(text: str, stop: int, next_start: int) -> float:
    """Return the cost of ending a piece before ``text[stop]`` and going on at ``text[next_start]``."""
    before, after = text[stop - 1], text[next_start : next_start + 1]
    if after in _CLOSERS or before in _OPENERS:
        return _COST_INSIDE
    if next_start > stop:
        return _space_cost(text, stop, next_start)
    if before in _NO_SPACE_NEEDED and after not in _NO_SPACE_NEEDED:
        return _COST_STRONG if before in _STRONG else _COST_COMMA
    if before in _SOFT_BREAKS:
        return _COST_SPACE
    if _is_spaced_word(before) and _is_spaced_word(after):
        return _COST_INSIDE
    return _COST_GRAPHEME


def _space_cost(text: str, stop: int, next_start: int) -> float:
    if not _LINE_BREAKS.isdisjoint(text[stop:next_start]):
        return _COST_STRONG
    last = stop - 1
    while last > 0 and text[last] in _CLOSERS:
        last -= 1
    if text[last] in _STRONG:
        return _COST_STRONG
    if text[last] in _COMMA:
        return _COST_COMMA
    word = _WORD.match(text, next_start)
    if text[next_start : next_start + 1] in _OPENERS or (word and word.group().lower() in _CLAUSE_WORDS):
        return _COST_WORD
    return _COST_SPACE


def _is_spaced_word(char: str) -> bool:
    """Whether ``char`` belongs to a word of a script that puts spaces between words."""
    return char.isalnum() and _UNSPACED.match(char) is None

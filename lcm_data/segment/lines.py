"""Single line breaks inside a paragraph: does the sentence end there, or was the text only wrapped?

Blank lines are paragraph ends, which ``document`` takes out first; where one does get here, a sentence ends.
"""

from __future__ import annotations

import re

_BREAK = re.compile("\r\n|[\n\r\x0b\x85\u2028]")
_ITEM = re.compile(r"\s*(?:[-–—*•·▪‣◦●○■□➢✓>#|]\s|\(?(?:\d{1,3}|[a-zA-Z]|[ivxIVX]{1,5})[.)]\s)")
_FIRST_WORD = re.compile(r"\s*(\S+)")
_MIN_WRAP, _MAX_WRAP = 40, 160  # widths at which text is wrapped by hand or by program, in code points


def line_ends(text: str) -> list[int]:
    """Return the positions after the line breaks of ``text`` at which a sentence ends.

    A break is a wrap, and no end, if the next line goes on with a small letter, or if the text looks filled to a
    width: the line is so long that the next line's first word would not have fitted into the widest line. List items
    always begin a sentence.
    """
    starts = [0, *(match.end() for match in _BREAK.finditer(text))]
    lines = [text[a:b].rstrip() for a, b in zip(starts, [*starts[1:], len(text)], strict=True)]
    width = max(len(line) for line in lines)
    filled = _MIN_WRAP <= width <= _MAX_WRAP
    ends = []
    for start, line, following in zip(starts[1:], lines, lines[1:], strict=False):
        first = _FIRST_WORD.match(following)
        if first is None:
            continue
        if line and not _ITEM.match(following):
            word = first.group(1)
            if word[0].islower() and not "\u10d0" <= word[0] <= "\u10ff":
                continue
            room = width - len(line) - 1
            # Scripts without spaces wrap anywhere: a word that fills half a line counts as one character.
            if filled and room < (len(word) if len(word) < width / 2 else 2):
                continue
        ends.append(start)
    return ends

"""Generated text against its source and a reference: ROUGE-L, OVL-3, REP-4 (LCM paper Table 8), in any script.

Words are runs of letters, marks and digits, case folded; in scripts that put no spaces between words each character is
one. (The package rouge-score keeps a-z and 0-9 only, and the n-gram score of the official code takes characters for
words.)
"""

from __future__ import annotations

from collections.abc import Sequence

import regex

_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}"
_WORD = regex.compile(rf"(?V1)[{_UNSPACED}]\p{{M}}*|[[\p{{L}}\p{{M}}\p{{N}}]--[{_UNSPACED}]]+")


def words(text: str) -> list[str]:
    """The words of a text."""
    return [word.casefold() for word in _WORD.findall(text)]


def rouge_l(output: Sequence[str], reference: Sequence[str]) -> float:
    """F1 of the longest common subsequence of words, 0 to 1; 0 if one of them is empty."""
    if not output or not reference:
        return 0.0
    # Row by row of the table; ``row[j]`` is the length for the words so far and the first j of the reference.
    row = [0] * (len(reference) + 1)
    for word in output:
        before = 0
        for column, other in enumerate(reference, start=1):
            above = row[column]
            row[column] = before + 1 if word == other else max(above, row[column - 1])
            before = above
    return 2 * row[-1] / (len(output) + len(reference))


def ovl_3(output: Sequence[str], source: Sequence[str]) -> float | None:
    """Share of the word 3-grams of the source that are in the output, 0 to 1; None for a source without any."""
    said = set(_ngrams(output, 3))
    asked = _ngrams(source, 3)
    return sum(ngram in said for ngram in asked) / len(asked) if asked else None


def rep_4(output: Sequence[str]) -> float | None:
    """Percentage of the word 4-grams of the output that were there before, 0 to 100; None if it has none."""
    ngrams = _ngrams(output, 4)
    return 100 * (1 - len(set(ngrams)) / len(ngrams)) if ngrams else None


def _ngrams(text: Sequence[str], size: int) -> list[tuple[str, ...]]:
    return [tuple(text[start : start + size]) for start in range(len(text) - size + 1)]

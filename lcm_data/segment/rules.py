"""The rule-based segmenter: the default, with no download, for every script of FLORES-200.

One regular expression finds runs of marks that may end a sentence, with the quotes, brackets and emoji that belong to
them; plain code then looks at the word before and the character after. Word lists are in ``abbreviations``, line
breaks in ``lines``, scripts that do without marks in ``unspaced``.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from lcm_data.segment import abbreviations as words
from lcm_data.segment.base import Span, spans_between
from lcm_data.segment.codes import iso1
from lcm_data.segment.lines import line_ends
from lcm_data.segment.unspaced import korean_ends, thai_ends, tibetan_ends, urdu_ends

# Marks that end a sentence only before a space, and marks that do so anywhere.
_SPACED = ".!?…‼⁇⁈⁉؟"
_FREE = "。！？｡︒।॥։።፧፨။។៕៚۔᱾᱿෴׃༎᠃᠉꓿꛳"
_CLOSERS = "\"'”’“‘»›«‹)\\]}）］｝」』】〉》〕〗〙〛｣＂＇"
_CLEAR_CLOSERS = "”’»›)\\]}）］」』】〉》〕"
_GAP = "[ \u00a0\u202f]"
_EMOJI = "\u2600-\u27bf\u2b00-\u2bff\U0001f000-\U0001faff\u200d\ufe0f\u20e3"
_TAIL = (
    f"(?:[{_SPACED}{_FREE}{_CLOSERS}]"
    f"|{_GAP}+[{_SPACED}{_FREE}](?=[\\s{_SPACED}{_FREE}{_CLOSERS},;]|$)"
    f"|{_GAP}[{_CLEAR_CLOSERS}](?=[\\s{_SPACED}{_FREE}{_CLOSERS},;]|$)"
    f"|{_GAP}?\\[[0-9]{{1,3}}\\])*"
)
_EXTRAS = re.compile(
    f"(?:{_GAP}?[{_EMOJI}][{_EMOJI} ]*(?=\\s|$)|{_GAP}?[:;=8xX]['’]?-?[)(DPpOo3|/\\]\\[*]+(?=[\\s.!?]|$))+"
)
_OPENERS = re.compile(r"[\s\"'“”‘’‚„«»‹›(\[{¿¡*_「『【《〈（–—―-]*")
_NUMBERED = re.compile(r"(?:[0-9]{1,3}|[ivxIVX]{1,5}|[^\W\d_])(?:\.[0-9]{1,3})*")
_ROMAN = re.compile(r"[IVXLC]+")
_DOTTED = re.compile(r"(?:[^\W\d_]{1,2}[.])+[^\W\d_]{1,2}")
_AFTER_MARK = re.compile(r"[.!?:։。][\"'”»)]*\s+[\"'“«„(]*([^\W\d_])")
_DASHES = ("-", "–", "—", "―", "--")
_NUMERALS = frozenset("0123456789IVXLCХІ")
_MORE_ENDS: dict[str, Callable[[str], list[int]]] = {
    "bo": tibetan_ends,
    "dz": tibetan_ends,
    "ko": korean_ends,
    "lo": thai_ends,
    "th": thai_ends,
    "ur": urdu_ends,
}
_SMALL = 2
_TINY = 6
_BRACKETS_AND_QUOTES = frozenset(')]}"”’»')
_REACH = 60  # how far back a word or a bracket is looked for, so that time stays linear
_LAST_PART = re.compile(r"(?<=[.'’])[^.'’]+$")
_THOUSANDS = re.compile(r"\d{3}(?!\w)")
_SHORT_PARTS = re.compile(r"(?:[^\s.]{1,5}\.)+[^\s.]{1,5}")
_WORD = re.compile(r"[\w'’-]+")


class _Rules(NamedTuple):
    """What differs between languages."""

    lang: str
    candidates: re.Pattern[str]
    never: frozenset[str]
    number: frozenset[str]
    maybe: frozenset[str]
    months: frozenset[str]
    starters: frozenset[str]
    ordinals: bool
    plain_word: int
    caseless: bool


class RuleSegmenter:
    """Cuts sentences by punctuation, abbreviations and script; needs no model and knows every language somewhat."""

    fingerprint = "rules-1"

    def segment(self, paragraphs: Sequence[str], lang: str) -> list[list[Span]]:
        """Return the sentence spans of each paragraph; see ``Segmenter.segment``."""
        rules = _rules(iso1(lang))
        return [_spans(text, rules) for text in paragraphs]


@functools.cache
def _rules(lang: str) -> _Rules:
    marks = _SPACED + _FREE
    first = f"[{marks}]"
    if lang == "hy":
        first = f"(?:[{marks}]|:(?=\\s|$))"  # the colon is typed for the Armenian full stop
    elif lang in ("am", "ti"):
        first = f"(?:[{marks}]|፡፡|::)"
    elif lang == "el":
        first = f"[{marks};;]"  # the Greek question mark
    first += f"|(?<=[^\\W\\d_])(?:{_GAP}?[{_EMOJI}][{_EMOJI} ]*(?=\\s)|{_GAP}?[:;=]['’]?-?[)(DP]+(?=\\s))"
    first = f"(?:{first})"
    return _Rules(
        lang,
        re.compile(first + _TAIL),
        _listed(words.NEVER, lang),
        _listed(words.NUMBER, lang),
        _listed(words.MAYBE, lang),
        frozenset(words.MONTHS.get(lang, "").split()),
        frozenset(words.STARTERS.get(lang, "").split()),
        lang in words.ORDINAL_DOT,
        3 if lang in ("en", "tr") else 5,
        lang in words.CASELESS,
    )


def _listed(table: dict[str, str], lang: str) -> frozenset[str]:
    own = table.get(lang) or table.get(words.AS_IN.get(lang, ""), "")
    return frozenset(f"{table['']} {own}".split())


def _spans(text: str, rules: _Rules) -> list[Span]:
    ends = _mark_ends(text, rules)
    if "\n" in text or "\r" in text:
        ends += line_ends(text)
    more = _MORE_ENDS.get(rules.lang)
    if more is not None:
        ends += more(text)
    cuts: list[int] = []
    for end in sorted(ends):
        if not text[cuts[-1] if cuts else 0 : end].isspace():  # a line break right after a mark ends nothing more
            cuts.append(end)
    return spans_between(cuts, len(text))


def _mark_ends(text: str, rules: _Rules) -> list[int]:
    ends = []
    start = counted = 0
    quoted = False  # inside straight double quotes
    small_starts: bool | None = None
    for match in rules.candidates.finditer(text):
        if match.start() < start:
            continue  # inside the emoji taken by the end before
        pos, end = match.span()
        if end == len(text):
            break
        if text.count('"', counted, pos) % 2:
            quoted = not quoted
        counted = pos
        end = _quote_end(text, match, quoted)
        if end == len(text):
            break
        if text[end] in " :;=" or text[end] > "\u2000":
            extra = _EXTRAS.match(text, end)
            if extra is not None:
                end = extra.end()
        if end - start <= _TINY and not any(map(str.isalnum, text[start:end])):
            continue  # only marks: they begin the next sentence
        verdict = _verdict(text, start, match, end, rules)
        if verdict == _SMALL:
            if small_starts is None:
                small_starts = _has_small_starts(text)
            verdict = _small_ends(text, match, rules, small_starts)
        if verdict:
            ends.append(end)
            start = end
    return ends


def _verdict(text: str, start: int, match: re.Match[str], end: int, rules: _Rules) -> int:
    """Whether the sentence that began at ``start`` ends with the marks of ``match`` (and emoji up to ``end``).

    Returns 0 for no, 1 for yes, ``_SMALL`` if a small letter follows and ``_small_ends`` has to say.
    """
    pos = match.start()
    mark = text[pos]
    if end == len(text):
        return 1
    after = text[end]
    if mark in _FREE or (mark in "!?" and _is_ideograph(after)) or (mark in "፡:" and rules.lang in ("am", "ti")):
        return _free_end(text, match, end, rules)
    if not after.isspace():
        return _tight_end(text, pos, end, rules)
    opener = _OPENERS.match(text, end)
    assert opener is not None
    nxt = opener.end()
    if nxt == len(text):
        return 1
    char = text[nxt]
    if char in ",;:.!?…)]/=&№":
        return 0
    if _is_small(char):
        return 0 if opener.group().strip(" \n") in _DASHES else _SMALL
    if mark == "." and (match.end() - pos == 1 or text[pos + 1] in ")]"):
        return _stop_ends(text, start, pos, nxt, rules)
    if char.isdigit() and opener.group().endswith("("):
        return 0  # "Viva Maria! (1965)"
    return 1


def _quote_end(text: str, match: re.Match[str], quoted: bool) -> int:
    """Return where the marks of ``match`` end once straight quotes have been told apart by ``quoted``."""
    end = match.end()
    after = text[end]
    if text[end - 1] in '"“' and not quoted and _is_ideograph(after) and text[end - 1 : end + 1] != "“”":
        return end - 1  # no space tells: it opens the next sentence
    spaced_quote = text.startswith(' "', end) and text[end + 2 : end + 3] in ("", " ", "\n")
    if quoted and spaced_quote and '"' not in match.group():
        return end + 2  # tokenized text: the quote between two spaces closes
    return end


def _free_end(text: str, match: re.Match[str], end: int, rules: _Rules) -> int:
    """Whether a sentence ends at a mark that needs no space after it."""
    mark, after = text[match.start()], text[end]
    if rules.lang == "ja":
        if mark == "．" and after.isdigit():
            return 0
        if match.group()[-1] in "」』）)”" and after in "とでをがはのにもやかなっへよ、":
            return 0  # a quotation inside a sentence
    if mark == "។" and text[match.start() : match.start() + 3] in ("។ល។", "។បេ។"):
        return 0
    if mark in "!?" and after.isascii() and not after.isspace():
        return 0
    return after not in ",;:、，"


def _tight_end(text: str, pos: int, end: int, rules: _Rules) -> int:
    """Whether a sentence ends where marks are followed by a capital without a space: "уже.Надо", "$129...But"."""
    if not text[end].isupper() or pos == 0 or text[end - 1] not in ".!?…":
        return 0
    before = text[pos - 1]
    if end - pos == 1 and text[pos] == ".":
        return (
            rules.lang != "en"
            and text[max(0, pos - 3) : pos].islower()
            and text[max(0, pos - 3) : pos].isalpha()
            and text[end + 1 : end + 2].islower()
        )
    return before.islower() or before.isdigit()


def _stop_ends(text: str, start: int, pos: int, nxt: int, rules: _Rules) -> int:
    """Whether the single full stop at ``pos`` ends a sentence, with ``text[nxt]`` the next letter, not a small one."""
    if text[pos - 1] in _BRACKETS_AND_QUOTES and pos - 1 > start:
        return 1  # "(see Annex V). Then": what the bracket holds is no abbreviation of ours
    begin, word = _word_before(text, start, pos)
    spaced = not word
    if spaced:  # tokenized text: "TP . HCM"
        begin, word = _word_before(text, start, pos - 1)
    lower = word.lower()
    last = _LAST_PART.search(lower)
    if lower in rules.never or (last is not None and last.group() in rules.never):
        return 0
    if text[nxt].isdigit() and (lower in rules.number or (word[-1:].isdigit() and _THOUSANDS.match(text, nxt))):
        return 0
    if spaced:
        return 1
    if _NUMBERED.fullmatch(word) and text[max(start, begin - _REACH) : begin].strip(" \n\t\"'“„«([*")[-1:] in ("", ":"):
        return 0  # "2." at the start: a list item's number
    if text[pos + 1] in ")]" and rules.caseless and text.rfind("(", max(start + 1, pos - _REACH), pos) > 0:
        return 0
    if rules.caseless and _SHORT_PARTS.fullmatch(word):
        return 0
    if word.isdigit():
        return _number_ends(text, word, nxt, rules)
    # An initial: one letter, in Dravidian scripts with its vowel sign ("கே. சுப்பராயன்").
    single = word[:1].isalpha() and (
        len(word) == 1 or (rules.lang in ("kn", "ml", "ta") and not any(map(str.isalnum, word[1:])))
    )
    if lower in rules.maybe and (not single or text[max(start, begin - _REACH) : begin].rstrip()[-1:] in _NUMERALS):
        return not rules.starters or lower not in words.IN_NAMES or _starter(text, nxt, rules)
    if single or _DOTTED.fullmatch(word):
        return _starter(text, nxt, rules)
    return 1


def _word_before(text: str, start: int, pos: int) -> tuple[int, str]:
    start = max(start, pos - _REACH)
    begin = max(text.rfind(" ", start, pos), text.rfind("\n", start, pos), start - 1) + 1
    return begin, text[begin:pos].lstrip("\"'“”‘’„«»([{¿¡-–—*").rstrip(")]\"'")


def _number_ends(text: str, word: str, nxt: int, rules: _Rules) -> int:
    if not rules.ordinals or len(word) > 2:
        return 1
    if rules.months:
        return _starter(text, nxt, rules)
    return 1


def _starter(text: str, nxt: int, rules: _Rules) -> int:
    """Whether the next word is one that has a capital only because a sentence begins."""
    match = _WORD.match(text, nxt)
    if match is None or (text[match.end() : match.end() + 1] == "." and len(match.group()) == 1):
        return 0
    return match.group().lower() in rules.starters


def _small_ends(text: str, match: re.Match[str], rules: _Rules, small_starts: bool) -> int:
    """Whether a sentence ends although a small letter follows: in careless writing."""
    marks = match.group()
    if small_starts:
        return marks[-1] in ".!?…" and not _is_abbreviated(text, match.start(), rules)
    if marks[-1] not in ".!?":
        return 0  # quotes, brackets: »"What?" he said«
    if marks in ("?", "!", "??", "!!", "?!", "!?"):
        return rules.lang not in words.DASH_DIALOGUE
    if marks != "." or rules.lang == "hy":
        return 0  # three dots; the Armenian stop is a semicolon
    word = _word_before(text, 0, match.start())[1]
    return (
        len(word) >= rules.plain_word
        and word.isalpha()
        and word.islower()
        and word not in rules.never
        and word not in rules.maybe
        and word not in rules.number
    )


def _is_abbreviated(text: str, pos: int, rules: _Rules) -> bool:
    word = _word_before(text, 0, pos)[1].lower()
    return word in rules.never or word in rules.number or len(word) == 1 or "." in word


def _has_small_starts(text: str) -> bool:
    """Whether this text begins its sentences with small letters throughout (chats, transcripts)."""
    starts = _AFTER_MARK.findall(text)
    small = sum(_is_small(char) for char in starts)
    return small >= 2 and small > 2 * (len(starts) - small)


def _is_small(char: str) -> bool:
    """Whether ``char`` is a small letter that a sentence would not begin with; Georgian has only one case in use."""
    return char.islower() and not "\u10d0" <= char <= "\u10ff"


def _is_ideograph(char: str) -> bool:
    """Whether ``char`` is of a script without spaces in which marks need none: Chinese, Japanese."""
    return "\u2e80" <= char <= "\u9fff" or "\uff00" <= char <= "\uffef" or char >= "\U00020000"

"""Reading translations: which texts of which languages belong together, and a sample of them that is always the same.

Three layouts are understood: a table (JSON Lines, CSV, TSV or Parquet) with a column for each language named by its
FLORES-200 code; a table of pairs with the columns ``lang``, ``text`` and one of the other side (``en`` or a FLORES-200
code); and text files named by language whose lines correspond (``eng_Latn.dev``, as in FLORES). Encoding is elsewhere.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from lcm_data.documents.inputs import file_format
from lcm_data.errors import InputError, UsageError
from lcm_data.quality.rows import line_rows, table_rows
from lcm_data.quality.sentences import Array, priorities

Row = Mapping[str, str | None]
"""The texts of one row by language."""

_BLOCK = 4096


@dataclass(frozen=True)
class AlignedText:
    """A sample of aligned texts.

    Attributes:
        num_rows: rows of the input.
        ids: by language uint64 [N], the numbers of its rows, ascending; equal numbers are translations.
        texts: by language, as many.
        num_blank: by language, rows without a text of it in the layouts where every row should have one.
        langs: all languages of the input, also those that were not asked for.
    """

    num_rows: int
    ids: dict[str, Array]
    texts: dict[str, list[str]]
    num_blank: dict[str, int]
    langs: tuple[str, ...]


def read_aligned(
    source: str, *, langs: Collection[str] | None = None, pivot: str, sample: int = 0, seed: int = 0
) -> AlignedText:
    """Read aligned text from a table, a folder or a glob, keeping up to ``sample`` rows (0: all) of each language.

    Of the ``pivot`` all rows are kept that another language needs, so that every language can be compared with it;
    it is read even if ``langs`` leaves it out.

    Raises:
        InputError: nothing there, no language in it, or files that do not correspond.
        UsageError: a language of ``langs`` is not there.
    """
    is_lines = "*" in source or file_format(source) is None
    rows = line_rows(source) if is_lines else table_rows(source)
    kept = _Kept(None if langs is None else {*langs, pivot}, pivot, sample, seed)
    for row in rows:
        kept.add(row)
    result = kept.result()
    missing = sorted(set(langs or ()) - set(result.langs))
    if missing:
        raise UsageError(f"{source} has no texts in {', '.join(missing)}. It has: {', '.join(sorted(result.langs))}.")
    if not any(result.texts.values()):
        raise InputError(f"{source} holds no text in any language ({result.num_rows:,} rows).")
    return result


@dataclass
class _Kept:
    """The rows with the smallest priority of each language, from a stream; heaps hold (minus priority, row, text)."""

    langs: set[str] | None
    pivot: str
    sample: int
    seed: int
    num_rows: int = 0
    heaps: dict[str, list[tuple[int, int, str]]] = field(default_factory=dict)
    pivot_texts: dict[int, str] = field(default_factory=dict)
    num_blank: dict[str, int] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    _priorities: Iterator[int] = field(default_factory=lambda: iter(()))

    def add(self, row: Row) -> None:
        """Offer the next row."""
        priority = self._next_priority()
        is_needed = False
        for lang, text in row.items():
            self.seen.add(lang)
            if self.langs is not None and lang not in self.langs:
                continue
            if text is None or not text.strip():
                self.num_blank[lang] = self.num_blank.get(lang, 0) + 1
                continue
            is_kept = self._push(lang, (-priority, self.num_rows, text))
            is_needed |= is_kept and lang != self.pivot
        pivot_text = row.get(self.pivot)
        if is_needed and pivot_text is not None and pivot_text.strip():
            self.pivot_texts[self.num_rows] = pivot_text
        self.num_rows += 1

    def _push(self, lang: str, item: tuple[int, int, str]) -> bool:
        heap = self.heaps.setdefault(lang, [])
        if not self.sample or len(heap) < self.sample:
            heapq.heappush(heap, item)
            return True
        return heapq.heappushpop(heap, item) is not item

    def _next_priority(self) -> int:
        """Computed for many rows at once: one at a time would cost more than reading them."""
        if self.num_rows % _BLOCK == 0:
            ids = np.arange(self.num_rows, self.num_rows + _BLOCK, dtype=np.uint64)
            self._priorities = iter(priorities(ids, self.seed).tolist())
        return next(self._priorities)

    def result(self) -> AlignedText:
        """What was kept, by row."""
        texts = {lang: {row: text for _, row, text in heap} for lang, heap in sorted(self.heaps.items())}
        needed = {row for lang, rows in texts.items() if lang != self.pivot for row in rows}
        if needed and self.pivot in texts:
            texts[self.pivot] = {row: text for row, text in self.pivot_texts.items() if row in needed}
        return AlignedText(
            num_rows=self.num_rows,
            ids={lang: np.array(sorted(rows), np.uint64) for lang, rows in texts.items()},
            texts={lang: [rows[row] for row in sorted(rows)] for lang, rows in texts.items()},
            num_blank=self.num_blank,
            langs=tuple(sorted(self.seen)),
        )

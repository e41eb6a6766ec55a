"""Documents cut into windows that fit a row, windows packed into rows, rows cut into batches: plans, without vectors.

A window is a document of its own to the model: positions begin at 0, and it sees nothing of the windows before it.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lcm_models.data.documents import Documents
from lcm_models.data.order import Entry, Place


@dataclass(frozen=True, slots=True)
class Window:
    """Concepts ``start`` to ``stop`` of a block, of one document, and the end of text where that follows.

    ``num_prompt`` of them, at the beginning, are no targets. ``number`` counts the windows of the document.
    """

    source: int
    place: Place
    number: int
    documents: Documents
    start: int
    stop: int
    has_end: bool
    num_prompt: int = 0

    def __len__(self) -> int:
        return self.stop - self.start + self.has_end


class Limits(NamedTuple):
    """What windows obey: the most and fewest concepts, end of text included, and whether there is one."""

    max_len: int
    min_len: int
    has_end: bool


def cut(source: int, entry: Entry, limits: Limits) -> list[Window]:
    """The windows of a document, in order; none if it is shorter than ``min_len``.

    All are full but the last, and the one before it where the last would be shorter than ``min_len``. The prompt of a
    pair loses its beginning where the pair would not fit, down to half a window; the rest of a longer answer fills
    further windows.
    """
    start, stop = entry.documents.span(entry.which)
    num_prompt = 0
    if entry.documents.num_prompt is not None:
        num_prompt = int(entry.documents.num_prompt[entry.which])
        room = limits.max_len - (stop - start - num_prompt + limits.has_end)
        kept = min(num_prompt, max(room, limits.max_len // 2))
        start, num_prompt = start + num_prompt - kept, kept
    length = stop - start + limits.has_end
    if stop == start or length < limits.min_len:
        return []
    windows: list[Window] = []
    while length > 0:
        size = min(length, limits.max_len)
        if 0 < length - size < limits.min_len:
            size = length - limits.min_len
        length -= size
        end = limits.has_end and length == 0
        last = start + size - end
        prompt = min(num_prompt, last - start)
        windows.append(Window(source, entry.place, len(windows), entry.documents, start, last, end, prompt))
        start, num_prompt = last, num_prompt - prompt
    return windows


def pack(
    windows: Sequence[Window], first: Sequence[Window], num_rows: int, max_len: int
) -> tuple[list[list[Window]], list[Window]]:
    """At most ``num_rows`` rows of windows that fit together, and the windows that found no place.

    Best fit: ``first`` in their order, then the others, longest first, each into the fullest row that takes it.
    """
    rows: list[list[Window]] = []
    free: list[tuple[int, int]] = []  # columns left and row, sorted
    left = []
    for window in (*first, *sorted(windows, key=len, reverse=True)):
        size = len(window)
        place = bisect_left(free, (size, -1))
        if place < len(free):
            room, row = free.pop(place)
        elif len(rows) < num_rows:
            room, row = max_len, len(rows)
            rows.append([])
        else:
            left.append(window)
            continue
        rows[row].append(window)
        if room > size:
            insort(free, (room - size, row))
    return rows, left


def batches_of_rows(
    rows: list[list[Window]], batch_rows: int, rng: np.random.Generator | None
) -> list[list[list[Window]]]:
    """Rows in batches of ``batch_rows``, mixed; the last may have fewer."""
    order = range(len(rows)) if rng is None else rng.permutation(len(rows)).tolist()
    mixed = [rows[index] for index in order]
    return [mixed[start : start + batch_rows] for start in range(0, len(mixed), batch_rows)]


def batches_by_length(
    windows: Sequence[Window], batch_rows: int | None, batch_concepts: int | None, rng: np.random.Generator | None
) -> list[list[list[Window]]]:
    """Each window a row; windows of like length share a batch, so that little is padding; the batches are mixed."""
    batches: list[list[list[Window]]] = []
    for window in sorted(windows, key=len, reverse=True):
        num_rows = len(batches[-1]) if batches else 0
        if batch_rows is not None:
            full = num_rows >= batch_rows
        else:
            assert batch_concepts is not None
            full = bool(batches) and (num_rows + 1) * len(batches[-1][0][0]) > batch_concepts
        if not batches or full:
            batches.append([])
        batches[-1].append([window])
    return batches if rng is None else [batches[index] for index in rng.permutation(len(batches))]

"""Cutting sources into slices of whole documents, and finding documents that come again: one pass over the ids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from lcm_data.documents.rows import NO_KEY, RowError, identity, key_array
from lcm_data.exchange.columns import FoundColumns
from lcm_data.exchange.inputs import SourceFile
from lcm_data.exchange.slices import Defaults, RowFacts, SourceSlice, values
from lcm_data.exchange.sources import open_source, readable

_BATCH_ROWS = 65_536


@dataclass(frozen=True)
class SourceFacts:
    """A source as planning needs it."""

    file: SourceFile
    columns: FoundColumns
    num_rows: int
    vectors_a_row: float


def plan_slices(sources: Sequence[SourceFacts], defaults: Defaults, unit_rows: int) -> list[SourceSlice]:
    """Slices of about ``unit_rows`` vectors; the driver holds 24 bytes a document, some 80 of the file it reads."""
    runs = [_runs(source, defaults) for source in sources]
    repeated = _repeated([keys for _, keys in runs])
    slices = []
    for source, (begins, _), again in zip(sources, runs, repeated, strict=True):
        ends = np.append(begins[1:], source.num_rows)
        size = max(1, int(unit_rows / source.vectors_a_row))
        runs_again = np.flatnonzero(again)
        for start, stop in _cut(begins, source.num_rows, size):
            part = SourceSlice(source.file, source.columns, start, stop)
            first, last = np.searchsorted(begins[runs_again], [start, stop])
            own = runs_again[first:last]
            ranges = tuple((int(begins[run]) - start, int(ends[run]) - start) for run in own)
            slices.append(replace(part, duplicates=ranges))
    return slices


def _runs(source: SourceFacts, defaults: Defaults) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64]]:
    """The row at which each document begins, and what identifies it; rows without a usable id are of the one before."""
    if source.columns.id is None:  # every row is a document of its own, named after its place
        return np.arange(source.num_rows), np.zeros((source.num_rows, 2), np.uint64)
    begins: list[int] = []
    keys: list[bytes] = []
    for row, key in enumerate(_keys(source, defaults)):
        if key != NO_KEY and (source.columns.nested or not keys or key != keys[-1]):
            begins.append(row)
            keys.append(key)
    return np.array(begins, np.int64), key_array(keys)


def _keys(source: SourceFacts, defaults: Defaults) -> Iterator[bytes]:
    whole = SourceSlice(source.file, source.columns, 0, source.num_rows)
    facts, row = RowFacts(whole, defaults), 0
    with open_source(source.file) as opened:
        for batch in readable(source.file.uri, opened.batches(0, source.columns.of_keys)):
            for given_id, given_lang in zip(
                *(values(batch, name) for name in (source.columns.id, source.columns.lang)), strict=True
            ):
                try:
                    doc_id, lang = facts.key(row, given_id, given_lang)
                    yield identity(lang, doc_id)
                except RowError:
                    yield NO_KEY
                row += 1


def _repeated(keys: Sequence[npt.NDArray[np.uint64]]) -> list[npt.NDArray[np.bool_]]:
    """For each source the documents that came before, in it or in another."""
    if not keys:
        return []
    keys_N2 = np.concatenate(keys)
    order = np.lexsort((keys_N2[:, 1], keys_N2[:, 0]))  # stable: equal ones stay in their order
    ordered = keys_N2[order]
    again = np.zeros(len(keys_N2), np.bool_)
    again[order[1:]] = (ordered[1:] == ordered[:-1]).all(axis=1) & ordered[1:].any(axis=1)
    return np.split(again, np.cumsum([len(each) for each in keys])[:-1])


def _cut(begins: npt.NDArray[np.int64], num_rows: int, size: int) -> Iterator[tuple[int, int]]:
    """Ranges of about ``size`` rows that begin where documents do."""
    start = 0
    while start < num_rows:
        at = int(np.searchsorted(begins, start + size))
        stop = int(begins[at]) if at < len(begins) else num_rows
        yield start, stop
        start = stop

"""The rows of a corpus by number, as its manifest counts them: finding, filtering and reading them.

A row of ``embeddings`` knows its sentence; what it does not say itself (the sentence where it was not kept, the place
in a recording) is taken from the same part of ``segments``, by ``sid``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lcm_data.corpus import Corpus, StageData
from lcm_data.store.manifest import load_manifest
from lcm_data.store.plan import load_plan
from lcm_data.store.shard import open_shard, parse_shard_path, read_shard

Int64 = npt.NDArray[np.int64]

PLACE = ("lang", "split")
"""Columns that are no columns of a file."""


class Rows:
    """The rows of the embeddings of a corpus, numbered in the order of the shards."""

    def __init__(self, corpus: Corpus) -> None:
        self.data = StageData(corpus.files.child("embeddings"), allow_partial=True)
        self._segments = _segments_of(corpus, self.data)
        shards = [shard for shard in self.data.manifest.shards if shard.rows]
        self.paths = [shard.path for shard in shards]
        self.starts = np.cumsum([0, *(shard.rows for shard in shards)])
        own = [field for field in self.data.schema if not pa.types.is_fixed_size_list(field.type)]
        other = pa.schema([]) if self._segments is None else self._segments.schema
        lent = [field for field in other if field.name not in self.data.schema.names]
        self.schema = pa.schema([*own, *lent, *(pa.field(name, pa.string()) for name in PLACE)])
        """Everything about a row but its vector."""

    def __len__(self) -> int:
        return int(self.starts[-1])

    def blocks(self) -> Iterator[npt.NDArray[np.floating]]:
        """All vectors, in order."""
        for batch in self.data.batches(columns=["emb"]):
            yield batch.vectors("emb")

    def inside(self, langs: Sequence[str] | None, splits: Sequence[str] | None) -> npt.NDArray[np.bool_]:
        """Which rows are of these languages and splits.

        Raises:
            UsageError: the corpus has none of that name.
        """
        wanted = set(self.data.shards(langs, splits))
        chosen = np.zeros(len(self), bool)
        for path, start, end in zip(self.paths, self.starts, self.starts[1:], strict=False):
            chosen[start:end] = path in wanted
        return chosen

    def shard(self, number: int, columns: Sequence[str]) -> pa.Table:
        """All rows of a shard with these columns of the ``schema``."""
        path = self.paths[number]
        own = [name for name in columns if name in self.data.schema.names]
        lent = [name for name in columns if name not in own and name not in PLACE]
        table = read_shard(self.data.files, path, [*dict.fromkeys([*own, *(["sid"] if lent or not own else [])])])
        return self._completed(table, path, lent).select([*columns])

    def take(self, rows: Int64, columns: Sequence[str]) -> pa.Table:
        """These rows, in the order asked for, with these columns (``emb`` may be one); only what is needed is read."""
        order = np.argsort(rows, kind="stable")
        ordered = rows[order]
        parts = []
        numbers = np.searchsorted(self.starts, ordered, side="right") - 1
        for number in np.unique(numbers):
            local = ordered[numbers == number] - self.starts[number]
            parts.append(self._some(int(number), local, columns))
        back = np.empty(len(rows), np.int64)
        back[order] = np.arange(len(rows))
        return pa.concat_tables(parts).take(pa.array(back))

    def _some(self, number: int, local: Int64, columns: Sequence[str]) -> pa.Table:
        path = self.paths[number]
        own = [name for name in columns if name in self.data.schema.names]
        lent = [name for name in columns if name not in own and name not in PLACE]
        parts = []
        with open_shard(self.data.files, path) as shard:
            sizes = [shard.metadata.row_group(group).num_rows for group in range(shard.num_row_groups)]
            starts = np.cumsum([0, *sizes])
            groups = np.searchsorted(starts, local, side="right") - 1
            for group in np.unique(groups):
                table = shard.read_row_group(int(group), [*dict.fromkeys(["sid", *own])])
                parts.append(table.take(pa.array(local[groups == group] - starts[group])))
        return self._completed(pa.concat_tables(parts), path, lent).select([*columns])

    def _completed(self, table: pa.Table, path: str, lent: Sequence[str]) -> pa.Table:
        split, lang, _ = parse_shard_path(path)
        if lent:
            assert self._segments is not None
            other = read_shard(self._segments.files, path, ["sid", *lent])
            places = pc.index_in(table["sid"], value_set=other["sid"].combine_chunks())
            other = other.take(places)
            for name in lent:
                table = table.append_column(other.schema.field(name), other[name])
        for name, value in zip(PLACE, (lang, split), strict=True):
            table = table.append_column(name, pa.repeat(pa.scalar(value, pa.string()), len(table)))
        return table.replace_schema_metadata(None)


def _segments_of(corpus: Corpus, data: StageData) -> StageData | None:
    """The segments that the embeddings were made of; None if they are elsewhere, or were made anew since."""
    files = corpus.files.child("segments")
    plan, before = load_plan(data.files), load_plan(files)
    if plan is None or before is None or plan.notes.get("upstream") not in (None, before.hash):
        return None
    present = {shard.path for shard in load_manifest(files, allow_partial=True).shards}
    if not {shard.path for shard in data.manifest.shards} <= present:
        return None
    return StageData(files, allow_partial=True)

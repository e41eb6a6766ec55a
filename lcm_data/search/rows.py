"""The rows of a corpus by number, as its manifest counts them: finding, filtering and reading them.

A row of ``embeddings`` knows its sentence; what it does not say itself (the sentence where it was not kept, the place
in a recording) is taken from the same part of ``segments``, by ``sid``.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lcm_data.corpus import Corpus, StageData
from lcm_data.errors import VerificationError
from lcm_data.store.manifest import load_manifest
from lcm_data.store.plan import load_plan
from lcm_data.store.reader import ShardReader
from lcm_data.store.shard import parse_shard_path, read_shard

Int64 = npt.NDArray[np.int64]

PLACE = ("lang", "split")
"""Columns that are no columns of a file."""


class Rows:
    """The rows of the embeddings of a corpus, numbered in the order of the shards."""

    def __init__(self, corpus: Corpus) -> None:
        self.data = StageData(corpus.files.child("embeddings"), allow_partial=True)
        self._reader = ShardReader(self.data.files)
        segments = _segments_of(corpus, self.data)
        self._lender = None if segments is None else ShardReader(segments.files)
        shards = [shard for shard in self.data.manifest.shards if shard.rows]
        self.paths = [shard.path for shard in shards]
        self.starts = np.cumsum([0, *(shard.rows for shard in shards)])
        own = [field for field in self.data.schema if not pa.types.is_fixed_size_list(field.type)]
        other = pa.schema([]) if segments is None else segments.schema
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
        """These rows, in the order asked for, with these columns of the ``schema``; only what is needed is read."""
        own = [name for name in columns if name in self.data.schema.names]
        lent = [name for name in columns if name not in own and name not in PLACE]
        parts, places = [], []
        for path, found in itertools.groupby(self._groups(rows), key=lambda each: each[0]):
            tables = []
            for _, group, local, place in found:
                table = self._reader.read(path, [group], [*dict.fromkeys(["sid", *own])])
                tables.append(table.take(pa.array(local)))
                places.append(place)
            parts.append(self._completed(pa.concat_tables(tables), path, lent).select([*columns]))
        return pa.concat_tables(parts).take(pa.array(np.argsort(np.concatenate(places))))

    def vectors(self, rows: Int64) -> npt.NDArray[np.floating]:
        """The vectors of these rows [N, D], in the order asked for, as they are stored."""
        dtype = self.data.schema.field("emb").type.value_type.to_pandas_dtype()
        found: npt.NDArray[np.floating] = np.empty((len(rows), self.data.dim), dtype)
        for path, group, local, place in self._groups(rows):
            found[place] = self._reader.vectors(path, [group], "emb")[local]
        return found

    def _groups(self, rows: Int64) -> Iterator[tuple[str, int, Int64, Int64]]:
        """Row groups that hold some of the rows: path, number, the rows within it, and their places in ``rows``."""
        order = np.argsort(rows, kind="stable")
        numbers = np.searchsorted(self.starts, rows[order], side="right") - 1
        for number in np.unique(numbers).tolist():
            place = order[numbers == number]
            local = rows[place] - self.starts[number]
            footer = self._reader.footer(self.paths[number])
            starts = np.cumsum([0, *(footer.row_group(group).num_rows for group in range(footer.num_row_groups))])
            groups = np.searchsorted(starts, local, side="right") - 1
            for group in np.unique(groups).tolist():
                inside = groups == group
                yield self.paths[number], group, local[inside] - starts[group], place[inside]

    def _completed(self, table: pa.Table, path: str, lent: Sequence[str]) -> pa.Table:
        split, lang, _ = parse_shard_path(path)
        if lent:
            other = self._lent(table["sid"].to_numpy(), path, lent)
            for name in lent:
                table = table.append_column(other.schema.field(name), other[name])
        for name, value in zip(PLACE, (lang, split), strict=True):
            table = table.append_column(name, pa.repeat(pa.scalar(value, pa.string()), len(table)))
        return table.replace_schema_metadata(None)

    def _lent(self, sid_N: Int64, path: str, columns: Sequence[str]) -> pa.Table:
        """These columns of the segments of some sentences; of a part, only the row groups that hold them are read."""
        assert self._lender is not None
        footer = self._lender.footer(path)
        sizes = [footer.row_group(group).num_rows for group in range(footer.num_row_groups)]
        sid_M = self._lender.read(path, range(len(sizes)), ["sid"])["sid"].to_numpy()
        order = np.argsort(sid_M)
        row_N = order[np.minimum(np.searchsorted(sid_M, sid_N, sorter=order), len(order) - 1)]
        if not np.array_equal(sid_M[row_N], sid_N):
            raise VerificationError(f"{path}: segments lacks sentences that embeddings has. Run 'lcm-data verify'.")
        group_N = np.repeat(np.arange(len(sizes)), sizes)[row_N]
        groups = np.unique(group_N)
        table = self._lender.read(path, groups.tolist(), columns)
        # Where a group begins in what was read, not in the part.
        starts = np.cumsum([0, *sizes])[groups]
        read = np.cumsum([0, *np.array(sizes)[groups][:-1]])
        at = np.searchsorted(groups, group_N)
        return table.take(pa.array(row_N - starts[at] + read[at]))


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

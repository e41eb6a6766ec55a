"""A sample of the vectors of a corpus, the same number of each language, and the nearest rows to some of them.

Rows are chosen by a hash of their ids, so the same corpus and seed give the same page. Of a very large corpus only some
row groups, chosen by a hash of their places, are looked at.

Shapes: N rows, D dimensions, Q queries.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lcm_data import schema
from lcm_data.quality.sentences import priorities
from lcm_data.search.index import Float32, Int64, unit
from lcm_data.search.rows import Rows
from lcm_data.store.shard import open_shard, parse_shard_path

MOST_BYTES = 2 << 30
"""Of vectors that are looked at."""
_KEPT = 5


@dataclass(frozen=True)
class Part:
    """The sample of one language: row numbers [N], ascending priority, and their vectors [N, D]."""

    rows: Int64
    emb_ND: Float32


def draw(rows: Rows, most: int, seed: int) -> dict[str, Part]:
    """Up to ``most`` rows of every language."""
    kept: dict[str, tuple[npt.NDArray[np.uint64], Int64, Float32]] = {}
    for lang, first, sid_N, emb_ND in _groups(rows, seed, ["sid", "emb"]):
        order = priorities(sid_N.view(np.uint64), seed)
        numbers = first + np.arange(len(sid_N))
        if lang in kept:
            own = kept[lang]
            if len(own[0]) >= most:  # most of a group can be told to be of no use before it is copied
                better = order < own[0][-1]
                order, numbers, emb_ND = order[better], numbers[better], emb_ND[better]
            order = np.concatenate([own[0], order])
            numbers = np.concatenate([own[1], numbers])
            emb_ND = np.concatenate([own[2], emb_ND.astype(np.float32)])
        best = np.argsort(order, kind="stable")[:most]
        kept[lang] = (order[best], numbers[best], emb_ND[best].astype(np.float32))
    return {lang: Part(numbers, emb_ND) for lang, (_, numbers, emb_ND) in sorted(kept.items())}


def nearest(rows: Rows, query_QD: Float32, seed: int) -> dict[str, tuple[Float32, Int64]]:
    """For each language the best cosines [Q, K] with the queries, and their rows, among all that are looked at."""
    query_QD = unit(query_QD)
    best: dict[str, tuple[Float32, Int64]] = {}
    for lang, first, _, emb_ND in _groups(rows, seed, ["sid", "emb"]):
        scores = np.asarray(query_QD @ unit(emb_ND).T, np.float32)
        numbers = np.broadcast_to(first + np.arange(len(emb_ND)), scores.shape)
        if lang in best:
            scores = np.concatenate([best[lang][0], scores], axis=1)
            numbers = np.concatenate([best[lang][1], numbers], axis=1)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :_KEPT]
        best[lang] = np.take_along_axis(scores, order, 1), np.take_along_axis(numbers, order, 1)
    return best


def looked_at(rows: Rows) -> float:
    """The share of the row groups that a sample is drawn from."""
    width = rows.data.dim * rows.data.schema.field("emb").type.value_type.bit_width / 8
    return min(1.0, MOST_BYTES / max(1.0, float(len(rows) * width)))


def _groups(rows: Rows, seed: int, columns: list[str]) -> Iterator[tuple[str, int, Any, Any]]:
    """Language, number of the first row, ids and vectors of each row group that is looked at."""
    share = looked_at(rows)
    for path, start in zip(rows.paths, rows.starts.tolist(), strict=False):
        _, lang, part = parse_shard_path(path)
        with open_shard(rows.data.files, path) as shard:
            first = start
            for group in range(shard.num_row_groups):
                num = shard.metadata.row_group(group).num_rows
                chance = priorities(np.array([(part << 20) + group], np.uint64), seed)[0] / 2**64
                if chance <= share or group == 0:
                    table = shard.read_row_group(group, columns)
                    yield lang, first, table["sid"].to_numpy(), schema.vectors(table["emb"])
                first += num

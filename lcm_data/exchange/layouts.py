"""What a layout of an export is: which stages it can hold, and the files it makes of a corpus, each a stream.

The layouts themselves are in modules of their own; who writes the files, and under which names they count, is
``pipelines.export``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lcm_data import schema
from lcm_data.corpus import Corpus, StageData
from lcm_data.errors import UsageError
from lcm_data.store.shard import METADATA_PREFIX, iter_row_groups, parse_shard_path
from lcm_data.workers.storable import is_storable, norms_of

LAYOUTS: dict[str, str] = {
    "meta": "lcm_data.exchange.meta:MetaLayout",
    "hf": "lcm_data.exchange.hf:HfLayout",
    "npy": "lcm_data.exchange.npy:NpyLayout",
    "lance": "lcm_data.exchange.lance:LanceLayout",
}
"""Name -> class, built without arguments."""

_OF_SHARDS = {"unit", "plan_hash"}


@dataclass(frozen=True)
class Export:
    """What is exported: stages of a corpus, some of their languages and splits, and how."""

    corpus: Corpus
    stages: tuple[str, ...]
    langs: tuple[str, ...] | None = None
    splits: tuple[str, ...] | None = None
    dtype: schema.StoreDtype | None = None
    place: str = ""
    """Where it will be, absolute."""
    licence: str = "unknown"
    options: Mapping[str, Any] = field(default_factory=dict)

    def data(self, stage: str) -> StageData:
        """A stage of the corpus."""
        found: StageData = getattr(self.corpus, stage)
        return found

    def shards(self, stage: str) -> list[tuple[str, int]]:
        """Path and rows of the chosen shards of a stage that have any, in order."""
        data = self.data(stage)
        chosen = set(data.shards(self.langs, self.splits))
        return [(each.path, each.rows) for each in data.manifest.shards if each.path in chosen and each.rows]


@dataclass(frozen=True)
class OutFile:
    """One file (or folder) of an export, and what writes it to a local path."""

    path: str
    rows: int
    write: Callable[[Path], None]


class Layout(Protocol):
    """A way to lay out a corpus. ``stages`` are those it can hold, ``default`` those it holds unless told."""

    stages: Sequence[str]
    default: Sequence[str]

    def files(self, export: Export) -> Iterator[OutFile]:
        """The data, in order."""
        ...

    def extras(self, export: Export, files: Sequence[OutFile]) -> Mapping[str, bytes]:
        """Small files beside the data, such as a card."""
        ...


def in_dtype(x_ND: np.ndarray[Any, Any], dtype: Any, path: str) -> np.ndarray[Any, Any]:
    """Vectors in the type of an export.

    Raises:
        UsageError: it cannot hold some of them.
    """
    dtype = np.dtype(dtype)
    if np.can_cast(x_ND.dtype, dtype):
        return x_ND.astype(dtype, copy=False)
    lost = int((~is_storable(x_ND, norms_of(x_ND), dtype.name)).sum())
    if lost:
        raise UsageError(
            f"{path}: {dtype} cannot hold {lost} of its vectors, which are too long or too short. Leave --dtype out."
        )
    return x_ND.astype(dtype)


def file_facts(data: StageData, path: str) -> dict[str, str]:
    """What a shard says of its rows, for the metadata of the files made of it."""
    from lcm_data.store.shard import open_shard, shard_metadata

    with open_shard(data.files, path) as shard:
        facts = shard_metadata(shard)
    return {f"{METADATA_PREFIX}{name}": value for name, value in facts.items() if name not in _OF_SHARDS}


def rows_of(data: StageData, path: str, with_place: Sequence[str] = ()) -> Iterator[pa.Table]:
    """The row groups of a shard, with the language and the split as columns where these are wanted."""
    split, lang, _ = parse_shard_path(path)
    places = {"lang": lang, "split": split}
    for group in iter_row_groups(data.files, path):
        table = group.replace_schema_metadata(None)
        for name in with_place:
            table = table.append_column(pa.field(name, pa.string()), pa.array([places[name]] * len(table), pa.string()))
        yield table


def write_rows(file: Path, groups: Iterator[pa.Table], first: pa.Schema, facts: Mapping[str, str]) -> None:
    """Write tables as the row groups of a Parquet file."""
    settings = schema.writer_settings(first)
    with pq.ParquetWriter(file, first.with_metadata(dict(facts)), **settings) as writer:
        for group in groups:
            writer.write_table(group.cast(first), row_group_size=max(1, group.num_rows))

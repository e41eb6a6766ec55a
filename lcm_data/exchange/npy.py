"""Vectors as .npy files, which numpy maps into memory, and their rows in the same order as Parquet beside them."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from lcm_data import schema
from lcm_data.corpus import StageData
from lcm_data.exchange.layouts import Export, OutFile, file_facts, in_dtype, rows_of, write_rows
from lcm_data.store.shard import iter_row_groups, parse_shard_path

ROWS = "rows.parquet"


class NpyLayout:
    """``STAGE/split=SPLIT/lang=LANG/emb.npy`` (or ``codes.npy``) and ``rows.parquet``."""

    stages = ("embeddings", "codes")
    default = ("embeddings",)

    def files(self, export: Export) -> Iterator[OutFile]:
        for stage in export.stages:
            data = export.data(stage)
            places: dict[str, list[tuple[str, int]]] = defaultdict(list)
            for path, rows in export.shards(stage):
                split, lang, _ = parse_shard_path(path)
                places[f"{stage}/split={split}/lang={lang}"].append((path, rows))
            for place, shards in places.items():
                paths, rows = [path for path, _ in shards], sum(count for _, count in shards)
                column = _vector_column(data)
                dtype = export.dtype if column == "emb" else None
                yield OutFile(f"{place}/{ROWS}", rows, partial(_write_rows, data, paths, column, dtype))
                yield OutFile(f"{place}/{column}.npy", rows, partial(_write_vectors, data, paths, rows, column, dtype))

    def extras(self, export: Export, files: Sequence[OutFile]) -> Mapping[str, bytes]:
        return {}


def _vector_column(data: StageData) -> str:
    return next(str(field.name) for field in data.schema if pa.types.is_fixed_size_list(field.type))


def _write_rows(
    data: StageData, paths: Sequence[str], column: str, dtype: schema.StoreDtype | None, file: Path
) -> None:
    groups = (group.drop_columns([column]) for path in paths for group in rows_of(data, path))
    first = next(groups)
    facts = file_facts(data, paths[0])
    if dtype is not None:
        facts["lcm.store_dtype"] = dtype
    write_rows(file, itertools.chain([first], groups), first.schema, facts)


def _write_vectors(
    data: StageData, paths: Sequence[str], rows: int, column: str, dtype: schema.StoreDtype | None, file: Path
) -> None:
    stored = np.dtype(dtype or data.schema.field(column).type.value_type.to_pandas_dtype())
    header = {"descr": np.lib.format.dtype_to_descr(stored), "fortran_order": False, "shape": (rows, data.dim)}
    with open(file, "wb") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        for path in paths:
            for group in iter_row_groups(data.files, path, [column]):
                x_ND = in_dtype(schema.vectors(group[column]), stored, path)
                stream.write(np.ascontiguousarray(x_ND).data)

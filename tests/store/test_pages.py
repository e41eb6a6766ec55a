"""Vectors copied from the bytes of a file are those Arrow decodes; what is not laid out plainly is left to Arrow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lcm_data import schema
from lcm_data.store.files import open_files
from lcm_data.store.pages import plain_vectors
from lcm_data.store.reader import ShardReader
from lcm_data.store.shard import write_shard


def table(x_ND: np.ndarray) -> pa.Table:
    """What ``encode`` stores."""
    num, dim = x_ND.shape
    spec = schema.embeddings_schema(dim, x_ND.dtype.name, with_text=False)
    emb = schema.vector_array(x_ND, spec.field("emb").type)
    columns = {"doc_id": pa.array([f"d{row // 7}" for row in range(num)]), "emb": emb}
    zero = {field.name: pa.array(np.zeros(num), pa.float64()).cast(field.type) for field in spec if field.name != "emb"
            and field.name != "doc_id"}  # fmt: skip
    return pa.Table.from_arrays([columns.get(name, zero.get(name)) for name in spec.names], schema=spec)


def vectors(num: int, dim: int, dtype: Any = np.float16) -> np.ndarray:
    return np.random.default_rng(num).standard_normal((num, dim)).astype(dtype)


@settings(max_examples=15)
@given(num=st.integers(1, 4000), dim=st.sampled_from([1, 3, 16, 700]), dtype=st.sampled_from([np.float16, np.float32]))
def test_the_shards_of_encode_are_copied(
    tmp_path_factory: pytest.TempPathFactory, num: int, dim: int, dtype: Any
) -> None:
    x_ND = vectors(num, dim, dtype)
    folder = tmp_path_factory.mktemp("shard")
    write_shard(folder / "a.parquet", table(x_ND), {})
    shard = pq.ParquetFile(folder / "a.parquet")
    file = np.fromfile(folder / "a.parquet", np.uint8)
    parts = []
    for group in range(shard.num_row_groups):
        part = plain_vectors(file, shard.metadata.row_group(group), "emb", x_ND.dtype, dim)
        assert part is not None
        parts.append(part)
    assert (np.concatenate(parts) == x_ND).all()
    reader = ShardReader(open_files(folder))
    assert (reader.vectors("a.parquet", range(shard.num_row_groups), "emb") == x_ND).all()


@pytest.mark.parametrize(
    "how",
    [
        {"compression": "zstd"},
        {"compression": "none"},  # with a dictionary
        {"compression": "none", "use_dictionary": False, "data_page_version": "2.0"},
    ],
)
def test_other_layouts_are_decoded(tmp_path: Path, how: dict[str, Any]) -> None:
    x_ND = vectors(300, 5)
    pq.write_table(table(x_ND), tmp_path / "a.parquet", **how)
    assert copied(tmp_path) is None
    assert (ShardReader(open_files(tmp_path)).vectors("a.parquet", [0], "emb") == x_ND).all()


def copied(folder: Path, dim: int = 5) -> np.ndarray | None:
    file = np.fromfile(folder / "a.parquet", np.uint8)
    group = pq.ParquetFile(folder / "a.parquet").metadata.row_group(0)
    return plain_vectors(file, group, "emb", np.dtype(np.float16), dim)


PLAIN: dict[str, Any] = {"compression": "none", "use_dictionary": False}


def test_nulls_are_noticed(tmp_path: Path) -> None:
    x_ND = vectors(30, 5)
    for kind, value in (
        (pa.list_(pa.float16(), 5), [*x_ND[:29], None]),
        (pa.list_(pa.float16(), 5), [*x_ND[:29], [None, *x_ND[29, 1:]]]),
        (pa.list_(pa.float16()), [*x_ND[:28], x_ND[28, :4], [*x_ND[29], x_ND[0, 0]]]),
    ):
        pq.write_table(pa.table({"emb": pa.array([v if v is None else list(v) for v in value], kind)}),
                       tmp_path / "a.parquet", **PLAIN)  # fmt: skip
        found = copied(tmp_path)
        # Lists of variable size whose lengths add up cannot be told apart: the type of the column does that.
        assert found is None or kind == pa.list_(pa.float16())


def test_damaged_headers_are_left_to_arrow(tmp_path: Path) -> None:
    x_ND = vectors(300, 5)
    pq.write_table(table(x_ND), tmp_path / "a.parquet", **PLAIN)
    group = pq.ParquetFile(tmp_path / "a.parquet").metadata.row_group(0)
    file = np.fromfile(tmp_path / "a.parquet", np.uint8)
    (chunk,) = (group.column(n) for n in range(group.num_columns) if "emb" in group.column(n).path_in_schema)
    assert copied(tmp_path) is not None
    rng = np.random.default_rng(0)
    for _ in range(300):
        bad = file.copy()
        bad[chunk.data_page_offset + rng.integers(0, 20)] = rng.integers(0, 256)
        found = plain_vectors(bad, group, "emb", np.dtype(np.float16), 5)
        assert found is None or found.shape == (300, 5)
    assert plain_vectors(file[: chunk.data_page_offset + 40], group, "emb", np.dtype(np.float16), 5) is None

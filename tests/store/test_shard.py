"""Shards: what goes in comes out, cut where documents end, stored as meant, and readable by everybody else."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lcm_data import schema
from lcm_data.errors import StorageError, VerificationError
from lcm_data.store.files import open_files
from lcm_data.store.shard import (
    ROW_GROUP_MAX,
    ROW_GROUP_MIN,
    describe_file,
    document_groups,
    iter_row_groups,
    open_shard,
    parse_shard_path,
    read_shard,
    row_group_sizes,
    shard_metadata,
    shard_path,
    write_shard,
)

SCHEMAS = {
    "segments": schema.SEGMENTS,
    "decoded": schema.DECODED,
    "embeddings": schema.embeddings_schema(16),
    "embeddings-float32": schema.embeddings_schema(16, "float32"),
    "embeddings-no-text": schema.embeddings_schema(16, with_text=False),
    "codes": schema.codes_schema(4),
}


def random_table(target: pa.Schema, num: int, doc_rows: int = 10, seed: int = 0) -> pa.Table:
    """``num`` rows of any of our schemas."""
    rng = np.random.default_rng(seed)
    columns = []
    for field in target:
        if pa.types.is_fixed_size_list(field.type):
            dtype = field.type.value_type.to_pandas_dtype()
            values = (rng.standard_normal((num, field.type.list_size)) * 100).astype(np.int16).astype(dtype)
            columns.append(schema.vector_array(values, field.type))
        elif field.name == "doc_id":
            columns.append(pa.array([f"doc-{row // doc_rows}" for row in range(num)], pa.string()))
        elif field.name == "sent_idx":
            columns.append(pa.array([row % doc_rows for row in range(num)], pa.int32()))
        elif field.type == pa.string():
            columns.append(pa.array([f"{field.name} {row} Žluťoučký 🐎" for row in range(num)], pa.string()))
        elif field.name == "lid_score":
            columns.append(pa.array([None if row % 3 == 0 else 0.5 for row in range(num)], pa.float32()))
        else:
            columns.append(pa.array(rng.integers(0, 2, num).astype(field.type.to_pandas_dtype()), field.type))
    return pa.Table.from_arrays(columns, schema=target)


@pytest.mark.parametrize("name", SCHEMAS)
@pytest.mark.parametrize("num", [0, 1, 5000])
def test_round_trip(tmp_path: Path, name: str, num: int) -> None:
    table = random_table(SCHEMAS[name], num)
    write_shard(tmp_path / "x.parquet", table, {"stage": name})
    files = open_files(tmp_path)
    back = read_shard(files, "x.parquet")
    assert back.replace_schema_metadata(None).equals(table)
    assert back.schema.remove_metadata() == SCHEMAS[name]
    groups = list(iter_row_groups(files, "x.parquet"))
    assert (pa.concat_tables(groups) if groups else back).equals(back)
    assert read_shard(files, "x.parquet", ["sid"]).column_names == ["sid"]
    with open_shard(files, "x.parquet") as shard:
        assert shard_metadata(shard) == {"stage": name}


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    infos = []
    for attempt in range(2):
        file = tmp_path / f"{attempt}.parquet"
        table = random_table(SCHEMAS["embeddings"], 3000)
        if attempt:  # pieces and order of the metadata do not show
            table = pa.concat_tables([table.slice(0, 7), table.slice(7)])
        write_shard(file, table, dict(sorted({"b": "2", "a": "1"}.items(), reverse=bool(attempt))))
        infos.append(describe_file(file, "data/x", 3000))
    assert infos[0] == infos[1]
    assert infos[0].sha256 == hashlib.sha256((tmp_path / "0.parquet").read_bytes()).hexdigest()
    assert infos[0].bytes == (tmp_path / "0.parquet").stat().st_size


# --- row groups ---


@given(st.lists(st.integers(1, 3 * ROW_GROUP_MAX), max_size=60) | st.lists(st.integers(1, 30), max_size=600))
def test_row_groups_end_where_documents_end(lengths: list[int]) -> None:
    ids = pa.array(np.repeat(np.arange(len(lengths)), lengths).astype(str), pa.string())
    sizes = row_group_sizes(ids)
    assert sum(sizes) == sum(lengths)
    assert all(0 < size <= ROW_GROUP_MAX for size in sizes)
    ends, starts = set(itertools.accumulate(lengths)), {0, *itertools.accumulate(lengths)}
    longer = [(end - length, end) for end, length in zip(sorted(ends), lengths, strict=True) if length > ROW_GROUP_MAX]
    for end in itertools.accumulate(sizes):
        # A cut inside a document is allowed only where the document alone overfills a group.
        assert end in ends or any(first < end < last and (end - first) % ROW_GROUP_MAX == 0 for first, last in longer)
    for start, size in zip([0, *itertools.accumulate(sizes)], sizes, strict=False):
        if start in starts and size < ROW_GROUP_MIN and start + size < sum(lengths):
            following = lengths[sorted(ends).index(start + size) + 1]
            assert size + following > ROW_GROUP_MAX, "a group was cut short without need"


def test_many_short_documents_fill_the_groups() -> None:
    ids = pa.array([str(row // 10) for row in range(10_000)])
    assert row_group_sizes(ids) == [1030] * 9 + [730]


@settings(max_examples=15)
@given(st.lists(st.sampled_from([1, 500, 1024, 1500, 2047, 2048, 2049, 5000]), min_size=1, max_size=6))
def test_document_groups_hold_whole_documents(tmp_path_factory: pytest.TempPathFactory, lengths: list[int]) -> None:
    folder = tmp_path_factory.mktemp("groups")
    table = random_table(schema.codes_schema(1), sum(lengths))
    ids = [f"doc-{number}" for number, length in enumerate(lengths) for _ in range(length)]
    table = table.set_column(1, table.schema.field(1), pa.array(ids, pa.string()))
    write_shard(folder / "x.parquet", table, {})
    files = open_files(folder)
    runs = document_groups(files, "x.parquet")
    parts = [read_shard(files, "x.parquet", ["sid", "doc_id"], groups) for groups, _ in runs]
    assert [part.num_rows for part in parts] == [rows for _, rows in runs]
    assert pa.concat_tables(parts)["sid"].equals(table["sid"])
    seen = [set(part["doc_id"].to_pylist()) for part in parts]
    assert sum(map(len, seen)) == len(lengths)


def test_the_groups_in_the_file_are_those(tmp_path: Path) -> None:
    table = random_table(SCHEMAS["codes"], 5000, doc_rows=7)
    write_shard(tmp_path / "x", table, {})
    footer = pq.ParquetFile(tmp_path / "x").metadata
    assert [footer.row_group(number).num_rows for number in range(footer.num_row_groups)] == [1029] * 4 + [884]


# --- settings ---


def columns_of(file: Path) -> dict[str, Any]:
    group = pq.ParquetFile(file).metadata.row_group(0)
    return {group.column(n).path_in_schema: group.column(n) for n in range(group.num_columns)}


def test_vectors_are_stored_plain(tmp_path: Path) -> None:
    write_shard(tmp_path / "x", random_table(SCHEMAS["embeddings"], 2000), {})
    columns = columns_of(tmp_path / "x")
    emb = columns["emb.list.element"]
    assert emb.compression == "UNCOMPRESSED"
    assert set(emb.encodings) <= {"PLAIN", "RLE"}  # RLE: the levels of the list
    assert not emb.is_stats_set
    assert emb.total_compressed_size == pytest.approx(1030 * 16 * 2, rel=0.2)
    assert columns["text"].compression == "ZSTD"
    assert "RLE_DICTIONARY" in columns["doc_id"].encodings
    assert "RLE_DICTIONARY" not in columns["text"].encodings
    assert columns["sid"].is_stats_set
    assert all(column.has_offset_index for column in columns.values())
    assert columns["sid"].has_column_index


def test_codes_are_split_into_bytes_and_compressed(tmp_path: Path) -> None:
    write_shard(tmp_path / "x", random_table(SCHEMAS["codes"], 2000), {})
    codes = columns_of(tmp_path / "x")["codes.list.element"]
    assert codes.compression == "GZIP"
    assert "BYTE_STREAM_SPLIT" in codes.encodings
    assert not codes.is_stats_set


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "x"
    write_shard(file, random_table(SCHEMAS["embeddings"], 2000), {})
    content = bytearray(file.read_bytes())
    start = columns_of(file)["emb.list.element"].data_page_offset
    content[start + 5000] ^= 0x10
    file.write_bytes(content)
    assert pq.ParquetFile(file).read()["emb"] is not None  # nobody notices without asking
    with pytest.raises(VerificationError, match=r"is damaged: .*CRC"):
        read_shard(open_files(tmp_path), "x")


# --- trouble ---


@pytest.mark.parametrize("keep", [0, 3, 100, -1])
def test_a_damaged_shard_says_so(tmp_path: Path, keep: int) -> None:
    write_shard(tmp_path / "x", random_table(SCHEMAS["codes"], 100), {})
    content = (tmp_path / "x").read_bytes()
    (tmp_path / "x").write_bytes(content[:keep])
    with pytest.raises(VerificationError, match=r"/x is damaged: .*run its stage again"):
        read_shard(open_files(tmp_path), "x")


def test_a_missing_shard_says_so(tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match=r"the shard .*/data/x is missing: run its stage again"):
        next(iter_row_groups(open_files(tmp_path), "data/x"))


def test_a_full_disk_while_writing(small_disk: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot write .*small/x: the disk is full\. Free some space"):
        write_shard(small_disk / "x", random_table(schema.embeddings_schema(1024), 2000), {})


# --- names, and other readers ---


@given(
    st.sampled_from(["train", "validation", "x-1"]), st.sampled_from(["eng_Latn", "cmn_Hans"]), st.integers(0, 10**7)
)
def test_names_can_be_read_back(split: str, lang: str, part: int) -> None:
    assert parse_shard_path(shard_path(split, lang, part)) == (split, lang, part)


def test_names_sort_by_part() -> None:
    assert shard_path("train", "eng_Latn", 7) == "data/split=train/lang=eng_Latn/part-000007.parquet"


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    files = open_files(tmp_path)
    for number, (split, lang) in enumerate([("train", "eng_Latn"), ("train", "deu_Latn"), ("validation", "eng_Latn")]):
        with files.scratch() as folder:
            table = random_table(SCHEMAS["embeddings"], 1500 + number, seed=number)
            write_shard(folder / "0", table, {"stage": "embeddings", "unit": str(number)})
            files.publish(folder / "0", shard_path(split, lang, number))
    files.write("_lcm/plan.json", b"{}")
    return tmp_path


EXPECTED = {("train", "deu_Latn"): 1501, ("train", "eng_Latn"): 1500, ("validation", "eng_Latn"): 1502}


def test_pyarrow_reads_the_folder(shards: Path) -> None:
    import pyarrow.dataset as ds

    table = ds.dataset(shards / "data", partitioning="hive").to_table()
    counts = table.group_by(["split", "lang"]).aggregate([("sid", "count")]).to_pylist()
    assert {(row["split"], row["lang"]): row["sid_count"] for row in counts} == EXPECTED
    assert pq.read_table(shards / "data", filters=[("lang", "=", "deu_Latn")]).num_rows == 1501
    assert schema.vectors(table["emb"]).shape == (4503, 16)


def test_duckdb_reads_the_folder(shards: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    rows = duckdb.sql(f"select split, lang, count(*) from '{shards}/data/**/*.parquet' group by all").fetchall()
    assert {(split, lang): num for split, lang, num in rows} == EXPECTED
    query = (
        f"select emb, array_cosine_similarity(emb::float[16], emb::float[16]) from '{shards}/data/**/*.parquet' limit 1"
    )
    ((emb, cosine),) = duckdb.sql(query).fetchall()
    assert len(emb) == 16
    assert cosine == pytest.approx(1.0)


def test_polars_reads_the_folder(shards: Path) -> None:
    pl = pytest.importorskip("polars")
    frame = pl.scan_parquet(shards / "data", hive_partitioning=True)
    counts = frame.group_by("split", "lang").len().collect().rows()
    assert {(split, lang): num for split, lang, num in counts} == EXPECTED
    assert frame.select("emb").collect()["emb"].to_numpy().shape == (4503, 16)

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lcm_data.documents import Document, read
from lcm_data.errors import InputError


def write(path, columns, **kwargs):
    pq.write_table(pa.table(columns), path, **kwargs)
    return path


@pytest.mark.parametrize(
    "kind",
    [
        pa.string(),
        pa.large_string(),
        pa.binary(),
        pa.large_binary(),
        pa.string_view(),
        pa.dictionary(pa.int32(), pa.string()),
    ],
)
def test_types_of_strings(corpus, tmp_path, as_texts, kind):
    text = pa.array(["é", None, "", "é", "b\0"], pa.string()).cast(kind)
    path = write(tmp_path / "a.parquet", {"text": text, "lang": pa.array(["fr", None, "en", "xx", ""]).cast(kind)})
    rows = corpus().rows(path)
    assert as_texts(rows) == ["é", "<null_text>", "<empty_text>", "<unknown_language>", "b\0"]
    assert rows[0] == Document("a.parquet#0", "é", "fra_Latn", None, 0, "a.parquet")


def test_invalid_utf8_spoils_one_row(corpus, tmp_path, as_texts):
    bad = pa.array([b"a", b"\xff", b"\xed\xa0\x80", b"b"], pa.binary()).view(pa.string())
    path = write(tmp_path / "a.parquet", {"text": bad})
    assert as_texts(corpus().rows(path)) == ["a", "<invalid_utf8>", "<invalid_utf8>", "b"]


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (pa.array([1, None, 3]), ["1", "a.parquet#1", "3"]),
        (pa.array(["x", "", "y"]), ["x", "a.parquet#1", "y"]),
        (pa.array([0.5, float("nan"), 2.0]), ["0.5", "a.parquet#1", "2.0"]),
        (pa.nulls(3), ["a.parquet#0", "a.parquet#1", "a.parquet#2"]),
    ],
)
def test_ids(corpus, tmp_path, ids, expected):
    path = write(tmp_path / "a.parquet", {"id": ids, "text": ["a"] * 3})
    assert [row.doc_id for row in corpus().rows(path)] == expected
    (found,) = corpus().scanned(path)
    assert [bool(key.any()) for key in found.keys] == ["#" not in doc_id for doc_id in expected]


@pytest.mark.parametrize(
    ("columns", "kwargs", "message"),
    [
        (
            {"content": ["a"], "n": [1]},
            {},
            r"no column 'text'. Columns: content \(string\), n \(int64\).*--text-column",
        ),
        ({"text": [1]}, {}, "the text column 'text' has type int64"),
        ({"text": [["a"]]}, {}, "has type list<"),
        ({"text": ["a"], "id": [["a"]]}, {}, "the id column 'id'.*--id-column"),
        ({"text": ["a"], "lang": [1]}, {}, "the lang column"),
        ({"text": ["a"]}, {"id": "key"}, "no column 'key'.*--id-column"),
    ],
)
def test_wrong_columns_are_refused(corpus, tmp_path, columns, kwargs, message):
    path = write(tmp_path / "a.parquet", columns)
    with pytest.raises(InputError, match=message):
        corpus(**kwargs).slices(path)


def test_not_parquet(corpus, tmp_path):
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1 no")
    with pytest.raises(InputError, match="no readable Parquet file"):
        corpus().slices(path)


def test_big_row_groups_are_cut_and_small_ones_joined(corpus, tmp_path):
    long = ["x" * 1000 + str(i) for i in range(1000)]
    path = write(tmp_path / "a.parquet", {"text": long}, row_group_size=1000, use_dictionary=False)
    parts = corpus(slice_bytes=100_000).slices(path)
    assert [part.num_rows for part in parts] == pytest.approx([100] * len(parts), abs=15)
    path = write(tmp_path / "b.parquet", {"text": long}, row_group_size=10, use_dictionary=False)
    parts = corpus(slice_bytes=100_000).slices(path)
    (size,) = {part.num_rows for part in parts[:-1]}
    assert size in (70, 80, 90)


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=10), max_size=60),
    group=st.integers(1, 70),
    slice_bytes=st.integers(1, 500),
    seed=st.integers(0, 9),
)
def test_slices_add_up_to_the_file(corpus, values, group, slice_bytes, seed):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.parquet")
        table = pa.table({"id": pa.array(range(len(values)), pa.int64()), "text": pa.array(values, pa.string())})
        pq.write_table(table, path, row_group_size=group)
        way = corpus(slice_bytes=slice_bytes)
        parts = way.slices(path)
        # In any order: the stream that is kept open must not change what is read.
        order = random.Random(seed).sample(range(len(parts)), len(parts))
        rows = {i: list(read(parts[i], way.columns)) for i in order}
    found = [row for i in range(len(parts)) for row in rows[i]]
    assert [row.doc_id for row in found] == [str(i) for i in range(len(values))]
    assert [row.text for row in found if isinstance(row, Document)] == [text for text in values if text.strip()]

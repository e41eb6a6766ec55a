"""Which files and columns an import takes: nothing that is no data comes in, nothing that is is passed over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from exchanged import HOW, embeddings, import_here, vector_column, vectors, write

from lcm_data import open_corpus
from lcm_data.errors import InputError, SpaceError, UsageError
from lcm_data.exchange.inputs import list_sources
from lcm_data.exchange.sources import open_source, read_range


def test_caches_of_datasets_are_no_data(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    datasets = pytest.importorskip("datasets", reason="needs the extra 'analysis'")
    rows = {"text": [f"sentence {n}" for n in range(9)], "emb": vectors(9).astype(np.float32).tolist()}
    datasets.Dataset.from_dict(rows).save_to_disk(str(tmp_path / "ds"))
    datasets.load_from_disk(str(tmp_path / "ds")).map(lambda row: {"text": row["text"].upper()})
    assert list((tmp_path / "ds").glob("cache-*.arrow"))
    import_here(tmp_path / "ds", tmp_path / "out", **HOW)
    assert embeddings(tmp_path / "out")["text"].to_pylist() == rows["text"]
    assert "1 files are caches of 'datasets'" in caplog.text


def test_files_that_may_have_been_meant_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "in/a.parquet", emb=vector_column(vectors(2)))
    for name in ("README.md", "_b.parquet", "c.feather"):
        (tmp_path / "in" / name).write_bytes(b"x")
    import_here(tmp_path / "in", tmp_path / "out", **HOW)
    assert "2 files were not read" in caplog.text


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"doc_id": [1.0, None, 2.0]}, r"'doc_id' of .* is double, strings or whole numbers are needed"),
        ({"sent_idx": [0.0, 1.0, None]}, r"'sent_idx' of .* is double, whole numbers are needed"),
        ({"split": [0, 1, 1]}, r"'split' of .* is int64, strings are needed. .*convert, rename or drop it"),
    ],
)
def test_columns_of_usual_names_are_not_passed_over(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    write(tmp_path / "x.parquet", emb=vector_column(vectors(3)), **columns)
    with pytest.raises(UsageError, match=message):
        import_here(tmp_path / "x.parquet", tmp_path / "out", **HOW)


def test_ids_and_texts_that_look_like_dates(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", vectors(2))
    rows = [{"doc_id": "2024-01-01", "text": "2020-01-01"}, {"doc_id": "2024-01-02", "text": "2021-01-01T00:00:00"}]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    import_here(tmp_path / "x.npy", tmp_path / "out", **HOW)
    found = embeddings(tmp_path / "out").select(["doc_id", "text"]).to_pylist()
    assert sorted(found, key=str) == rows


@pytest.mark.parametrize("part", ["split=test", "split=test/x.parquet", "split=test/*.parquet"])
def test_a_part_of_a_tree_keeps_its_split(tmp_path: Path, part: str) -> None:
    write(tmp_path / "in/split=test/x.parquet", emb=vector_column(vectors(3)))
    import_here(tmp_path / "in" / part, tmp_path / "out", **HOW)
    assert set(open_corpus(tmp_path / "out").embeddings.splits) == {"test"}


def test_an_unnamed_space_does_not_take_the_name_of_another(tmp_path: Path) -> None:
    write(tmp_path / "in/b.parquet", doc_id=["b"], emb=vector_column(vectors(1)))
    table = pa.table({"doc_id": ["a"], "emb": vector_column(vectors(1))}).replace_schema_metadata({"lcm.space": "one"})
    pq.write_table(table, tmp_path / "in/a.parquet")
    with pytest.raises(SpaceError, match=r"a.parquet says .* the space one, .*b.parquet says nothing.* --space one"):
        import_here(tmp_path / "in", tmp_path / "out", lang="eng_Latn")
    import_here(tmp_path / "in", tmp_path / "out", lang="eng_Latn", space="one")


def test_a_lance_dataset_is_read_as_it_was_listed(tmp_path: Path) -> None:
    lance = pytest.importorskip("lance", reason="needs the extra 'lance'")
    lance.write_dataset(pa.table({"text": list("abc"), "emb": vector_column(vectors(3))}), tmp_path / "x.lance")
    (before,) = list_sources(str(tmp_path / "x.lance"))
    lance.dataset(tmp_path / "x.lance").delete("text = 'a'")
    (after,) = list_sources(str(tmp_path / "x.lance"))
    assert before.fingerprint != after.fingerprint
    assert read_range(before, 0, 3, ["text"])["text"].to_pylist() == list("abc")
    assert read_range(after, 0, 2, ["text"])["text"].to_pylist() == list("bc")


@pytest.mark.parametrize(
    "array", [np.zeros((4, 0), np.float32), np.ones((2, 3), ">f4"), np.ones((2, 3), np.longdouble)]
)
def test_arrays_that_cannot_be_used(tmp_path: Path, array: Any) -> None:
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(InputError, match=r"x\.npy"):
        import_here(tmp_path / "x.npy", tmp_path / "out", **HOW)


def test_long_documents_come_in_small_batches(tmp_path: Path) -> None:
    """A row of the nested layout is a document: a thousand of them at once may be gigabytes."""
    texts = [["s"] * 900] * 100
    nested = pa.array([np.ones((900, 64), np.float32).tolist()] * 100, pa.list_(pa.list_(pa.float32(), 64)))
    write(tmp_path / "x.parquet", text_sentences=texts, text_sentences_sonar_emb=nested)
    (file,) = list_sources(str(tmp_path / "x.parquet"))
    with open_source(file) as opened:
        batches = list(opened.batches(0, ["text_sentences_sonar_emb"]))
    assert len(batches) > 1
    assert sum(batch.num_rows for batch in batches) == 100
    assert max(batch.num_rows for batch in batches) * 900 * 64 <= 1 << 22

"""Import: which column is what, documents and their order, rejects with reasons, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from exchanged import HOW, content_of, embeddings, import_here, vector_column, vectors, write
from hypothesis import given, settings
from hypothesis import strategies as st
from jobs import check_whole, rejects_of

from lcm_data import open_corpus, schema
from lcm_data.errors import InputError, LcmDataError, PlanMismatchError, SpaceError, UsageError
from lcm_data.exchange.inputs import list_sources, place_of
from lcm_data.exchange.sources import read_range
from lcm_data.exchange.vectors import dense
from pipelines.import_vectors import ImportConfig, run


def test_documents_positions_languages_and_splits(source: Path, imported: Path) -> None:
    assert sorted(check_whole(imported, ["segments", "embeddings"])) == ["embeddings", "segments"]
    rows = pa.concat_tables([pq.read_table(source / name) for name in ("a.parquet", "b.parquet")])
    expected: dict[tuple[str, str], list[tuple[Any, ...]]] = {}
    for row, vector in zip(rows.drop_columns(["emb"]).to_pylist(), schema.vectors(rows["emb"]), strict=True):
        sid = schema.sentence_id(row["lang"], row["doc_id"], row["sent_idx"])
        own = (sid, row["doc_id"], row["sent_idx"], row["text"], bytes(vector))
        expected.setdefault((row["split"], row["lang"]), []).append(own)
    assert content_of(imported) == expected
    data = open_corpus(imported)
    assert data.embeddings.metadata["space"] == "signs-1"
    assert data.embeddings.dim == 12
    assert len(data.segments.manifest.shards) > 12  # several units: documents are never cut
    for document in data.segments.documents():
        assert document["sent_idx"] == sorted(document["sent_idx"])
        assert set(document["n_sents"]) == {document["sent_idx"][-1] + 1}


def test_rows_without_ids_are_documents_named_after_their_place(tmp_path: Path) -> None:
    write(tmp_path / "in/x.parquet", emb=vector_column(vectors(5)))
    import_here(tmp_path / "in", tmp_path / "out", **HOW, unit_rows=2, modality="image")
    found = open_corpus(tmp_path / "out")
    assert embeddings(tmp_path / "out")["doc_id"].to_pylist() == [f"x.parquet#{n}" for n in range(5)]
    assert "text" not in found.embeddings.schema.names
    assert set(found.segments.table()["modality"].to_pylist()) == {"image"}
    assert (schema.vectors(embeddings(tmp_path / "out")["emb"]) == vectors(5)).all()


def test_rows_of_one_id_are_a_document_in_their_order(tmp_path: Path) -> None:
    ids = ["a", "a", "a", "b", None, "a", "b", "c"]
    write(tmp_path / "x.parquet", id=ids, text=[str(n) for n in range(8)], emb=vector_column(vectors(8)))
    segments, _ = import_here(tmp_path / "x.parquet", tmp_path / "out", **HOW)
    rows = zip(
        *(embeddings(tmp_path / "out")[name].to_pylist() for name in ("doc_id", "sent_idx", "text")), strict=True
    )
    assert list(rows) == [
        ("a", 0, "0"),
        ("a", 1, "1"),
        ("a", 2, "2"),
        ("b", 0, "3"),
        ("x.parquet#4", 0, "4"),
        ("c", 0, "7"),
    ]
    assert segments.rejects == {"duplicate_id": 2}
    assert [row["row"] for row in rejects_of(tmp_path / "out", "segments")] == [5, 6]


def test_duplicates_in_other_files_and_units(tmp_path: Path) -> None:
    for name, ids in (("a", ["p", "p", "q"]), ("b", ["q", "r", "p"])):
        write(tmp_path / f"in/{name}.parquet", id=ids, emb=vector_column(vectors(3)))
    segments, _ = import_here(tmp_path / "in", tmp_path / "out", **HOW, unit_rows=1)
    assert embeddings(tmp_path / "out")["doc_id"].to_pylist() == ["p", "p", "q", "r"]
    assert segments.rejects == {"duplicate_id": 2}


BAD_VECTORS: list[tuple[Any, str, str]] = [
    (None, "null_embedding", "the vector is null"),
    ([1.0, None, 1.0], "null_embedding", "a number of the vector is null"),
    ([1.0, 2.0], "wrong_dimension", "the vector has 2 numbers, 3 are expected"),
    ([], "wrong_dimension", "the vector has 0 numbers"),
    ([1.0, float("nan"), 1.0], "invalid_embedding", "NaN"),
    ([1.0, float("inf"), 1.0], "invalid_embedding", "infinite"),
    ([0.0, 0.0, 0.0], "invalid_embedding", "the vector is zero"),
    ([1e6, 1.0, 1.0], "invalid_embedding", "too large or too small for float16"),
    ([1e-8, 0.0, 0.0], "invalid_embedding", "too large or too small for float16"),
]


@pytest.mark.parametrize("nested", [False, True])
def test_vectors_that_are_none_are_rejects(tmp_path: Path, nested: bool) -> None:
    good = [[1.0, 2.0, float(n)] for n in range(len(BAD_VECTORS) + 1)]
    mixed = [
        good[0],
        *(each for pair in zip([bad for bad, _, _ in BAD_VECTORS], good[1:], strict=True) for each in pair),
    ]
    kind = pa.list_(pa.float32())
    if nested:
        write(tmp_path / "x.parquet", id=["d"], text_sentences_sonar_emb=pa.array([mixed], pa.list_(kind)))
    else:
        write(tmp_path / "x.parquet", id=["d"] * len(mixed), emb=pa.array(mixed, kind))
    _, manifest = import_here(tmp_path / "x.parquet", tmp_path / "out", **HOW)
    table = embeddings(tmp_path / "out")
    assert schema.vectors(table["emb"]).tolist() == good
    assert table["sent_idx"].to_pylist() == list(range(0, len(mixed), 2))  # the others are gaps
    assert manifest.rows_in == len(mixed) == manifest.rows + sum(manifest.rejects.values())
    found = [(row["reason"], row["error"]) for row in rejects_of(tmp_path / "out", "embeddings")]
    for (reason, error), (_, expected, message) in zip(found, BAD_VECTORS, strict=True):
        assert reason == expected
        assert message in error


def test_float32_keeps_what_float16_cannot(tmp_path: Path) -> None:
    x_ND = np.array([[1e6, 1e-9, 1 / 3]], np.float64)
    write(tmp_path / "x.parquet", emb=pa.array(x_ND.tolist()))
    import_here(tmp_path / "x.parquet", tmp_path / "out", **HOW, store_dtype="float32")
    assert (schema.vectors(embeddings(tmp_path / "out")["emb"]) == x_ND.astype(np.float32)).all()


def test_facts_that_are_none_are_rejects(tmp_path: Path) -> None:
    lang = ["eng_Latn", "martian", "fr", None, "eng_Latn", "eng_Latn", "eng_Latn", "eng_Latn"]
    split = ["train", "train", "dev", None, "nosuch", "train", "train", "test"]
    place = [0, 0, 0, 0, 0, None, 5, 5]
    ids = ["a", "b", "c", "d", "e", "f", "f", "f"]
    write(tmp_path / "x.parquet", id=ids, lang=lang, split=split, sent_idx=place, emb=vector_column(vectors(8)))
    segments, _ = import_here(tmp_path / "x.parquet", tmp_path / "out", **HOW)
    assert {
        (split, lang): [row[1:3] for row in rows] for (split, lang), rows in content_of(tmp_path / "out").items()
    } == {
        ("train", "eng_Latn"): [("a", 0), ("d", 0), ("f", 5)],
        ("validation", "fra_Latn"): [("c", 0)],
    }
    assert segments.rejects == {"unknown_language": 1, "unknown_split": 2, "wrong_position": 1}


def test_nested_documents_that_are_none_are_rejects(tmp_path: Path) -> None:
    kind = pa.list_(pa.list_(pa.float32(), 2))
    docs = [[[1, 1], [2, 2]], None, [], [[3, 3]], [[4, 4], [5, 5]], [[6, 6]]]
    texts = [["one", "two"], ["x"], [], ["a", "b"], None, ["last"]]
    write(
        tmp_path / "in/split=train/x.parquet",
        text_sentences=texts, text_sentences_sonar_emb=pa.array(docs, kind), id=[*"abcdef"],
    )  # fmt: skip
    segments, manifest = import_here(tmp_path / "in", tmp_path / "out", **HOW)
    assert (segments.rows_in, segments.rows_done, segments.rows) == (6, 2, 3)
    assert segments.rejects == {"null_embedding": 1, "empty_document": 1, "wrong_length": 2}
    table = embeddings(tmp_path / "out")
    assert table["text"].to_pylist() == ["one", "two", "last"]
    assert schema.vectors(table["emb"]).tolist() == [[1, 1], [2, 2], [6, 6]]
    assert manifest.rows_in == 3


def test_text_may_be_absent_null_or_broken(tmp_path: Path) -> None:
    broken = pa.array([b"good", None, b"\xff\xfe", b""], pa.binary()).cast(pa.string(), safe=False)
    pq.write_table(pa.table({"text": broken, "emb": vector_column(vectors(4))}), tmp_path / "x.parquet")
    segments, _ = import_here(tmp_path / "x.parquet", tmp_path / "out", **HOW)
    assert embeddings(tmp_path / "out")["text"].to_pylist() == ["good", "", ""]
    assert segments.rejects == {"invalid_utf8": 1}
    assert segments.stats["without_text"] == 2


# --- kinds of files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["parquet", "jsonl", None])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_npy_with_and_without_rows(tmp_path: Path, suffix: str | None, dtype: str) -> None:
    np.save(tmp_path / "x.npy", vectors(6).astype(dtype))
    rows = pa.table({"id": [*"aabbcc"], "text": [f"t{n}" for n in range(6)]})
    if suffix == "parquet":
        pq.write_table(rows, tmp_path / "x.parquet")
    elif suffix == "jsonl":
        (tmp_path / "x.jsonl").write_text("\n".join(json.dumps(row) for row in rows.to_pylist()))
    for name, source in (("file", tmp_path / "x.npy"), ("folder", tmp_path)):
        import_here(source, tmp_path.with_name(f"{tmp_path.name}-{name}"), **HOW, unit_rows=2)
        table = embeddings(tmp_path.with_name(f"{tmp_path.name}-{name}"))
        assert (schema.vectors(table["emb"]) == vectors(6)).all()
        assert table["doc_id"].to_pylist() == ([*"aabbcc"] if suffix else [f"x.npy#{n}" for n in range(6)])
        assert suffix is None or table["text"].to_pylist() == rows["text"].to_pylist()


def test_npy_with_rows_elsewhere(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", vectors(2))
    write(tmp_path / "far/facts.parquet", id=["p", "q"])
    import_here(tmp_path / "x.npy", tmp_path / "out", **HOW, metadata=str(tmp_path / "far/facts.parquet"))
    assert embeddings(tmp_path / "out")["doc_id"].to_pylist() == ["p", "q"]


def test_arrow_files_and_streams(tmp_path: Path) -> None:
    table = pa.table({"id": [*"abcdef"], "emb": vector_column(vectors(6))})
    for name, open_writer in (("train", pa.ipc.new_file), ("test", pa.ipc.new_stream)):
        (tmp_path / "in" / name).mkdir(parents=True)
        with open_writer(tmp_path / f"in/{name}/data.arrow", table.schema) as writer:
            for batch in table.to_batches(max_chunksize=2):
                writer.write_batch(batch)
    segments, _ = import_here(tmp_path / "in", tmp_path / "out", **HOW, unit_rows=3)
    assert segments.rejects == {"duplicate_id": 6}  # the same ids in both
    assert content_of(tmp_path / "out").keys() == {("test", "eng_Latn")}
    assert [row[1] for row in content_of(tmp_path / "out")["test", "eng_Latn"]] == [*"abcdef"]


@pytest.mark.parametrize(
    ("name", "lang", "split"),
    [
        ("x.parquet", None, None),
        ("split=train/lang=fra_Latn/part-1.parquet", "fra_Latn", "train"),
        ("train-00000-of-00002.parquet", None, "train"),
        ("data/validation-00000.parquet", None, "validation"),
        ("dev/x.arrow", None, "validation"),
        ("trainer/testimony.parquet", None, None),
        ("lang=en/x.npy", "eng_Latn", None),
    ],
)
def test_what_paths_say(name: str, lang: str | None, split: str | None) -> None:
    place = place_of(name)
    assert (place.lang, place.split) == (lang, split)


def test_paths_that_say_nonsense_are_refused() -> None:
    with pytest.raises(InputError, match=r"the folder split=nosuch of .* names no split. Known: dev, "):
        place_of("split=nosuch/x.parquet")
    with pytest.raises(InputError, match="the folder lang=martian"):
        place_of("lang=martian/x.parquet")


# --- what is refused -------------------------------------------------------------------------------------------------

COLUMNS = {"uid": ["a"], "caption": ["x"], "first": vector_column(vectors(1)), "second": vector_column(vectors(1))}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "several": ({}, "several columns of vectors: first, second. Name it with --embedding-column"),
    "missing": ({"embedding_column": "emb"}, "has no column 'emb'. Columns: uid"),
    "text": ({"embedding_column": "caption"}, "is string; vectors are lists of numbers.*first, second"),
    "id": ({"embedding_column": "first", "id_column": "second"}, "strings or whole numbers are needed"),
    "space": (
        {"embedding_column": "first", "space": None},
        "nothing says in which embedding space.*Add --space: sonar",
    ),
    "lang": ({"embedding_column": "first", "lang": None}, "nothing says the language of.*Add --lang"),
    "dim": ({"embedding_column": "first", "dim": 1024}, "vectors of 12 numbers, --dim says 1024"),
    "source": ({"source": "nowhere"}, "no such file or folder"),
    "metadata": ({"embedding_column": "first", "metadata": "x"}, "--metadata belongs to one .npy file"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_settings_leave_nothing_behind(tmp_path: Path, name: str) -> None:
    settings, message = REFUSED[name]
    write(tmp_path / "in/x.parquet", **COLUMNS)
    given = {"source": str(tmp_path / "in"), "corpus": str(tmp_path / "out"), **HOW, **settings}
    with pytest.raises(ValueError, match=message):
        run(ImportConfig(**given))
    assert not (tmp_path / "out").exists()


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "w/a.parquet", emb=vector_column(vectors(2, dim=3)))
    write(tmp_path / "w/b.parquet", emb=vector_column(vectors(2, dim=4)))
    with pytest.raises(InputError, match=r"b.parquet has vectors of 4 numbers, .*a.parquet has 3"):
        import_here(tmp_path / "w", tmp_path / "out", **HOW)
    write(tmp_path / "c/a.parquet", emb=vector_column(vectors(2)), id=["p", "q"])
    write(tmp_path / "c/b.parquet", emb=vector_column(vectors(2)))
    with pytest.raises(InputError, match="differ: the column of id is 'id' in the first, None in the second"):
        import_here(tmp_path / "c", tmp_path / "out", **HOW)


def test_broken_files_are_refused(tmp_path: Path) -> None:
    for number, (name, data) in enumerate({"x.parquet": b"PAR1 no", "x.npy": b"no", "x.arrow": b"no"}.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / name).write_bytes(data)
        with pytest.raises(LcmDataError, match=r"cannot be read|is no .npy file"):
            import_here(folder, tmp_path / "out", **HOW)
    np.save(tmp_path / "flat.npy", np.zeros(4))
    with pytest.raises(InputError, match=r"an array of shape \[4\].*Write one of shape \[rows, dimensions\]"):
        import_here(tmp_path / "flat.npy", tmp_path / "out", **HOW)
    np.save(tmp_path / "rows.npy", vectors(4))
    write(tmp_path / "few.parquet", id=["a"])
    with pytest.raises(InputError, match=r"holds 4 vectors, .*few.parquet' 1 rows"):
        import_here(tmp_path / "rows.npy", tmp_path / "out", **HOW, metadata=str(tmp_path / "few.parquet"))


def test_a_corpus_is_no_source(tmp_path: Path, imported: Path) -> None:
    with pytest.raises(InputError, match="a corpus of lcm-data"):
        import_here(imported, tmp_path / "out", **HOW)


def test_spaces_do_not_mix(tmp_path: Path) -> None:
    for name, space in (("a", "one"), ("b", "two")):
        table = pa.table({"emb": vector_column(vectors(2))}).replace_schema_metadata({"lcm.space": space})
        (tmp_path / "in").mkdir(exist_ok=True)
        pq.write_table(table, tmp_path / f"in/{name}.parquet")
    with pytest.raises(SpaceError, match=r"b.parquet has vectors of space two, the files before of one"):
        import_here(tmp_path / "in", tmp_path / "out", lang="en")
    with pytest.raises(SpaceError, match="the files say that their vectors are of the space one, --space says three"):
        import_here(tmp_path / "in/a.parquet", tmp_path / "out", lang="en", space="three")


# --- runs ------------------------------------------------------------------------------------------------------------


def test_a_run_resumes_refuses_changes_and_starts_anew(tmp_path: Path, source: Path, imported: Path) -> None:
    how: dict[str, Any] = {"corpus": str(tmp_path / "out"), "space": "signs-1", "unit_rows": 50, "executor": "local"}
    report = run(ImportConfig(source=str(source), workers=2, **how))
    assert report.extra["documents"] == open_corpus(imported).segments.manifest.stats["documents"]
    assert check_whole(tmp_path / "out", ["segments", "embeddings"]) == check_whole(
        imported, ["segments", "embeddings"]
    )
    assert run(ImportConfig(source=str(source), **how)).units_done == 0
    with pytest.raises(PlanMismatchError, match="config lang: None -> 'eng_Latn'"):
        run(ImportConfig(source=str(source), lang="en", **how))
    write(tmp_path / "other.parquet", emb=vector_column(vectors(3, dim=5)))
    again = {**how, "lang": "en", "overwrite": True}
    run(ImportConfig(source=str(tmp_path / "other.parquet"), **again))
    assert open_corpus(tmp_path / "out").embeddings.dim == 5
    check_whole(tmp_path / "out", ["segments", "embeddings"])


def test_sentences_of_documents_are_never_replaced(tmp_path: Path, source: Path) -> None:
    (tmp_path / "corpus/segments/_lcm").mkdir(parents=True)
    (tmp_path / "corpus/segments/_lcm/plan.json").write_text("{}")
    with pytest.raises(UsageError, match="holds other segments than imported sentences"):
        run(ImportConfig(source=str(source), corpus=str(tmp_path / "corpus"), space="s", overwrite=True))


def test_too_many_rejects_end_the_run(tmp_path: Path) -> None:
    x_ND = vectors(1500).astype(np.float32)
    x_ND[::3] = np.nan
    write(tmp_path / "x.parquet", emb=vector_column(x_ND))
    with pytest.raises(LcmDataError, match="invalid_embedding 500"):
        run(ImportConfig(source=str(tmp_path / "x.parquet"), corpus=str(tmp_path / "out"), **HOW))


# --- properties ------------------------------------------------------------------------------------------------------

numbers = st.one_of(st.none(), st.floats(width=32), st.sampled_from([0.0, 1.0, float("nan"), float("inf")]))
columns = st.lists(st.one_of(st.none(), st.lists(numbers, max_size=4)), max_size=12)


@given(
    columns,
    st.integers(0, 3),
    st.integers(0, 3),
    st.sampled_from([pa.list_(pa.float32()), pa.large_list(pa.float64())]),
)
def test_any_column_becomes_vectors_or_reasons(rows: list[Any], start: int, cut: int, kind: pa.DataType) -> None:
    """Also of a slice of an array, whose offsets do not begin at 0."""
    array = pa.array(rows, kind)[start : max(start, len(rows) - cut)]
    x_ND, reasons = dense(array, 3)
    assert len(x_ND) == len(array)
    for row, value in enumerate(array.to_pylist()):
        if value is not None and len(value) == 3 and None not in value:
            assert row not in reasons
            np.testing.assert_array_equal(x_ND[row], np.array(value, np.float32))
        else:
            assert reasons[row][0] == ("wrong_dimension" if value is not None and len(value) != 3 else "null_embedding")
            assert np.isnan(x_ND[row]).all()


dirty = st.fixed_dictionaries(
    {
        "id": st.sampled_from(["a", "b", "c", None]),
        "lang": st.sampled_from(["eng_Latn", "fr", "martian", None]),
        "split": st.sampled_from(["train", "test", "nosuch", None]),
        "text": st.one_of(st.none(), st.text(st.characters(codec="utf-8"), max_size=3)),
        "emb": st.one_of(st.none(), st.lists(numbers, min_size=3, max_size=3), st.just([1.0])),
    }
)


@settings(max_examples=25)
@given(st.lists(dirty, max_size=14), st.integers(1, 5), st.booleans())
def test_no_row_is_lost_whatever_it_holds(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], unit_rows: int, nested: bool
) -> None:
    """Rows in are rows out and rejects, in both stages, and a good vector keeps its text and all its bits."""
    folder = tmp_path_factory.mktemp("dirty")
    rows = [{"id": "sure", "lang": "eng_Latn", "split": "train", "text": "", "emb": [1.0, 2.0, 3.0]}, *rows]
    kind = pa.list_(pa.float32())
    columns: dict[str, Any] = {
        name: pa.array([row[name] for row in rows], pa.string()) for name in ("id", "lang", "split")
    }
    if nested:  # each vector twice
        columns["text_sentences"] = pa.array([[row["text"]] * 2 for row in rows], pa.list_(pa.string()))
        columns["emb"] = pa.array([[row["emb"]] * 2 for row in rows], pa.list_(kind))
    else:
        columns |= {name: pa.array([row[name] for row in rows], pa.string()) for name in ("text",)}
        columns["emb"] = pa.array([row["emb"] for row in rows], kind)
    write(folder / "x.parquet", **columns)
    segments, manifest = import_here(
        folder / "x.parquet", folder / "out", **HOW, dim=3, store_dtype="float32", unit_rows=unit_rows
    )
    assert segments.rows_in == len(rows) == segments.rows_done + sum(segments.rejects.values())
    assert manifest.rows_in == segments.rows == manifest.rows + sum(manifest.rejects.values())
    given_vectors = {
        np.array(row["emb"], np.float32).tobytes() for row in rows if row["emb"] and None not in row["emb"]
    }
    found = [row for place in content_of(folder / "out").values() for row in place]
    assert {row[4] for row in found} <= given_vectors
    assert len({row[0] for row in found}) == len(found)


@given(st.lists(st.integers(1, 7), min_size=1, max_size=5), st.data())
@settings(max_examples=60)
def test_any_range_of_rows_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, groups: list[int], data: st.DataObject
) -> None:
    """The reader goes on where it is, starts anew, or jumps: the rows are those asked for."""
    path, total = tmp_path_factory.mktemp("ranges") / "x.parquet", sum(groups)
    whole = pa.table({"n": np.arange(total)})
    with pq.ParquetWriter(path, whole.schema) as writer:
        for start, size in zip(np.cumsum([0, *groups[:-1]]), groups, strict=True):
            writer.write_table(whole.slice(int(start), size))
    (file,) = list_sources(str(path))
    for _ in range(6):
        start = data.draw(st.integers(0, total - 1))
        stop = data.draw(st.integers(start + 1, total))
        assert read_range(file, start, stop, ["n"])["n"].to_pylist() == list(range(start, stop))
    with pytest.raises(InputError, match="has fewer rows than when it was listed"):
        read_range(file, 0, total + 1, ["n"])

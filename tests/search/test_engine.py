"""Searching a corpus: the answers are those of brute force, under all filters, and the index follows the corpus."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vectorcorpus import write_vectors

pytest.importorskip("faiss", reason="needs the extra 'cpu'")
pytest.importorskip("duckdb", reason="needs the extra 'analysis'")

from lcm_data.errors import InputError, UnknownNameError, UsageError
from lcm_data.search import CorpusSearch
from lcm_data.search.engine import FOLDER

DIM = 12
PARTS = [("train", "eng_Latn"), ("test", "eng_Latn"), ("train", "fra_Latn"), ("validation", "jpn_Jpan")]


def vectors(num: int, seed: int, kinds: int = 0) -> Any:
    """Vectors of all lengths; with ``kinds`` there are only so many directions, so that many are equal."""
    rng = np.random.default_rng(seed)
    base = rng.standard_normal((kinds or num, DIM)) + rng.integers(0, 3)
    return base[rng.integers(0, len(base), num)] * rng.uniform(0.5, 4, (num, 1))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    parts = {part: vectors(num, seed) for seed, (part, num) in enumerate(zip(PARTS, (400, 90, 300, 7), strict=True))}
    return write_vectors(tmp_path_factory.mktemp("vectors") / "corpus", parts)


@pytest.fixture(scope="module")
def searches(corpus: Path) -> dict[str, CorpusSearch]:
    return {kind: CorpusSearch(corpus, kind) for kind in ("flat", "ivf")}


@functools.cache
def everything(search: CorpusSearch) -> list[dict[str, Any]]:
    """All rows in order, with their vectors."""
    rows = search.rows.take(np.arange(len(search.rows)), [*search.rows.schema.names, "emb"]).to_pylist()
    return [{**row, "unit": np.array(row["emb"]) / np.linalg.norm(row["emb"])} for row in rows]


CONDITIONS: dict[str, Any] = {
    "length(text) > 12": lambda row: len(row["text"]) > 12,
    "n_tokens = 3 AND lang <> 'fra_Latn'": lambda row: row["n_tokens"] == 3 and row["lang"] != "fra_Latn",
    "NORM < 4 or split = 'test'": lambda row: row["norm"] < 4 or row["split"] == "test",
    "\"text\" LIKE '%xxxxxx'": lambda row: row["text"].endswith("xxxxxx"),
    "sent_idx * 2 = 4": lambda row: row["sent_idx"] == 2,
    "doc_id IN ('d0-1', 'd3-0')": lambda row: row["doc_id"] in ("d0-1", "d3-0"),
    "true -- all": lambda row: True,
    "false": lambda row: False,
    "NULL": lambda row: False,
    "columns('n_u.*') = 0": lambda row: True,
}


@given(
    kind=st.sampled_from(["flat", "ivf"]),
    k=st.integers(1, 60),
    langs=st.none() | st.lists(st.sampled_from(["eng_Latn", "fra_Latn", "jpn_Jpan"]), unique=True),
    splits=st.none() | st.lists(st.sampled_from(["train", "validation", "test"]), unique=True),
    where=st.none() | st.sampled_from(list(CONDITIONS)),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=40)
def test_filtered_answers_are_those_of_brute_force(
    searches: dict[str, CorpusSearch], kind: str, k: int, langs: Any, splits: Any, where: str | None, seed: int
) -> None:
    search = searches[kind]
    query = np.random.default_rng(seed).standard_normal(DIM)
    found = search.search(query, k, langs=langs, splits=splits, where=where, exact=True)
    rows = [
        row
        for row in everything(search)
        if (langs is None or row["lang"] in langs)
        and (splits is None or row["split"] in splits)
        and (where is None or CONDITIONS[where](row))
    ]
    assert (found.matching, found.rows, found.exact) == (len(rows), 797, True)
    assert len(found.hits) == min(k, len(rows))
    scores = sorted((float(row["unit"] @ query / np.linalg.norm(query)) for row in rows), reverse=True)[:k]
    assert [hit.score for hit in found.hits] == pytest.approx(scores, abs=2e-6)
    allowed = {row["sid"]: float(row["unit"] @ query / np.linalg.norm(query)) for row in rows}
    assert len({hit.row["sid"] for hit in found.hits}) == len(found.hits)
    for hit in found.hits:  # the score is that of the row it comes with
        assert hit.score == pytest.approx(allowed[hit.row["sid"]], abs=2e-6)


@given(num=st.integers(1, 300), kinds=st.integers(1, 6), k=st.integers(1, 20), seed=st.integers(0, 1000))
@settings(max_examples=10)
def test_equal_vectors_come_once_each(
    tmp_path_factory: pytest.TempPathFactory, num: int, kinds: int, k: int, seed: int
) -> None:
    """Many rows with one score: none is lost or doubled, also where the bound cannot tell them apart."""
    corpus = write_vectors(tmp_path_factory.mktemp("equal") / "c", {PARTS[0]: vectors(num, seed, kinds)})
    for kind in ("flat", "ivf"):
        search = CorpusSearch(corpus, kind)
        rows = everything(search)
        found = search.search(rows[0]["unit"], k, exact=True)
        assert [hit.rank for hit in found.hits] == list(range(1, min(k, num) + 1))
        assert len({hit.row["sid"] for hit in found.hits}) == len(found.hits)
        truth = sorted((float(row["unit"] @ rows[0]["unit"]) for row in rows), reverse=True)
        assert [hit.score for hit in found.hits] == pytest.approx(truth[: len(found.hits)], abs=2e-6)


def test_an_ordinary_search_in_lists_gives_true_scores(searches: dict[str, CorpusSearch]) -> None:
    search = searches["ivf"]
    assert search.facts.recall >= 0.98
    rows = {row["sid"]: row["unit"] for row in everything(search)}
    query = np.random.default_rng(3).standard_normal(DIM)
    found = search.search(query, 5)
    assert not found.exact
    for hit in found.hits:
        assert hit.score == pytest.approx(float(rows[hit.row["sid"]] @ query / np.linalg.norm(query)), abs=2e-6)


def test_the_bound_holds(searches: dict[str, CorpusSearch]) -> None:
    """What an index says is never further from the truth than it claims."""
    search = searches["ivf"]
    rows = everything(search)
    query = np.random.default_rng(5).standard_normal((20, DIM)).astype(np.float32)
    query /= np.linalg.norm(query, axis=1, keepdims=True)
    scores, found = search._index.search(query, len(rows), every=True)
    for one, line, numbers in zip(query, scores, found, strict=True):
        truth = np.array([rows[number]["unit"] @ one for number in numbers])
        assert np.abs(line - truth).max() <= search.facts.bound


# --- the index follows the corpus -----------------------------------------------------------------------------------


def test_the_index_is_kept_and_made_anew(tmp_path: Path) -> None:
    corpus = write_vectors(tmp_path / "c", {PARTS[0]: vectors(50, 1)})
    assert CorpusSearch(corpus).built
    again = CorpusSearch(corpus)
    assert not again.built
    kept = sorted((corpus / FOLDER).iterdir())
    assert [path.suffix for path in kept] == [".faiss", ".json"]
    query = vectors(1, 9)[0]
    before = again.search(query, 3).hits
    write_vectors(corpus, {PARTS[0]: vectors(60, 2), PARTS[2]: vectors(5, 3)})
    changed = CorpusSearch(corpus)
    assert changed.built
    assert (changed.facts.rows, len(list((corpus / FOLDER).iterdir()))) == (65, 2)
    assert changed.search(query, 3).hits != before


def test_an_index_that_was_asked_for_once_is_not_the_default(tmp_path: Path) -> None:
    corpus = write_vectors(tmp_path / "c", {PARTS[0]: vectors(50, 1)})
    assert CorpusSearch(corpus, "ivf").built
    search = CorpusSearch(corpus)
    assert (search.facts.kind, search.built) == ("flat", True)
    assert not CorpusSearch(corpus, "ivf").built


@pytest.mark.parametrize("damage", ["cut", "flip", "facts"])
def test_a_damaged_index_is_made_anew(tmp_path: Path, damage: str) -> None:
    corpus = write_vectors(tmp_path / "c", {PARTS[0]: vectors(50, 1)})
    CorpusSearch(corpus)
    (file,), (facts,) = (list((corpus / FOLDER).glob(f"*.{kind}")) for kind in ("faiss", "json"))
    if damage == "facts":
        facts.write_text("{}")
    else:
        data = file.read_bytes()
        file.write_bytes(data[:-9] if damage == "cut" else b"nope" + data[4:])
    search = CorpusSearch(corpus)
    assert search.built
    assert len(search.search(vectors(1, 2)[0], 3).hits) == 3


def test_a_corpus_that_cannot_be_written_has_its_index_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = write_vectors(tmp_path / "c", {PARTS[0]: vectors(50, 1)})
    monkeypatch.setenv("LCM_DATA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anything
    assert CorpusSearch(corpus).built
    assert not (corpus / FOLDER).exists()
    assert not CorpusSearch(corpus).built
    assert len(list((tmp_path / "cache" / FOLDER).iterdir())) == 2


def test_a_corpus_that_is_elsewhere(
    corpus: Path, searches: dict[str, CorpusSearch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fsspec

    monkeypatch.setenv("LCM_DATA_CACHE", str(tmp_path))
    fsspec.filesystem("memory").put(str(corpus), "/searched", recursive=True)
    for kind, here in searches.items():
        assert [CorpusSearch("memory://searched", kind).built for _ in range(2)] == [True, False]
        query = vectors(1, 5)[0]
        for how in ({}, {"where": "n_tokens = 2"}, {"exact": True}):
            there = CorpusSearch("memory://searched", kind).search(query, 5, **how)
            assert there == here.search(query, 5, **how)


@pytest.mark.parametrize("kind", ["flat", "ivf"])
def test_very_short_and_very_long_vectors(tmp_path: Path, kind: str) -> None:
    """Squares of their numbers leave float32; cosines do not know lengths."""
    x_ND = np.random.default_rng(0).standard_normal((20, DIM))
    x_ND[7] *= 1e-30
    x_ND[9] *= 1e25
    search = CorpusSearch(write_vectors(tmp_path / "c", {PARTS[0]: x_ND}), kind)
    for row in (3, 7, 9):
        best = search.search(x_ND[row].astype(np.float32) * np.float32(1e3 if row == 7 else 1), 2).hits
        assert (best[0].doc_id, best[0].sent_idx) == (f"d0-{row // 3}", row % 3)
        assert best[0].score == pytest.approx(1, abs=1e-5)
        assert best[1].score < 0.99


def test_a_condition_is_on_a_row_not_on_a_shard(searches: dict[str, CorpusSearch]) -> None:
    """The table that it is evaluated on is one shard: an expression must not be able to speak of it."""
    search = searches["flat"]
    for where in ("norm = (SELECT max(norm) FROM rows)", "row_number_in_shard < 2", "rows::VARCHAR LIKE '%fra%'"):
        with pytest.raises(UsageError, match="is no condition on a row"):
            search.search(np.ones(DIM), where=where)
    everything_known = search.search(np.ones(DIM), where="COLUMNS(*)::VARCHAR IS NOT NULL").matching
    assert everything_known == len(search.rows)


# --- what cannot be done --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"k": 0}, "k must be 1 or more, got 0"),
        ({"langs": ["deu_Latn"]}, "no language 'deu_Latn' .* It has: eng_Latn, fra_Latn, jpn_Jpan"),
        ({"splits": ["dev"]}, "no split 'dev' .* It has: test, train, validation"),
        ({"where": "nosuch > 1"}, '"nosuch" not found.* Columns: sid, doc_id, .*lang, split'),
        ({"where": "length(text"}, "is no condition on a row"),
        ({"where": ""}, "is no condition on a row"),
        ({"where": "text"}, "Could not convert string"),
        ({"where": "true, true"}, "single expression"),
        ({"where": "true; DROP TABLE rows"}, "is no condition on a row"),
        ({"where": "true) UNION SELECT 1 --"}, "is no condition on a row"),
        ({"where": "EXISTS (SELECT * FROM read_text('/etc/hostname'))"}, "disabled by configuration"),
        ({"where": "EXISTS (SELECT * FROM '/etc/hostname')"}, "does not exist"),
        ({"where": "EXISTS (SELECT * FROM read_csv('https://example.org/x.csv'))"}, "disabled by configuration"),
        ({"where": "EXISTS (SELECT * FROM chosen_N)"}, "does not exist"),
    ],
)
def test_what_cannot_be_asked(searches: dict[str, CorpusSearch], how: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        searches["flat"].search(np.ones(DIM), **how)


@pytest.mark.parametrize("query", [np.ones(DIM + 1), np.zeros(DIM), np.full(DIM, np.nan), np.ones((1, DIM))])
def test_what_is_no_query(searches: dict[str, CorpusSearch], query: Any) -> None:
    with pytest.raises(UsageError, match="a query must be a vector of 12 finite numbers"):
        searches["flat"].search(query)


def test_a_filter_writes_nothing(searches: dict[str, CorpusSearch], tmp_path: Path) -> None:
    target = tmp_path / "stolen.csv"
    for where in (f"true; COPY rows TO '{target}'", f"EXISTS (COPY rows TO '{target}')"):
        with pytest.raises(UsageError):
            searches["flat"].search(np.ones(DIM), where=where)
    assert not target.exists()


def test_a_corpus_without_embeddings(tmp_path: Path) -> None:
    from speechcorpus import write_segments

    with pytest.raises(InputError, match="is not a corpus"):
        CorpusSearch(tmp_path)
    with pytest.raises(InputError, match="Run 'lcm-data encode' first"):
        CorpusSearch(write_segments(tmp_path / "c", {"eng_Latn": ["A sentence."]}))


def test_an_unknown_index(corpus: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown index 'hnsw'"):
        CorpusSearch(corpus, "hnsw")


def test_kinds_by_size_and_memory() -> None:
    from lcm_data.search.kinds import choose_kind

    assert choose_kind("auto", 1_000_000, 256, None) == "flat"
    assert choose_kind("auto", 1_000_000, 1024, None) == "ivf"
    assert choose_kind("auto", 1_000_000, 256, 1 << 30) == "ivf"
    assert choose_kind("flat", 1_000_000, 1024, 64 << 30) == "flat"
    with pytest.raises(UsageError, match=r"a flat index of 1,000,000 vectors of 1024 .* takes 8.19 GB .* --index ivf"):
        choose_kind("flat", 1_000_000, 1024, 1 << 30)
    with pytest.raises(UsageError, match="Use a machine with more memory"):
        choose_kind("auto", 1_000_000, 1024, 1 << 30)


def test_sentences_that_are_not_beside_their_vectors(tmp_path: Path) -> None:
    """``encode --no-text`` keeps them in the segments: there they are found, by id."""
    from speechcorpus import Spoken, write_segments

    texts = [f"sentence {n}" for n in range(9)]
    corpus = write_segments(tmp_path / "c", {"eng_Latn": [*texts, Spoken("/a.wav", 1.5, 2.5)]})
    segments = CorpusSearchSegments(corpus)
    vectors_by_sid = {row["sid"]: vectors(1, seed)[0] for seed, row in enumerate(segments)}
    kept = [row for number, row in enumerate(segments) if number != 4]  # one was rejected
    write_matching(corpus, kept, vectors_by_sid)
    found = CorpusSearch(corpus).search(vectors_by_sid[segments[7]["sid"]], 2)
    assert (found.hits[0].text, found.hits[0].score) == ("sentence 7", pytest.approx(1, abs=1e-6))
    found = CorpusSearch(corpus).search(np.ones(DIM), 9, where="t_start > 1")
    assert [(hit.row["audio_uri"], hit.row["t_end"]) for hit in found.hits] == [("/a.wav", 2.5)]
    found = CorpusSearch(corpus).search(np.ones(DIM), 20, where="text LIKE 'sentence%'")
    assert sorted(hit.text or "" for hit in found.hits) == [text for n, text in enumerate(texts) if n != 4]


def test_rows_of_many_row_groups_in_any_order(tmp_path: Path) -> None:
    """Of other groups in segments than in embeddings, because rows were rejected in between."""
    from speechcorpus import write_segments

    corpus = write_segments(tmp_path / "c", {"eng_Latn": [f"sentence {n}" for n in range(5000)]})
    rng = np.random.default_rng(0)
    segments = CorpusSearchSegments(corpus)
    rejected = set(rng.permutation(5000)[:900].tolist())
    kept = [row for number, row in enumerate(segments) if number not in rejected]
    x_ND = rng.standard_normal((len(kept), DIM)).astype(np.float32)
    write_matching(corpus, kept, {row["sid"]: x for row, x in zip(kept, x_ND, strict=True)})
    rows = CorpusSearch(corpus).rows
    for num in (1, 2, 700):
        wanted = rng.permutation(len(kept))[:num]
        assert rows.take(wanted, ["text", "lang"]).column("text").to_pylist() == [kept[n]["text"] for n in wanted]
        np.testing.assert_array_equal(rows.vectors(wanted), x_ND[wanted])


def CorpusSearchSegments(corpus: Path) -> list[dict[str, Any]]:
    from lcm_data import open_corpus

    rows: list[dict[str, Any]] = open_corpus(corpus).segments.table().to_pylist()
    return rows


def write_matching(corpus: Path, rows: list[dict[str, Any]], vectors_by_sid: dict[int, Any]) -> None:
    """Embeddings without text of these rows of segments."""
    import pyarrow as pa

    from lcm_data import schema
    from lcm_data.store.files import open_files
    from lcm_data.store.manifest import build_manifest, save_manifest
    from lcm_data.store.plan import Plan, Unit, save_plan
    from lcm_data.store.shard import shard_path
    from lcm_data.workers.output import UnitOutput, commit_output

    files = open_files(str(corpus)).child("embeddings")
    save_plan(files, plan := Plan("embeddings", {}, {}, (Unit(0, len(rows)),)))
    target = schema.embeddings_schema(DIM, "float32", with_text=False)
    facts = {"n_tokens": 3, "n_unk": 0, "truncated": False, "norm": 1.0}
    table = [{**{name: row.get(name) for name in target.names}, **facts, "emb": vectors_by_sid[row["sid"]]} for row in rows]  # fmt: skip  # noqa: E501
    output = UnitOutput(0, rows_in=len(rows), rows_done=len(rows))
    output.tables[shard_path("train", "eng_Latn", 0)] = pa.Table.from_pylist(table, schema=target)
    commits = {0: commit_output(files, output, plan.hash, lambda path: {"stage": "embeddings"})}
    save_manifest(files, build_manifest(plan, commits))

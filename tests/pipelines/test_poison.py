"""Rows that cannot be processed: each becomes a reject with its reason and takes nothing else with it."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from jobs import check_whole, commits_of, embedded, rejects_of, tables, write_jsonl
from oddencoder import OddEncoder

from lcm_data.encode import EncoderOptions
from lcm_data.errors import RejectRateError, UnitsFailedError
from lcm_data.schema import embeddings_schema
from lcm_data.store.shard import shard_path, write_shard
from lcm_data.workers.base import Task
from lcm_data.workers.quantize import QuantizeWorker
from pipelines import encode, quantize, segment
from pipelines.encode import EncodeConfig
from pipelines.quantize import QuantizeConfig
from pipelines.segment import SegmentConfig

GOOD = [{"id": doc["id"], "lang": doc["lang"], "text": doc["text"][:400]} for doc in embedded(["eng_Latn", "fra_Latn"])]

POISON: dict[str, tuple[Any, str]] = {
    "null": ({"id": "p-null", "lang": "eng_Latn", "text": None}, "null_text"),
    "empty": ({"id": "p-empty", "lang": "eng_Latn", "text": ""}, "empty_text"),
    "whitespace": ({"id": "p-blank", "lang": "eng_Latn", "text": " \n\t\u3000"}, "empty_text"),
    "surrogate": (b'{"id": "p-half", "lang": "eng_Latn", "text": "broken \\ud83d half"}', "lone_surrogate"),
    "long": ({"id": "p-long", "lang": "eng_Latn", "text": "word " * 2_000_000}, "too_long"),
    "utf8": (b'{"id": "p-utf8", "lang": "eng_Latn", "text": "caf\xe9"}', "invalid_utf8"),
    "number": ({"id": "p-number", "lang": "eng_Latn", "text": 17}, "wrong_type"),
    "list": ({"id": "p-list", "lang": "eng_Latn", "text": ["a", "b"]}, "wrong_type"),
    "array": ([1, 2], "wrong_type"),
    "missing": ({"id": "p-missing", "lang": "eng_Latn", "body": "no text"}, "missing_text"),
    "language": ({"id": "p-lang", "lang": "xx_Latn", "text": "A fine sentence."}, "unknown_language"),
    "uncertain": ({"id": "p-what", "text": "1234 5678 +-*/"}, "uncertain_language"),
    "json": (b'{"id": "p-json", "lang": "eng_Latn", "text": "cut of', "invalid_json"),
    "duplicate": ({**GOOD[0], "text": "The second row of an id."}, "duplicate_id"),
}


def run_segment(corpus: Path, *inputs: Path, **settings: Any) -> list[dict[str, Any]]:
    """Segment and give the rejects."""
    segment.run(SegmentConfig(inputs=[str(path) for path in inputs], corpus=str(corpus), executor="local", **settings))
    check_whole(corpus, ["segments"])
    return rejects_of(corpus, "segments")


def sentences(corpus: Path, stage: str = "segments") -> list[tuple[str, str, str]]:
    found = tables(corpus, stage)
    rows = [(path, row) for path, table in found.items() for row in table.select(["doc_id", "text"]).to_pylist()]
    return sorted((path.split("/")[2], row["doc_id"], row["text"]) for path, row in rows)


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str, str]]:
    """Sentences of the good documents alone."""
    folder = tmp_path_factory.mktemp("clean")
    assert run_segment(folder / "corpus", write_jsonl(folder / "good.jsonl", GOOD)) == []
    return sentences(folder / "corpus")


@pytest.mark.parametrize("unit_bytes", [1, 3000, 8 << 20])
def test_poison_in_json_lines(tmp_path: Path, clean: list[tuple[str, str, str]], unit_bytes: int) -> None:
    rows: list[Any] = [GOOD[0]]
    for good, (poison, _) in zip([*GOOD[1:], *[None] * len(POISON)], POISON.values(), strict=False):
        rows += [poison] if good is None else [poison, good]
    rejects = run_segment(tmp_path / "corpus", write_jsonl(tmp_path / "in.jsonl", rows), unit_bytes=unit_bytes)
    assert sentences(tmp_path / "corpus") == clean
    assert [reject["reason"] for reject in rejects] == [reason for _, reason in POISON.values()]
    assert all(reject["error"] and len(reject["text"]) <= 200 for reject in rejects)
    named = {
        reject["reason"]: reject["doc_id"] for reject in rejects if reject["reason"] not in {"wrong_type", "empty_text"}
    }
    assert named["null_text"] == "p-null"
    assert named["unknown_language"] == "p-lang"
    assert named["invalid_json"].startswith("in.jsonl#")
    assert named["duplicate_id"] == GOOD[0]["id"]


def test_duplicates_across_files_and_units(tmp_path: Path, clean: list[tuple[str, str, str]]) -> None:
    first = write_jsonl(tmp_path / "a.jsonl", GOOD[:8])
    second = write_jsonl(tmp_path / "b.jsonl", [GOOD[3], *GOOD[5:], GOOD[9]])
    rejects = run_segment(tmp_path / "corpus", second, first, unit_bytes=700)
    assert sentences(tmp_path / "corpus") == clean  # the first in the order of files counts, however they were named
    expected = [GOOD[3], *GOOD[5:8], GOOD[9]]
    assert [reject["doc_id"] for reject in rejects] == [doc["id"] for doc in expected]
    assert {reject["reason"] for reject in rejects} == {"duplicate_id"}


def test_the_same_id_in_two_languages_is_no_duplicate(tmp_path: Path) -> None:
    assert len({doc["id"] for doc in GOOD}) < len(GOOD)
    assert run_segment(tmp_path / "corpus", write_jsonl(tmp_path / "in.jsonl", GOOD)) == []


def test_poison_in_parquet(tmp_path: Path, clean: list[tuple[str, str, str]]) -> None:
    poison = [POISON[name] for name in ("null", "empty", "whitespace", "long", "language", "uncertain", "duplicate")]
    rows = [GOOD[0], *[row for row, _ in poison], *GOOD[1:]]
    columns = {name: [row.get(name) for row in rows] for name in ("id", "lang", "text")}
    texts = [None if text is None else text.encode() for text in columns["text"]] + [b"caf\xe9", b"\xed\xa0\x80"]
    columns["id"] += ["p-utf8", "p-half"]
    columns["lang"] += ["eng_Latn", "eng_Latn"]
    # Strings whose bytes nobody has checked, as other writers leave them.
    text = pa.Array.from_buffers(pa.string(), len(texts), pa.array(texts, pa.binary()).buffers())
    pq.write_table(pa.table({"id": columns["id"], "lang": columns["lang"], "text": text}), tmp_path / "in.parquet")
    rejects = run_segment(tmp_path / "corpus", tmp_path / "in.parquet", unit_bytes=3000)
    assert sentences(tmp_path / "corpus") == clean
    expected = [reason for _, reason in poison] + ["invalid_utf8", "invalid_utf8"]
    assert [reject["reason"] for reject in rejects] == expected


def test_poison_in_csv(tmp_path: Path, clean: list[tuple[str, str, str]]) -> None:
    poison = [POISON[name] for name in ("empty", "whitespace", "long", "language", "uncertain", "duplicate")]
    with open(tmp_path / "in.csv", "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, ["id", "lang", "text"], restval="")
        writer.writeheader()
        writer.writerows([GOOD[0], *[row for row, _ in poison], *GOOD[1:]])
    with open(tmp_path / "in.csv", "ab") as raw:
        raw.write(b"p-utf8,eng_Latn,caf\xe9\r\np-few,eng_Latn\r\n")
    rejects = run_segment(tmp_path / "corpus", tmp_path / "in.csv", unit_bytes=3000)
    assert sentences(tmp_path / "corpus") == clean
    expected = [reason for _, reason in poison] + ["invalid_utf8", "wrong_fields"]
    assert [reject["reason"] for reject in rejects] == expected


def test_a_segmenter_that_fails_on_one_document(tmp_path: Path, clean: list[tuple[str, str, str]]) -> None:
    bad = {"id": "bad", "lang": "eng_Latn", "text": "A text that RAISES. Something."}
    path = write_jsonl(tmp_path / "in.jsonl", [*GOOD[:4], bad, *GOOD[4:]])
    rejects = run_segment(tmp_path / "corpus", path, segmenter="oddsegmenter:OddSegmenter")
    assert [(row["doc_id"], row["reason"], row["error"]) for row in rejects] == [
        ("bad", "segmenter_error", "ValueError: cannot be cut")
    ]
    assert sentences(tmp_path / "corpus") == clean


def test_a_document_that_kills_the_segmenter(tmp_path: Path, clean: list[tuple[str, str, str]]) -> None:
    bad = {"id": "bad", "lang": "eng_Latn", "text": "A text that KILLS. Something."}
    path = write_jsonl(tmp_path / "in.jsonl", [*GOOD[:4], bad, *GOOD[4:]])
    rejects = run_segment(tmp_path / "corpus", path, segmenter="oddsegmenter:OddSegmenter")
    assert [(row["doc_id"], row["reason"]) for row in rejects] == [("bad", "crashed_worker")]
    assert sentences(tmp_path / "corpus") == clean


def test_input_of_which_nothing_is_left_is_an_error(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "in.jsonl", [{"id": "a", "content": "Wrong field."}, {"id": "b", "content": "Two."}])
    for _ in range(2):  # and stays one
        with pytest.raises(RejectRateError, match=r"all 2 rows were rejected \(missing_text 2\)"):
            run_segment(tmp_path / "corpus", path)
    run_segment(tmp_path / "corpus", path, text_column="content", lang="eng_Latn", overwrite=True)


def test_many_rejects_end_the_run(tmp_path: Path) -> None:
    rows = [{"id": n, "lang": "eng_Latn", "text": "Good." if n % 5 else ""} for n in range(1500)]
    path = write_jsonl(tmp_path / "in.jsonl", rows)
    with pytest.raises(RejectRateError, match=r"empty_text 300.*10\.0%"):
        run_segment(tmp_path / "corpus", path)
    assert len(run_segment(tmp_path / "corpus", path, max_reject_rate=0.25)) == 300


# --- encode and quantize ---------------------------------------------------------------------------------------------

SENTENCES = [f"Sentence {n} says that it is number {n}." for n in range(40)]


def corpus_of(folder: Path, texts: list[str], lang: str = "eng_Latn") -> Path:
    """A corpus with these sentences, one a document, all in one unit."""
    rows = [{"id": f"d{n:03d}", "lang": lang, "text": text} for n, text in enumerate(texts)]
    run_segment(folder / "corpus", write_jsonl(folder / "in.jsonl", rows), validation=0, test=0)
    return folder / "corpus"


def run_encode(corpus: Path, **settings: Any) -> list[tuple[str, str]]:
    given = {"model": "m", "backend": "oddencoder:OddEncoder", **settings}
    encode.run(EncodeConfig(corpus=str(corpus), executor="local", **given))
    check_whole(corpus, ["segments", "embeddings"])
    return [(row["text"], row["reason"]) for row in rejects_of(corpus, "embeddings")]


POISON_SENTENCES = {
    "This will RAISE an error.": "encoder_error",
    "This has a NAN inside.": "invalid_embedding",
    "This is INF.": "invalid_embedding",
    "This is ZERO.": "invalid_embedding",
    "This is too HUGE for half floats.": "invalid_embedding",
    "This is too TINY for half floats.": "invalid_embedding",
    "This is FAINT, a few steps of half floats.": "invalid_embedding",
    "This is VAST.": "invalid_embedding",
    "This has BADTOKENS.": "tokenizer_error",
}


def test_poison_sentences(tmp_path: Path) -> None:
    texts = list(SENTENCES)
    for place, text in enumerate(POISON_SENTENCES):
        texts.insert(3 + 5 * place, text)
    texts += ["This is ZERO.", SENTENCES[0]]  # equal sentences are encoded once, and rejected each
    corpus = corpus_of(tmp_path, texts)
    assert run_encode(corpus) == [*POISON_SENTENCES.items(), ("This is ZERO.", "invalid_embedding")]
    (table,) = tables(corpus, "embeddings").values()
    kept = [*SENTENCES, SENTENCES[0]]
    assert table["text"].to_pylist() == kept
    encoder = OddEncoder(EncoderOptions(model="m"))
    expected = encoder.embed(encoder.prepare(kept, "eng_Latn")).astype(np.float16)
    np.testing.assert_array_equal(np.array(table["emb"].to_pylist(), np.float16), expected)
    # Rejected sentences leave a gap; what is kept still has its own ids.
    assert table["doc_id"].to_pylist() == [f"d{n:03d}" for n, text in enumerate(texts) if text in SENTENCES]


@pytest.mark.parametrize("model", ["one-vector", "one-number", "one-count"])
def test_an_encoder_that_answers_for_one_sentence_is_refused(tmp_path: Path, model: str) -> None:
    """Its vector, or number of tokens, is never given to all sentences."""
    corpus = corpus_of(tmp_path, SENTENCES)
    with pytest.raises(UnitsFailedError, match=r"the backend gave \w+ of shape \[.*\], expected \["):
        run_encode(corpus, backend="oddencoder:ShortEncoder", model=model)
    assert commits_of(corpus, "embeddings") == {}


def test_full_floats_hold_what_half_floats_cannot(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, [*SENTENCES[:3], *POISON_SENTENCES])
    words = ("HUGE", "TINY", "FAINT", "VAST")
    kept = {text for text in POISON_SENTENCES if any(word in text for word in words)}
    assert run_encode(corpus, store_dtype="float32") == [
        (text, reason) for text, reason in POISON_SENTENCES.items() if text not in kept
    ]
    (table,) = tables(corpus, "embeddings").values()
    assert kept <= set(table["text"].to_pylist())
    emb = np.array(table["emb"].to_pylist(), np.float64)
    np.testing.assert_allclose(table["norm"].to_numpy(), np.linalg.norm(emb, axis=1), rtol=1e-6)


def test_what_the_network_did_not_see_is_counted(tmp_path: Path) -> None:
    texts = [*SENTENCES[:5], "An UNKNOWN and another UNKNOWN word.", "so " * 70 + "on."]
    corpus = corpus_of(tmp_path, texts)
    assert run_encode(corpus) == []
    (table,) = tables(corpus, "embeddings").values()
    assert table["n_unk"].to_pylist() == [0] * 5 + [2, 0]
    assert table["truncated"].to_pylist() == [False] * 6 + [True]
    assert table["n_tokens"].to_pylist() == [len(text.split()) + 2 for text in texts]
    (commit,) = commits_of(corpus, "embeddings").values()
    assert {name: commit.stats[name] for name in ("truncated", "unknown", "blank")} == {
        "truncated": 1,
        "unknown": 1,
        "blank": 0,
    }


@pytest.mark.parametrize("word", ["KILL", pytest.param("KILLPREP", marks=pytest.mark.slow)])
def test_a_sentence_that_kills_its_worker(tmp_path: Path, word: str) -> None:
    corpus = corpus_of(tmp_path, [*SENTENCES[:20], f"Such a {word} sentence.", *SENTENCES[20:]])
    assert run_encode(corpus) == [(f"Such a {word} sentence.", "crashed_worker")]
    (table,) = tables(corpus, "embeddings").values()
    assert table["text"].to_pylist() == SENTENCES


def test_a_language_the_encoder_does_not_know(tmp_path: Path) -> None:
    rows = [
        {"id": n, "lang": lang, "text": text} for n, text in enumerate(SENTENCES) for lang in ("eng_Latn", "spa_Latn")
    ]
    run_segment(tmp_path / "corpus", write_jsonl(tmp_path / "in.jsonl", rows), validation=0, test=0)
    rejects = run_encode(tmp_path / "corpus")
    assert rejects == [(text, "unsupported_language") for text in SENTENCES]
    assert "spa_Latn" in rejects_of(tmp_path / "corpus", "embeddings")[0]["error"]
    # The shard of which nothing is left goes on through the next stage.
    book = QuantizeConfig(corpus=str(tmp_path / "corpus"), executor="local", levels=2, units=8, iterations=2)
    assert quantize.run(book).manifest.rows == len(SENTENCES)
    check_whole(tmp_path / "corpus")


def test_a_device_that_is_lost_costs_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An encoder that fails for good half-way is no reason to reject sentences: the unit fails and is done again."""
    monkeypatch.setenv("ODD_FLAGS", str(tmp_path))
    corpus = corpus_of(tmp_path, [*SENTENCES[:30], "From here the GPU is LOST.", *SENTENCES[30:]])
    with pytest.raises(UnitsFailedError, match="the device is gone"):
        run_encode(corpus)
    assert commits_of(corpus, "embeddings") == {}
    (tmp_path / "back").touch()
    assert run_encode(corpus) == []


def test_vectors_that_cannot_be_quantized(tmp_path: Path) -> None:
    """Our own encode stage lets none through; embeddings of other makers may hold them."""
    corpus = corpus_of(tmp_path, SENTENCES)
    run_encode(corpus)
    quantize.run(QuantizeConfig(corpus=str(corpus), executor="local", levels=2, units=8, iterations=2))
    (table,) = tables(corpus, "embeddings").values()
    emb = np.array(table["emb"].to_pylist(), np.float16)
    emb[3], emb[7, 2], emb[9, 0] = 0, np.nan, np.inf
    schema = embeddings_schema(16)
    flat = pa.FixedSizeListArray.from_arrays(pa.array(emb.reshape(-1)), type=schema.field("emb").type)
    path = shard_path("train", "eng_Latn", 0)
    other = tmp_path / "other" / path
    other.parent.mkdir(parents=True)
    write_shard(other, table.set_column(table.schema.get_field_index("emb"), schema.field("emb"), flat), {})
    plan = json.loads((corpus / "codes/_lcm/plan.json").read_text())
    worker = QuantizeWorker(str(tmp_path / "other"), str(tmp_path / "out"), str(corpus / "codebook"), plan["hash"])
    worker.setup()
    unit = next(unit for unit in segment_units(corpus))
    commit = worker.write(worker.work(worker.read(Task(unit))))
    assert (commit.rows_in, commit.rows_done, commit.rejects) == (40, 37, {"invalid_embedding": 3})
    assert commit.shards[0].rows == 37


def segment_units(corpus: Path) -> list[Any]:
    from lcm_data.store.files import open_files
    from lcm_data.store.plan import load_plan

    plan = load_plan(open_files(corpus).child("codes"))
    assert plan is not None
    return list(plan.units)

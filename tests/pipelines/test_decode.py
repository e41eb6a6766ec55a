"""Embeddings to sentences: one for every vector, the same whoever does the work, and nothing is overwritten."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jobs import (
    LANGS,
    check_whole,
    children,
    cli,
    commits_of,
    copy,
    embedded,
    kill,
    rejects_of,
    start,
    tables,
    wait_for,
    write_jsonl,
)
from odddecoder import KILLS, NO_SCORE, RAISES, SILENT

from lcm_data.corpus import open_corpus
from lcm_data.decode import DecoderOptions, load_decoder
from lcm_data.errors import PlanMismatchError, SpaceError, UnitsFailedError, UsageError, VerificationError
from lcm_data.sonar.random_model import write_random_checkpoint
from lcm_data.workers.base import Task
from pipelines import decode, encode, segment
from pipelines.decode import DecodeConfig, decode_units
from pipelines.encode import EncodeConfig
from pipelines.segment import SegmentConfig
from pipelines.stage import Report

SIZES = {"model_dim": 32, "num_layers": 1, "vocab_size": 800, "decoder_layers": 2, "max_target_tokens": 16}
ODD_DECODER = ("--backend", "odddecoder:OddDecoder", "--model", "one", "--lang", "fra_Latn")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder of the space of ``checkpoint``: the same tokenizer, the same width."""
    texts = [doc["text"] for doc in embedded()]
    return write_random_checkpoint(tmp_path_factory.mktemp("decoder") / "tiny", texts, **SIZES)  # type: ignore[arg-type]


def run(source: Path | str, out: Path | str, model: Path | str, **settings: Any) -> Report:
    how = {"lang": "fra_Latn", "executor": "local", "threads": 1, "beam_size": 2, **settings}
    return decode.run(DecodeConfig(embeddings=str(source), corpus=str(out), model=str(model), **how))


@pytest.fixture(scope="module")
def decoded(tmp_path_factory: pytest.TempPathFactory, finished: Path, model: Path) -> Path:
    """A finished corpus of decoded sentences. Read only: copy it to change it."""
    out = tmp_path_factory.mktemp("decoded") / "corpus"
    run(finished, out, model)
    return out


def said(corpus: Path) -> dict[int, str]:
    """Text by sentence id."""
    found = tables(corpus, "segments").values()
    pairs = [pair for table in found for pair in zip(*(table[c].to_pylist() for c in ("sid", "text")), strict=True)]
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def test_every_vector_gets_its_sentence(finished: Path, decoded: Path, model: Path) -> None:
    check_whole(decoded, ["segments"])
    source, found = open_corpus(finished).embeddings, open_corpus(decoded).segments
    assert found.manifest.rows_in == found.manifest.rows == source.manifest.rows
    assert found.langs == ["fra_Latn"]
    texts, expected = said(decoded), source.table(columns=["sid", "emb"])
    decoder = load_decoder(DecoderOptions(model=str(model), beam_size=2, threads=1))
    alone = decoder.decode(np.array(expected["emb"].to_pylist(), np.float32), "fra_Latn")
    assert [texts[sid] for sid in expected["sid"].to_pylist()] == alone.texts
    assert len(set(alone.texts)) > 10


def test_documents_stay_whole_and_in_order(finished: Path, decoded: Path) -> None:
    def documents(corpus: Path, stage: str) -> dict[tuple[str, str, str], list[int]]:
        found = {}
        for document in getattr(open_corpus(corpus), stage).documents():
            lang = document["source_lang"][0] if stage == "segments" else document.lang
            assert (lang, document.doc_id) not in found
            found[document.split, lang, document.doc_id] = document["sent_idx"]
        return found

    assert documents(decoded, "segments") == documents(finished, "embeddings")
    assert {lang for _, lang, _ in documents(decoded, "segments")} == set(LANGS)
    parts = [path.rpartition("/")[2] for path in tables(decoded, "segments")]
    assert len(set(parts)) == len(parts)  # though part 0 of four languages went in


def test_where_sentences_come_from_is_written_down(finished: Path, decoded: Path) -> None:
    data = open_corpus(decoded).segments
    source = open_corpus(finished).embeddings.metadata
    assert data.metadata["source_encoder_revision"] == source["encoder_revision"]
    assert data.metadata["source_segmenter"] == source["segmenter"]
    assert data.metadata["decoder"] == "tiny"
    assert data.metadata["decoder_mode"] == "beam"
    assert {"decoder_revision", "decoder_space", "decoder_tokenizer_revision", "decoder_beam_size"} <= set(
        data.metadata
    )
    assert "encoder" not in data.metadata  # of these sentences there is none yet
    sources = data.table(columns=["source", "sent_idx"])["source"].unique().to_pylist()
    assert sources == [shard.path for shard in open_corpus(finished).embeddings.manifest.shards if shard.rows]


@pytest.mark.slow
def test_ray_makes_the_same(tmp_path: Path, finished: Path, decoded: Path, model: Path) -> None:
    ray: Any = pytest.importorskip("ray")
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    try:
        run(finished, tmp_path / "ray", model, executor="ray", workers=2)
    finally:
        ray.shutdown()
    assert check_whole(tmp_path / "ray", ["segments"]) == check_whole(decoded, ["segments"])


def test_drawn_sentences_belong_to_the_rows(finished: Path, model: Path) -> None:
    """What a row gets depends on its id and the seed, not on its unit, the batch or the order."""
    chance = {"mode": "sample", "temperature": 0.8, "top_k": 30}
    config = DecodeConfig(embeddings=str(finished), corpus="x", model=str(model), lang="fr", batch_rows=7, **chance)  # type: ignore[arg-type]
    stage = decode.make_stage(config)
    plan = stage.make_plan()
    worker = stage.make_worker(plan)
    worker.setup()
    texts: dict[int, str] = {}
    for unit in plan.units[:9]:
        (table,) = worker.work(worker.read(Task(unit))).tables.values()
        texts |= dict(zip(table["sid"].to_pylist(), table["text"].to_pylist(), strict=True))
    rows = open_corpus(finished).embeddings.table(columns=["sid", "emb"])
    sids, emb = rows["sid"].to_numpy(), np.array(rows["emb"].to_pylist(), np.float32)
    decoder = load_decoder(DecoderOptions(model=str(model), threads=1, **chance))  # type: ignore[arg-type]
    alone = decoder.decode(emb[::-1], "fra_Latn", sids[::-1])
    assert texts.items() <= dict(zip(sids[::-1].tolist(), alone.texts, strict=True)).items()
    assert len(set(texts.values())) > 50


# --- without a network -----------------------------------------------------------------------------------------------


def corpus_of(folder: Path, rows: list[dict[str, Any]], **settings: Any) -> Path:
    """A corpus of these documents, encoded without a network."""
    write_jsonl(folder / "in.jsonl", rows)
    how = {"corpus": str(folder / "corpus"), "executor": "local"}
    segment.run(SegmentConfig(inputs=[str(folder / "in.jsonl")], **settings, **how))
    encode.run(EncodeConfig(model="one", backend="oddencoder:OddEncoder", **how))
    return folder / "corpus"


def documents_of(texts: list[str], doc_sentences: int = 1) -> list[dict[str, Any]]:
    """English documents of so many sentences each."""
    docs = [texts[start : start + doc_sentences] for start in range(0, len(texts), doc_sentences)]
    return [{"id": f"d{n:04d}", "lang": "eng_Latn", "text": "\n\n".join(doc)} for n, doc in enumerate(docs)]


SMALL = {"validation": 0.2, "test": 0.2, "unit_bytes": 3000}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two languages, three splits, several shards. Read only: copy it to change it."""
    return corpus_of(tmp_path_factory.mktemp("small"), embedded(["eng_Latn", "deu_Latn"]), **SMALL)


def odd(source: Path, out: Path, **settings: Any) -> Report:
    return run(source, out, "one", backend="odddecoder:OddDecoder", **settings)


@pytest.fixture(scope="module")
def small_decoded(tmp_path_factory: pytest.TempPathFactory, small: Path) -> Path:
    """Its sentences from ``OddDecoder``."""
    out = tmp_path_factory.mktemp("small-decoded") / "corpus"
    odd(small, out)
    return out


def test_two_workers_make_the_same(tmp_path: Path, small: Path, small_decoded: Path) -> None:
    odd(small, tmp_path / "two", workers=2)
    assert check_whole(tmp_path / "two", ["segments"]) == check_whole(small_decoded, ["segments"])


def test_into_an_object_store(bucket: str, small: Path, small_decoded: Path) -> None:
    run(small, f"{bucket}/out", "one", backend="odddecoder:OddDecoder")
    assert check_whole(f"{bucket}/out", ["segments"]) == check_whole(small_decoded, ["segments"])
    with pytest.raises(UsageError, match="would take the place of"):
        run(f"{bucket}/out", f"{bucket}/out/", "one", backend="odddecoder:OddDecoder")


def test_only_some_languages_and_splits(tmp_path: Path, small: Path, small_decoded: Path) -> None:
    odd(small, tmp_path / "some", from_langs=["en"], splits=["validation", "test"])
    data = open_corpus(tmp_path / "some").segments
    assert data.splits == ["test", "validation"]
    assert set(data.table(columns=["source_lang"])["source_lang"].to_pylist()) == {"eng_Latn"}
    assert said(tmp_path / "some").items() < said(small_decoded).items()
    with pytest.raises(UsageError, match="no language 'spa_Latn'"):
        odd(small, tmp_path / "none", from_langs=["es"])


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12,000 sentences in one shard."""
    rows = documents_of([f"Number {n}." for n in range(12_000)], 100)
    return corpus_of(tmp_path_factory.mktemp("large"), rows, validation=0, test=0)


def test_a_large_shard_is_several_units(tmp_path: Path, large: Path) -> None:
    source = open_corpus(large).embeddings
    (shard,) = source.manifest.shards
    for unit_rows, num_units in ((1, 11), (2048, 11), (4096, 4), (11_999, 2), (12_000, 1)):
        units = sorted(decode_units(source.files, [shard], unit_rows), key=lambda unit: unit.id)
        assert len(units) == num_units
        assert sum(unit.rows for unit in units) == 12_000
        assert max(unit.rows for unit in units) <= max(unit_rows, 2048)
        ends = [unit.spec.get("groups") for unit in units]
        assert ends == [None] or [end for _, end in ends[:-1]] == [start for start, _ in ends[1:]]  # type: ignore[misc]
    odd(large, tmp_path / "out", unit_rows=4096, workers=2)
    check_whole(tmp_path / "out", ["segments"])
    data = open_corpus(tmp_path / "out").segments
    assert [document["sent_idx"] for document in data.documents(columns=["sent_idx"])] == [list(range(100))] * 120
    assert data.table(columns=["sid"])["sid"].equals(source.table(columns=["sid"])["sid"])


# --- what goes wrong -------------------------------------------------------------------------------------------------


def test_rows_that_cannot_be_decoded(tmp_path: Path) -> None:
    sentences = [f"Sentence {n} says so." for n in range(30)]
    texts = [*sentences[:9], RAISES, *sentences[9:20], KILLS, NO_SCORE, *sentences[20:], SILENT]
    corpus = corpus_of(tmp_path, documents_of(texts), validation=0, test=0)
    odd(corpus, tmp_path / "out")
    check_whole(tmp_path / "out", ["segments"])
    assert [(row["doc_id"], row["reason"]) for row in rejects_of(tmp_path / "out", "segments")] == [
        ("d0009", "decoder_error"),
        ("d0021", "crashed_worker"),
        ("d0022", "invalid_score"),
    ]
    (table,) = tables(tmp_path / "out", "segments").values()
    assert table.num_rows == 31
    assert table["text"].to_pylist().count("") == 1


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "typo": ({"lang": "xyz_Latn"}, "unknown language 'xyz_Latn'"),
    "model": ({"lang": "spa_Latn"}, "unknown language 'spa_Latn'.*Known: deu_Latn, eng_Latn, fra_Latn"),
    "corpus": ({"embeddings": "nowhere"}, "nowhere/embeddings holds no finished stage"),
    "mode": ({"mode": "guess"}, "Known: beam, greedy, sample"),
    "top_p": ({"top_p": 0.5}, "top_p only has a meaning with mode sample, and mode is beam"),
    "seed": ({"seed": 3}, "seed only has a meaning with mode sample, and mode is beam"),
    "beam_size": (
        {"mode": "greedy", "beam_size": 3},
        "beam_size only has a meaning with mode beam, and mode is greedy",
    ),
    "backend": ({"backend": "nativ"}, "Did you mean 'native'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_settings_leave_nothing_behind(tmp_path: Path, small: Path, name: str) -> None:
    settings, message = REFUSED[name]
    given = {
        "lang": "fra_Latn",
        "model": "one",
        "backend": "odddecoder:OddDecoder",
        "embeddings": str(small),
        **settings,
    }
    with pytest.raises(ValueError, match=message):
        decode.run(DecodeConfig(corpus=str(tmp_path / "out"), executor="local", **given))
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] in ([], ["lock.json"])


def test_what_the_network_cannot_do_leaves_nothing_behind(tmp_path: Path, finished: Path, model: Path) -> None:
    for settings, message in (({"beam_size": 100_000}, "is too large for"), ({"max_tokens": 17}, "maximum of 16")):
        with pytest.raises(UsageError, match=message):
            run(finished, tmp_path / "out", model, **settings)
    assert not (tmp_path / "out").exists()


def another(folder: Path, texts: list[str], **sizes: Any) -> Path:
    return write_random_checkpoint(folder, texts, **{**SIZES, **sizes})


def test_a_decoder_of_another_width_or_space(tmp_path: Path, finished: Path) -> None:
    texts = [doc["text"] for doc in embedded()]
    wide = another(tmp_path / "wide", texts[:5], model_dim=64)
    with pytest.raises(
        UsageError, match=r"decoder .*wide takes vectors of 64 dimensions, those of .* have 32 \(encoder"
    ):
        run(finished, tmp_path / "out", wide)
    strange = another(tmp_path / "strange", texts[:5])
    with pytest.raises(
        SpaceError, match=r"is of the space sonar-\w+-32 .*, the decoder .*strange is of the space sonar-"
    ):
        run(finished, tmp_path / "out", strange)
    assert not (tmp_path / "out").exists()


def test_a_corpus_is_never_decoded_into_itself(tmp_path: Path, small: Path) -> None:
    (tmp_path / "link").symlink_to(small)
    for place in (small, small / ".." / small.name, tmp_path / "link"):
        with pytest.raises(UsageError, match="would take the place of those of"):
            odd(small, place, overwrite=True)
    check_whole(small, ["segments", "embeddings"])


def test_one_corpus_never_lies_in_the_other(tmp_path: Path, small: Path) -> None:
    (tmp_path / "link").symlink_to(small)
    for place in (small / "embeddings", small.parent, tmp_path / "link" / "french"):
        with pytest.raises(UsageError, match=r"lies inside the other\. Give a folder"):
            odd(small, place, overwrite=True)
    check_whole(small, ["segments", "embeddings"])
    odd(small, small.parent / f"{small.name}-in-french", from_langs=["de"])  # a common beginning is no folder


def test_sentences_of_documents_are_never_replaced(tmp_path: Path, small: Path) -> None:
    other = copy(small, tmp_path / "other")
    for overwrite in (False, True):
        with pytest.raises(UsageError, match="holds other segments than decoded sentences"):
            odd(small, other, overwrite=overwrite)
    check_whole(other, ["segments", "embeddings"])


def test_other_settings_or_vectors_are_refused(tmp_path: Path, small: Path, small_decoded: Path) -> None:
    out = copy(small_decoded, tmp_path / "out")
    assert odd(small, out).units_done == 0
    with pytest.raises(PlanMismatchError, match=r"config decoder.beam_size: '2' -> '3'"):
        odd(small, out, beam_size=3)
    with pytest.raises(PlanMismatchError, match="config lang: 'fra_Latn' -> 'deu_Latn'"):
        odd(small, out, lang="de")
    changed = copy(small, tmp_path / "changed")
    manifest = changed / "embeddings/_lcm/manifest.json"
    content = json.loads(manifest.read_text())
    content["shards"][0]["sha256"] = "0" * 64
    manifest.write_text(json.dumps(content))
    with pytest.raises(PlanMismatchError, match="input  data/split=test/lang=deu_Latn/part-"):
        odd(changed, out)
    odd(small, out, lang="de", overwrite=True)
    assert open_corpus(out).segments.langs == ["deu_Latn"]
    (out / "segments/_lcm/plan.json").write_text("{")  # decoded once, so it may be overwritten
    with pytest.raises(VerificationError, match=r"plan\.json is damaged"):
        odd(small, out)
    odd(small, out, overwrite=True)
    assert check_whole(out, ["segments"]) == check_whole(small_decoded, ["segments"])


def test_outdated_embeddings_are_refused(tmp_path: Path, small: Path) -> None:
    changed = copy(small, tmp_path / "changed")
    settings = {"inputs": [str(small.parent / "in.jsonl")], "corpus": str(changed), "executor": "local", **SMALL}
    segment.run(SegmentConfig(max_chars=90, overwrite=True, **settings))
    with pytest.raises(PlanMismatchError, match="embeddings is outdated"):
        odd(changed, tmp_path / "out")


def test_a_damaged_shard_fails_its_unit_alone(tmp_path: Path, small: Path, small_decoded: Path) -> None:
    source = copy(small, tmp_path / "source")
    shard = sorted((source / "embeddings/data").rglob("*.parquet"))[0]
    content = shard.read_bytes()
    shard.write_bytes(content[:200] + bytes(60) + content[260:])
    with pytest.raises(UnitsFailedError, match=shard.name):
        odd(source, tmp_path / "out")
    assert len(commits_of(tmp_path / "out", "segments")) == len(commits_of(small_decoded, "segments")) - 1
    shard.write_bytes(content)
    odd(source, tmp_path / "out")
    assert check_whole(tmp_path / "out", ["segments"]) == check_whole(small_decoded, ["segments"])


# --- kills -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seed", "kills"), [(1, 4), pytest.param(2, 12, marks=pytest.mark.slow)])
def test_random_kills(tmp_path: Path, large: Path, seed: int, kills: int) -> None:
    """Drivers and workers die at any moment; the last run ends with what an undisturbed one makes."""
    rng, out = random.Random(seed), tmp_path / "out"
    command = ["decode", large, out, *ODD_DECODER, "--unit-rows", 1, "--executor", "local"]
    odd(large, tmp_path / "undisturbed", unit_rows=1, beam_size=5)
    killed = 0

    def again() -> list[str]:
        return ["--overwrite"] if (out / "segments/_lcm/manifest.json").exists() else []

    while killed < kills:
        driver = start(*command, "--workers", rng.choice([1, 2]), *again(), env={"ODD_PAUSE": "0.0002"})
        if rng.random() < 0.5:
            wait_for_a_commit(out, driver)
            workers = children(driver.pid)
            killed += bool(workers) and kill(rng.choice(workers))
        wait_for_a_commit(out, driver)
        killed += driver.poll() is None and kill(driver.pid)
        stdout, stderr = driver.communicate()
        assert driver.returncode in (0, -9), stdout + stderr
    cli(*command, "--workers", 2, *again())
    assert check_whole(out, ["segments"]) == check_whole(tmp_path / "undisturbed", ["segments"])


def wait_for_a_commit(out: Path, driver: subprocess.Popen[str]) -> None:
    """Until there are other commits than now, or the driver has ended."""

    def commits() -> list[Path]:
        return sorted(out.glob("segments/_lcm/commits/*.json"))

    before = commits()
    wait_for(lambda: commits() != before or driver.poll() is not None)

"""Documents to codes: nothing is lost between the stages, and nothing depends on who did the work."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jobs import LANGS, check_whole, commits_of, embedded, tables

from lcm_data.corpus import open_corpus
from lcm_data.normalize import Normalizer
from lcm_data.quantize.storage import load_codebook
from lcm_data.splits import SplitRule
from lcm_data.store.files import open_files
from lcm_data.store.manifest import load_manifest
from pipelines import encode, quantize, segment
from pipelines.encode import EncodeConfig
from pipelines.quantize import QuantizeConfig
from pipelines.segment import SegmentConfig

NUM_DOCS = 6 * len(LANGS) + 12


def make(corpus: Path, inputs: Path, checkpoint: Path, unit_bytes: int = 6000, **how: Any) -> dict[str, str]:
    """The three stages; gives their digests."""
    run = {"corpus": str(corpus), "executor": "local", **how}
    segment.run(SegmentConfig(inputs=[str(inputs)], validation=0.2, test=0.2, unit_bytes=unit_bytes, **run))
    encode.run(EncodeConfig(model=str(checkpoint), threads=1, **{**run, "workers": min(2, run.get("workers", 1))}))
    quantize.run(QuantizeConfig(levels=3, units=8, iterations=3, threads=1, **run))
    return check_whole(corpus)


def test_nothing_is_lost_between_stages(finished: Path) -> None:
    check_whole(finished)  # rows in = rows done + rejects, for every unit of every stage
    manifests = [load_manifest(open_files(finished).child(stage)) for stage in ("segments", "embeddings", "codes")]
    segments, embeddings, codes = manifests
    assert segments.rows_in == segments.rows_done == NUM_DOCS
    assert segments.rows == embeddings.rows_in == embeddings.rows == codes.rows_in == codes.rows > 250
    assert all(manifest.rejects == {} and manifest.complete for manifest in manifests)
    assert segments.partitions == embeddings.partitions == codes.partitions


def test_stages_line_up_row_by_row(finished: Path) -> None:
    segments, embeddings, codes = (tables(finished, stage) for stage in ("segments", "embeddings", "codes"))
    assert list(segments) == list(embeddings) == list(codes)
    for path, table in segments.items():
        for later in (embeddings[path], codes[path]):
            for name in ("sid", "doc_id", "sent_idx"):
                assert table[name].equals(later[name])
        assert table["text"].equals(embeddings[path]["text"])
    sids = np.concatenate([table["sid"].to_numpy() for table in segments.values()])
    assert len(np.unique(sids)) == len(sids)


def test_sentences_joined_are_the_document(finished: Path) -> None:
    given = {(doc["lang"], doc["id"]): doc["text"] for doc in embedded()}
    seen = 0
    for document in open_corpus(finished).segments.documents():
        text = given.get((document.lang, document.doc_id))
        if text is None:  # one without an id; its text is the beginning of another
            assert document.doc_id.startswith("more/bare.jsonl#")
            continue
        seen += 1
        rows = zip(document["text"], document["char_start"], document["char_end"], strict=True)
        assert all(text[start:end] == part for part, start, end in rows)
        assert "".join("".join(document["text"]).split()) == "".join(text.split())
        assert document["sent_idx"] == list(range(len(document)))
        assert set(document["n_sents"]) == {len(document)}
    assert seen == len(given)


def test_translations_share_their_split(finished: Path) -> None:
    splits = defaultdict(set)
    for document in open_corpus(finished).segments.documents(columns=["doc_id"]):
        splits[document.doc_id].add(document.split)
    assert all(len(each) == 1 for each in splits.values())
    rule = SplitRule(0.2, 0.2)
    assert {doc: rule.split_of(doc) for doc in splits} == {doc: min(each) for doc, each in splits.items()}
    assert len(set.union(*splits.values())) == 3


def test_undeclared_languages_are_detected(finished: Path) -> None:
    data = open_corpus(finished).segments
    assert data.langs == list(LANGS)
    langs = {d.doc_id: d.lang for d in data.documents() if d.doc_id.startswith("more/") and d["lid_score"][0] > 0.5}
    assert [langs[f"more/bare.jsonl#{row}"] for row in range(12)] == ["eng_Latn"] * 6 + ["fra_Latn"] * 6


def test_vectors_are_what_encoder_and_codebook_give(finished: Path, checkpoint: Path) -> None:
    from lcm_data.encode import EncoderOptions, load_encoder

    encoder = load_encoder(EncoderOptions(model=str(checkpoint), threads=1))
    corpus = open_corpus(finished)
    codebook = load_codebook(str(finished / "codebook"))
    for embeddings, codes in zip(corpus.embeddings.batches(), corpus.codes.batches(), strict=True):
        emb = encoder.embed(encoder.prepare(embeddings["text"], embeddings.lang))
        np.testing.assert_allclose(embeddings.vectors().astype(np.float32), emb, atol=2e-4)
        np.testing.assert_allclose(embeddings["norm"], np.linalg.norm(emb, axis=1), rtol=1e-4)
        again, resid_norm = codebook.encode(embeddings.vectors().astype(np.float32))
        np.testing.assert_array_equal(codes.vectors("codes"), again)
        np.testing.assert_allclose(codes["resid_norm"], resid_norm, rtol=1e-4)


def test_provenance_reaches_every_later_stage(finished: Path) -> None:
    corpus = open_corpus(finished)
    assert corpus.segments.metadata["segmenter"].startswith("rules")
    assert corpus.embeddings.metadata["trained"] == "false"
    assert (
        corpus.embeddings.metadata.items()
        >= {"store_dtype": "float16", "compute_dtype": "float32", "dim": "32"}.items()
    )
    codes = corpus.codes.metadata
    assert codes["encoder_revision"] == corpus.embeddings.metadata["encoder_revision"]
    assert (codes["levels"], codes["units"]) == ("3", "8")
    assert codes["codebook"] == load_codebook(str(finished / "codebook")).fingerprint


def test_the_normaliser_is_of_these_embeddings(finished: Path) -> None:
    normalizer = Normalizer.load(finished / "normalizer.safetensors")
    train = np.concatenate([b.vectors() for b in open_corpus(finished).embeddings.batches(splits=["train"])])
    scaled = normalizer.normalize(train.astype(np.float32))
    assert np.abs(np.median(scaled, axis=0)).max() < 0.2
    assert 0.5 < np.median(scaled.std(axis=0)) < 2


@pytest.mark.parametrize("stage", ["segments", "embeddings", "codes"])
def test_a_finished_stage_is_left_alone(finished: Path, inputs: Path, checkpoint: Path, stage: str) -> None:
    before = {path: path.stat().st_mtime_ns for path in (finished / stage / "data").rglob("*.parquet")}
    how = {"corpus": str(finished), "executor": "local"}
    reports = {
        "segments": lambda: segment.run(
            SegmentConfig(inputs=[str(inputs)], validation=0.2, test=0.2, unit_bytes=6000, **how)
        ),
        "embeddings": lambda: encode.run(EncodeConfig(model=str(checkpoint), **how)),
        "codes": lambda: quantize.run(QuantizeConfig(levels=3, units=8, iterations=3, **how)),
    }
    report = reports[stage]()
    assert report.units_done == 0
    assert report.units == len(commits_of(finished, stage))
    assert before == {path: path.stat().st_mtime_ns for path in (finished / stage / "data").rglob("*.parquet")}


def test_three_workers_make_the_same(tmp_path: Path, finished: Path, inputs: Path, checkpoint: Path) -> None:
    assert make(tmp_path / "three", inputs, checkpoint, workers=3) == check_whole(finished)


def test_ray_makes_the_same(tmp_path: Path, finished: Path, inputs: Path, checkpoint: Path) -> None:
    ray: Any = pytest.importorskip("ray")
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    try:
        assert make(tmp_path / "ray", inputs, checkpoint, executor="ray", workers=2) == check_whole(finished)
    finally:
        ray.shutdown()


def test_other_units_hold_the_same_rows(tmp_path: Path, finished: Path, inputs: Path) -> None:
    corpus = tmp_path / "large-units"
    how = {"corpus": str(corpus), "executor": "local", "validation": 0.2, "test": 0.2}
    segment.run(SegmentConfig(inputs=[str(inputs)], **how))
    ours, theirs = (open_corpus(each).segments.table().sort_by("sid") for each in (corpus, finished))
    assert len(commits_of(corpus, "segments")) < len(commits_of(finished, "segments"))
    assert ours.num_rows == theirs.num_rows
    for name in ours.column_names:
        assert ours[name].to_pylist() == theirs[name].to_pylist()


def test_plans_say_nothing_about_workers_or_machines(finished: Path) -> None:
    for stage in ("segments", "embeddings", "codes"):
        plan = json.loads((finished / stage / "_lcm" / "plan.json").read_text())
        assert not {"workers", "executor", "threads", "device", "host"} & set(plan["config"])
        assert str(finished) not in json.dumps(plan["config"])

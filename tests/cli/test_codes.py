"""``dequantize``, ``evaluate-codes`` and ``codebook`` as a user runs them, on a small finished corpus."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jobs import copy

from lcm_data.corpus import open_corpus
from lcm_data.quantize.storage import load_codebook

Call = Callable[..., Any]


def test_codes_become_vectors_under_the_same_ids(call: Call, finished: Path, tmp_path: Path) -> None:
    report = call("dequantize", finished, tmp_path / "out", "--levels", 1, "--store-dtype", "float32", "--json").json
    assert report["verb"] == "dequantize"
    source, made = open_corpus(finished), open_corpus(tmp_path / "out")
    codebook = load_codebook(str(finished / "codebook"))
    codes = source.codes.table(columns=["sid", "codes"]).sort_by("sid")
    vectors = made.embeddings.table().sort_by("sid")
    original = source.embeddings.table().sort_by("sid")
    assert vectors["sid"].to_pylist() == codes["sid"].to_pylist()
    for name in ("doc_id", "sent_idx", "text", "n_tokens", "n_unk", "truncated", "lang", "split"):
        assert vectors[name].to_pylist() == original[name].to_pylist(), name
    numbers = np.array(codes["codes"].to_pylist(), dtype=np.uint16)
    emb = np.array(vectors["emb"].to_pylist(), dtype=np.float32)
    np.testing.assert_array_equal(emb, codebook.decode(numbers, 1))
    np.testing.assert_allclose(vectors["norm"].to_numpy(), np.linalg.norm(emb, axis=1), rtol=1e-6)
    facts = made.embeddings.manifest.provenance
    assert (facts["dequantized_levels"], facts["codebook"]) == ("1", codebook.fingerprint)
    assert facts["space"] == source.embeddings.manifest.provenance["space"]
    assert call("verify", tmp_path / "out").code == 0


def test_dequantizing_goes_on_after_a_loss(call: Call, finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    call("dequantize", finished, out)
    state = out / "embeddings/_lcm"
    before = json.loads((state / "manifest.json").read_text())["digest"]
    (state / "manifest.json").unlink()
    for commit in sorted((state / "commits").iterdir())[::2]:
        commit.unlink()
    call("dequantize", finished, out, "--workers", 2, "--executor", "local")
    assert json.loads((state / "manifest.json").read_text())["digest"] == before


def test_codes_alone_are_enough(call: Call, finished: Path, tmp_path: Path) -> None:
    corpus = copy(finished, tmp_path / "codes-only")
    shutil.rmtree(corpus / "embeddings")
    shutil.rmtree(corpus / "segments")
    call("dequantize", corpus, tmp_path / "out", "--split", "train", "--from-lang", "fra_Latn")
    made = open_corpus(tmp_path / "out").embeddings
    assert "text" not in made.schema.names
    assert (made.langs, made.splits) == (["fra_Latn"], ["train"])
    assert set(made.table(columns=["n_tokens"])["n_tokens"].to_pylist()) == {0}


def test_what_dequantize_refuses(call: Call, finished: Path, tmp_path: Path) -> None:
    assert "allowed: 1 to 2" in call("dequantize", finished, tmp_path / "out", "--levels", 3, code=2).err
    assert "Give another folder" in call("dequantize", finished, finished, code=2).err
    corpus = copy(finished, tmp_path / "other")
    call("quantize", corpus, "--levels", 2, "--units", 8, "--seed", 5, "--iterations", 2, "--overwrite")
    message = call("dequantize", finished, tmp_path / "out", "--codebook", corpus / "codebook", code=4).err
    assert "were made with the codebook" in message


def test_a_wider_beam_is_recorded(call: Call, finished: Path, tmp_path: Path) -> None:
    corpus = copy(finished, tmp_path / "beam")
    greedy = open_corpus(finished).codes.manifest.stats["resid_energy"]
    how = ("--codebook", finished / "codebook", "--beam", 4, "--engine", "torch", "--overwrite")
    call("quantize", corpus, *how)
    codes = open_corpus(corpus).codes
    assert codes.manifest.provenance["beam"] == codes.metadata["beam"] == "4"
    assert codes.metadata["engine"] == "torch"
    assert codes.manifest.stats["resid_energy"] < greedy
    assert "fewer levels are further" in " ".join(call("dequantize", corpus, tmp_path / "o", "--levels", 1).out.split())
    assert "beam" in call("quantize", corpus, "--codebook", finished / "codebook", code=4).err


def test_a_report_on_codes(call: Call, finished: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / "report"
    ran = call("evaluate-codes", finished, out, "--gate", "warn")
    assert {path.name for path in out.iterdir()} == {"report.json", "error.png", "usage.png"}
    report = json.loads((out / "report.json").read_text())
    assert report["splits"] == ["validation", "test"] or report["splits"] == ["test"]
    assert len(report["levels"]) == 2
    assert set(report["languages"]) <= {"eng_Latn", "fra_Latn"}
    first, last = report["levels"]
    assert first["nmse"] > last["nmse"] > last["yardstick"] or report["skipped"]
    assert "no --decoder was given" in " ".join(report["skipped"])
    assert "evaluate-codes" in ran.out
    assert "has a report.json" in call("evaluate-codes", finished, out, code=2).err


def test_text_said_from_the_first_levels(call: Call, finished: Path, tmp_path: Path) -> None:
    pytest.importorskip("sacrebleu")
    decoder = ("--decoder", "one", "--decoder-backend", "odddecoder:OddDecoder", "--decode-sample", 3)
    ran = call("evaluate-codes", finished, tmp_path / "r", *decoder, "--gate", "warn")
    report = json.loads((tmp_path / "r/report.json").read_text())
    assert (tmp_path / "r/text.png").exists()
    assert set(report["text"]) == set(report["languages"])
    for trips in report["text"].values():
        assert set(trips) == {"1", "2", "0"}
        assert all(trip["scores"]["num_sentences"] <= 3 for trip in trips.values())
    assert "of the vector" in ran.out


def test_gates_end_with_their_own_exit_code(call: Call, finished: Path, tmp_path: Path) -> None:
    how = ("--no-plots", "--split", "train", "--min-gain", 0.9, "--json")
    ran = call("evaluate-codes", finished, tmp_path / "r", *how, code=5)
    assert "gates failed, first gain of level" in ran.err
    assert any(gate["passed"] is False for gate in json.loads(ran.out)["gates"])
    assert (tmp_path / "r/report.json").exists()
    call("evaluate-codes", finished, tmp_path / "r", *how, "--gate", "warn", "--overwrite")


def test_a_codebook_through_faiss(call: Call, finished: Path, tmp_path: Path) -> None:
    shown = call("codebook", "show", finished, "--json").json
    assert shown["size"].startswith("2 x 8 units of ")
    assert len(shown["levels"]) == 2
    assert "held-out" in call("codebook", "show", finished / "codebook").out
    file = tmp_path / "book.faiss"
    call("codebook", "export", finished, file)
    assert "exists" in call("codebook", "export", finished, file, code=2).err
    call("codebook", "import", file, tmp_path / "same")
    assert load_codebook(str(tmp_path / "same")).fingerprint == shown["fingerprint"]
    Path(f"{file}.json").unlink()
    assert "--like CORPUS" in call("codebook", "import", file, tmp_path / "new", code=2).err
    call("codebook", "import", file, tmp_path / "new", "--like", finished)
    corpus = copy(finished, tmp_path / "own")
    call("quantize", corpus, "--codebook", tmp_path / "new", "--overwrite")
    assert open_corpus(corpus).codes.manifest.rows == open_corpus(finished).codes.manifest.rows

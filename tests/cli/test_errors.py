"""Errors: one message that says what to do, the right exit code, no traceback, nothing left behind."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jobs import ODD, SMALL_BOOK, cli, copy, error_line, snapshot

ERRORS: dict[str, tuple[list[object], str]] = {
    "no input": (["segment", "{tmp}/none/*.jsonl", "{tmp}/out"], "none"),
    "file for a corpus": (
        ["segment", "{inputs}/docs.jsonl", "{inputs}/odd.jsonl"],
        r"the last argument is the corpus folder, got the file '.*odd\.jsonl'",
    ),
    "corpus for documents": (["segment", "{corpus}", "{tmp}/out"], r"corpus of lcm-data.*; give the documents it was"),
    "unknown format": (["segment", "{corpus}/segments/_lcm/config.yaml", "{tmp}/out"], "is of no known format"),
    "language": (["segment", "{inputs}", "{tmp}/out", "--lang", "englisch"], r"unknown language 'englisch'"),
    "segmenter": (["segment", "{inputs}", "{tmp}/out", "--segmenter", "rule"], r"Did you mean 'rules'\?"),
    "segmenter module": (
        ["segment", "{inputs}", "{tmp}/out", "--segmenter", "no.such:Thing"],
        "cannot import segmenter",
    ),
    "splits": (["segment", "{inputs}", "{tmp}/out", "--test", "0.9", "--validation", "0.2"], "add up to at most 1"),
    "executor": (["segment", "{inputs}", "{tmp}/out", "--executor", "spark"], "unknown executor 'spark'"),
    "negative": (["segment", "{inputs}", "{tmp}/out", "--max-chars", "-1"], "max_chars: .* got -1"),
    "no corpus": (["status", "{tmp}/nothing"], "is not a corpus"),
    "no segments": (["encode", "{tmp}/nothing", *ODD], "holds no finished stage"),
    "no embeddings": (["quantize", "{tmp}/nothing", *SMALL_BOOK], "holds no finished stage"),
    "nothing to scale": (["normalize", "{tmp}/nothing"], "holds no finished stage"),
    "model": (["encode", "{corpus}", "--model", "{tmp}/nowhere"], "nowhere"),
    "backend": (["encode", "{corpus}", "--backend", "nativ"], r"Did you mean 'native'\?"),
    "dtype": (["encode", "{corpus}", "--dtype", "float8"], "unknown dtype 'float8'"),
    "store dtype": (["encode", "{corpus}", "--store-dtype", "int8"], "store_dtype"),
    "codebook": (["quantize", "{corpus}", "--codebook", "{tmp}/none"], "is not a codebook"),
    "units": (["quantize", "{corpus}", "--units", "70000"], "units: .* 65536, got 70000"),
    "level": (["verify", "{corpus}", "--level", "deep"], "unknown level 'deep'"),
    "stage": (["inspect", "{corpus}", "--stage", "codez"], r"Did you mean 'codes'\?"),
    "document": (["inspect", "{corpus}", "--doc", "none"], "no document 'none'"),
    "no such language": (["inspect", "{corpus}", "--head", "3", "--lang", "ita_Latn"], "no language 'ita_Latn'"),
    "language of statistics": (["inspect", "{corpus}", "--lang", "ita_Latn"], "no language 'ita_Latn'"),
    "no such split": (["inspect", "{corpus}", "--split", "dev"], "no split 'dev'"),
    "clip": (["normalize", "{corpus}", "--clip-proba", "0.7"], "clip_proba"),
    "method": (["normalize", "{corpus}", "--method", "minmax"], "method"),
    "demo on an object store": (["demo", "s3://bucket/demo"], "writes to a local folder"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_one_message(call: Callable[..., Any], finished: Path, inputs: Path, tmp_path: Path, name: str) -> None:
    args, message = ERRORS[name]
    before = snapshot(finished)
    places = {"tmp": tmp_path, "corpus": finished, "inputs": inputs}
    called = call(*(str(arg).format(**places) for arg in args), code=2)
    assert called.out == ""
    assert called.err.startswith("lcm-data: ")
    assert called.err.count("\n") == 1
    assert re.search(message, called.err), called.err
    assert list(tmp_path.iterdir()) == []
    assert snapshot(finished) == before


@pytest.mark.parametrize(
    "args", [["nosuch"], ["encode", "c", "--nosuch"], ["segment", "one"], ["encode", "c", "--workers", "x"]]
)
def test_usage(call: Callable[..., Any], args: list[str]) -> None:
    called = call(*args, code=2)
    assert called.out == ""
    assert "Usage: lcm-data" in called.err


def test_a_model_that_is_not_here_and_cannot_be_had(finished: Path, tmp_path: Path) -> None:
    """A machine without network: every download goes to a closed port."""
    offline = {
        "LCM_DATA_CACHE": str(tmp_path / "cache"),
        "HF_ENDPOINT": "http://127.0.0.1:9",
        **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9"),
    }
    message = error_line("encode", finished, "--model", "text_sonar_basic_encoder", env=offline)
    assert message.count("\n") == 0
    assert "cannot download" in message
    assert str(tmp_path / "cache") in message


def test_a_folder_that_cannot_be_written(inputs: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    message = error_line("segment", inputs, tmp_path / "file" / "corpus", code=3)
    assert "cannot write" in message
    assert "resume" in message


def test_all_rows_rejected(inputs: Path, tmp_path: Path) -> None:
    message = error_line("segment", inputs, tmp_path / "out", "--text-column", "body", "--executor", "local", code=2)
    assert "none of the first 10 rows has a field 'body'" in message
    assert "They have: id, lang, title, text" in message
    message = error_line("segment", inputs / "odd.jsonl", tmp_path / "out", code=5)
    assert "all 2 rows were rejected (null_text 1, wrong_type 1)" in message


def test_a_damaged_plan(finished: Path, tmp_path: Path) -> None:
    corpus = copy(finished, tmp_path / "corpus")
    plan = corpus / "embeddings/_lcm/plan.json"
    plan.write_text(plan.read_text()[:-20])
    assert "plan.json is damaged" in error_line("encode", corpus, *ODD, code=5)
    plan.write_text("{}")
    assert "plan.json" in error_line("status", corpus, code=5)
    cli("encode", corpus, *ODD, "--overwrite")

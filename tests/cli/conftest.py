"""A finished and an unfinished corpus, and the command line run inside the test process."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from jobs import copy, embedded, write_jsonl

from pipelines import encode, quantize, segment
from pipelines.encode import EncodeConfig
from pipelines.quantize import QuantizeConfig
from pipelines.segment import SegmentConfig


@dataclass(frozen=True)
class Called:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Called]:
    """Run ``lcm-data`` here, on a terminal of 80 columns that is none, and give what it printed."""
    from lcm_data.cli import main

    monkeypatch.setenv("COLUMNS", "80")

    def run(*args: object, code: int = 0) -> Called:
        monkeypatch.setattr(sys, "argv", ["lcm-data", *map(str, args)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert (ended.value.code or 0) == code, out + err
        return Called(code, out, err)

    return run


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents in two languages, and two rows that cannot be used."""
    folder = tmp_path_factory.mktemp("inputs")
    write_jsonl(
        folder / "docs.jsonl", [{**doc, "text": doc["text"][:600]} for doc in embedded(["eng_Latn", "fra_Latn"])]
    )
    write_jsonl(folder / "odd.jsonl", [{"id": "nothing", "lang": "eng_Latn", "text": None}, [1, 2]])
    return folder


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, inputs: Path) -> Path:
    """A finished corpus. Read only: copy it to change it."""
    corpus = str(tmp_path_factory.mktemp("finished") / "corpus")
    how = {"corpus": corpus, "executor": "local"}
    segment.run(SegmentConfig(inputs=[str(inputs)], validation=0.1, test=0.2, unit_bytes=1200, **how))
    encode.run(EncodeConfig(backend="oddencoder:OddEncoder", model="one", **how))
    quantize.run(QuantizeConfig(levels=2, units=8, iterations=2, **how))
    return Path(corpus)


@pytest.fixture
def unfinished(finished: Path, tmp_path: Path) -> Path:
    """A corpus whose encoding was stopped after some units."""
    corpus = copy(finished, tmp_path / "unfinished")
    state = corpus / "embeddings" / "_lcm"
    (state / "manifest.json").unlink()
    for commit in sorted((state / "commits").iterdir())[3:]:
        shards = json.loads(commit.read_text())["shards"]
        for shard in shards:
            (corpus / "embeddings" / shard["path"]).unlink()
        commit.unlink()
    return corpus

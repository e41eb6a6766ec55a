"""The benchmarks of a SONAR space run, and compare like with like."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from benchmark import benchmark
from toylanguages import sentences

from lcm_data.sonar.random_model import write_random_checkpoint
from lcm_models.sonar.prepared import Prepared


@pytest.fixture
def table(tmp_path: Path) -> str:
    path = tmp_path / "test.jsonl"
    path.write_text("\n".join(map(json.dumps, sentences(30, seed=4))), "utf-8")
    return str(path)


@pytest.fixture
def model(tmp_path: Path) -> str:
    texts = [text for row in sentences(40) for text in row.values()]
    languages = list(sentences(1)[0])
    write_random_checkpoint(tmp_path / "model", texts, decoder_layers=1, languages=languages, model_dim=64, num_heads=1)
    return str(tmp_path / "model")


def test_both_sides_have_the_same_loss(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is compared inside."""
    pytest.importorskip("transformers")
    words = ["--preset", "tiny", "--batch-tokens", "200", "--rounds", "1", "--sampled-softmax", "100"]
    monkeypatch.setattr(sys, "argv", ["sonar_training", str(prepared.folder), *words])
    benchmark("sonar_training").main()
    out = capsys.readouterr().out
    assert "transformers: " in out
    assert "1.00x transformers" in out


def test_a_space_beside_its_baselines(
    table: str, model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--model", model, "--sentences", "3", "--mode", "greedy"]
    monkeypatch.setattr(sys, "argv", ["sonar_space", table, *words])
    benchmark("sonar_space").main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| deu_Latn", "| fra_Latn", "| mean"]
    assert all(len(line.split("|")) == 11 for line in lines[2:])

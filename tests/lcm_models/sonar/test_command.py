"""``lcm-data train sonar`` as a user meets it: runs, goes on, prints its settings, refuses what does not fit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from jobs import COMMAND
from toytrain import assert_same
from typer.testing import CliRunner

from lcm_data.cli.app import app
from lcm_data.errors import CheckpointError, LcmDataError, UsageError

SMALL = ["--preset", "tiny", "--set", "texts.vocab_size=600", "--set", "texts.valid_share=0.1"]
SHORT = ["--set", "data.batch_tokens=300", "--set", "train.max_steps=4", "--set", "train.metrics=['jsonl']"]


def lcm_data(*words: object) -> Any:
    result = CliRunner().invoke(app, list(map(str, words)))
    if isinstance(result.exception, LcmDataError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


def command(pairs: Path, out: Path, *more: object) -> list[object]:
    return ["train", "sonar", "--pairs", pairs, "--out", out, *SMALL, *SHORT, *more]


def test_train_go_on_and_export(pairs: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    first = json.loads(lcm_data(*command(pairs, out, "--json")).stdout)
    assert (first["step"], first["resumed_at"]) == (4, 0)
    more = json.loads(lcm_data(*command(pairs, out, "--json", "--set", "train.max_steps=6")).stdout)
    assert (more["step"], more["resumed_at"]) == (6, 4)
    # The prepared texts are all that is needed: the table may be gone.
    prepared = ["train", "sonar", "--out", out, "--preset", "tiny", *SHORT, "--set", "train.max_steps=7", "--json"]
    assert json.loads(lcm_data(*prepared).stdout)["step"] == 7
    model = tmp_path / "model"
    shown = lcm_data("models", "export", out, model, "--space", "toy-1").stdout
    assert "text encoder" in shown
    assert sorted(path.name for path in model.iterdir()) == ["config.json", "model.safetensors", "sentencepiece.model"]


def test_a_killed_run_ends_with_the_same_bytes(pairs: Path, tmp_path: Path) -> None:
    settings = ["--set", "train.checkpoint_every=2", "--set", "train.max_steps=8", "--set", "optim.ema=0.9"]
    words = [*COMMAND, *map(str, command(pairs, tmp_path / "killed", *settings))]
    checkpoints = tmp_path / "killed" / "checkpoints"
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
    while not (checkpoints / "step-00000002").exists():
        time.sleep(0.01)
        assert process.poll() is None or (checkpoints / "step-00000002").exists()
    process.send_signal(signal.SIGKILL)
    process.wait()
    subprocess.run(words, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    whole = [*COMMAND, *map(str, command(pairs, tmp_path / "whole", *settings))]
    subprocess.run(whole, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert_same(tmp_path / "whole", tmp_path / "killed")


def test_settings_in_force(pairs: Path, tmp_path: Path) -> None:
    words = command(pairs, tmp_path / "run", "--lang", "eng_Latn", "--lang", "fra_Latn", "--print-config", "--json")
    found = json.loads(lcm_data(*words).stdout)
    assert found["model"]["width"] == 64
    assert found["optim"]["clip_norm"] == 1.0
    assert found["texts"]["langs"] == ["eng_Latn", "fra_Latn"]
    assert not (tmp_path / "run").exists()


def test_dry_run(pairs: Path, tmp_path: Path) -> None:
    found = json.loads(lcm_data(*command(pairs, tmp_path / "run", "--dry-run", "--json")).stdout)
    assert found["parameters"] > 10_000
    assert found["steps"] == 4


def test_beginning_with_other_weights(pairs: Path, tmp_path: Path) -> None:
    lcm_data(*command(pairs, tmp_path / "first", "--quiet"))
    data = ["--set", f"data.path={tmp_path / 'first' / 'data'}"]
    start = ["train", "sonar", *data, "--preset", "tiny", *SHORT, "--quiet"]
    again = [*start, "--set", f"train.init_from={tmp_path / 'first'}", "--set", "data.max_tokens=20"]
    lcm_data(*again, "--out", tmp_path / "second")
    lcm_data(*command(pairs, tmp_path / "other", "--lang", "eng_Latn", "--lang", "fra_Latn", "--quiet"))
    odd = [*start, "--set", f"train.init_from={tmp_path / 'other'}", "--out", tmp_path / "third"]
    with pytest.raises(CheckpointError, match="another tokenizer or other languages"):
        lcm_data(*odd)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "sonar"], "nothing to train on: give pairs, text or both"),
        (["train", "sonar", "--data", "corpus"], "takes --pairs and --text and --lang instead of --data"),
        (["train", "base", "--pairs", "x.jsonl"], "--pairs: for 'train sonar'; base takes --data"),
        (["train", "sonar", "--pairs", "{pairs}", "--preset", "huge"], "unknown preset 'huge'"),
        (["train", "sonar", "--pairs", "{pairs}", "--set", "model.widht=64"], "Did you mean 'width'"),
        (["train", "sonar", "--pairs", "{pairs}", "--set", "model.width=100"], "model.width"),
    ],
)
def test_what_is_refused(pairs: Path, tmp_path: Path, words: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        lcm_data(*(word.format(pairs=pairs) for word in words), "--out", tmp_path / "run")

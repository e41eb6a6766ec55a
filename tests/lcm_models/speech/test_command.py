"""``lcm-data train speech`` as a user meets it: runs, goes on, exports, encodes, refuses what does not fit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jobs import COMMAND
from speechcorpus import Spoken, write_segments
from toytrain import assert_same
from typer.testing import CliRunner

from lcm_data.cli.app import app
from lcm_data.corpus import open_corpus
from lcm_data.errors import CheckpointError, LcmDataError, UsageError

SHORT = ["--preset", "tiny", "--set", "data.batch_seconds=6", "--set", "train.max_steps=3"]
SHORT += ["--set", "train.metrics=['jsonl']", "--set", "model.ctc=0.3", "--set", "clips.valid_share=0.15"]


def lcm_data(*words: object) -> Any:
    result = CliRunner().invoke(app, list(map(str, words)))
    if isinstance(result.exception, LcmDataError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


def command(clips: Path, out: Path, *more: object) -> list[object]:
    return ["train", "speech", "--speech", clips, "--out", out, *SHORT, *more]


@pytest.fixture(scope="module")
def run(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three steps."""
    out = tmp_path_factory.mktemp("run") / "speech"
    lcm_data(*command(clips, out))
    return out


def test_train_go_on_export_and_encode(run: Path, clips: Path, tmp_path: Path) -> None:
    more = json.loads(lcm_data(*command(clips, run, "--json", "--set", "train.max_steps=4")).stdout)
    assert (more["step"], more["resumed_at"]) == (4, 3)
    model = tmp_path / "model"
    shown = lcm_data("models", "export", run, model).stdout
    assert "speech encoder" in shown
    about = json.loads((model / "config.json").read_text("utf-8"))
    space = json.loads((run / "data/prepared.json").read_text("utf-8"))["teacher"]["space"]
    assert (about["space"], about["languages"]) == (space, ["deu_Latn", "eng_Latn"])
    row = Spoken(str(clips.parent / "eng_Latn/0.wav"), 0.0, 0.5, text="x")
    corpus = write_segments(tmp_path / "corpus", {"eng_Latn": [row, "A sentence beside it."]})
    lcm_data("encode", corpus, "--model", "sonar-mini", "--speech-model", model)
    (batch,) = open_corpus(str(corpus)).embeddings.batches(columns=["emb"])
    assert len(batch) == 2
    assert np.isfinite(np.asarray(batch["emb"], np.float32)).all()


def test_a_killed_run_ends_with_the_same_bytes(clips: Path, tmp_path: Path) -> None:
    settings = ["--set", "train.checkpoint_every=2", "--set", "train.max_steps=8", "--set", "optim.ema=0.9"]
    words = [*COMMAND, *map(str, command(clips, tmp_path / "killed", *settings))]
    checkpoints = tmp_path / "killed" / "checkpoints"
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL, env=env)
    while not (checkpoints / "step-00000002").exists():
        time.sleep(0.01)
        assert process.poll() is None or (checkpoints / "step-00000002").exists()
    process.send_signal(signal.SIGKILL)
    process.wait()
    subprocess.run(words, check=True, capture_output=True, env=env)
    whole = [*COMMAND, *map(str, command(clips, tmp_path / "whole", *settings))]
    subprocess.run(whole, check=True, capture_output=True, env=env)
    assert_same(tmp_path / "whole", tmp_path / "killed")


def test_two_processes_learn_together(clips: Path, tmp_path: Path) -> None:
    words = [*COMMAND, *map(str, command(clips, tmp_path / "run", "--workers", 2, "--json"))]
    done = subprocess.run(words, check=True, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert json.loads(done.stdout)["step"] == 3
    assert "Warning" not in done.stderr


def test_settings_in_force(clips: Path, tmp_path: Path) -> None:
    words = command(clips, tmp_path / "run", "--lang", "eng_Latn", "--print-config", "--json")
    found = json.loads(lcm_data(*words).stdout)
    assert found["model"]["width"] == 64
    assert found["clips"]["langs"] == ["eng_Latn"]
    assert found["clips"]["teacher"] == "sonar-mini"
    assert not (tmp_path / "run").exists()
    estimate = json.loads(lcm_data(*command(clips, tmp_path / "run", "--dry-run", "--json")).stdout)
    assert estimate["parameters"] > 10_000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "speech"], "clips.speech"),
        (["train", "speech", "--data", "corpus"], "takes --speech and --teacher and --lang instead of --data"),
        (["train", "speech", "--pairs", "x.jsonl"], "--pairs: for 'train sonar'; speech takes --speech"),
        (["train", "base", "--teacher", "x"], "--teacher: for 'train speech'; base takes --data"),
        (["train", "speech", "--speech", "x.jsonl", "--preset", "huge"], "unknown preset 'huge'"),
        (["train", "speech", "--speech", "x.jsonl", "--set", "clips.max_second=3"], "Did you mean 'max_seconds'"),
    ],
)
def test_what_is_refused(tmp_path: Path, words: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        lcm_data(*words, "--out", tmp_path / "run")


def test_exports_that_are_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="of the space of its teacher, here 'sonar-mini"):
        lcm_data("models", "export", run, tmp_path / "model", "--space", "mine")
    with pytest.raises(UsageError, match="holds no checkpoint"):
        lcm_data("models", "export", tmp_path, tmp_path / "model")


def test_first_weights_of_another_teacher_are_refused(run: Path, clips: Path, tmp_path: Path) -> None:
    newest = sorted((run / "checkpoints").iterdir())[-1]
    other = tmp_path / "other"
    other.mkdir()
    for file in newest.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    notes = json.loads((other / "model.json").read_text("utf-8"))
    notes["prepared"]["teacher"]["encoder_revision"] = "0" * 64
    (other / "model.json").write_text(json.dumps(notes), "utf-8")
    with pytest.raises(CheckpointError, match="learned from another teacher"):
        lcm_data(*command(clips, tmp_path / "new", "--set", f"train.init_from={other}"))
    lcm_data(*command(clips, tmp_path / "right", "--set", f"train.init_from={newest}"))

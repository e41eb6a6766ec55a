"""The verb ``train`` as a user meets it: what it prints, refuses and resumes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lcm_data.cli.app import app
from lcm_data.errors import LcmDataError
from lcm_models.checkpoint import load_model

SMALL = ["--preset", "tiny", "--set", "model.width=16", "--set", "model.num_heads=2", "--set", "data.end_of_text=null"]
SHORT = ["--set", "train.max_steps=2", "--set", "data.max_len=16", "--set", "data.batch_rows=4"]


def lcm_data(*words: str) -> Any:
    result = CliRunner().invoke(app, list(words))
    if isinstance(result.exception, LcmDataError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


def test_train_and_go_on(trained_on: Path, tmp_path: Path) -> None:
    words = ["train", "base", "--data", str(trained_on), "--out", str(tmp_path / "run"), *SMALL, *SHORT, "--json"]
    first = json.loads(lcm_data(*words).stdout)
    assert (first["step"], first["resumed_at"]) == (2, 0)
    more = json.loads(lcm_data(*words, "--set", "train.max_steps=3").stdout)
    assert (more["step"], more["resumed_at"]) == (3, 2)
    assert load_model(tmp_path / "run").model.config.width == 16
    with pytest.raises(LcmDataError, match=r"optim\.lr: 0\.0004 -> 0\.001") as raised:
        lcm_data(*words, "--set", "optim.lr=1e-3")
    assert raised.value.exit_code == 4
    anew = json.loads(lcm_data(*words, "--set", "optim.lr=1e-3", "--overwrite").stdout)
    assert anew["resumed_at"] == 0


def test_the_report_for_people(trained_on: Path, tmp_path: Path) -> None:
    found = lcm_data("train", "base", "--data", str(trained_on), "--out", str(tmp_path / "run"), *SMALL, *SHORT)
    assert "step-00000002" in found.stdout
    assert "train: step 2/2, loss " in found.stderr


def test_settings_in_force(trained_on: Path, tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text(
        "[model]\npreset = 'tiny'\ndropout = 0.25\n[optim]\nlr = 1e-3\n"
        f"[data]\nend_of_text = 'null'\nsources = [{{path = '{trained_on}'}}]\n"
    )
    words = ["train", "two-tower", "--config", str(file), "--set", "optim.lr=2e-3", "--print-config", "--json"]
    found = json.loads(lcm_data(*words).stdout)
    assert (found["model"]["width"], found["model"]["dropout"]) == (128, 0.25)
    assert found["optim"]["lr"] == 2e-3
    assert found["data"]["batch_concepts"] == 2048
    assert found["train"]["max_steps"] == 1000


def test_printed_settings_can_be_given_again(trained_on: Path, tmp_path: Path) -> None:
    words = ["train", "quant-d", "--data", str(trained_on), *SMALL, *SHORT, "--print-config"]
    printed = lcm_data(*words).stdout
    (tmp_path / "run.yaml").write_text(printed)
    assert lcm_data("train", "quant-d", "--config", str(tmp_path / "run.yaml"), "--print-config").stdout == printed
    none = lcm_data("train", "base", "--data", str(trained_on), "--set", "data.end_of_text=none", "--print-config")
    assert "end_of_text: null" in none.stdout


def test_beginning_with_weights_that_do_not_fit_is_refused(trained_on: Path, tmp_path: Path) -> None:
    words = ["train", "quant-d", "--data", str(trained_on), *SMALL, *SHORT]
    lcm_data(*words, "--out", str(tmp_path / "first"))
    again = [*words, "--out", str(tmp_path / "second"), "--set", f"train.init_from={tmp_path / 'first'}", "--dry-run"]
    lcm_data(*again)
    with pytest.raises(LcmDataError, match="which --overwrite empties"):
        lcm_data(*again, "--out", str(tmp_path / "first"), "--overwrite")
    for notes in (tmp_path / "first").glob("checkpoints/*/model.json"):
        text = notes.read_text()
        codebook = json.loads(text)["codebook"]
        notes.write_text(text.replace(codebook, codebook[::-1]))  # of the same size, or it would not be whole
    with pytest.raises(LcmDataError, match="are of another codebook than those that"):
        lcm_data(*again)


def test_a_dry_run_makes_nothing(trained_on: Path, tmp_path: Path) -> None:
    words = ["train", "base", "--data", str(trained_on), "--out", str(tmp_path / "run"), *SMALL, "--dry-run"]
    more = ["--nproc", "4", "--set", "train.accumulate=2", "--set", "train.strategy=fsdp", "--set", "optim.ema=0.9"]
    found = json.loads(lcm_data(*words, *more, "--json").stdout)
    assert not (tmp_path / "run").exists()
    assert found["concepts_per_step"] == 2048 * 4 * 2
    assert found["bytes_per_device"] == found["parameters"] * 20 // 4
    assert "activations" in lcm_data(*words).stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--set", "train.max_step=3"], r"setting of \[train\] 'max_step'. Did you mean 'max_steps'"),
        (["--set", "data.max_length=3"], r"setting of \[data\] 'max_length'"),
        (["--set", "model.widht=3"], "Did you mean 'width'"),
        (["--executor", "rya"], "Did you mean 'ray'"),
        (["--gpus-per-worker", "1"], "is for --executor ray"),
        (["--set", "model.variant=two-tower"], "the command says 'base'"),
        (["--set", "data.sources=[{path='x'}]"], "give one of them"),
        (["--out", "s3://bucket/run"], "give a folder"),
    ],
)
def test_mistakes_are_one_line(trained_on: Path, words: list[str], message: str) -> None:
    with pytest.raises(LcmDataError, match=message) as raised:
        lcm_data("train", "base", "--data", str(trained_on), *SMALL, "--out", "nowhere", *words)
    assert raised.value.exit_code == 2
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("wieght = 3", r"setting of \[data\.sources\] 'wieght'\. Did you mean 'weight'\? Known: answer_langs, "),
        ("answer = 'x'", r"setting of \[data\.sources\] 'answer'\. Did you mean 'answers'"),
        ("weight = 0", r"data\.sources\.0\.weight: Input should be greater than 0, got 0\.$"),
        ("kind = 'nestd'", "unknown kind of source 'nestd'. Did you mean 'nested'"),
    ],
)
def test_mistakes_in_a_source_name_it(trained_on: Path, source: str, message: str) -> None:
    sources = f"data.sources=[{{path = '{trained_on}', {source}}}]"
    with pytest.raises(LcmDataError, match=message) as raised:
        lcm_data("train", "base", *SMALL, "--out", "nowhere", "--set", sources)
    assert raised.value.exit_code == 2
    assert "\n" not in str(raised.value)


def test_without_data_there_is_nothing_to_do() -> None:
    with pytest.raises(LcmDataError, match="nothing to train on: give --data CORPUS"):
        lcm_data("train", "base", *SMALL)

"""Concept models from a corpus: all variants train and come back, and what does not fit is refused."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from lcm_data.errors import CheckpointError, InputError, UnknownNameError, UsageError
from lcm_models import LCMS
from lcm_models.checkpoint import load_model
from lcm_models.data import DataConfig
from lcm_models.quant_lcm import QuantLCM
from lcm_models.train.concepts import ConceptTask, make_task
from lcm_models.train.config import OptimConfig, TrainConfig
from lcm_models.train.launch import Launch, start
from lcm_models.train.run import Run, TrainReport
from lcm_models.train.task import reseed

SMALL = {"width": 16, "num_heads": 2}


def data(folder: Path, **settings: Any) -> DataConfig:
    given = {"max_len": 16, "batch_rows": 4, "end_of_text": None, "prefetch": 2, **settings}
    return DataConfig.model_validate({"sources": [{"path": str(folder)}], **given})


def task(folder: Path, variant: str = "base", **settings: Any) -> ConceptTask:
    return make_task(variant, "tiny", {**SMALL, **settings}, data(folder))


def train(made: ConceptTask, folder: Path, optim: dict[str, Any] | None = None, **settings: Any) -> TrainReport:
    config = TrainConfig(**{"max_steps": 3, "device": "cpu", "metrics": ("jsonl",), "log_every": 1, **settings})
    return start(Run(made, OptimConfig(**(optim or {})), config, str(folder), quiet=True), Launch())


@pytest.mark.parametrize("variant", LCMS)
def test_every_variant_trains_and_comes_back(trained_on: Path, tmp_path: Path, variant: str) -> None:
    made = task(trained_on, variant)
    assert len(pickle.dumps(made)) < 10_000
    report = train(made, tmp_path / "run")
    assert report.valid_loss is not None
    trained = load_model(tmp_path / "run")
    model = trained.model
    assert (trained.variant, model.config, model.training) == (variant, made.config, False)
    assert trained.notes["provenance"]["space"] == made.facts["provenance"]["space"]
    assert trained.folder == Path(report.checkpoint)
    assert not torch.equal(model.scaler.scale_D, torch.ones_like(model.scaler.scale_D)), "the normaliser came along"
    # The validation loss of the run is that of the model read back.
    sums = [0.0, 0.0]
    with torch.no_grad():
        for number, batch in enumerate(made.validation()):
            reseed(0, 1 << 32, number)
            loss = model(batch)
            sums = [sums[0] + loss.total.item(), sums[1] + loss.num_targets.item()]
    assert sums[0] / sums[1] == pytest.approx(report.valid_loss, rel=1e-5)
    if isinstance(model, QuantLCM):
        assert model.centroids.loaded


def test_a_checkpoint_needs_nothing_beside_it(trained_on: Path, tmp_path: Path) -> None:
    report = train(task(trained_on, "quant-c"), tmp_path / "run")
    shutil.copytree(report.checkpoint, tmp_path / "copy")
    shutil.rmtree(tmp_path / "run")
    assert load_model(tmp_path / "copy").variant == "quant-c"


def test_averaged_weights_are_what_is_loaded(trained_on: Path, tmp_path: Path) -> None:
    train(task(trained_on), tmp_path / "run", {"ema": 0.5, "lr": 1e-2})
    both = [load_model(tmp_path / "run", ema=ema).model.state_dict() for ema in (None, True, False)]
    assert all(torch.equal(both[0][name], both[1][name]) for name in both[0])
    assert any(not torch.equal(both[0][name], both[2][name]) for name in both[0])
    train(task(trained_on), tmp_path / "without")
    with pytest.raises(CheckpointError, match=r"without optim\.ema"):
        load_model(tmp_path / "without", ema=True)


def test_a_stopped_run_goes_on_with_its_data(trained_on: Path, tmp_path: Path) -> None:
    """The real loader, its thread and its state included."""
    made, optim = task(trained_on, "one-tower"), {"schedule_steps": 8}
    straight = train(made, tmp_path / "straight", optim, max_steps=8)
    for steps in (3, 4, 8):
        report = train(made, tmp_path / "stopped", optim, max_steps=steps)
    assert report.resumed_at == 4
    expected, found = (load_model(each.checkpoint).model.state_dict() for each in (straight, report))
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_sizes_come_from_the_corpus(trained_on: Path) -> None:
    made = task(trained_on, "quant-d")
    dim = int(json.loads((trained_on / "embeddings/_lcm/manifest.json").read_text())["provenance"]["dim"])
    assert made.config.concept_dim == dim
    assert (made.config.num_levels, made.config.num_units) == (3, 4)  # type: ignore[attr-defined]
    sizes = made.describe()
    assert sizes["parameters"] == sum(p.numel() for p in made.build().parameters())
    assert sizes["batch_concepts"] == 64


def test_what_does_not_fit_is_refused_before_anything_starts(trained_on: Path, tmp_path: Path) -> None:
    good, long = data(trained_on), {"min_len": 64, "max_len": 128}
    cases: list[tuple[type[Exception], str, dict[str, Any]]] = [
        (UnknownNameError, "unknown model 'bass'. Did you mean 'base'", {"variant": "bass"}),
        (UnknownNameError, "unknown preset 'tini'. Did you mean 'tiny'", {"preset": "tini"}),
        (UnknownNameError, "unknown setting 'widht'. Did you mean 'width'", {"model": {"widht": 8}}),
        (UsageError, "model.concept_dim is 7, the corpus has", {"model": {"concept_dim": 7}}),
        (UsageError, "data.max_len is 16, and the model takes 8", {"model": {"max_len": 8}}),
        (UsageError, "no normaliser: nowhere.safetensors does not exist", {"normalizer": "nowhere.safetensors"}),
        (UsageError, "the validation split has no document that is long", {"data": data(trained_on, **long)}),
        (InputError, "is not a corpus", {"data": data(tmp_path)}),
    ]
    for kind, message, changed in cases:
        given = {"variant": "base", "preset": "tiny", "model": {}, "data": good, **changed}
        with pytest.raises(kind) as raised:
            make_task(given.pop("variant"), given.pop("preset"), given.pop("model"), given.pop("data"), **given)
        assert message in str(raised.value)


def test_a_corpus_with_nothing_held_out_is_refused(trained_on: Path) -> None:
    source = {"path": str(trained_on), "langs": ["fra_Latn"]}
    french = DataConfig.model_validate({**data(trained_on).model_dump(), "sources": [source]})
    with pytest.raises(UsageError, match=r"nothing to validate on: .*train\.valid_every=0"):
        make_task("base", "tiny", SMALL, french)
    make_task("base", "tiny", SMALL, french, validates=False)

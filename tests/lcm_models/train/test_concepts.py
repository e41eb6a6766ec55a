"""Concept models from a corpus: all variants train and come back, and what does not fit is refused."""

from __future__ import annotations

import functools
import json
import pickle
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lcm_data.errors import CheckpointError, InputError, PlanMismatchError, UnknownNameError, UsageError
from lcm_models import LCMS
from lcm_models.checkpoint import load_model
from lcm_models.data import DataConfig
from lcm_models.diffusion.fragility import FragilityRegressor
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


def test_processes_may_start_elsewhere(trained_on: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of Ray do: whatever was given by a path relative to where the command ran is found."""
    for name in ("normalizer.safetensors", "end_of_text.safetensors"):
        shutil.copy(trained_on / name, tmp_path / name)
    FragilityRegressor(task(trained_on).config.concept_dim, 4).save(tmp_path / "f.safetensors")
    shutil.copytree(trained_on / "codebook", tmp_path / "book")
    (tmp_path / "corpus").symlink_to(trained_on)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    given = data(Path("corpus"), end_of_text="end_of_text.safetensors")
    weighed = {"diffusion": {"weighting": "fragility", "regressor": "f.safetensors"}}
    parts = {"normalizer": "normalizer.safetensors", "codebook": "book"}
    made = [
        make_task(variant, "tiny", {**SMALL, **more}, given, **parts)
        for variant, more in (("quant-d", {}), ("two-tower", weighed))
    ]
    config = TrainConfig(init_from="corpus")
    monkeypatch.chdir(tmp_path / "elsewhere")
    for each in made:
        each.build()
        next(iter(each.loader(0, 1)))
        next(iter(each.validation()))
        each.write_assets(tmp_path)
        assert each.notes()["sources"][0]["path"] == str(tmp_path / "corpus")
        absolute = {"sources": [{"path": str(tmp_path / "corpus")}], "end_of_text": str(tmp_path / given.end_of_text)}
        again = DataConfig.model_validate({**given.model_dump(), **absolute})
        settings = made[1].config.model_dump() if each is made[1] else SMALL
        kept = {name: str(tmp_path / path) for name, path in parts.items()}
        assert make_task(each.variant, "tiny", settings, again, **kept).identity() == each.identity()
    assert config.init_from == str(tmp_path / "corpus")


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


def test_errors_are_weighed_by_fragility(trained_on: Path, tmp_path: Path) -> None:
    """With the regressor in a file; another one is another run."""
    dim, file = task(trained_on).config.concept_dim, tmp_path / "f.safetensors"
    weighed = {"diffusion": {"weighting": "fragility", "regressor": str(file)}}
    with pytest.raises(UsageError, match=r"set model\.diffusion\.regressor to the file of a regressor"):
        task(trained_on, "two-tower", diffusion={"weighting": "fragility"})
    with pytest.raises(UsageError, match="regressor is for weighting 'fragility', and weighting is 'none'"):
        task(trained_on, "two-tower", diffusion={"regressor": str(file)})
    with pytest.raises(CheckpointError, match="cannot read a regressor of fragility"):
        task(trained_on, "two-tower", **weighed)
    FragilityRegressor(dim + 1, 4).save(file)
    with pytest.raises(UsageError, match=f"is for {dim + 1} dimensions, the corpus has {dim}: fit one"):
        task(trained_on, "two-tower", **weighed)
    regressor = FragilityRegressor(dim, 4)
    with torch.no_grad():
        regressor.layers[2].weight.zero_()
        regressor.layers[2].bias.fill_(1.0)  # all are as fragile: sigmoid(-4 + 3.5)
    regressor.save(file)
    plain = train(task(trained_on, "two-tower"), tmp_path / "plain", max_steps=1)
    report = train(task(trained_on, "two-tower", **weighed), tmp_path / "run", max_steps=1)
    assert plain.loss is not None
    assert report.loss == pytest.approx(plain.loss * torch.sigmoid(torch.tensor(-0.5)).item(), rel=1e-5)
    FragilityRegressor(dim, 4).save(file)
    with pytest.raises(PlanMismatchError, match=r"model\.fragility"):
        train(task(trained_on, "two-tower", **weighed), tmp_path / "run", max_steps=2)
    file.unlink()
    assert load_model(tmp_path / "run").variant == "two-tower", "it is needed for training only"


def test_the_recipe_for_a_regressor_of_fragility(
    trained_on: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of the page about training, with a decoder that only says the first sentences right."""
    pytest.importorskip("sacrebleu", reason="needs the extra 'quality'")
    from lcm_data import decode
    from lcm_models.diffusion import fragility

    def said(x_ND: Any, lang: str) -> Any:
        return SimpleNamespace(texts=["" if row > 9 else "Sentence." for row in range(len(x_ND))])

    page = (Path(__file__).parents[3] / "docs" / "training.md").read_text("utf-8")
    (block,) = re.findall(r"^```python\n(import torch\n.*?)^```", page, flags=re.S | re.M)
    monkeypatch.setattr(decode, "load_decoder", lambda options: SimpleNamespace(decode=said))
    quick = functools.partial(fragility.fit_fragility, hidden=16, steps=20)
    monkeypatch.setattr(fragility, "fit_fragility", quick)
    (tmp_path / "my-corpus").symlink_to(trained_on)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(block, "docs/training.md", "exec"), names)  # noqa: S102
    assert names["fitted"].explained <= 1
    weighed = {"diffusion": {"weighting": "fragility", "regressor": "fragility.safetensors"}}
    assert "fragility" in task(trained_on, "one-tower", **weighed).facts


def test_a_corpus_with_nothing_held_out_is_refused(trained_on: Path) -> None:
    source = {"path": str(trained_on), "langs": ["fra_Latn"]}
    french = DataConfig.model_validate({**data(trained_on).model_dump(), "sources": [source]})
    with pytest.raises(UsageError, match=r"nothing to validate on: .*train\.valid_every=0"):
        make_task("base", "tiny", SMALL, french)
    make_task("base", "tiny", SMALL, french, validates=False)

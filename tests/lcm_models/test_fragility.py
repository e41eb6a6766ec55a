"""The regressor of fragility: learned from figures, kept in a file, at the side of the model whose errors it weighs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from toylcm import DIM, documents, toy_model

from lcm_data.errors import CheckpointError, UsageError
from lcm_models.diffusion.fragility import FragilityRegressor, fit_fragility
from lcm_models.diffusion.model import DiffusionModel
from lcm_models.model import Batch


def drawn(num: int = 2000) -> tuple[torch.Tensor, torch.Tensor]:
    """Concepts, and figures that depend on them."""
    x_ND = torch.randn(num, 8, generator=torch.Generator().manual_seed(0))
    return x_ND, torch.sigmoid(2 * x_ND[:, 0] - x_ND[:, 1])


def test_figures_are_learned() -> None:
    x_ND, fragility_N = drawn()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    regressor, explained = fit_fragility(x_ND, fragility_N, hidden=64, steps=300)
    assert torch.equal(torch.rand(3), expected), "the generator of the caller is left alone"
    assert explained > 0.95
    fresh_ND = torch.randn(500, 8, generator=torch.Generator().manual_seed(1))
    error_N = regressor(fresh_ND) - torch.sigmoid(2 * fresh_ND[:, 0] - fresh_ND[:, 1])
    assert error_N.square().mean() < 0.01
    again, _ = fit_fragility(x_ND, fragility_N, hidden=64, steps=300)
    assert torch.equal(again(fresh_ND), regressor(fresh_ND))
    noise = torch.rand(2000, generator=torch.Generator().manual_seed(2))
    assert fit_fragility(x_ND, noise, hidden=64, steps=300).explained < 0.1
    with pytest.raises(UsageError, match="19 concepts, 19 figures: give at least 20"):
        fit_fragility(x_ND[:19], fragility_N[:19])


def test_a_file_holds_it(tmp_path: Path) -> None:
    regressor, file = FragilityRegressor(8, 5), tmp_path / "f.safetensors"
    regressor.save(file)
    found, (x_ND, _) = FragilityRegressor.load(file), drawn(4)
    assert torch.equal(found(x_ND), regressor(x_ND))
    assert found.dim == 8
    (tmp_path / "short").write_bytes(file.read_bytes()[:-9])
    save_file({"weight": torch.zeros(3)}, tmp_path / "other")
    for name in ("short", "other", "none"):
        with pytest.raises(CheckpointError, match=f"cannot read a regressor of fragility from .*{name}"):
            FragilityRegressor.load(tmp_path / name)


def test_it_goes_where_the_model_goes() -> None:
    """Though it is no part of it: another device would end the first step."""
    model = toy_model("two-tower", diffusion={"weighting": "fragility"})
    assert isinstance(model, DiffusionModel)
    model.set_fragility(FragilityRegressor(DIM, 8))
    (regressor,) = model._fragility
    assert {each.device.type for each in model.to("meta")._fragility[0].parameters()} == {"meta"}
    assert regressor is model._fragility[0]
    with pytest.raises(UsageError, match=f"is for concepts of 3 dimensions, the model for {DIM}"):
        model.set_fragility(FragilityRegressor(3, 8))


def test_it_takes_no_gradient() -> None:
    model = toy_model("two-tower", diffusion={"weighting": "fragility"})
    assert isinstance(model, DiffusionModel)
    model.set_fragility(FragilityRegressor(DIM, 8))
    model(Batch.of(documents(4))).total.backward()
    assert all(each.grad is None for each in model._fragility[0].parameters())

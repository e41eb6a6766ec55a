"""Groups of AdamW, the global norm, and the moving average against their formulas."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lcm_models.train.config import OptimConfig
from lcm_models.train.optimizer import EMA, make_optimizer, scale_and_clip


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))


def test_matrices_are_decayed_and_the_rest_only_if_asked() -> None:
    model = network()
    model[2].weight.requires_grad_(False)
    decayed, others = make_optimizer(model, OptimConfig(weight_decay=0.3)).param_groups
    assert decayed["params"] == [model[0].weight]
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.3, 0.0)
    assert len(others["params"]) == 4
    (all_of_them,) = make_optimizer(model, OptimConfig(weight_decay=0.3, decay_all=True)).param_groups
    assert len(all_of_them["params"]) == 5


@pytest.mark.parametrize("clip", [0.0, 0.5, 1e6])
def test_gradients_are_scaled_then_clipped_together(clip: float) -> None:
    model = network()
    for number, parameter in enumerate(model.parameters()):
        parameter.grad = torch.full_like(parameter, float(number + 1))
    before = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    norm = scale_and_clip(model.parameters(), 0.25, clip)
    after = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    assert norm == pytest.approx(float(before.norm()) / 4, rel=1e-6)
    expected = before / 4 * (min(1.0, clip / norm) if clip else 1.0)
    assert torch.allclose(after, expected, rtol=1e-5)


def test_the_average_follows_its_formula() -> None:
    model, decay = network(), 0.9
    ema = EMA(model, decay)
    expected = {name: p.detach().clone() for name, p in model.named_parameters()}
    for _ in range(5):
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter += torch.randn_like(parameter)
                expected[name] = decay * expected[name] + (1 - decay) * parameter
        ema.update()
    for name, value in expected.items():
        assert torch.allclose(ema.averages[name], value, atol=1e-6)


def test_the_average_can_stand_in_for_the_weights() -> None:
    model = network()
    ema = EMA(model, 0.5)
    averages = {name: value.clone() for name, value in ema.averages.items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 1
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    with ema.in_place():
        assert all(torch.equal(p, averages[name]) for name, p in model.named_parameters())
    assert all(torch.equal(p, weights[name]) for name, p in model.named_parameters())
    assert all(torch.equal(value, averages[name]) for name, value in ema.averages.items())

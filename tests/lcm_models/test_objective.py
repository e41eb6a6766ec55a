"""Which levels training visits, how errors weigh, and how often context is dropped."""

from __future__ import annotations

import pytest
import torch
from toylcm import DENOISING, DIM, documents, toy_model

from lcm_data.errors import UsageError
from lcm_models.diffusion.fragility import FragilityRegressor, fragility_weight
from lcm_models.diffusion.model import DiffusionModel
from lcm_models.diffusion.objective import (
    DiffusionConfig,
    draw_dropped,
    draw_levels,
    level_probabilities,
    snr_weight,
)
from lcm_models.model import Batch, Draws

CPU = torch.device("cpu")


def test_uniform_levels() -> None:
    levels = draw_levels(DiffusionConfig(), (400, 500), torch.Generator().manual_seed(0), CPU)
    counts = torch.bincount(levels.flatten(), minlength=100)
    assert len(counts) == 100
    assert (counts - 2000).abs().max() < 300  # 6 deviations


def test_beta_levels_prefer_little_noise() -> None:
    """Density (i + 1)^(a - 1) for b = 1."""
    config = DiffusionConfig(level_sampling="beta")
    probability = level_probabilities(config)
    assert probability.sum() == pytest.approx(1)
    assert float(probability[0] / probability[99]) == pytest.approx(100**0.2)
    levels = draw_levels(config, (400, 500), torch.Generator().manual_seed(0), CPU)
    found = torch.bincount(levels.flatten(), minlength=100) / levels.numel()
    assert torch.allclose(found.double(), probability, atol=1e-3)
    assert torch.isfinite(level_probabilities(DiffusionConfig(level_sampling="beta", beta=(0.5, 0.5)))).all()


def test_a_generator_repeats_the_draws() -> None:
    model, batch = toy_model("two-tower"), Batch.of(documents(5, 3))
    first, second = (model.draw(batch, torch.Generator().manual_seed(4)) for _ in range(2))
    assert first is not None
    assert second is not None
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_context_is_dropped_in_short_documents_too() -> None:
    """The official code drops floor((S - 1) * 0.15) columns, which is none of 7, the same in every row."""
    generator = torch.Generator().manual_seed(0)
    dropped = draw_dropped(0.15, (4000, 5), generator, CPU, official=False)
    assert float(dropped.float().mean()) == pytest.approx(0.15, abs=0.015)
    assert not (dropped == dropped[:1]).all()
    assert not draw_dropped(0.15, (10, 7), generator, CPU, official=True).any()
    official = draw_dropped(0.15, (10, 41), generator, CPU, official=True)
    assert official.sum(dim=1).tolist() == [6] * 10
    assert (official == official[:1]).all()


def test_weights_follow_the_paper() -> None:
    log_snr = torch.tensor([-5.0, 0.0, 1.0, 9.0])
    assert torch.allclose(snr_weight(log_snr, (0.001, 5)), torch.tensor([0.0067, 1, 2.71828, 5]), atol=1e-4)
    # Fragile concepts (score 1) count less than sturdy ones.
    assert torch.allclose(
        fragility_weight(torch.tensor([0.0, 1.0]), (-4, 3.5)), torch.sigmoid(torch.tensor([3.5, -0.5]))
    )


@pytest.mark.parametrize("variant", DENOISING)
@pytest.mark.parametrize("weighting", ["none", "snr", "fragility"])
def test_the_loss_is_the_weighted_error(variant: str, weighting: str) -> None:
    plain = toy_model(variant)
    model = toy_model(variant, diffusion={"weighting": weighting})
    model.load_state_dict(plain.state_dict())
    assert isinstance(model, DiffusionModel)
    regressor = FragilityRegressor(DIM, 8)
    model.set_fragility(regressor)
    assert model.state_dict().keys() == plain.state_dict().keys()
    batch = Batch.of(documents(4))
    draws = plain.draw(batch, torch.Generator().manual_seed(0))
    assert draws is not None
    x_BSD = model.scaler.normalize(batch.x_BSD)
    for place in range(4):  # one target at a time: its weight is the ratio of the losses
        target_BS = torch.arange(4)[None] == place
        one = batch._replace(target_BS=target_BS)
        ratio = float((model(one, draws).total / plain(one, draws).total).detach())
        expected = {
            "none": 1.0,
            "snr": min(float(model.schedule.log_snr_T[draws.level_BS[0, place]].exp()), 5.0),
            "fragility": float(torch.sigmoid(3.5 - 4 * regressor(x_BSD)[0, place])),
        }[weighting]
        assert ratio == pytest.approx(expected, rel=1e-4)


def test_fragility_must_be_known() -> None:
    model = toy_model("two-tower", diffusion={"weighting": "fragility"})
    with pytest.raises(UsageError, match="call set_fragility with a trained regressor"):
        model(Batch.of(documents(4)))


def test_official_weights_have_mean_one() -> None:
    batch = Batch.of(documents(6, 6))
    settings = {"diffusion": {"weighting": "snr"}}
    model, plain = toy_model("two-tower", official_compat=True, **settings), toy_model("two-tower")
    assert isinstance(model, DiffusionModel)
    level_BS = torch.full((2, 6), 30)
    draws = Draws(level_BS, torch.zeros(2, 6, dtype=torch.bool), torch.randn(2, 6, 16))
    assert torch.allclose(model(batch, draws).total, plain(batch, draws).total, rtol=1e-5)


@pytest.mark.parametrize("prediction", ["x0", "v"])
def test_reported_errors_are_those_of_the_concept(prediction: str) -> None:
    """Whatever is predicted, ``squared_error`` is |x_0 - estimate|^2 in the normalised space."""
    model = toy_model("two-tower", diffusion={"prediction": prediction})
    assert isinstance(model, DiffusionModel)
    batch = Batch.of(documents(5))
    draws = model.draw(batch, torch.Generator().manual_seed(1))
    assert draws is not None
    loss = model(batch, draws)
    _, sigma = model.schedule.at(draws.level_BS)
    if prediction == "x0":
        assert torch.allclose(loss.total, loss.sums["squared_error"])
    else:  # x0 - estimate = -sigma (v - estimated v)
        only = torch.stack([model(batch._replace(target_BS=torch.arange(5)[None] == n), draws).total for n in range(5)])
        assert torch.allclose((only * sigma[0, :, 0] ** 2).sum(), loss.sums["squared_error"], rtol=1e-4)

"""Base-LCM: alignment of predictions and targets, loss spaces, sampling noise."""

from __future__ import annotations

import pytest
import torch
from toylcm import documents, packed, toy_model

from lcm_models.base_lcm import BaseSampling
from lcm_models.model import Batch


def test_the_loss_is_the_distance_of_prediction_and_truth() -> None:
    """Sum over dimensions and over places that have something before them in their document (eq 6)."""
    model, batch = toy_model("base"), packed(documents(4, 1, 3))
    guess = model.scaler.normalize(model.predict(batch))
    errors = (guess - model.scaler.normalize(batch.x_BSD)).square().sum(dim=-1)[0]
    expected = errors[[1, 2, 3, 6, 7]].sum()
    loss = model(batch)
    assert torch.allclose(loss.total, expected, rtol=1e-5)
    assert torch.allclose(loss.sums["squared_error"], expected, rtol=1e-5)
    assert float(loss.num_targets) == 5


def test_the_loss_in_raw_space() -> None:
    """As the paper writes it: errors of denormalised concepts."""
    model, batch = toy_model("base", loss_space="raw"), Batch.of(documents(5))
    expected = (model.predict(batch) - batch.x_BSD)[0, 1:].square().sum()
    assert torch.allclose(model(batch).total, expected, rtol=1e-5)


def test_noise_on_the_output() -> None:
    """The official code's option: normal noise in the normalised space."""
    model = toy_model("base")
    prefixes = documents(3) * 2000
    plain = model.next_concepts(model.start(prefixes))
    noisy = model.next_concepts(model.start(prefixes), BaseSampling(temperature=0.5))
    spread = (model.scaler.normalize(noisy) - model.scaler.normalize(plain)).std(dim=0)
    assert spread.mean().item() == pytest.approx(0.5, rel=0.02)

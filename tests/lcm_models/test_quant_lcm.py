"""Quant-LCM: sums of centroids, choosing by distance and by logits, spaces of the codebook."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toylcm import DIM, LEVELS, QUANTIZED, UNITS, codebook, documents, normalizer, toy_model, with_codes

from lcm_data.errors import UsageError
from lcm_models import build_model
from lcm_models.model import Batch, Draws
from lcm_models.quant_lcm import QuantLCM, QuantLCMContinuous, QuantLCMDiscrete

SPACES = ["raw", "normalized"]


class Oracle(nn.Module):
    """In place of the network: knows the concept, and says so as either variant would."""

    def __init__(self, model: QuantLCM, x_BSD: Tensor, codes_BSL: Tensor) -> None:
        super().__init__()
        self.tower = model.network.tower
        self.answer_BSD, self.codes_BSL = model.scaler.normalize(x_BSD), codes_BSL
        self.discrete = isinstance(model, QuantLCMDiscrete)

    def read(self, *_: Any) -> None:
        """Needs no context."""

    def complete(self, caches: Any, x_BQD: Tensor, level: int, *_: Any) -> Tensor:
        if not self.discrete:
            return self.answer_BSD
        return nn.functional.one_hot(self.codes_BSL[..., level - 1], UNITS).float()


@pytest.mark.parametrize("variant", QUANTIZED)
@pytest.mark.parametrize("space", SPACES)
def test_a_network_that_knows_gives_the_codes_of_the_encoder(variant: str, space: str) -> None:
    """Greedy choice at every level is the residual quantiser's own, and the result the sum of the centroids."""
    model = toy_model(variant, space=space)
    assert isinstance(model, QuantLCM)
    batch = with_codes(Batch.of(documents(40)), space)
    assert batch.codes_BSL is not None
    model.network = Oracle(model, batch.x_BSD, batch.codes_BSL)  # type: ignore[assignment]
    found = model.predict(batch, model.sampling_type(guidance=1.0, temperature=0.0))
    decoded = codebook(space).decode(batch.codes_BSL[0].numpy().astype(np.uint16))
    expected = decoded if space == "raw" else normalizer().denormalize(decoded)
    np.testing.assert_allclose(found[0].numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("space", SPACES)
def test_partial_sums(space: str) -> None:
    model = toy_model("quant-c", space=space)
    assert isinstance(model, QuantLCM)
    codes = with_codes(Batch.of(documents(7)), space).codes_BSL
    assert codes is not None
    book = codebook(space)
    for first in range(LEVELS + 1):
        found = model.centroids.partial_sum(codes, torch.full((1, 7), first))
        expected = sum(book.tables_MKD[j][codes[0, :, j].numpy()] for j in range(first)) + np.zeros((7, DIM))
        np.testing.assert_allclose(found[0].numpy(), expected, atol=1e-7)
        again = found if space == "normalized" else torch.from_numpy(normalizer().normalize(found.numpy()))
        assert torch.allclose(model._input(found), again, atol=1e-5)


def test_the_loss_of_d_is_the_cross_entropy_of_the_next_code() -> None:
    model = toy_model("quant-d")
    assert isinstance(model, QuantLCMDiscrete)
    batch = with_codes(Batch.of(documents(5)))
    assert batch.codes_BSL is not None
    draws = Draws(torch.tensor([[1, 2, 3, 3, 1]]), torch.zeros(1, 5, dtype=torch.bool))
    x = model.scaler.normalize(batch.x_BSD)
    begun = model._input(model.centroids.partial_sum(batch.codes_BSL, draws.level_BS - 1))
    logits = model.network(x, begun, draws.level_BS, model.embed_level.weight, draws.drop_BS, batch.doc_BS)
    code = batch.codes_BSL[0, range(5), draws.level_BS[0] - 1]
    loss = model(batch, draws)
    expected = -logits[0].log_softmax(dim=-1)[range(5), code].sum()
    assert torch.allclose(loss.total, expected, rtol=1e-5)
    assert int(loss.sums["accuracy"]) == int((logits[0].argmax(dim=-1) == code).sum())


def test_the_loss_of_c_is_the_distance_to_the_whole_concept() -> None:
    """Not to the residual, nor to the quantised concept."""
    model = toy_model("quant-c")
    assert isinstance(model, QuantLCMContinuous)
    batch = with_codes(Batch.of(documents(5)))
    assert batch.codes_BSL is not None
    model.network = Oracle(model, batch.x_BSD, batch.codes_BSL)  # type: ignore[assignment]
    model.network.forward = lambda *_: model.scaler.normalize(batch.x_BSD) + 0.5  # type: ignore[method-assign]
    assert float(model(batch).mean()) == pytest.approx(0.25 * DIM, rel=1e-5)


def test_levels_and_drops_are_drawn_evenly() -> None:
    model = toy_model("quant-d")
    draws = model.draw(Batch(torch.zeros(300, 100, DIM), torch.zeros(300, 100)), torch.Generator().manual_seed(0))
    assert draws is not None
    counts = torch.bincount(draws.level_BS.flatten(), minlength=LEVELS + 1).tolist()
    assert counts[0] == 0
    assert counts[1:] == [pytest.approx(10_000, rel=0.04)] * LEVELS
    assert float(draws.drop_BS.float().mean()) == pytest.approx(0.15, abs=0.01)
    assert draws.noise_BSD is None


def test_units_of_c_are_sampled_by_distance() -> None:
    """Eq 23: p(unit) is proportional to exp(-distance / temperature), distances in the codebook's space."""
    model = toy_model("quant-c", num_levels=1)
    assert isinstance(model, QuantLCMContinuous)
    num, x = 20_000, documents(1)[0]
    batch = Batch(x.expand(1, num, DIM), torch.zeros(1, num, dtype=torch.long))
    model.network = Oracle(model, batch.x_BSD, torch.zeros(1, num, 1))  # type: ignore[assignment]
    settings = model.sampling_type(guidance=1.0, temperature=0.01, top_k=0)
    found = model._next(model._new_state([3]), _everywhere(num), settings)[0]
    tables = torch.from_numpy(codebook(levels=1).tables_MKD[0].copy())
    code = torch.cdist(found, tables).argmin(dim=-1)
    expected = (-(x - tables).norm(dim=-1) / 0.01).softmax(dim=-1)
    assert torch.allclose(torch.bincount(code, minlength=UNITS) / num, expected, atol=0.015)


def _everywhere(num: int) -> Any:
    from lcm_models.model import Noise, Query

    nothing = torch.zeros(1, num, 0, dtype=torch.bool)
    return Query(nothing, torch.zeros(1, num, dtype=torch.long), Noise([torch.Generator()], num, torch.device("cpu")))


@pytest.mark.parametrize("variant", QUANTIZED)
def test_guidance_moves_away_from_the_unconditional(variant: str) -> None:
    """out = free + g (given - free), on logits or concepts: checked with outputs that are known."""
    model = toy_model(variant, num_levels=1)
    assert isinstance(model, QuantLCM)
    given, free = torch.randn(2, 1, 1, UNITS if variant == "quant-d" else DIM)
    seen = []

    class Two(Oracle):
        def complete(self, *_: Any) -> Tensor:
            return torch.cat([given, free], dim=1)

    model._scores = lambda out, *_: seen.append(out) or torch.zeros(1, 1, UNITS)  # type: ignore[method-assign,func-returns-value]
    model.network = Two(model, torch.zeros(1, 1, DIM), torch.zeros(1, 1, 1))  # type: ignore[assignment]
    model._next(model._new_state([0]), _everywhere(1), model.sampling_type(guidance=2.5))
    assert torch.allclose(seen[0], free + 2.5 * (given - free))


def test_defaults_of_the_paper() -> None:
    d, c = (toy_model(variant).sampling_type() for variant in QUANTIZED)
    assert (d.guidance, d.temperature, d.top_k) == (1.0, 1.0, 3)  # type: ignore[attr-defined]
    assert (c.guidance, c.temperature, c.top_k) == (1.5, 0.005, 5)  # type: ignore[attr-defined]


@pytest.mark.parametrize("variant", QUANTIZED)
def test_what_is_missing_is_named(variant: str) -> None:
    model = toy_model(variant)
    assert isinstance(model, QuantLCM)
    plain = Batch.of(documents(3))
    with pytest.raises(UsageError, match="the batch has none: run lcm-data quantize"):
        model(plain)
    with pytest.raises(UsageError, match=f"codes of 2 levels, the model has {LEVELS}"):
        model(plain._replace(codes_BSL=torch.zeros(1, 3, 2, dtype=torch.long)))
    with pytest.raises(
        UsageError, match=r"codebook has 2 levels of 8 units in 16 dimensions, the model was made.*for 3"
    ):
        model.set_codebook(codebook(levels=2))
    small = {"concept_dim": DIM, "width": 32, "num_heads": 2, "num_levels": LEVELS, "num_units": UNITS}
    fresh = build_model(variant, "tiny", small)
    with pytest.raises(UsageError, match="no codebook: call set_codebook"):
        fresh(with_codes(plain))
    with pytest.raises(UsageError, match="no codebook: call set_codebook"):
        fresh.next_concepts(fresh.start(documents(2)))

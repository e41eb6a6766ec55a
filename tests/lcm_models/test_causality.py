"""Who depends on whom in packed rows, exactly: losses by their gradients, predictions by changing concepts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from toylcm import DENOISING, QUANTIZED, documents, packed, quick, toy_model, with_codes

from lcm_models import LCMS
from lcm_models.model import Batch, ConceptModel, Draws

variants = pytest.mark.parametrize("variant", LCMS)
LENGTHS = (4, 1, 3)


def packed_row(model: ConceptModel) -> Batch:
    batch = packed(documents(*LENGTHS))
    return with_codes(batch) if model.needs_codes else batch


def sees(doc_BS: Tensor) -> Tensor:
    """Place n may know concept m: before it, in its document [S, S]."""
    same_SS = (doc_BS[0][:, None] == doc_BS[0]) & (doc_BS[0] >= 0)
    return same_SS.tril(-1)


def draws_for(model: ConceptModel, batch: Batch, drop: list[int]) -> Draws | None:
    """Draws in which only the places of ``drop`` go without context."""
    draws = model.draw(batch, torch.Generator().manual_seed(0))
    if draws is None:
        return None
    drop_BS = torch.zeros_like(draws.drop_BS)
    drop_BS[:, drop] = True
    return draws._replace(drop_BS=drop_BS)


def dependence(model: ConceptModel, batch: Batch, draws: Draws | None) -> Tensor:
    """Whether the loss at place n changes with concept m, by automatic differentiation [S, S]."""
    num = batch.doc_BS.shape[1]
    rows = []
    for place in range(num):
        x_BSD = batch.x_BSD.clone().requires_grad_()
        target_BS = (torch.arange(num) == place)[None]
        loss = model(batch._replace(x_BSD=x_BSD, target_BS=target_BS), draws)
        (gradient_BSD,) = torch.autograd.grad(loss.total, x_BSD)
        rows.append(gradient_BSD[0].abs().amax(dim=-1) > 0)
    return torch.stack(rows)


@variants
def test_losses_depend_on_what_precedes_in_the_document(variant: str) -> None:
    """Exactly on that, and a loss on its own target: no gradient flows from the future, a neighbour or padding."""
    model = toy_model(variant)
    batch = packed_row(model)
    found = dependence(model, batch, draws_for(model, batch, drop=[]))
    itself = torch.eye(len(found), dtype=torch.bool)
    assert torch.equal(found & ~itself, sees(batch.doc_BS))


@pytest.mark.parametrize("variant", [*DENOISING, *QUANTIZED])
def test_losses_of_dropped_places_depend_on_nothing_else(variant: str) -> None:
    """A dropped place sees no context, and stays context for those after it."""
    model = toy_model(variant)
    batch = packed_row(model)
    found = dependence(model, batch, draws_for(model, batch, drop=[2, 6]))
    expected = sees(batch.doc_BS)
    expected[[2, 6]] = False
    assert torch.equal(found & ~torch.eye(len(found), dtype=torch.bool), expected)


@variants
def test_predictions_depend_on_what_precedes_in_the_document(variant: str) -> None:
    """Bit for bit the same elsewhere: every concept of a packed row is changed in turn."""
    model = toy_model(variant)
    batch = packed(documents(*LENGTHS))
    greedy = {"temperature": 0.0} if variant in QUANTIZED else {}
    before = model.predict(batch, quick(model, **greedy), seeds=[3])
    for changed in range(sum(LENGTHS)):
        x_BSD = batch.x_BSD.clone()
        # far enough for Quant-LCM, whose predictions are sums of centroids, to choose another somewhere
        x_BSD[0, changed] = -x_BSD[0, changed] + 0.3
        after = model.predict(batch._replace(x_BSD=x_BSD), quick(model, **greedy), seeds=[3])
        differs_S = (before != after).any(dim=-1)[0]
        may_differ_S = sees(batch.doc_BS)[:, changed]
        assert not (differs_S & ~may_differ_S).any()
        if variant not in QUANTIZED:
            assert torch.equal(differs_S, may_differ_S)
        else:
            assert differs_S.any() or not may_differ_S.any()

"""Guidance and known answers on whole models: what g = 0 and g = 1 mean, and that sampling finds what is known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from toylcm import DENOISING, DIM, GENERATIVE, documents, quick, toy_model

from lcm_models.diffusion.model import DiffusionModel
from lcm_models.model import Batch, ConceptModel, Noise, Query, State

generative = pytest.mark.parametrize("variant", GENERATIVE)


def settings(model: ConceptModel, guidance: float) -> Any:
    """Without what else would move the result: rescaling acts on any guidance, chance is kept."""
    return quick(model, guidance=guidance, **({"rescale": 0.0} if isinstance(model, DiffusionModel) else {}))


def unconditional(model: ConceptModel, state: State, seed: int) -> Tensor:
    """The next concept by a query that may see nothing, unguided."""
    allowed = torch.zeros(1, 1, state.doc_BS.shape[1], dtype=torch.bool)
    noise = Noise([torch.Generator().manual_seed(seed)], 1, model.device)
    query = Query(allowed, torch.tensor([[state.lengths[0]]]), noise)
    with torch.no_grad():
        return model._next(state, query, settings(model, 1.0))[:, 0]


@generative
def test_guidance_zero_is_no_context(variant: str) -> None:
    """It gives what a place without context gives, whatever the context is."""
    model, (one, other) = toy_model(variant, shake=0.3), documents(5, 5)  # strong enough to change codes, too
    found = [model.next_concepts(model.start([prefix], [7]), settings(model, 0.0)) for prefix in (one, other)]
    alone = unconditional(model, model.start([one], [7]), seed=7)
    scale = float(model.scaler.scale_D.mean())
    assert torch.allclose(found[0], alone, atol=1e-4 * scale)
    assert torch.allclose(found[0], found[1], atol=1e-4 * scale)
    given = [model.next_concepts(model.start([prefix], [7]), settings(model, 1.0)) for prefix in (one, other)]
    assert not torch.allclose(given[0], given[1], atol=1e-2 * scale)


@generative
def test_guidance_one_is_the_context_alone(variant: str) -> None:
    """The guided path, both passes computed and mixed with weights 1 and 0, gives the unguided result."""
    model, (prefix,) = toy_model(variant), documents(5)
    plain = model.next_concepts(model.start([prefix], [7]), settings(model, 1.0))
    # 1.0 itself takes the path of one pass: the next number above it takes the other.
    both = model.next_concepts(model.start([prefix], [7]), settings(model, 1.0000001))
    assert torch.allclose(plain, both, atol=1e-4 * float(model.scaler.scale_D.mean()))


@pytest.mark.parametrize("variant", DENOISING)
@pytest.mark.parametrize("steps", [1, 2, 7, 40, 100])
def test_a_network_that_knows_is_believed(variant: str, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the paper's settings (guidance, rescaling, noise scales): both passes say the same, so nothing moves it."""
    model = toy_model(variant)
    assert isinstance(model, DiffusionModel)
    batch = Batch.of(documents(6))
    answer_BSD = model.scaler.normalize(batch.x_BSD)

    def knows(state: State, x_BQD: Tensor, *_: Any) -> Tensor:
        return answer_BSD.repeat(1, x_BQD.shape[1] // answer_BSD.shape[1], 1)

    monkeypatch.setattr(model, "_denoise", knows)
    found = model.predict(batch, model.sampling_type(steps=steps))
    assert found.shape == (1, 6, DIM)
    assert torch.allclose(found, batch.x_BSD, atol=1e-4 * float(model.scaler.scale_D.max()))

"""Every variant learns two documents by heart, and what each makes of two continuations that are equally likely."""

from __future__ import annotations

import pytest
import torch
from benchmark import benchmark
from torch import Tensor
from toylcm import DENOISING, GENERATIVE, QUANTIZED, documents, quick, toy_model

from lcm_data.quantize.codebook import Codebook, Provenance
from lcm_models import LCMS
from lcm_models.model import Batch, ConceptModel
from lcm_models.quant_lcm import QuantLCM

mixture = benchmark("toy_mixture")


def repeated(batch: Batch, times: int) -> Batch:
    """Rows again and again, so that a step sees many levels of noise."""
    return Batch(*(None if part is None else part.repeat(times, *[1] * (part.dim() - 1)) for part in batch))  # type: ignore[arg-type]


def with_fitted_codes(model: ConceptModel, batch: Batch, tables_LVD: Tensor) -> Batch:
    """The batch with codes of a codebook that fits its concepts exactly, as k-means on so few of them would."""
    assert isinstance(model, QuantLCM)
    book = Codebook.build(tables_LVD.numpy(), Provenance(encoder="toy"))
    model.set_codebook(book)
    codes = torch.from_numpy(book.encode(batch.x_BSD.flatten(0, 1).numpy())[0].astype("int64"))
    return batch._replace(codes_BSL=codes.view(*batch.doc_BS.shape, -1))


@pytest.mark.parametrize("variant", LCMS)
def test_two_documents_are_learned_by_heart(variant: str) -> None:
    sizes = {"num_levels": 2, "num_units": 10} if variant in QUANTIZED else {}
    model, batch = toy_model(variant, shake=0.0, **sizes), Batch.of(documents(5, 5))
    if variant in QUANTIZED:  # first what the documents have in common, then where they differ
        common = batch.x_BSD.mean(dim=0, keepdim=True).expand(2, -1, -1)
        tables = torch.stack([common.flatten(0, 1), (batch.x_BSD - common).flatten(0, 1)])
        batch = with_fitted_codes(model, batch, tables)
    losses = mixture.train(model, repeated(batch, 8), 80)
    assert sum(losses[-10:]) / 10 < losses[0] / (1000 if variant == "base" else 6)

    exact = {"temperature": 0.0, "guidance": 1.0} if variant in QUANTIZED else {}
    settings = quick(model, **(exact or ({"steps": 20} if variant in DENOISING else {})))
    # From two concepts on (the first could be either document's), each from what was generated before.
    state = model.start(list(batch.x_BSD[:, :2]))
    for place in (2, 3, 4):
        found = model.step(state, settings)
        nearest = torch.cdist(found, batch.x_BSD.flatten(0, 1)).argmin(dim=-1)
        assert nearest.tolist() == [place, 5 + place]


def test_regression_collapses_to_the_mean() -> None:
    result = mixture.continuations("base", 5)
    assert result.to_middle.mean() < 0.1
    assert result.to_ends.min() > 0.9


@pytest.mark.parametrize("variant", GENERATIVE)
def test_the_others_hit_both_ends(variant: str) -> None:
    result = mixture.continuations(variant, 60)
    assert result.to_middle.mean() > 0.8
    assert result.to_ends.min(dim=-1).values.median() < 0.3
    share = (result.to_ends.argmin(dim=-1) == 0).float().mean()
    assert 0.2 < share < 0.8

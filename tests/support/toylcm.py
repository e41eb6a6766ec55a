"""Small models of every variant, documents and codes for them: what the tests of the models share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from lcm_data.normalize import Normalizer
from lcm_data.quantize.codebook import Codebook, Provenance
from lcm_models import LCMS, build_model
from lcm_models.diffusion.model import DiffusionModel
from lcm_models.diffusion.sampler import DiffusionSampling
from lcm_models.model import Batch, ConceptModel
from lcm_models.quant_lcm import QuantLCM

DIM = 16
LEVELS, UNITS = 3, 8
SPREAD = 0.01
"""Deviation of toy concepts, about that of SONAR's dimensions."""

DENOISING = ("one-tower", "two-tower")
QUANTIZED = ("quant-d", "quant-c")
GENERATIVE = (*DENOISING, *QUANTIZED)
assert set(LCMS) == {"base", *GENERATIVE}


def documents(*lengths: int, seed: int = 0) -> list[torch.Tensor]:
    """Random raw concepts."""
    generator = torch.Generator().manual_seed(seed)
    return [SPREAD * torch.randn(length, DIM, generator=generator) + 0.5 * SPREAD for length in lengths]


def normalizer(seed: int = 0) -> Normalizer:
    rng = np.random.default_rng(seed)
    center, scale = rng.normal(0.005, 0.002, DIM), rng.uniform(0.5, 2, DIM) * SPREAD
    return Normalizer(center.astype(np.float32), scale.astype(np.float32))


def codebook(space: str = "raw", levels: int = LEVELS, units: int = UNITS) -> Codebook:
    spread = SPREAD if space == "raw" else 1.0
    shrink = np.array([1.0, 0.5, 0.25, 0.125][:levels])[:, None, None]
    tables = np.random.default_rng(7).normal(size=(levels, units, DIM)) * spread * shrink
    normal = normalizer().fingerprint if space == "normalized" else ""
    provenance = Provenance(encoder="toy", space=space, normalizer=normal)  # type: ignore[arg-type]
    return Codebook.build(tables.astype(np.float32), provenance)


def toy_model(variant: str, *, space: str = "raw", shake: float = 0.05, **settings: Any) -> ConceptModel:
    """A tiny model whose weights are all shaken, so that nothing is zero by initialisation."""
    torch.manual_seed(0)
    small: dict[str, Any] = {"concept_dim": DIM, "width": 32, "num_heads": 2}
    layers = ("num_context_layers", "num_denoiser_layers") if variant == "two-tower" else ("num_layers",)
    small |= dict.fromkeys(layers, 2)
    if variant in QUANTIZED:
        small |= {"num_levels": LEVELS, "num_units": UNITS}
    model = build_model(variant, "tiny", {**small, **settings})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += shake * torch.randn_like(parameter)
    model.set_normalizer(normalizer())
    if isinstance(model, QuantLCM):
        model.set_codebook(codebook(space, settings.get("num_levels", LEVELS), settings.get("num_units", UNITS)))
    return model.eval()


def with_codes(batch: Batch, space: str = "raw", levels: int = LEVELS, units: int = UNITS) -> Batch:
    """The batch with the codes of its concepts."""
    x = batch.x_BSD.flatten(0, 1).numpy()
    book = codebook(space, levels, units)
    codes = book.encode(normalizer().normalize(x) if space == "normalized" else x)[0]
    return batch._replace(codes_BSL=torch.from_numpy(codes.astype(np.int64)).view(*batch.doc_BS.shape, levels))


def packed(parts: list[torch.Tensor], padding: int = 2) -> Batch:
    """All documents in one row, then padding."""
    x_SD = torch.cat([*parts, torch.zeros(padding, DIM)])
    ids = [number for number, part in enumerate(parts) for _ in part] + [-1] * padding
    return Batch(x_SD[None], torch.tensor([ids]))


def quick(model: ConceptModel, **settings: Any) -> Any:
    """Sampling settings with few steps."""
    if isinstance(model, DiffusionModel):
        return DiffusionSampling(**{"steps": 4, **settings})
    return model.sampling_type(**settings)

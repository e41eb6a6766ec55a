"""Sentence vectors as a concept model would hand them to the decoder: not quite right. For fine-tuning the decoder.

Noise mixes a normalised vector with a Gaussian (arXiv 2412.08821, eq 27); quantisation puts its codes in its place, all
of them or the first two thirds or more (§7.1). Shapes: M vectors, D dimensions, L levels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lcm_data.normalize import Normalizer
from lcm_data.quantize.codebook import Codebook
from lcm_models.sonar.config import SonarConfig


@dataclass(frozen=True)
class Disturbance:
    """What is done to the vectors of a batch; ``normalizer`` for noise, ``codebook`` for quantisation."""

    config: SonarConfig
    normalizer: Normalizer | None
    codebook: Codebook | None

    def __call__(self, emb_MD: Tensor) -> Tensor:
        """Each vector as it is, noised or quantised, by chance (PyTorch's global generator of the device)."""
        draw_M1 = torch.rand(len(emb_MD), 1, device=emb_MD.device)
        quantized_M1 = draw_M1 < self.config.quantized_share
        noised_M1 = ~quantized_M1 & (torch.rand_like(draw_M1) < self.config.noise_share)
        disturbed_MD = emb_MD
        if self.config.noise:
            disturbed_MD = torch.where(noised_M1, self.noised(emb_MD), disturbed_MD)
        if self.config.quantized_share:
            disturbed_MD = torch.where(quantized_M1, self.quantized(emb_MD.detach()), disturbed_MD)
        return disturbed_MD

    def noised(self, emb_MD: Tensor) -> Tensor:
        """``denormalize(sqrt(1 - a) normalize(x) + sqrt(a) e)`` with a level a drawn for each vector."""
        assert self.normalizer is not None
        center_D, scale_D = (
            torch.as_tensor(array, dtype=emb_MD.dtype, device=emb_MD.device)
            for array in (self.normalizer.center, self.normalizer.scale)
        )
        level_M1 = self.config.noise * torch.rand(len(emb_MD), 1, device=emb_MD.device)
        normal_MD = (emb_MD - center_D) / scale_D
        mixed_MD = (1 - level_M1).sqrt() * normal_MD + level_M1.sqrt() * torch.randn_like(normal_MD)
        return center_D + scale_D * mixed_MD

    def quantized(self, emb_MD: Tensor) -> Tensor:
        """Sums of the centroids of each vector's codes: of all levels, or of a number drawn from 2/3 of them on."""
        assert self.codebook is not None
        book = self.codebook
        raw = emb_MD.float().cpu().numpy()
        normal = book.provenance.space == "normalized"
        codes_ML, _ = book.encode(self.normalizer.normalize(raw) if normal and self.normalizer else raw)
        levels_M = torch.full((len(raw),), book.num_levels)
        least = -(-2 * book.num_levels // 3)
        is_partial_M = torch.rand(len(raw)) < self.config.partial_share
        drawn_M = torch.randint(least, book.num_levels + 1, (len(raw),))
        levels_M = torch.where(is_partial_M, drawn_M, levels_M)
        sums_MD = torch.empty(len(raw), book.dim)
        for levels in sorted(set(levels_M.tolist())):
            rows = levels_M == levels
            sums = book.decode(codes_ML[rows.numpy()], levels)
            sums = self.normalizer.denormalize(sums) if normal and self.normalizer else sums
            sums_MD[rows] = torch.from_numpy(sums)
        return sums_MD.to(emb_MD)

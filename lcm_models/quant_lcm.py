"""Quant-LCM: a concept is completed code by code, from the sum of its first centroids (LCM paper §2.3.5).

The tower of One-Tower, with the noisy concept replaced by the sum of the centroids chosen so far and the level of noise
by the number of the codebook to choose from, 1 to L (0: clean). Quant-LCM-d outputs a distribution over the units of
that codebook; Quant-LCM-c the whole concept, and the unit is the one nearest to what is still missing. There is no
official code. Context concepts are the continuous ones, which the paper leaves open.

Shapes: B rows, S concepts, Q places, D concept width, L levels of the codebook, V units a level, C level width.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Generator, Tensor, nn

from lcm_data.errors import UsageError
from lcm_data.quantize.codebook import Codebook
from lcm_models.attention import KVCache
from lcm_models.choose import choose
from lcm_models.config import Frozen
from lcm_models.diffusion.objective import draw_dropped, uniform
from lcm_models.interleaved import InterleavedConfig, InterleavedTower
from lcm_models.layers import ExactBuffers
from lcm_models.model import Batch, ConceptModel, Draws, Loss, Query, State, loss_of, squared_error


class QuantConfig(InterleavedConfig):
    """Defaults: the paper's 1.6B models with its codebook of 64 levels of 8192 units."""

    num_levels: int = Field(64, ge=1, description="Levels of the codebook.")
    num_units: int = Field(8192, ge=2, description="Units of a level.")
    drop_context: float = Field(0.15, ge=0, le=1, description="Share of places trained without context, for guidance.")


class QuantSampling(Frozen):
    """How a unit is chosen at every level; the defaults are the paper's for several sentences with Quant-LCM-d."""

    guidance: float = Field(
        1.0, description="Strength g: out = free + g (given - free), on logits (d) or concepts (c)."
    )
    temperature: float = Field(1.0, ge=0, description="Divisor of the scores; 0 takes the best unit.")
    top_k: int = Field(3, ge=0, description="Choose among so many best units; 0 for all.")
    top_p: float = Field(
        1.0, gt=0, le=1, description="Choose among the best units that hold this share of probability."
    )


class ContinuousSampling(QuantSampling):
    """The same, with the paper's values for Quant-LCM-c: probability ``exp(-distance / temperature)`` (eq 23).

    The temperature goes with distances in the codebook's space; the paper's, 0.005, with those of raw SONAR.
    """

    guidance: float = Field(1.5, description="Strength g of guidance on the predicted concept.")
    temperature: float = Field(0.005, ge=0, description="1 / beta of eq 23; 0 takes the nearest unit.")
    top_k: int = Field(5, ge=0, description="Choose among so many nearest units; 0 for all.")


class Centroids(ExactBuffers):
    """The codebook as part of the model; not saved with the weights, so set it after loading them."""

    tables_LVD: Tensor
    normalized: bool

    def __init__(self, num_levels: int, num_units: int, dim: int) -> None:
        super().__init__()
        self.shape = (num_levels, num_units, dim)
        self.loaded = False
        self.normalized = False
        self.register_buffer("tables_LVD", torch.zeros(1, 1, 1), persistent=False)

    def load(self, codebook: Codebook) -> None:
        """Take over the centroids and the space they lie in."""
        found = (codebook.num_levels, codebook.num_units, codebook.dim)
        if found != self.shape:
            raise UsageError(
                f"the codebook has {found[0]} levels of {found[1]} units in {found[2]} dimensions, the model was made "
                f"for {self.shape[0]} of {self.shape[1]} in {self.shape[2]}: set num_levels, num_units, concept_dim."
            )
        self.tables_LVD = torch.from_numpy(codebook.tables_MKD.copy()).to(self.tables_LVD.device)
        self.normalized = codebook.provenance.space == "normalized"
        self.loaded = True

    def partial_sum(self, codes_BSL: Tensor, num_first_BS: Tensor) -> Tensor:
        """Sum of the first ``num_first_BS`` centroids of every concept, float32 [B, S, D]."""
        num_levels, num_units, dim = self.shape
        level_L = torch.arange(num_levels, device=codes_BSL.device)
        use_BSL = (level_L < num_first_BS.unsqueeze(-1)).float()
        index_BSL = codes_BSL.long() + level_L * num_units
        flat_NL = index_BSL.flatten(0, 1)
        weight_NL = use_BSL.flatten(0, 1)
        sum_ND = F.embedding_bag(flat_NL, self.tables_LVD.view(-1, dim), mode="sum", per_sample_weights=weight_NL)
        return sum_ND.view(*codes_BSL.shape[:2], dim)


class QuantLCM(ConceptModel):
    """What both variants share: inputs, guidance, the loop over levels."""

    config: QuantConfig
    config_type = QuantConfig
    sampling_type = QuantSampling
    needs_codes = True

    def __init__(self, config: QuantConfig, output_dim: int) -> None:
        super().__init__(config)
        self.centroids = Centroids(config.num_levels, config.num_units, config.concept_dim)
        self.embed_level = nn.Embedding(config.num_levels + 1, config.level_dim)
        self.network = InterleavedTower(config, output_dim)

    def set_codebook(self, codebook: Codebook) -> None:
        """The codebook whose codes the model learns; set it before training and after loading weights.

        Raises:
            UsageError: its sizes are not the config's.
        """
        self.centroids.load(codebook)

    def check(self, batch: Batch) -> None:
        """Also refuse to work without a codebook, and codes of another number of levels."""
        super().check(batch)
        if not self.centroids.loaded:
            raise UsageError("this model has no codebook: call set_codebook with the one the codes were made with.")

    def draw(self, batch: Batch, generator: Generator | None = None) -> Draws:
        """A codebook 1 to L and whether context is dropped, for every place on its own."""
        shape, device = (batch.doc_BS.shape[0], batch.doc_BS.shape[1]), batch.doc_BS.device
        level_BS = 1 + (uniform(shape, generator, device) * self.config.num_levels).long()
        official = self.config.official_compat
        drop_BS = draw_dropped(self.config.drop_context, shape, generator, device, official)
        return Draws(level_BS.clamp(max=self.config.num_levels), drop_BS)

    def loss(self, batch: Batch, draws: Draws | None = None) -> Loss:
        """The loss of choosing at a random level, given the centroids before it; every concept is a target."""
        self.check(batch)
        level_BS, drop_BS, _ = draws or self.draw(batch)
        assert batch.codes_BSL is not None
        if batch.codes_BSL.shape[-1] != self.config.num_levels:
            raise UsageError(f"codes of {batch.codes_BSL.shape[-1]} levels, the model has {self.config.num_levels}.")
        x_BSD = self.scaler.normalize(batch.x_BSD)
        partial_BSD = self.centroids.partial_sum(batch.codes_BSL, level_BS - 1)
        table_TC = self.embed_level.weight
        output_BSX = self.network(x_BSD, self._input(partial_BSD), level_BS, table_TC, drop_BS, batch.doc_BS)
        code_BS = batch.codes_BSL.long().gather(-1, (level_BS - 1).unsqueeze(-1)).squeeze(-1)
        return self._loss(output_BSX, x_BSD, code_BS, batch.targets())

    def _input(self, partial: Tensor) -> Tensor:
        """A sum of centroids as the network takes it: normalised."""
        return partial if self.centroids.normalized else self.scaler.normalize(partial)

    def _context(self, state: State, x_BSD: Tensor, position_BS: Tensor, mask: Tensor) -> None:
        state.context = state.context or [KVCache() for _ in self.network.tower.layers]
        self.network.read(state.context, x_BSD, self.embed_level.weight, position_BS, mask)

    def _next(self, state: State, query: Query, sampling: QuantSampling) -> Tensor:
        """Level by level; with guidance the places are doubled, the second half seeing no context."""
        if not self.centroids.loaded:
            raise UsageError("this model has no codebook: call set_codebook with the one it was trained with.")
        state.context = state.context or [KVCache() for _ in self.network.tower.layers]
        allowed_BQS, position_BQ, noise = query
        guided, num = sampling.guidance != 1, position_BQ.shape[1]
        if guided:
            allowed_BQS = torch.cat([allowed_BQS, torch.zeros_like(allowed_BQS)], dim=1)
            position_BQ = torch.cat([position_BQ, position_BQ], dim=1)
        chance_BQL = noise.uniform(self.config.num_levels)
        sum_BQD = torch.zeros(*chance_BQL.shape[:2], self.config.concept_dim, device=self.device)
        table_TC = self.embed_level.weight
        for level in range(1, self.config.num_levels + 1):
            input_BQD = self._input(sum_BQD).repeat(1, 1 + guided, 1)
            out = self.network.complete(state.context, input_BQD, level, table_TC, allowed_BQS, position_BQ).float()
            if guided:
                out = out[:, num:] + sampling.guidance * (out[:, :num] - out[:, num:])
            centroids_VD = self.centroids.tables_LVD[level - 1]
            score_BQV = self._scores(out, sum_BQD, centroids_VD)
            code_BQ = choose(
                score_BQV, chance_BQL[..., level - 1], sampling.temperature, sampling.top_k, sampling.top_p
            )
            sum_BQD = sum_BQD + F.embedding(code_BQ, centroids_VD)
        return self.scaler.denormalize(sum_BQD) if self.centroids.normalized else sum_BQD

    @abstractmethod
    def _loss(self, output_BSX: Tensor, x_BSD: Tensor, code_BS: Tensor, targets_BS: Tensor) -> Loss:
        """From the network's outputs, the normalised concepts and their codes at the level asked for."""

    @abstractmethod
    def _scores(self, output_BQX: Tensor, sum_BQD: Tensor, centroids_VD: Tensor) -> Tensor:
        """Log-probabilities of the units, up to a constant and temperature [B, Q, V]."""


class QuantLCMDiscrete(QuantLCM):
    """Quant-LCM-d: softmax over the units of the next codebook, one head for all codebooks."""

    def __init__(self, config: QuantConfig) -> None:
        super().__init__(config, config.num_units)

    def _loss(self, output_BSX: Tensor, x_BSD: Tensor, code_BS: Tensor, targets_BS: Tensor) -> Loss:
        error_BS = F.cross_entropy(output_BSX.float().flatten(0, 1), code_BS.flatten(), reduction="none").view_as(
            code_BS
        )
        right_BS = output_BSX.argmax(dim=-1) == code_BS
        return loss_of(error_BS, targets_BS, cross_entropy=error_BS, accuracy=right_BS)

    def _scores(self, output_BQX: Tensor, sum_BQD: Tensor, centroids_VD: Tensor) -> Tensor:
        return output_BQX


class QuantLCMContinuous(QuantLCM):
    """Quant-LCM-c: regress the whole concept; units by their distance to the part that is missing."""

    sampling_type = ContinuousSampling

    def __init__(self, config: QuantConfig) -> None:
        super().__init__(config, config.concept_dim)

    def _loss(self, output_BSX: Tensor, x_BSD: Tensor, code_BS: Tensor, targets_BS: Tensor) -> Loss:
        error_BS = squared_error(output_BSX, x_BSD)
        return loss_of(error_BS, targets_BS, squared_error=error_BS)

    def _scores(self, output_BQX: Tensor, sum_BQD: Tensor, centroids_VD: Tensor) -> Tensor:
        guess_BQD = output_BQX if self.centroids.normalized else self.scaler.denormalize(output_BQX)
        missing_ND = (guess_BQD - sum_BQD).flatten(0, 1)
        return -torch.cdist(missing_ND, centroids_VD).view(*sum_BQD.shape[:2], -1)

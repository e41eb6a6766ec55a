"""What the variants that denoise have in common: noising, loss and sampling; networks are theirs.

Shapes: B rows, S concepts, Q places, D concept width.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from pydantic import Field
from torch import Generator, Tensor

from lcm_data.errors import UsageError
from lcm_models.config import ModelConfig
from lcm_models.diffusion.fragility import FragilityRegressor, fragility_weight
from lcm_models.diffusion.objective import (
    DiffusionConfig,
    draw_dropped,
    draw_levels,
    normal,
    snr_weight,
)
from lcm_models.diffusion.sampler import DiffusionSampling, sample
from lcm_models.diffusion.schedules import Schedule, to_x0
from lcm_models.model import Batch, ConceptModel, Draws, Loss, Query, State, loss_of, squared_error


class DiffusionModelConfig(ModelConfig):
    """Settings of a variant that denoises."""

    diffusion: DiffusionConfig = Field(DiffusionConfig(), description="Schedule, objective and guidance training.")


class DiffusionModel(ConceptModel):
    """Training and sampling around a network that sees context and a noisy concept."""

    config: DiffusionModelConfig
    sampling_type = DiffusionSampling

    def __init__(self, config: DiffusionModelConfig) -> None:
        super().__init__(config)
        self.schedule = Schedule(config.diffusion.schedule)
        self._fragility: tuple[FragilityRegressor, ...] = ()

    def set_fragility(self, regressor: FragilityRegressor) -> None:
        """What weighs errors if the config says so; it moves with the model, and is neither trained nor saved with it.

        Raises:
            UsageError: it is for concepts of another width.
        """
        if regressor.dim != self.config.concept_dim:
            raise UsageError(
                f"the regressor of fragility is for concepts of {regressor.dim} dimensions, the model for "
                f"{self.config.concept_dim}: fit one on this corpus."
            )
        # In a tuple PyTorch does not take it for a part of the model.
        self._fragility = (regressor.to(self.device).requires_grad_(False).eval(),)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> DiffusionModel:
        for regressor in self._fragility:
            regressor._apply(fn)  # type: ignore[no-untyped-call]
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def draw(self, batch: Batch, generator: Generator | None = None) -> Draws:
        """A level of noise, the noise, and whether context is dropped, for every place on its own."""
        (num_rows, num_columns), device, config = batch.doc_BS.shape, batch.doc_BS.device, self.config.diffusion
        shape, official = (num_rows, num_columns), self.config.official_compat
        level_BS = draw_levels(config, shape, generator, device)
        drop_BS = draw_dropped(config.drop_context, shape, generator, device, official)
        return Draws(level_BS, drop_BS, normal((*shape, self.config.concept_dim), generator, device))

    def loss(self, batch: Batch, draws: Draws | None = None) -> Loss:
        """Weighted squared error of the denoised concepts (eq 16); every concept is a target, the first included."""
        self.check(batch)
        level_BS, drop_BS, noise_BSD = draws or self.draw(batch)
        assert noise_BSD is not None
        x_BSD = self.scaler.normalize(batch.x_BSD)
        noisy_BSD = self.schedule.add_noise(x_BSD, noise_BSD, level_BS)
        output_BSD = self._denoise_all(x_BSD, noisy_BSD, level_BS, drop_BS, batch.doc_BS).float()
        prediction = self.config.diffusion.prediction
        wanted_BSD = self.schedule.value_of(prediction, x_BSD, noise_BSD, level_BS)
        error_BS = squared_error(output_BSD, wanted_BSD)
        targets_BS = batch.targets()
        guess_BSD = to_x0(prediction, output_BSD.detach(), noisy_BSD, *self.schedule.at(level_BS))
        return loss_of(
            error_BS * self._weight(x_BSD, level_BS, targets_BS),
            targets_BS,
            squared_error=squared_error(guess_BSD, x_BSD),
        )

    def _weight(self, x_BSD: Tensor, level_BS: Tensor, targets_BS: Tensor) -> Tensor:
        """Weight of each error [B, S] (or a single 1)."""
        config = self.config.diffusion
        if config.weighting == "none":
            return torch.ones((), device=x_BSD.device)
        if config.weighting == "fragility":
            if not self._fragility:
                raise UsageError("weighting by fragility: call set_fragility with a trained regressor first.")
            return fragility_weight(self._fragility[0](x_BSD).float(), config.fragility)
        weight_BS = snr_weight(self.schedule.log_snr_T[level_BS], config.snr_clamp)
        if self.config.official_compat:  # the official code scales the weights of a batch to a mean of 1
            total = (weight_BS * targets_BS).sum().clamp(min=1e-8)
            weight_BS = weight_BS * targets_BS.sum() / total
        return weight_BS

    def _next(self, state: State, query: Query, sampling: DiffusionSampling) -> Tensor:
        """Sample; with guidance the places are doubled, the second half seeing no context."""
        guided = sampling.guidance != 1
        allowed_BQS, position_BQ, noise = query
        num = position_BQ.shape[1]
        if guided:
            allowed_BQS = torch.cat([allowed_BQS, torch.zeros_like(allowed_BQS)], dim=1)
            position_BQ = torch.cat([position_BQ, position_BQ], dim=1)

        def denoise(x_BQD: Tensor, level: int) -> tuple[Tensor, Tensor | None]:
            x_BQD = torch.cat([x_BQD, x_BQD], dim=1) if guided else x_BQD
            output_BQD = self._denoise(state, x_BQD, level, allowed_BQS, position_BQ)
            return output_BQD[:, :num], output_BQD[:, num:] if guided else None

        prediction = self.config.diffusion.prediction
        x0_BQD = sample(denoise, self.schedule, prediction, sampling, noise, self.config.concept_dim)
        return self.scaler.denormalize(x0_BQD)

    @abstractmethod
    def _denoise_all(
        self, x_BSD: Tensor, noisy_BSD: Tensor, level_BS: Tensor, drop_BS: Tensor, doc_BS: Tensor
    ) -> Tensor:
        """The network's output for the noisy form of every concept, given the clean ones before it [B, S, D]."""

    @abstractmethod
    def _denoise(self, state: State, x_BQD: Tensor, level: int, allowed_BQS: Tensor, position_BQ: Tensor) -> Tensor:
        """The network's output for noisy concepts at one level, given the allowed part of the context [B, Q, D]."""

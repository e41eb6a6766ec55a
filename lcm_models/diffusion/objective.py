"""Training of a denoiser: which levels of noise, how errors weigh, which places go without context (LCM paper §2.3.2).

Shapes: B rows, S concepts, D concept width, T noise levels.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Generator, Tensor

from lcm_models.config import Frozen
from lcm_models.diffusion.schedules import Prediction, ScheduleConfig


class DiffusionConfig(Frozen):
    """How a denoiser is trained; the defaults are the paper's."""

    schedule: ScheduleConfig = ScheduleConfig()
    prediction: Prediction = Field("x0", description="What the network outputs.")
    level_sampling: Literal["uniform", "beta"] = Field(
        "uniform", description="Levels in training: uniform, or with the density of a Beta distribution."
    )
    beta: tuple[float, float] = Field((0.8, 1.0), description="Parameters of the Beta distribution.")
    weighting: Literal["none", "snr", "fragility"] = Field(
        "none", description="Weight of an error: 1, the clamped signal-to-noise ratio (eq 17), by fragility (eq 18)."
    )
    snr_clamp: tuple[float, float] = Field((0.0, 5.0), description="Bounds of the SNR weight; the paper also (0, 10).")
    fragility: tuple[float, float] = Field((-4.0, 3.5), description="a and b of eq 19.")
    regressor: str | None = Field(
        None, description="Of fragility: a file that lcm_models.diffusion.fragility wrote; needed to train with it."
    )
    drop_context: float = Field(0.15, ge=0, le=1, description="Share of places trained without context, for guidance.")

    @model_validator(mode="after")
    def _fits(self) -> DiffusionConfig:
        if self.prediction == "epsilon" and self.schedule.zero_terminal_snr:
            raise ValueError(
                "prediction 'epsilon' says nothing where a level is noise only: "
                "choose 'x0' or 'v', or set schedule.zero_terminal_snr to false"
            )
        if self.regressor is not None and self.weighting != "fragility":
            raise ValueError(f"regressor is for weighting 'fragility', and weighting is {self.weighting!r}")
        return self


def level_probabilities(config: DiffusionConfig) -> Tensor:
    """Probability of each level in training, float64 [T]: uniform, or Beta(a, b) at (level + 1) / T."""
    num = config.schedule.num_levels
    if config.level_sampling == "uniform":
        return torch.full((num,), 1 / num, dtype=torch.float64)
    a, b = config.beta
    place = torch.arange(1, num + 1, dtype=torch.float64) / num
    density = place ** (a - 1) * (1 - place).clamp(min=0.5 / num) ** (b - 1)  # finite at 1, where b < 1 diverges
    return density / density.sum()


def draw_levels(
    config: DiffusionConfig, shape: tuple[int, ...], generator: Generator | None, device: torch.device
) -> Tensor:
    """Independent levels, int64 of ``shape``."""
    edges = level_probabilities(config).cumsum(0).float().to(device)
    return torch.searchsorted(edges, uniform(shape, generator, device)).clamp(max=config.schedule.num_levels - 1)


def draw_dropped(
    share: float, shape: tuple[int, int], generator: Generator | None, device: torch.device, official: bool
) -> Tensor:
    """Places [B, S] that are to be predicted without context: each on its own with probability ``share``.

    The official code takes floor((S - 1) * share) columns, the same in every row, hence none of up to 7: ``official``.
    """
    if not official:
        return uniform(shape, generator, device) < share
    num_columns = shape[1]
    order = uniform((num_columns,), generator, device).argsort()
    dropped_S = torch.zeros(num_columns, dtype=torch.bool, device=device)
    dropped_S[order[: int((num_columns - 1) * share)]] = True
    return dropped_S.expand(shape)


def uniform(shape: tuple[int, ...], generator: Generator | None, device: torch.device) -> Tensor:
    """Uniform in [0, 1), drawn where the generator is."""
    place = device if generator is None else generator.device
    return torch.rand(shape, generator=generator, device=place).to(device)


def normal(shape: tuple[int, ...], generator: Generator | None, device: torch.device) -> Tensor:
    """Standard normal, drawn where the generator is."""
    place = device if generator is None else generator.device
    return torch.randn(shape, generator=generator, device=place).to(device)


def snr_weight(log_snr: Tensor, clamp: tuple[float, float]) -> Tensor:
    """Eq 17: the signal-to-noise ratio between two bounds."""
    return log_snr.exp().clamp(*clamp)

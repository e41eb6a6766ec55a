"""Noise schedules, and conversions between what a denoiser can predict (LCM paper §2.3.2).

A schedule is variance preserving: ``x_t = alpha_t x_0 + sigma_t eps`` with ``alpha_t^2 + sigma_t^2 = 1`` (eq 7). It is
computed in float64 from the formula, so that 1 - alpha^2 is right even where alpha rounds to 1. Who picks the steps
and weighs the errors: ``objective`` and ``sampler``.

Shapes: T noise levels, level 0 the least noisy.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor

from lcm_models.config import Frozen
from lcm_models.layers import ExactBuffers

Prediction = Literal["x0", "epsilon", "v"]
"""What the network outputs: the clean concept, the noise, or ``v = alpha eps - sigma x_0``."""

Array = npt.NDArray[np.float64]

MAX_BETA = 0.999


class ScheduleConfig(Frozen):
    """A schedule by name and its parameters; those of other schedules are ignored.

    The paper's prose and its eq 14 swap the names of the sigmoid's two numbers: "Sigmoid(1.5, -1)" is scale 1.5,
    centre -1, and the log-SNR is then distributed about the centre.
    """

    name: Literal["cosine", "quadratic", "sigmoid"] = Field("cosine", description="Eq 12, 13 or 14.")
    num_levels: int = Field(100, ge=2, description="Noise levels T in training.")
    offset: float = Field(0.008, ge=0, description="Cosine: the s of eq 12.")
    beta_first: float = Field(0.001, gt=0, lt=1, description="Quadratic: first beta; Quadratic-2 has 0.02.")
    beta_last: float = Field(0.0012, gt=0, lt=1, description="Quadratic: last beta; Quadratic-2 has 0.022.")
    scale: float = Field(1.5, gt=0, description="Sigmoid: factor of the logit, gamma in eq 14.")
    center: float = Field(-1.0, description="Sigmoid: delta in eq 14.")
    zero_terminal_snr: bool = Field(True, description="Rescale so that the last level is noise only.")


def alphas_bar(config: ScheduleConfig) -> tuple[Array, Array]:
    """``alpha_t^2`` and ``1 - alpha_t^2`` float64 [T], the second exact where the first is close to 1."""
    beta = _quadratic(config) if config.name == "quadratic" else _betas_of_bar(config)
    log_bar = np.cumsum(np.log1p(-beta))
    bar, rest = np.exp(log_bar), -np.expm1(log_bar)
    if not config.zero_terminal_snr:
        return bar, rest
    # Lin et al. 2024, algorithm 1: sqrt(bar) is shifted to end at 0 and scaled to begin where it did.
    root = np.sqrt(bar)
    moved = (root - root[-1]) * root[0] / (root[0] - root[-1])
    # root[0] - moved without cancellation gives 1 - moved^2 = rest[0] + (root[0] - moved)(root[0] + moved).
    gap = (root[0] - root) * root[0] / (root[0] - root[-1])
    return np.square(moved), rest[0] + gap * (root[0] + moved)


def _quadratic(config: ScheduleConfig) -> Array:
    """Eq 13."""
    root = np.linspace(math.sqrt(config.beta_first), math.sqrt(config.beta_last), config.num_levels)
    return np.square(root)


def _betas_of_bar(config: ScheduleConfig) -> Array:
    """``1 - f((i+1)/T) / f(i/T)``, cut at 0.999, for the f of eq 12 or 14."""
    time = np.arange(config.num_levels + 1) / config.num_levels
    if config.name == "cosine":
        f = np.cos((time + config.offset) / (1 + config.offset) * math.pi / 2) ** 2
        log_f = np.log(np.maximum(f, 1e-300))
    else:
        inside = np.clip(time, 1e-32, 1 - 1e-16)
        logit = np.log(inside) - np.log1p(-inside)
        log_f = -np.logaddexp(0, config.scale * logit - config.center)
    beta: Array = np.minimum(-np.expm1(np.diff(log_f)), MAX_BETA)
    return beta


class Schedule(ExactBuffers):
    """A schedule as tensors float32 [T] that live with the model: ``alpha_T``, ``sigma_T``, ``log_snr_T``.

    The log-SNR of a level that is noise only is clamped to a finite value.
    """

    alpha_T: Tensor
    sigma_T: Tensor
    log_snr_T: Tensor

    def __init__(self, config: ScheduleConfig) -> None:
        super().__init__()
        self.config = config
        for name in ("alpha_T", "sigma_T", "log_snr_T"):
            self.register_buffer(name, torch.empty(config.num_levels), persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """(Re)compute the tables."""
        bar, rest = alphas_bar(self.config)
        log_snr = np.log(np.maximum(bar, 1e-20)) - np.log(rest)
        for buffer, table in zip(self.buffers(), (np.sqrt(bar), np.sqrt(rest), log_snr), strict=True):
            buffer.copy_(torch.from_numpy(table))

    @property
    def num_levels(self) -> int:
        """T."""
        return self.config.num_levels

    def at(self, level: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and sigma of integer levels, float32 [..., 1] to go with concepts [..., D]."""
        return self.alpha_T[level].unsqueeze(-1), self.sigma_T[level].unsqueeze(-1)

    def add_noise(self, x0: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        """``x_t`` (eq 7): concepts and noise [..., D], levels [...]."""
        alpha, sigma = self.at(level)
        return alpha * x0 + sigma * noise

    def value_of(self, prediction: Prediction, x0: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        """What a perfect network would output."""
        alpha, sigma = self.at(level)
        return {"x0": x0, "epsilon": noise, "v": alpha * noise - sigma * x0}[prediction]


def to_x0(prediction: Prediction, output: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """The clean concept an output stands for; from epsilon only where alpha > 0."""
    if prediction == "epsilon":
        return (x_t - sigma * output) / alpha
    return alpha * x_t - sigma * output if prediction == "v" else output


def to_epsilon(prediction: Prediction, output: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """The noise an output stands for."""
    if prediction == "x0":
        return (x_t - alpha * output) / sigma
    return alpha * output + sigma * x_t if prediction == "v" else output

"""DDIM sampling: from noise to a concept, with classifier-free guidance (LCM paper §2.3.2, eq 20).

A network is a function from noisy concepts and a level to outputs; this module knows nothing else about it.

Shapes: B rows, Q places, D concept width, T noise levels of training, of which some are visited.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from lcm_data.errors import UsageError
from lcm_models.config import Frozen
from lcm_models.diffusion.schedules import Prediction, Schedule, to_epsilon, to_x0
from lcm_models.model import Noise

Denoiser = Callable[[Tensor, int], tuple[Tensor, Tensor | None]]
"""Noisy concepts [B, Q, D] and a level to outputs [B, Q, D]: with context, and without it (None if not asked for)."""


class DiffusionSampling(Frozen):
    """Settings of the sampler; the defaults are the paper's (§2.4.1)."""

    steps: int = Field(40, ge=1, description="Levels visited.")
    guidance: float = Field(3.0, description="Strength g of guidance: 1 is none, 0 ignores the context.")
    rescale: float = Field(
        0.7, ge=0, le=1, description="Share of the guided noise scaled back to its unguided deviation."
    )
    initial_noise: float = Field(0.6, ge=0, description="Deviation of the noise sampling starts from.")
    epsilon_scale: float = Field(1.00045, gt=0, description="Divisor of the noise in each step (Ning et al. 2023).")
    eta: float = Field(0.0, ge=0, le=1, description="Fresh noise in each step: 0 none (DDIM), 1 as much as DDPM.")
    official_compat: bool = Field(
        False, description="As the official code: visit every (T // steps)-th level (50 of 100 for 40), first unguided."
    )


def sampling_levels(num_levels: int, steps: int, official: bool = False) -> list[int]:
    """The levels to visit, most noisy first ("trailing"): ``round(flip(arange(T, 0, -T / steps))) - 1``.

    The official code computes in integers, which truncates the stride and gives more steps than asked for.

    Raises:
        UsageError: more steps than levels.
    """
    if not 1 <= steps <= num_levels:
        raise UsageError(f"steps: got {steps}, allowed are 1 to {num_levels}, the levels the model was trained with.")
    if official:
        return list(range(num_levels - 1, -1, -(num_levels // steps)))
    # Half-way cases go to the even number, as numpy and torch round.
    return [int(level) - 1 for level in np.round(num_levels - np.arange(steps) * (num_levels / steps))]


def sample(
    denoise: Denoiser,
    schedule: Schedule,
    prediction: Prediction,
    settings: DiffusionSampling,
    noise: Noise,
    dim: int,
) -> Tensor:
    """Concepts float32 [B, Q, D] in the normalised space: the last estimate of x_0."""
    levels = sampling_levels(schedule.num_levels, settings.steps, settings.official_compat)
    x_t = settings.initial_noise * noise.normal(dim)
    x0 = x_t
    for level, (alpha, sigma), (next_alpha, next_sigma) in _steps(schedule, levels):
        outputs = denoise(x_t, level)
        x0, epsilon = _estimate(outputs, x_t, alpha, sigma, prediction, settings)
        # Song et al. 2020, eq 12 and 16.
        fresh = settings.eta * (next_sigma / sigma) * (1 - (alpha / next_alpha) ** 2).clamp(min=0).sqrt()
        direction = (next_sigma**2 - fresh**2).clamp(min=0).sqrt()
        x_t = next_alpha * x0 + direction * epsilon / settings.epsilon_scale
        if settings.eta:
            x_t = x_t + fresh * noise.normal(dim)
    return x0


Pair = tuple[Tensor, Tensor]


def _steps(schedule: Schedule, levels: list[int]) -> Iterator[tuple[int, Pair, Pair]]:
    """Each level with its alpha and sigma and the next ones (1 and 0 after the last)."""
    one = torch.ones_like(schedule.alpha_T[0])
    pairs = [(schedule.alpha_T[level], schedule.sigma_T[level]) for level in levels]
    yield from zip(levels, pairs, [*pairs[1:], (one, torch.zeros_like(one))], strict=True)


def _estimate(
    outputs: tuple[Tensor, Tensor | None],
    x_t: Tensor,
    alpha: Tensor,
    sigma: Tensor,
    prediction: Prediction,
    settings: DiffusionSampling,
) -> Pair:
    """x_0 and epsilon, guided: ``eps_g = eps_u + g (eps_c - eps_u)``, scaled towards the deviation of ``eps_c``.

    Where a level is noise only, both noises are x_t, and the same formula on x_0 stands for its limit; the official
    code takes the unguided x_0 there.
    """
    given, free = (None if output is None else output.float() for output in outputs)
    assert given is not None
    x0 = to_x0(prediction, given, x_t, alpha, sigma)
    epsilon = to_epsilon(prediction, given, x_t, alpha, sigma)
    if free is None:
        return x0, epsilon
    alone = to_epsilon(prediction, free, x_t, alpha, sigma)
    guided = alone + settings.guidance * (epsilon - alone)
    ratio = epsilon.std(dim=-1, keepdim=True) / guided.std(dim=-1, keepdim=True).clamp(min=1e-8)
    guided = guided * (settings.rescale * ratio + 1 - settings.rescale)
    guided_x0 = to_x0("epsilon", guided, x_t, alpha.clamp(min=1e-12), sigma)
    at_first = x0
    if not settings.official_compat:
        free_x0 = to_x0(prediction, free, x_t, alpha, sigma)
        at_first = free_x0 + settings.guidance * (x0 - free_x0)
    noise_only = alpha == 0
    return torch.where(noise_only, at_first, guided_x0), torch.where(noise_only, epsilon, guided)

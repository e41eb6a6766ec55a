"""The learning rate of every step, as a pure function of the step and the settings."""

from __future__ import annotations

import math

from lcm_models.train.config import OptimConfig

_WARMUP_SHARE, _MOST_WARMUP = 0.04, 10_000
"""The paper's 10,000 of 250,000 steps."""


def warmup_steps(config: OptimConfig, max_steps: int) -> int:
    """Steps of the warm-up, chosen or by default."""
    if config.warmup_steps is not None:
        return config.warmup_steps
    return min(_MOST_WARMUP, round(_WARMUP_SHARE * (config.schedule_steps or max_steps)))


def lr_at(step: int, config: OptimConfig, max_steps: int) -> float:
    """Learning rate of ``step`` (from 0): linear to ``lr``, which step W of a warm-up of W steps is first to have.

    Then a half cosine to ``final_fraction * lr``, which the step after the last would have.
    """
    warmup = warmup_steps(config, max_steps)
    if step < warmup:
        return config.lr * (step + 1) / (warmup + 1)
    if config.schedule == "constant":
        return config.lr
    length = max(1, (config.schedule_steps or max_steps) - warmup)
    done = min(1.0, (step - warmup) / length)
    share = config.final_fraction + (1 - config.final_fraction) * (1 + math.cos(math.pi * done)) / 2
    return config.lr * share

"""Choosing one of several units by their scores: temperature, top-k, top-p, with the random number given.

Shapes: leading dimensions [...], V units.
"""

from __future__ import annotations

import torch
from torch import Tensor


def choose(score_V: Tensor, chance: Tensor, temperature: float, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """Sample from ``softmax(score / temperature)`` limited to the best units, by inverting its distribution function.

    Args:
        score_V: [..., V].
        chance: uniform in [0, 1), [...]: the same number and scores give the same unit.
        temperature: 0 takes the best unit.
        top_k: keep so many best units; 0 keeps all.
        top_p: keep the fewest best units whose probabilities reach this.

    Returns:
        Numbers of the units, int64 [...].
    """
    if temperature == 0 or top_k == 1:
        return score_V.argmax(dim=-1)
    kept = min(top_k or score_V.shape[-1], score_V.shape[-1])
    best_K, unit_K = score_V.float().topk(kept, dim=-1)  # sorted, best first
    probability_K = torch.softmax(best_K / temperature, dim=-1)
    below_K = probability_K.cumsum(dim=-1) - probability_K
    probability_K = torch.where(below_K < top_p, probability_K, 0.0)
    edge_K = probability_K.cumsum(dim=-1)
    place = (chance.unsqueeze(-1) * edge_K[..., -1:] >= edge_K).sum(dim=-1, keepdim=True).clamp(max=kept - 1)
    return unit_K.gather(-1, place).squeeze(-1)

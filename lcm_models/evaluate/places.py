"""What a guess of the next concept is worth, for all places of a window at once (LCM paper §2.4.1).

A place counts if a true concept precedes it in the window: the same places for all models, also those that could guess
the first. Distances are of raw concepts.

Shapes: S concepts of a window, N = S - 1 places, D dimensions.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from lcm_models.evaluate.pool import Pool

PAR_FLOOR = 0.05
"""Paraphrase ratios over a smaller cosine are left out: a concept unlike all before it says nothing about copying."""


def place_figures(guess_SD: Tensor, x_SD: Tensor, pool: Pool, document: int, start: int) -> dict[str, Tensor]:
    """Figures [N] of the places 1 to S - 1; NaN where there is none.

    ``l2`` and ``cosine`` between guess and truth; ``ca``, see ``Pool``; ``par``, how like the nearest true concept
    before is the guess, compared with how like the truth is: above 1 it repeats more than the document does.
    """
    guess_ND, x_ND = guess_SD[1:].float(), x_SD[1:].float()
    index_N = torch.arange(start + 1, start + len(x_SD))
    unit_SD = F.normalize(x_SD.float(), dim=1)
    seen_NS = torch.ones(len(x_ND), len(x_SD), dtype=torch.bool).tril()  # row n - 1 is place n, which sees 0 to n - 1
    guess_cosine_N = _nearest(F.normalize(guess_ND, dim=1) @ unit_SD.T, seen_NS)
    true_cosine_N = _nearest(unit_SD[1:] @ unit_SD.T, seen_NS)
    return {
        "l2": (guess_ND - x_ND).norm(dim=1),
        "cosine": F.cosine_similarity(guess_ND, x_ND, dim=1),
        "ca": pool.accuracy(guess_ND, x_ND, document, index_N),
        "par": torch.where(true_cosine_N > PAR_FLOOR, guess_cosine_N / true_cosine_N, torch.nan),
    }


def _nearest(cosine_NS: Tensor, seen_NS: Tensor) -> Tensor:
    return cosine_NS.masked_fill(~seen_NS, -torch.inf).amax(dim=1)


@dataclass
class Means:
    """Running means of figures; NaN does not count."""

    sums: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def add(self, figures: dict[str, Tensor]) -> None:
        """Take in the values of some places."""
        for name, value_N in figures.items():
            known = ~torch.isnan(value_N)
            self.sums[name] += float(value_N[known].double().sum())
            self.counts[name] += int(known.sum())

    def means(self) -> dict[str, float]:
        """The mean of each figure that has a value."""
        return {name: self.sums[name] / count for name, count in self.counts.items() if count}

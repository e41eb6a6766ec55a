"""Weighting by fragility: concepts that decoding damages easily count less (LCM paper §2.4.4, eq 18-19).

Fragility is measured by decoding disturbed vectors (``lcm_data.quality.fragility``), too slow for training, so a small
network is trained to tell it from the vector. The paper does not give its hidden width.

Shapes: N concepts, D concept width.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lcm_data.errors import CheckpointError, UsageError

_CHECKS = 20
_HELD_OUT = 10


def fragility_weight(score: Tensor, parameters: tuple[float, float]) -> Tensor:
    """Eq 19: ``sigmoid(a * fragility + b)``; fragile concepts count less, a being negative."""
    a, b = parameters
    return torch.sigmoid(a * score + b)


class FragilityRegressor(nn.Module):
    """Fragility of a normalised concept, from 0 to about 1; an MLP of 3 layers."""

    def __init__(self, dim: int, hidden: int = 1024) -> None:
        super().__init__()
        self.dim = dim
        self.layers = nn.ModuleList(nn.Linear(*sizes) for sizes in ((dim, hidden), (hidden, hidden), (hidden, 1)))

    def forward(self, x_ND: Tensor) -> Tensor:
        """[..., D] to [...]."""
        first, second, last = self.layers
        score: Tensor = last(F.relu(second(F.relu(first(x_ND))))).squeeze(-1)
        return score

    def save(self, path: str | Path) -> None:
        """Write it to a safetensors file."""
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}, path)

    @classmethod
    def load(cls, path: str | Path) -> FragilityRegressor:
        """Read what ``save`` wrote.

        Raises:
            CheckpointError: it is missing, damaged or something else.
        """
        try:
            state = load_file(path)
            hidden, dim = state["layers.0.weight"].shape
            regressor = cls(dim, hidden)
            regressor.load_state_dict(state)
        except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
            first = str(error).strip().splitlines()[0]
            raise CheckpointError(
                f"cannot read a regressor of fragility from {path}: {first}. Give a file that FragilityRegressor.save "
                "wrote."
            ) from error
        return regressor


class Fitted(NamedTuple):
    """A regressor, and the share of the variance of concepts held out that it explains: 1 is all, 0 nothing."""

    regressor: FragilityRegressor
    explained: float


def fit_fragility(
    x_ND: Tensor,
    fragility_N: Tensor,
    *,
    hidden: int = 1024,
    steps: int = 2000,
    batch: int = 256,
    lr: float = 1e-3,
    seed: int = 0,
) -> Fitted:
    """Train a regressor on the squared error; of every twentieth of the steps the best on a tenth held out is kept.

    Args:
        x_ND: normalised concepts, at least twenty.
        fragility_N: theirs, from 0 (nothing harms them) to 1, as ``lcm_data.quality.fragility.of_sentences`` measures.
    """
    if len(x_ND) < 2 * _HELD_OUT or fragility_N.shape != x_ND.shape[:1]:
        raise UsageError(f"{len(x_ND)} concepts, {len(fragility_N)} figures: give at least 20, and a figure for each.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        order_N = torch.randperm(len(x_ND))
        held_out, rest = order_N[: len(x_ND) // _HELD_OUT], order_N[len(x_ND) // _HELD_OUT :]
        regressor = FragilityRegressor(x_ND.shape[1], hidden)
        optimizer = torch.optim.AdamW(regressor.parameters(), lr)
        least, best = float("inf"), copy.deepcopy(regressor.state_dict())
        for step in range(1, steps + 1):
            chosen = rest[torch.randint(len(rest), (batch,))]
            loss = F.mse_loss(regressor(x_ND[chosen].float()), fragility_N[chosen].float())
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if step % max(1, steps // _CHECKS) == 0 or step == steps:
                with torch.no_grad():
                    error = float(F.mse_loss(regressor(x_ND[held_out].float()), fragility_N[held_out].float()))
                if error < least:
                    least, best = error, copy.deepcopy(regressor.state_dict())
    regressor.load_state_dict(best)
    variance = float(fragility_N[held_out].float().var(unbiased=False))
    return Fitted(regressor.eval(), 1 - least / max(variance, 1e-12))

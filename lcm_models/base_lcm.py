"""Base-LCM: a causal Transformer that regresses the next concept (LCM paper §2.3.1).

It learns the mean of all continuations, the weakness that the other variants exist to mend.

Shapes: B rows, S concepts, Q places, D concept width, E model width.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from lcm_models.attention import KVCache, causal_rule, make_mask, positions, rotary
from lcm_models.config import Frozen, ModelConfig
from lcm_models.layers import PreNet, Tower
from lcm_models.model import Batch, ConceptModel, Draws, Loss, Query, State, loss_of, squared_error


class BaseLCMConfig(ModelConfig):
    """Defaults: the paper's 1.6B model."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": {"width": 128, "num_layers": 4, "num_heads": 4, "max_len": 512, "dropout": 0.0},
        "30m": {"width": 512, "num_layers": 8, "num_heads": 8},
        "300m": {"width": 1024, "num_layers": 24, "num_heads": 16},
        "1.6b": {},
        "7b": {"width": 4096, "num_layers": 32, "num_heads": 32},
    }

    num_layers: int = Field(32, ge=1, description="Transformer layers.")
    loss_space: Literal["normalized", "raw"] = Field(
        "normalized", description="Where errors are measured: normalized as in the official code, raw as in eq 5-6."
    )


class BaseSampling(Frozen):
    """How a next concept is made of the regression."""

    temperature: float = Field(
        0.0,
        ge=0,
        description="Deviation of normal noise added in the normalised space; the official code's default is 1.",
    )


class BaseLCM(ConceptModel):
    """PreNet, causal tower with rotary positions, PostNet (eq 1-4)."""

    config: BaseLCMConfig
    config_type = BaseLCMConfig
    sampling_type = BaseSampling
    min_context = 1

    def __init__(self, config: BaseLCMConfig) -> None:
        super().__init__(config)
        self.prenet = PreNet(config.concept_dim, config.width)
        self.tower = Tower(config, config.num_layers)
        self.postnet = nn.Linear(config.width, config.concept_dim)

    def loss(self, batch: Batch, draws: Draws | None = None) -> Loss:
        """Squared error of every concept against its prediction from those before it (eq 6)."""
        self.check(batch)
        doc_BS, num = batch.doc_BS, batch.doc_BS.shape[1]
        mask = make_mask(self.config.attention, causal_rule(doc_BS), len(doc_BS), num, num, doc_BS.device)
        x_BSD = self.scaler.normalize(batch.x_BSD)
        guess_BSD = self._regress(x_BSD, positions(doc_BS), mask)[:, :-1]
        if self.config.loss_space == "raw":
            error_BS = squared_error(self.scaler.denormalize(guess_BSD), batch.x_BSD[:, 1:])
        else:
            error_BS = squared_error(guess_BSD, x_BSD[:, 1:])
        follows_BS = doc_BS[:, 1:] == doc_BS[:, :-1]  # the first of a document has nothing to be predicted from
        return loss_of(error_BS, batch.targets()[:, 1:] & follows_BS, squared_error=error_BS)

    def _regress(self, x_BSD: Tensor, position_BS: Tensor, mask: Any, caches: list[KVCache] | None = None) -> Tensor:
        """For every normalised concept the one expected to follow it."""
        angles = rotary(position_BS, self.config.width // self.config.num_heads)
        out_BSD: Tensor = self.postnet(self.tower(self.prenet(x_BSD), mask, angles, caches))
        return out_BSD

    def _context(self, state: State, x_BSD: Tensor, position_BS: Tensor, mask: Tensor) -> None:
        state.context = state.context or [KVCache() for _ in self.tower.layers]
        state.output_BSD = self._regress(x_BSD, position_BS, mask, state.context)
        for cache in state.context:
            cache.keep(x_BSD.shape[1])

    def _next(self, state: State, query: Query, sampling: BaseSampling) -> Tensor:
        """The output at the column before each place: the last, or for the places of a whole row all but the last."""
        assert state.output_BSD is not None
        if query.position_BQ.shape[1] == 1:
            guess_BQD = state.output_BSD[:, -1:].float()
        else:
            guess_BQD = F.pad(state.output_BSD[:, :-1].float(), (0, 0, 1, 0))
        if sampling.temperature:
            guess_BQD = guess_BQD + sampling.temperature * query.noise.normal(guess_BQD.shape[-1])
        return self.scaler.denormalize(guess_BQD)

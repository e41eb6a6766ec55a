"""One-Tower diffusion LCM: one Transformer reads clean concepts and denoises the next one (LCM paper §2.3.3).

There is no official code for it. Level 0 of the time embedding means clean, level t + 1 the noise of level t, which
is never quite none.

Shapes: B rows, S concepts, Q places, D concept width, C width of the time embedding, T noise levels.
"""

from __future__ import annotations

from torch import Tensor

from lcm_models.attention import KVCache
from lcm_models.diffusion.model import DiffusionModel, DiffusionModelConfig
from lcm_models.interleaved import InterleavedConfig, InterleavedTower
from lcm_models.layers import LevelEmbedder
from lcm_models.model import State


class OneTowerConfig(InterleavedConfig, DiffusionModelConfig):
    """Defaults: the paper's 1.6B model."""


class OneTower(DiffusionModel):
    """Interleaved tower whose unfinished concepts are noisy ones."""

    config: OneTowerConfig
    config_type = OneTowerConfig

    def __init__(self, config: OneTowerConfig) -> None:
        super().__init__(config)
        self.embed_level = LevelEmbedder(config.level_dim)
        self.network = InterleavedTower(config, config.concept_dim)

    def _levels(self) -> Tensor:
        """Embeddings [T + 1, C] of clean and of all levels."""
        out: Tensor = self.embed_level(self.schedule.num_levels + 1)
        return out

    def _denoise_all(
        self, x_BSD: Tensor, noisy_BSD: Tensor, level_BS: Tensor, drop_BS: Tensor, doc_BS: Tensor
    ) -> Tensor:
        out: Tensor = self.network(x_BSD, noisy_BSD, level_BS + 1, self._levels(), drop_BS, doc_BS)
        return out

    def _context(self, state: State, x_BSD: Tensor, position_BS: Tensor, mask: Tensor) -> None:
        self._prepare(state)
        self.network.read(state.context, x_BSD, state.tables[0], position_BS, mask)

    def _denoise(self, state: State, x_BQD: Tensor, level: int, allowed_BQS: Tensor, position_BQ: Tensor) -> Tensor:
        self._prepare(state)
        return self.network.complete(state.context, x_BQD, level + 1, state.tables[0], allowed_BQS, position_BQ)

    def _prepare(self, state: State) -> None:
        """Caches and level embeddings of a new state."""
        state.context = state.context or [KVCache() for _ in self.network.tower.layers]
        state.tables = state.tables or [self._levels()]

"""The tower of One-Tower and Quant-LCM: clean concepts and unfinished ones in one Transformer (LCM paper §2.3.3).

Every concept enters twice: clean, as context for what follows, and unfinished (noisy, or the sum of its first codes)
to be completed from the clean ones before it. Both carry the position of the concept and a level that says how
unfinished it is, 0 being clean. What levels mean and what the outputs are is the variants' business.

Shapes: B rows, S concepts, Q places, D concept width, E model width, C level width, T levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from lcm_models.attention import KVCache, interleaved_rule, make_mask, positions
from lcm_models.config import ModelConfig
from lcm_models.layers import PreNet, Tower

POSITION_STD = 0.006
"""Deviation of new position embeddings, that of the official code: about that of SONAR's dimensions."""

PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {"width": 128, "num_layers": 4, "num_heads": 4, "level_dim": 64, "max_len": 512, "dropout": 0.0},
    "30m": {"width": 512, "num_layers": 8, "num_heads": 8},
    "300m": {"width": 1024, "num_layers": 24, "num_heads": 16},
    "1.6b": {},
    "7b": {"width": 4096, "num_layers": 32, "num_heads": 64},
}


class InterleavedConfig(ModelConfig):
    """Sizes of the tower; defaults are the paper's 1.6B models (§2.4.1), which state no level width."""

    presets: ClassVar[dict[str, dict[str, Any]]] = PRESETS

    num_layers: int = Field(32, ge=1, description="Transformer layers.")
    num_heads: int = Field(32, ge=1, description="Attention heads.")
    level_dim: int = Field(256, ge=1, description="Width of the level embedding, which is concatenated to a concept.")


class InterleavedTower(nn.Module):
    """PreNet of concept and level, learned positions, Transformer, PostNet."""

    def __init__(self, config: InterleavedConfig, output_dim: int) -> None:
        super().__init__()
        self.attention = config.attention
        self.prenet = PreNet(config.concept_dim + config.level_dim, config.width)
        self.position = nn.Embedding(config.max_len, config.width)
        self.tower = Tower(config, config.num_layers)
        self.postnet = nn.Linear(config.width, output_dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Small position embeddings."""
        nn.init.normal_(self.position.weight, std=POSITION_STD)

    def forward(
        self, x_BSD: Tensor, unfinished_BSD: Tensor, level_BS: Tensor, level_TC: Tensor, drop_BS: Tensor, doc_BS: Tensor
    ) -> Tensor:
        """Outputs [B, S, ...] for all unfinished concepts at once; ``drop_BS`` marks those that see no context."""
        num_rows, num = doc_BS.shape
        rule = interleaved_rule(doc_BS, drop_BS)
        mask = make_mask(self.attention, rule, num_rows, 2 * num, 2 * num, doc_BS.device)
        both_BSD = torch.cat([x_BSD, unfinished_BSD], dim=1)
        levels_BS = torch.cat([torch.zeros_like(level_BS), level_BS], dim=1)
        position_BS = positions(doc_BS).repeat(1, 2)
        h_BSE = self.tower(self._enter(both_BSD, levels_BS, level_TC, position_BS), mask)
        out: Tensor = self.postnet(h_BSE[:, num:])
        return out

    def read(
        self, caches: Sequence[KVCache], x_BSD: Tensor, level_TC: Tensor, position_BS: Tensor, mask: Tensor
    ) -> None:
        """Append clean concepts to the caches."""
        clean_BS = torch.zeros_like(position_BS)
        self.tower(self._enter(x_BSD, clean_BS, level_TC, position_BS), mask, caches=caches)
        for cache in caches:
            cache.keep(x_BSD.shape[1])

    def complete(
        self,
        caches: Sequence[KVCache],
        x_BQD: Tensor,
        level: int,
        level_TC: Tensor,
        allowed_BQS: Tensor,
        position_BQ: Tensor,
    ) -> Tensor:
        """Outputs [B, Q, ...] for unfinished concepts, each of which sees itself and what it may of the caches."""
        num = position_BQ.shape[1]
        itself_BQQ = torch.eye(num, dtype=torch.bool, device=x_BQD.device).expand(len(x_BQD), num, num)
        mask = torch.cat([allowed_BQS, itself_BQQ], dim=2).unsqueeze(1)
        level_BQ = torch.full_like(position_BQ, level)
        out: Tensor = self.postnet(self.tower(self._enter(x_BQD, level_BQ, level_TC, position_BQ), mask, caches=caches))
        return out

    def _enter(self, x_BSD: Tensor, level_BS: Tensor, level_TC: Tensor, position_BS: Tensor) -> Tensor:
        level_BSC = F.embedding(level_BS, level_TC)
        h_BSE: Tensor = self.prenet(torch.cat([x_BSD, level_BSC.float()], dim=-1))
        position_BSE: Tensor = self.position(position_BS)
        return h_BSE + position_BSE.to(h_BSE.dtype)

"""Two-Tower diffusion LCM: a contextualizer reads concepts, a denoiser attends to what it made (LCM paper §2.3.4).

A noisy concept sees the context of the concepts before it and a zero vector; the zero vector alone is "no context".
(Its keys and values are the biases of their projections, so "no context" is learned.)

Shapes: B rows, S concepts, Q places, D concept width, E model width, T noise levels.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from lcm_models.attention import Attention, KVCache, Mask, causal_rule, cross_rule, make_mask, positions, rotary
from lcm_models.diffusion.model import DiffusionModel, DiffusionModelConfig
from lcm_models.layers import AdaLN, LevelEmbedder, PreNet, RMSNorm, Tower, feed_forward, run_layer
from lcm_models.model import State


class TwoTowerConfig(DiffusionModelConfig):
    """Defaults: the paper's 1.6B model; its 7B model is the preset."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": {
            "width": 128,
            "num_context_layers": 2,
            "num_denoiser_layers": 3,
            "num_heads": 4,
            "max_len": 512,
            "dropout": 0.0,
        },
        "30m": {"width": 512, "num_context_layers": 2, "num_denoiser_layers": 3, "num_heads": 8},
        "300m": {"width": 1024, "num_context_layers": 5, "num_denoiser_layers": 9, "num_heads": 16},
        "1.6b": {},
        "7b": {"width": 4096, "num_denoiser_layers": 14, "num_heads": 32},
    }

    num_context_layers: int = Field(5, ge=1, description="Layers of the contextualizer.")
    num_denoiser_layers: int = Field(13, ge=1, description="Layers of the denoiser.")


class SelfOnly(Attention):
    """Self-attention in which every place sees only itself: one key, weight 1, so it is ``x W_v W_o``.

    The query and key projections of the paper's architecture cannot matter. They are kept, frozen, so that the number
    of parameters and the checkpoints are those of the official code.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__(width, num_heads)
        self.q_proj.requires_grad_(False)
        self.k_proj.requires_grad_(False)

    def alone(self, x_BQE: Tensor) -> Tensor:
        """[B, Q, E] to [B, Q, E]."""
        out: Tensor = self.output_proj(self.v_proj(x_BQE))
        return out


class DenoiserLayer(nn.Module):
    """Self, cross-attention and feed-forward, each ``x + gate * f((1 + scale) * norm(x) + shift)``."""

    NUM_SUBLAYERS = 3

    def __init__(self, config: TwoTowerConfig) -> None:
        super().__init__()
        self.adaln = AdaLN(config.width, self.NUM_SUBLAYERS)
        self.self_norm = RMSNorm(config.width)
        self.self_attention = SelfOnly(config.width, config.num_heads)
        self.cross_norm = RMSNorm(config.width)
        self.cross_attention = Attention(config.width, config.num_heads)
        self.ffn_norm = RMSNorm(config.width)
        self.ffn = feed_forward(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x_BQE: Tensor,
        level_BQ: Tensor,
        mask: Mask,
        memory_BSE: Tensor | None,
        level_TE: Tensor | None,
        cache: KVCache | None = None,
        table: Tensor | None = None,
    ) -> Tensor:
        """In training from context ``memory_BSE`` and level embeddings; in sampling from what is cached of them.

        The shifts, scales and gates of all T levels are computed and then looked up: T is about a hundred, and
        places in a batch are thousands.
        """
        if table is None:
            assert level_TE is not None
            table = self.adaln(level_TE)
        each_BQ33E = F.embedding(level_BQ, table).view(*level_BQ.shape, self.NUM_SUBLAYERS, 3, -1)
        for_self, for_cross, for_ffn = each_BQ33E.unbind(-3)

        h_BQE = self.self_attention.alone(_shifted(self.self_norm(x_BQE), for_self))
        x_BQE = x_BQE + _gate(for_self) * self.dropout(h_BQE)

        k_BHSK, v_BHSK = self._keys_values(memory_BSE, cache)
        h_BQE = self.cross_attention.mix(_shifted(self.cross_norm(x_BQE), for_cross), k_BHSK, v_BHSK, mask)
        x_BQE = x_BQE + _gate(for_cross) * self.dropout(h_BQE)

        h_BQE = self.ffn(_shifted(self.ffn_norm(x_BQE), for_ffn))
        out: Tensor = x_BQE + _gate(for_ffn) * self.dropout(h_BQE)
        return out

    def _keys_values(self, memory_BSE: Tensor | None, cache: KVCache | None) -> tuple[Tensor, Tensor]:
        if memory_BSE is not None:
            return self.cross_attention.keys_values(memory_BSE)
        assert cache is not None
        return cache.kept()


def _shifted(h_BQE: Tensor, modulation_BQ3E: Tensor) -> Tensor:
    """``(1 + scale) * h + shift`` of (shift, scale, gate)."""
    shift, scale, _ = modulation_BQ3E.unbind(-2)
    return h_BQE * (1 + scale) + shift


def _gate(modulation_BQ3E: Tensor) -> Tensor:
    return modulation_BQ3E[..., 2, :]


class TwoTower(DiffusionModel):
    """Contextualizer with rotary positions, denoiser without positions."""

    config: TwoTowerConfig
    config_type = TwoTowerConfig

    def __init__(self, config: TwoTowerConfig) -> None:
        super().__init__(config)
        self.context_prenet = PreNet(config.concept_dim, config.width)
        self.contextualizer = Tower(config, config.num_context_layers)
        self.prenet = PreNet(config.concept_dim, config.width)
        self.embed_level = LevelEmbedder(config.width)
        self.denoiser = nn.ModuleList(DenoiserLayer(config) for _ in range(config.num_denoiser_layers))
        self.norm = RMSNorm(config.width)
        self.postnet = nn.Linear(config.width, config.concept_dim)

    def _denoise_all(
        self, x_BSD: Tensor, noisy_BSD: Tensor, level_BS: Tensor, drop_BS: Tensor, doc_BS: Tensor
    ) -> Tensor:
        num_rows, num = doc_BS.shape
        kind, device = self.config.attention, doc_BS.device
        mask = make_mask(kind, causal_rule(doc_BS), num_rows, num, num, device)
        memory_BSE = F.pad(self._read_tower(x_BSD, positions(doc_BS), mask), (0, 0, 1, 0))  # the zero vector first
        cross = make_mask(kind, cross_rule(doc_BS, drop_BS), num_rows, num, num + 1, device)
        level_TE = self.embed_level(self.schedule.num_levels)
        h_BSE = self.prenet(noisy_BSD)
        for layer in self.denoiser:
            h_BSE = run_layer(layer, self.config.activation_checkpointing, h_BSE, level_BS, cross, memory_BSE, level_TE)
        out: Tensor = self.postnet(self.norm(h_BSE))
        return out

    def _read_tower(
        self, x_BSD: Tensor, position_BS: Tensor, mask: Mask, caches: list[KVCache] | None = None
    ) -> Tensor:
        """The contextualizer's output for normalised concepts [B, S, E]."""
        angles = rotary(position_BS, self.config.width // self.config.num_heads)
        out: Tensor = self.contextualizer(self.context_prenet(x_BSD), mask, angles, caches)
        return out

    def _context(self, state: State, x_BSD: Tensor, position_BS: Tensor, mask: Tensor) -> None:
        self._prepare(state)
        h_BSE = self._read_tower(x_BSD, position_BS, mask, state.context)
        for cache in state.context:
            cache.keep(x_BSD.shape[1])
        self._remember(state, h_BSE)

    def _denoise(self, state: State, x_BQD: Tensor, level: int, allowed_BQS: Tensor, position_BQ: Tensor) -> Tensor:
        self._prepare(state)
        mask = F.pad(allowed_BQS, (1, 0), value=True).unsqueeze(1)  # everyone sees the zero vector
        level_11 = torch.zeros(1, 1, dtype=torch.long, device=x_BQD.device)
        h_BQE = self.prenet(x_BQD)
        for layer, cache, table in zip(self.denoiser, state.cross, state.tables, strict=True):
            h_BQE = layer(h_BQE, level_11, mask, None, None, cache, table[level : level + 1])
        out: Tensor = self.postnet(self.norm(h_BQE))
        return out

    def _prepare(self, state: State) -> None:
        """Caches of a new state, with the zero vector in front, and the modulations of all levels."""
        if state.context:
            return
        state.context = [KVCache() for _ in self.contextualizer.layers]
        state.cross = [KVCache() for _ in self.denoiser]
        level_TE = self.embed_level(self.schedule.num_levels)
        state.tables = [layer.adaln(level_TE) for layer in self._layers()]
        zero_B1E = torch.zeros(state.num_rows, 1, self.config.width, device=self.device, dtype=level_TE.dtype)
        self._remember(state, zero_B1E)

    def _remember(self, state: State, memory_BSE: Tensor) -> None:
        """Keys and values of new context for every layer of the denoiser."""
        for layer, cache in zip(self._layers(), state.cross, strict=True):
            cache.put(*layer.cross_attention.keys_values(memory_BSE))
            cache.keep(memory_BSE.shape[1])

    def _layers(self) -> list[DenoiserLayer]:
        return [layer for layer in self.denoiser if isinstance(layer, DenoiserLayer)]

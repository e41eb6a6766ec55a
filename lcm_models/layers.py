"""The layers of all variants besides attention: norm, feed-forward, time embedding, adaptive norm, tower, normaliser.

Shapes: B rows, S concepts, D concept width, E model width, T levels of noise (or of a codebook).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lcm_data.errors import UsageError
from lcm_data.normalize import Normalizer
from lcm_models.attention import Attention, KVCache, Mask, Rotary
from lcm_models.config import ModelConfig


class PreNet(nn.Linear):
    """A linear layer for normalised concepts, which are float32 whatever dtype the weights have."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] to [..., E]."""
        return super().forward(x.to(self.weight.dtype))


class RMSNorm(nn.Module):
    """``x / rms(x) * weight`` over the last dimension, no bias."""

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def reset_parameters(self) -> None:
        """Weights of one."""
        nn.init.ones_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape and dtype as ``x``; sums are float32 inside."""
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.eps)


class SwiGLU(nn.Module):
    """``(silu(x W_gate) * x W_inner) W_out`` with biases; inner width 8/3 of ``width``, up to a multiple of 256."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = 256 * math.ceil(int(4 * width * 2 / 3) / 256)
        self.gate_proj = nn.Linear(width, inner)
        self.inner_proj = nn.Linear(width, inner)
        self.output_proj = nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        """[..., E] to [..., E]."""
        out: Tensor = self.output_proj(F.silu(self.gate_proj(x)) * self.inner_proj(x))
        return out


class PlainFeedForward(nn.Sequential):
    """``gelu(x W_inner) W_out``, inner width 4 times the model's."""

    def __init__(self, width: int) -> None:
        super().__init__(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))


def feed_forward(config: ModelConfig) -> nn.Module:
    """The feed-forward layer the config asks for."""
    return SwiGLU(config.width) if config.feed_forward == "swiglu" else PlainFeedForward(config.width)


class Block(nn.Module):
    """A pre-norm Transformer layer."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.width)
        self.attention = Attention(config.width, config.num_heads)
        self.ffn_norm = RMSNorm(config.width)
        self.ffn = feed_forward(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_BSE: Tensor, mask: Mask, angles: Rotary | None, cache: KVCache | None) -> Tensor:
        """New columns, which see what the mask allows of the cache and of each other."""
        x_BSE = x_BSE + self.dropout(self.attention(self.attention_norm(x_BSE), mask, angles, cache))
        out: Tensor = x_BSE + self.dropout(self.ffn(self.ffn_norm(x_BSE)))
        return out


class Tower(nn.Module):
    """Blocks and a final norm."""

    def __init__(self, config: ModelConfig, num_layers: int) -> None:
        super().__init__()
        self.recompute = config.activation_checkpointing
        self.layers = nn.ModuleList(Block(config) for _ in range(num_layers))
        self.norm = RMSNorm(config.width)

    def forward(
        self, x_BSE: Tensor, mask: Mask, angles: Rotary | None = None, caches: Sequence[KVCache] | None = None
    ) -> Tensor:
        """With ``caches`` (one a layer) the new columns are put there; keeping them is the caller's decision."""
        for number, layer in enumerate(self.layers):
            cache = None if caches is None else caches[number]
            x_BSE = run_layer(layer, self.recompute and caches is None, x_BSE, mask, angles, cache)
        out: Tensor = self.norm(x_BSE)
        return out


def run_layer(layer: nn.Module, recompute: bool, *args: Any) -> Tensor:
    """``layer(*args)``; with ``recompute`` its activations are not stored but computed again in the backward pass."""
    if recompute and torch.is_grad_enabled():
        return checkpoint(layer, *args, use_reentrant=False)  # type: ignore[no-any-return]
    out: Tensor = layer(*args)
    return out


class LevelEmbedder(nn.Module):
    """Integer levels to vectors: a sinusoid of 256 (cosines, then sines; longest period 10000) and a small MLP."""

    NUM_FREQUENCIES = 128

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner_proj = nn.Linear(2 * self.NUM_FREQUENCIES, width)
        self.output_proj = nn.Linear(width, width)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal weights of deviation 0.02, no bias."""
        for layer in (self.inner_proj, self.output_proj):
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def forward(self, num_levels: int) -> Tensor:
        """The embeddings [T, E] of levels 0 to T - 1.

        All at once: there are about a hundred of them, far fewer than positions in a batch.
        """
        device, half = self.inner_proj.weight.device, self.NUM_FREQUENCIES
        frequency = torch.exp(-math.log(10000.0) * torch.arange(half, device=device, dtype=torch.float32) / half)
        angle = torch.arange(num_levels, device=device, dtype=torch.float32).unsqueeze(1) * frequency
        wave = torch.cat([angle.cos(), angle.sin()], dim=1).to(self.inner_proj.weight.dtype)
        out: Tensor = self.output_proj(F.silu(self.inner_proj(wave)))
        return out


class AdaLN(nn.Module):
    """Shift, scale and gate of each of ``num_sublayers`` sublayers, from the embedding of the level of noise.

    Initialised to zero: gates are closed, so an untrained layer passes its input on.
    """

    def __init__(self, width: int, num_sublayers: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 3 * num_sublayers * width)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """All zero."""
        nn.init.zeros_(self.proj.weight)
        nn.init.zeros_(self.proj.bias)

    def forward(self, level_TE: Tensor) -> Tensor:
        """[T, E] to [T, 3 * sublayers * E]."""
        out: Tensor = self.proj(F.silu(level_TE))
        return out


class ExactBuffers(nn.Module):
    """A module whose buffers move with it but keep their dtype: as bfloat16 they would lose their meaning."""

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> ExactBuffers:
        exact = dict(self._buffers)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, before in exact.items():
            after = self._buffers[name]
            if before is not None and after is not None and after.dtype != before.dtype:
                self._buffers[name] = before.to(after.device)
        return self


class Scaler(ExactBuffers):
    """The normaliser as part of the model (LCM paper eq 1-2): its arrays are saved and loaded with the weights.

    Until ``load`` it changes nothing.
    """

    center_D: Tensor
    scale_D: Tensor
    clip_min_D: Tensor
    clip_max_D: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        for name in ("center_D", "scale_D", "clip_min_D", "clip_max_D"):
            self.register_buffer(name, torch.empty(dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Back to changing nothing."""
        self.center_D.zero_()
        self.scale_D.fill_(1)
        self.clip_min_D.fill_(-math.inf)
        self.clip_max_D.fill_(math.inf)

    def load(self, normalizer: Normalizer) -> None:
        """Take over a fitted normaliser.

        Raises:
            UsageError: it is for concepts of another width.
        """
        if normalizer.dim != len(self.center_D):
            raise UsageError(
                f"the normaliser is for concepts of {normalizer.dim} dimensions, the model for {len(self.center_D)}. "
                "Fit one on this corpus (lcm-data normalize), or set concept_dim."
            )
        self.reset_parameters()
        arrays = (normalizer.center, normalizer.scale, normalizer.clip_min, normalizer.clip_max)
        for buffer, array in zip(self.buffers(), arrays, strict=True):
            if array is not None:
                buffer.copy_(torch.from_numpy(array.copy()))

    def normalize(self, x: Tensor) -> Tensor:
        """Raw concepts [..., D] of any dtype to float32."""
        return ((x.float() - self.center_D) / self.scale_D).clamp(self.clip_min_D, self.clip_max_D)

    def denormalize(self, x: Tensor) -> Tensor:
        """The inverse; float32."""
        return x.float().clamp(self.clip_min_D, self.clip_max_D) * self.scale_D + self.center_D

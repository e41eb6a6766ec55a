"""The SONAR text encoder as one PyTorch module that never pads; reading weights is ``lcm_data.sonar.checkpoint``.

All tokens of a batch form one matrix for the projections and the feed-forward; how attention keeps sentences apart is
``lcm_data.sonar.packing``. The mathematics and the parameter names are those of fairseq2 0.8 and sonar-space 0.5
(pre-norm layers, fixed sinusoid, mean over all tokens, no normalisation of the result).

Shapes: N sentences, T tokens of all of them, D model width, H heads, K head width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lcm_data.errors import UsageError
from lcm_data.sonar.config import TextEncoderConfig
from lcm_data.sonar.layers import FeedForward, joined, linear, packed, placed, sinusoid
from lcm_data.sonar.packing import Groups, Packing, Varlen, VarlenAttention, gpu_attention

__all__ = ["TextEncoder", "TextEncoderConfig"]


class SelfAttention(nn.Module):
    """Bidirectional multi-head attention with biases everywhere."""

    output_proj: nn.Module

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.q_proj = nn.Linear(config.model_dim, config.model_dim)
        self.k_proj = nn.Linear(config.model_dim, config.model_dim)
        self.v_proj = nn.Linear(config.model_dim, config.model_dim)
        self.output_proj = nn.Linear(config.model_dim, config.model_dim)
        self.qkv_proj: nn.Module | None = None

    def forward(self, x_TD: Tensor, packing: Packing) -> Tensor:
        if self.qkv_proj is None:
            parts = [linear(x_TD, layer) for layer in (self.q_proj, self.k_proj, self.v_proj)]
        else:
            parts = list(linear(x_TD, self.qkv_proj).chunk(3, dim=1))
        q_THK, k_THK, v_THK = (part.view(len(x_TD), self.num_heads, -1) for part in parts)
        return linear(packing.attend(q_THK, k_THK, v_THK).flatten(1), self.output_proj)

    def pack(self, *, int8: bool) -> None:
        """See ``TextEncoder.pack``; one layer replaces those of query, key and value."""
        self.qkv_proj = packed(joined(self.q_proj, self.k_proj, self.v_proj), int8=int8)
        self.output_proj = packed(self.output_proj, int8=int8)
        del self.q_proj, self.k_proj, self.v_proj


class EncoderLayer(nn.Module):
    """Pre-norm layer. (The reference's ``normalize_before=False`` is ignored by the reference itself.)"""

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        self.self_attn_layer_norm = nn.LayerNorm(config.model_dim)
        self.self_attn = SelfAttention(config)
        self.ffn_layer_norm = nn.LayerNorm(config.model_dim)
        self.ffn = FeedForward(config.model_dim, config.ffn_dim)

    def forward(self, x_TD: Tensor, packing: Packing) -> Tensor:
        x_TD = x_TD + self.self_attn(self.self_attn_layer_norm(x_TD), packing)
        out: Tensor = x_TD + self.ffn(self.ffn_layer_norm(x_TD))
        return out


class _Frontend(nn.Module):
    """Holds the embedding under fairseq2's name."""

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        self.embed = nn.Embedding(config.vocab_size, config.model_dim)


class _Stack(nn.Module):
    """Holds the layers under fairseq2's name."""

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.num_layers))


class TextEncoder(nn.Module):
    """Token ids of N sentences, concatenated, to N vectors. Parameter names are fairseq2's.

    The position table is not stored and stays float32 whatever dtype the weights have. There is no dropout: this
    network is for inference, and gradients flow through it all the same.
    """

    position_table: Tensor

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder_frontend = _Frontend(config)
        self.encoder = _Stack(config)
        self.layer_norm = nn.LayerNorm(config.model_dim)
        self._attention: VarlenAttention | None = None
        self.reset_positions()

    def reset_positions(self) -> None:
        """(Re)compute the position table in float32 on the device of the weights."""
        table = sinusoid(self.config.max_tokens, self.config.model_dim)
        self.register_buffer("position_table", table.to(self.layer_norm.weight.device), persistent=False)

    def pack(self, *, int8: bool = False) -> None:
        """Rearrange the weights for speed where they are; afterwards the network only runs, without gradients.

        Query, key and value become one product, weights lie as the CPU's kernels want them, and a GPU gets packed
        attention if it works there. The results are the same up to rounding.

        Args:
            int8: compute the linear maps in int8 (weights per output, inputs per call); CPU and float32 only.
        """
        weight = self.layer_norm.weight
        assert not int8 or (weight.device.type == "cpu" and weight.dtype == torch.float32)
        for module in self.encoder.modules():
            if isinstance(module, SelfAttention | FeedForward):
                module.pack(int8=int8)
        head_dim = self.config.model_dim // self.config.num_heads
        self._attention = gpu_attention(weight.device, weight.dtype, self.config.num_heads, head_dim)

    def forward(self, ids_T: Tensor, lengths: Sequence[int], packing: Packing | None = None) -> Tensor:
        """Encode.

        Args:
            ids_T: token ids [T] of all sentences one after the other, each ``[language, pieces..., </s>]``.
            lengths: number of tokens of each sentence, N plain integers that sum to T. Neighbours of equal length share
                one attention call, so sort by length.

        Returns:
            float32 [N, D]: the mean over all tokens of each sentence, with ``length + 1e-7`` as denominator.

        Raises:
            UsageError: a sentence is empty or longer than ``config.max_tokens``, or the lengths do not sum to T.
        """
        self._check(ids_T, lengths)
        if packing is None:
            packing = Varlen(lengths, ids_T.device, self._attention) if self._attention else Groups(lengths)
        x_TD = F.embedding(ids_T, self.encoder_frontend.embed.weight) * math.sqrt(self.config.model_dim)
        x_TD = placed(x_TD, packing.positions(self.position_table))
        for layer in self.encoder.layers:
            x_TD = layer(x_TD, packing)
        return packing.means(self.layer_norm(x_TD))

    def _check(self, ids_T: Tensor, lengths: Sequence[int]) -> None:
        if not lengths or min(lengths) < 1 or max(lengths) > self.config.max_tokens:
            got = f"{min(lengths)} to {max(lengths)} tokens" if lengths else "no sentence"
            raise UsageError(
                f"each sentence must have 1 to {self.config.max_tokens} tokens, got {got}. Truncate first."
            )
        if sum(lengths) != ids_T.shape[0]:
            raise UsageError(f"lengths sum to {sum(lengths)} but there are {ids_T.shape[0]} token ids.")

"""The SONAR text encoder as one PyTorch module that never pads; reading weights is ``lcm_data.sonar.checkpoint``.

All tokens of a batch form one matrix for the projections and the feed-forward, and attention runs over groups of
sentences of equal length. The mathematics and the parameter names are those of fairseq2 0.8 and sonar-space 0.5
(pre-norm layers, fixed sinusoid, mean over all tokens, no normalisation of the result).

Shapes: N sentences, T tokens of all of them, L tokens of one, D model width, H heads, K head width.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lcm_data.errors import UsageError
from lcm_data.sonar.config import TextEncoderConfig
from lcm_data.sonar.layers import FeedForward, linear, sinusoid

__all__ = ["TextEncoder", "TextEncoderConfig"]


class SelfAttention(nn.Module):
    """Bidirectional multi-head attention with biases everywhere."""

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.q_proj = nn.Linear(config.model_dim, config.model_dim)
        self.k_proj = nn.Linear(config.model_dim, config.model_dim)
        self.v_proj = nn.Linear(config.model_dim, config.model_dim)
        self.output_proj = nn.Linear(config.model_dim, config.model_dim)

    def forward(self, x_TD: Tensor, groups: Sequence[tuple[int, int]]) -> Tensor:
        """``groups`` is (number of sentences, their length) in the order of the rows of ``x_TD``."""
        q_TD, k_TD, v_TD = (linear(x_TD, p) for p in (self.q_proj, self.k_proj, self.v_proj))
        mixed_TD = torch.empty_like(q_TD)
        start = 0
        for count, length in groups:
            rows = slice(start, start + count * length)
            q, k, v = (t[rows].view(count, length, self.num_heads, -1).transpose(1, 2) for t in (q_TD, k_TD, v_TD))
            mixed_NHLK = F.scaled_dot_product_attention(q, k, v)
            mixed_TD[rows].view(count, length, self.num_heads, -1).copy_(mixed_NHLK.transpose(1, 2))
            start = rows.stop
        return linear(mixed_TD, self.output_proj)


class EncoderLayer(nn.Module):
    """Pre-norm layer. (The reference's ``normalize_before=False`` is ignored by the reference itself.)"""

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        self.self_attn_layer_norm = nn.LayerNorm(config.model_dim)
        self.self_attn = SelfAttention(config)
        self.ffn_layer_norm = nn.LayerNorm(config.model_dim)
        self.ffn = FeedForward(config.model_dim, config.ffn_dim)

    def forward(self, x_TD: Tensor, groups: Sequence[tuple[int, int]]) -> Tensor:
        x_TD = x_TD + self.self_attn(self.self_attn_layer_norm(x_TD), groups)
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
        self.reset_positions()

    def reset_positions(self) -> None:
        """(Re)compute the position table in float32 on the device of the weights."""
        table = sinusoid(self.config.max_tokens, self.config.model_dim)
        self.register_buffer("position_table", table.to(self.layer_norm.weight.device), persistent=False)

    def forward(self, ids_T: Tensor, lengths: Sequence[int]) -> Tensor:
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
        groups = [(len(list(same)), length) for length, same in itertools.groupby(lengths)]
        x_TD = F.embedding(ids_T, self.encoder_frontend.embed.weight) * math.sqrt(self.config.model_dim)
        positions_TD = torch.cat([self.position_table[:length].repeat(count, 1) for count, length in groups])
        # Added in float32 and cast back, as the reference does: in bfloat16 late positions would collapse.
        x_TD = (x_TD.float() + positions_TD).to(x_TD.dtype)
        for layer in self.encoder.layers:
            x_TD = layer(x_TD, groups)
        x_TD = self.layer_norm(x_TD)
        rows = x_TD.float().split([count * length for count, length in groups])
        means = [
            part.view(count, length, -1).sum(dim=1) / (length + 1e-7)
            for part, (count, length) in zip(rows, groups, strict=True)
        ]
        return torch.cat(means)

    def _check(self, ids_T: Tensor, lengths: Sequence[int]) -> None:
        if not lengths or min(lengths) < 1 or max(lengths) > self.config.max_tokens:
            got = f"{min(lengths)} to {max(lengths)} tokens" if lengths else "no sentence"
            raise UsageError(
                f"each sentence must have 1 to {self.config.max_tokens} tokens, got {got}. Truncate first."
            )
        if sum(lengths) != ids_T.shape[0]:
            raise UsageError(f"lengths sum to {sum(lengths)} but there are {ids_T.shape[0]} token ids.")

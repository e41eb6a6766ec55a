"""The SONAR speech encoder as one PyTorch module: a w2v-BERT Conformer and a pooler that reads it with one query.

Features come from ``lcm_data.sonar.speech_features``, weights from ``lcm_data.sonar.speech_checkpoint``. The
mathematics and the parameter names are those of fairseq2 0.8 and sonar-space 0.5. Clips of a batch are padded; nothing
that is computed for one depends on the others.

Shapes: B clips, S positions (50 a second), D model width, H heads, K head width, P = 2 S - 1 distances, E embedding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lcm_data.errors import UsageError
from lcm_data.sonar.layers import joined, linear, packed, product
from lcm_data.sonar.speech_config import SpeechEncoderConfig
from lcm_data.sonar.speech_pooler import Pooler

__all__ = ["SpeechEncoder", "SpeechEncoderConfig"]

_QUERIES = 256
"""Positions that attend at once: what bounds the memory of long clips."""


def distances(num_positions: int, model_dim: int) -> Tensor:
    """Codes of the distances S - 1 down to -(S - 1): float32 [P, D], sines and cosines alternating."""
    frequency = torch.exp(torch.arange(0, model_dim, 2, dtype=torch.float32) * (-math.log(10000.0) / model_dim))
    distance = torch.arange(num_positions - 1, -num_positions, -1, dtype=torch.float32)
    angle = distance.unsqueeze(1) * frequency
    return torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)


class FeedForward(nn.Module):
    """Two linear layers with a SiLU between them."""

    inner_proj: nn.Module
    output_proj: nn.Module

    def __init__(self, config: SpeechEncoderConfig) -> None:
        super().__init__()
        self.inner_proj = nn.Linear(config.model_dim, config.ffn_dim)
        self.output_proj = nn.Linear(config.ffn_dim, config.model_dim)

    def forward(self, x_BSD: Tensor) -> Tensor:
        inner = linear(x_BSD, self.inner_proj)
        return linear(F.silu(inner, inplace=not torch.is_grad_enabled()), self.output_proj)

    def pack(self) -> None:
        """See ``SpeechEncoder.pack``."""
        self.inner_proj = packed(self.inner_proj, int8=False)
        self.output_proj = packed(self.output_proj, int8=False)


class _Relative(nn.Module):
    """The parameters of relative positions under fairseq2's name."""

    def __init__(self, config: SpeechEncoderConfig) -> None:
        super().__init__()
        shape = (config.num_heads, config.model_dim // config.num_heads)
        self.u_bias = nn.Parameter(torch.zeros(shape))
        self.v_bias = nn.Parameter(torch.zeros(shape))
        self.r_proj = nn.Linear(config.model_dim, config.model_dim, bias=False)


class RelativeAttention(nn.Module):
    """Self-attention whose scores also depend on the distance, as in Transformer-XL (Dai et al. 2019).

    The score of query i and key j is ``((q_i + u) k_j + (q_i + v) r_{i-j}) / sqrt(K)``.
    """

    output_proj: nn.Module

    def __init__(self, config: SpeechEncoderConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.q_proj = nn.Linear(config.model_dim, config.model_dim)
        self.k_proj = nn.Linear(config.model_dim, config.model_dim)
        self.v_proj = nn.Linear(config.model_dim, config.model_dim)
        self.output_proj = nn.Linear(config.model_dim, config.model_dim)
        self.sdpa = _Relative(config)
        self.qkv_proj: nn.Module | None = None

    def forward(self, x_BSD: Tensor, distance_PD: Tensor, padding_BS: Tensor | None) -> Tensor:
        if self.qkv_proj is None:
            parts = [linear(x_BSD, layer) for layer in (self.q_proj, self.k_proj, self.v_proj)]
        else:
            parts = list(linear(x_BSD, self.qkv_proj).chunk(3, dim=2))
        q, k, v = (part.view(*part.shape[:2], self.num_heads, -1).transpose(1, 2) for part in parts)
        r_PD = product(distance_PD, self.sdpa.r_proj.weight)
        r_HKP = r_PD.view(len(r_PD), self.num_heads, -1).permute(1, 2, 0)
        mixed = []
        for start in range(0, q.shape[2], _QUERIES):
            mixed.append(self._attend(q[:, :, start : start + _QUERIES], start, k, v, r_HKP, padding_BS))
        mixed_BHSK = mixed[0] if len(mixed) == 1 else torch.cat(mixed, dim=2)
        return linear(mixed_BHSK.transpose(1, 2).flatten(2), self.output_proj)

    def _attend(
        self, q: Tensor, start: int, k_BHSK: Tensor, v_BHSK: Tensor, r_HKP: Tensor, padding_BS: Tensor | None
    ) -> Tensor:
        """What some queries, the first of them at ``start``, read."""
        num_queries, num_keys = q.shape[2], k_BHSK.shape[2]
        first = num_keys - start - num_queries  # the largest distance is that of the last query to the first key
        r_HKP = r_HKP[:, :, first : first + num_keys + num_queries - 1]
        # All distances of all queries; those to the keys begin one further left than for the query before.
        by_distance = ((q + self.sdpa.v_bias.unsqueeze(1)) * q.shape[3] ** -0.5) @ r_HKP
        *outer, row, one = by_distance.stride()
        shape = (*by_distance.shape[:3], num_keys)
        bias = by_distance.as_strided(shape, (*outer, row - one, one), by_distance.storage_offset() + num_queries - 1)
        if padding_BS is not None:
            bias = bias.masked_fill(padding_BS[:, None, None], -torch.inf)
        return F.scaled_dot_product_attention(q + self.sdpa.u_bias.unsqueeze(1), k_BHSK, v_BHSK, attn_mask=bias)

    def pack(self) -> None:
        """See ``SpeechEncoder.pack``; one layer replaces those of query, key and value."""
        self.qkv_proj = packed(joined(self.q_proj, self.k_proj, self.v_proj), int8=False)
        self.output_proj = packed(self.output_proj, int8=False)
        del self.q_proj, self.k_proj, self.v_proj


class _BatchNorm(nn.Module):
    """What a batch norm learned: per channel a mean and a variance, a gain and a bias."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))
        self.register_buffer("running_mean", torch.zeros(num_channels))
        self.register_buffer("running_var", torch.ones(num_channels))


class Convolution(nn.Module):
    """Gated, depthwise over neighbouring positions, batch norm, SiLU. Beyond the ends of a clip there are zeros."""

    def __init__(self, config: SpeechEncoderConfig) -> None:
        super().__init__()
        d, kernel = config.model_dim, config.kernel_size
        self.pointwise_conv1 = nn.Conv1d(d, 2 * d, 1, bias=False)
        self.depthwise_conv = nn.Conv1d(d, d, kernel, groups=d, bias=False)
        self.batch_norm = _BatchNorm(d)
        self.pointwise_conv2 = nn.Conv1d(d, d, 1, bias=False)

    def forward(self, x_BSD: Tensor, padding_BS: Tensor | None) -> Tensor:
        if padding_BS is not None:
            x_BSD = x_BSD.masked_fill(padding_BS.unsqueeze(2), 0.0)
        x_BSD = F.glu(product(x_BSD, self.pointwise_conv1.weight.squeeze(2)), dim=2)
        weight, bias = self._folded()
        # As a picture of height 1 the channels already lie last, for which CPUs have a much faster kernel.
        x_BD1S = x_BSD.transpose(1, 2).unsqueeze(2)
        x_BD1S = F.conv2d(x_BD1S, weight.unsqueeze(2), bias, padding=(0, weight.shape[2] // 2), groups=len(weight))
        x_BSD = F.silu(x_BD1S.squeeze(2).transpose(1, 2), inplace=not torch.is_grad_enabled())
        return product(x_BSD, self.pointwise_conv2.weight.squeeze(2))

    def _folded(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the depthwise convolution with the batch norm behind it (epsilon 1e-5)."""
        norm = self.batch_norm
        gain = norm.weight.float() * (norm.running_var.float() + 1e-5).rsqrt()
        bias = norm.bias.float() - norm.running_mean.float() * gain
        weight = self.depthwise_conv.weight
        return (weight.float() * gain[:, None, None]).to(weight.dtype), bias.to(weight.dtype)


class ConformerLayer(nn.Module):
    """Half a feed-forward, attention, convolution, half a feed-forward, each on a norm of its input, and a norm."""

    def __init__(self, config: SpeechEncoderConfig) -> None:
        super().__init__()
        self.ffn1_layer_norm = nn.LayerNorm(config.model_dim)
        self.ffn1 = FeedForward(config)
        self.self_attn_layer_norm = nn.LayerNorm(config.model_dim)
        self.self_attn = RelativeAttention(config)
        self.conv_layer_norm = nn.LayerNorm(config.model_dim)
        self.conv = Convolution(config)
        self.ffn2_layer_norm = nn.LayerNorm(config.model_dim)
        self.ffn2 = FeedForward(config)
        self.layer_norm = nn.LayerNorm(config.model_dim)

    def forward(self, x_BSD: Tensor, distance_PD: Tensor, padding_BS: Tensor | None) -> Tensor:
        x_BSD = x_BSD + 0.5 * self.ffn1(self.ffn1_layer_norm(x_BSD))
        x_BSD = x_BSD + self.self_attn(self.self_attn_layer_norm(x_BSD), distance_PD, padding_BS)
        x_BSD = x_BSD + self.conv(self.conv_layer_norm(x_BSD), padding_BS)
        x_BSD = x_BSD + 0.5 * self.ffn2(self.ffn2_layer_norm(x_BSD))
        out: Tensor = self.layer_norm(x_BSD)
        return out


class _Frontend(nn.Module):
    """From features to the width of the model, under fairseq2's names."""

    def __init__(self, config: SpeechEncoderConfig) -> None:
        super().__init__()
        self.post_extract_layer_norm = nn.LayerNorm(config.num_features)
        self.model_dim_proj = nn.Linear(config.num_features, config.model_dim)

    def forward(self, features_BSF: Tensor) -> Tensor:
        return linear(self.post_extract_layer_norm(features_BSF), self.model_dim_proj)


class _Stack(nn.Module):
    """Holds the layers under fairseq2's name."""

    def __init__(self, config: SpeechEncoderConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(ConformerLayer(config) for _ in range(config.num_layers))


class SpeechEncoder(nn.Module):
    """Features of B clips to B vectors. Parameter names are fairseq2's.

    There is no dropout, and batch norms use what they learned: this network is for inference.
    """

    def __init__(self, config: SpeechEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder_frontend = _Frontend(config)
        self.encoder = _Stack(config)
        self.layer_norm = nn.LayerNorm(config.model_dim)
        self.encoder_pooler = Pooler(config)

    def pack(self) -> None:
        """Rearrange the weights for speed where they are; afterwards the network only runs, without gradients.

        Query, key and value become one product, and weights lie as the CPU's kernels want them. The results are the
        same up to rounding.
        """
        for module in self.encoder.modules():
            if isinstance(module, RelativeAttention | FeedForward):
                module.pack()

    def forward(self, features_BSF: Tensor, lengths: Sequence[int]) -> Tensor:
        """Encode.

        Args:
            features_BSF: [B, S, 160], of ``speech_features``; beyond the length of a clip anything finite.
            lengths: positions of each clip, B plain integers from 1 to S.

        Returns:
            float32 [B, E], not normalised.

        Raises:
            UsageError: a clip is empty, longer than S or than ``config.max_positions``, or there are not B lengths.
        """
        x_BSD, padding_BS = self.positions(features_BSF, lengths)
        vectors: Tensor = self.encoder_pooler(x_BSD, padding_BS)
        return vectors.float()

    def positions(self, features_BSF: Tensor, lengths: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        """What the pooler reads: [B, S, D], and where it is padding (None: nowhere). Arguments and errors as above."""
        self._check(features_BSF, lengths)
        num_positions = features_BSF.shape[1]
        device, dtype = self.layer_norm.weight.device, self.layer_norm.weight.dtype
        padding_BS = None
        if min(lengths) < num_positions:
            lengths_B = torch.tensor(lengths, device=device)
            padding_BS = torch.arange(num_positions, device=device) >= lengths_B.unsqueeze(1)
        distance_PD = distances(num_positions, self.config.model_dim).to(device, dtype)
        x_BSD = self.encoder_frontend(features_BSF.to(dtype))
        for layer in self.encoder.layers:
            x_BSD = layer(x_BSD, distance_PD, padding_BS)
        return self.layer_norm(x_BSD), padding_BS

    def _check(self, features_BSF: Tensor, lengths: Sequence[int]) -> None:
        num_clips, num_positions = features_BSF.shape[:2]
        if len(lengths) != num_clips or not lengths:
            raise UsageError(f"expected one length for each of {num_clips} clips, at least one, got {len(lengths)}.")
        most = min(num_positions, self.config.max_positions)
        if min(lengths) < 1 or max(lengths) > most or num_positions > self.config.max_positions:
            raise UsageError(
                f"each clip must have 1 to {most} positions, got {min(lengths)} to {max(lengths)} in a batch of "
                f"{num_positions}. Cut long clips first."
            )

"""Base-LCM and Two-Tower written the plain way, from the paper and with the names of the official code.

Attention is softmax(q k' / sqrt(d)) v with a mask of the whole square, a place embeds its own level of noise, the
denoiser attends to itself through a mask that shows it only itself, guidance doubles the batch, and nothing is kept
from one concept, or one step of sampling, to the next. It shares no code with ``lcm_models``: the benchmark compares
speed, a test compares numbers.

Shapes: B rows, S concepts, Q queries, D concept width, E model width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Norm(nn.Module):
    """Root mean square norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(dim=-1, keepdim=True) + 1e-5) * self.weight


class Attention(nn.Module):
    """Multi-head attention."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        for name in ("q_proj", "k_proj", "v_proj", "output_proj"):
            setattr(self, name, nn.Linear(width, width))

    def forward(self, x_BQE: Tensor, memory_BSE: Tensor, mask_BQS: Tensor, rotary: bool = False) -> Tensor:
        q, k, v = (
            proj(y).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for proj, y in ((self.q_proj, x_BQE), (self.k_proj, memory_BSE), (self.v_proj, memory_BSE))
        )
        if rotary:
            q, k = turned(q), turned(k)
        score_BHQS = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        weight_BHQS = score_BHQS.masked_fill(~mask_BQS.unsqueeze(1), -math.inf).softmax(dim=-1)
        out: Tensor = self.output_proj((weight_BHQS @ v).transpose(1, 2).flatten(2))
        return out


def turned(x_BHSK: Tensor) -> Tensor:
    """Rotary positions as a product with complex numbers."""
    frequency = 10000.0 ** -(torch.arange(0, x_BHSK.shape[-1], 2, device=x_BHSK.device) / x_BHSK.shape[-1])
    angle = torch.arange(x_BHSK.shape[2], device=x_BHSK.device).unsqueeze(1) * frequency
    pairs = torch.view_as_complex(x_BHSK.float().unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(angle), angle)).flatten(-2).to(x_BHSK.dtype)


class FeedForward(nn.Module):
    """Gated by SiLU; two thirds of four times the width, up to a multiple of 256."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = math.ceil(int(4 * width * 2 / 3) / 256) * 256
        self.gate_proj, self.inner_proj = nn.Linear(width, inner), nn.Linear(width, inner)
        self.output_proj = nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.output_proj(F.silu(self.gate_proj(x)) * self.inner_proj(x))
        return out


class Layer(nn.Module):
    """Causal, with rotary positions."""

    def __init__(self, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.self_attn_layer_norm, self.self_attn = Norm(width), Attention(width, num_heads)
        self.ffn_layer_norm, self.ffn = Norm(width), FeedForward(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        h = self.self_attn_layer_norm(x)
        x = x + self.dropout(self.self_attn(h, h, mask, rotary=True))
        out: Tensor = x + self.dropout(self.ffn(self.ffn_layer_norm(x)))
        return out


class Decoder(nn.Module):
    """Layers and a norm."""

    def __init__(self, num_layers: int, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(width, num_heads, dropout) for _ in range(num_layers))
        self.layer_norm = Norm(width)

    def forward(self, x_BSE: Tensor) -> Tensor:
        num = x_BSE.shape[1]
        mask = torch.ones(1, num, num, dtype=torch.bool, device=x_BSE.device).tril()
        for layer in self.layers:
            x_BSE = layer(x_BSE, mask)
        out: Tensor = self.layer_norm(x_BSE)
        return out


class Normalizer(nn.Module):
    """Centre and scale."""

    center: Tensor
    scale: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("center", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.center) / self.scale

    def inverse(self, x: Tensor) -> Tensor:
        return x * self.scale + self.center


class Frontend(nn.Module):
    """A linear layer, and for Base-LCM the normaliser."""

    def __init__(self, dim: int, width: int, normalizer: bool) -> None:
        super().__init__()
        self.pre_linear = nn.Linear(dim, width)
        self.sonar_normalizer = Normalizer(dim) if normalizer else None


class Projection(nn.Module):
    """A linear layer of that name."""

    def __init__(self, dim: int, output_dim: int) -> None:
        super().__init__()
        self.fc = nn.Linear(dim, output_dim)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(x)
        return out


class PlainBase(nn.Module):
    """Base-LCM."""

    def __init__(self, dim: int, width: int, num_heads: int, num_layers: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.frontend = Frontend(dim, width, normalizer=True)
        self.lcm = Decoder(num_layers, width, num_heads, dropout)
        self.postnet = Projection(width, dim)

    def loss(self, x_BSD: Tensor) -> Tensor:
        """Mean over the targets of the squared errors, summed over D."""
        assert self.frontend.sonar_normalizer is not None
        x_BSD = self.frontend.sonar_normalizer(x_BSD)
        guess_BSD = self.postnet(self.lcm(self.frontend.pre_linear(x_BSD)))
        return (guess_BSD[:, :-1] - x_BSD[:, 1:]).pow(2).sum(dim=-1).mean()

    @torch.no_grad()
    def next_concepts(self, x_BSD: Tensor) -> Tensor:
        """From whole documents, read anew."""
        assert self.frontend.sonar_normalizer is not None
        normal_BSD = self.frontend.sonar_normalizer(x_BSD)
        guess_BSD = self.postnet(self.lcm(self.frontend.pre_linear(normal_BSD)))
        return self.frontend.sonar_normalizer.inverse(guess_BSD[:, -1])


class LevelEmbedder(nn.Module):
    """A sinusoid and two layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(256, width), nn.Linear(width, width)

    def forward(self, level: Tensor) -> Tensor:
        frequency = torch.exp(-math.log(10000) * torch.arange(128, device=level.device) / 128)
        angle = level.unsqueeze(-1).float() * frequency
        out: Tensor = self.fc2(F.silu(self.fc1(torch.cat([angle.cos(), angle.sin()], dim=-1))))
        return out


class DenoiserLayer(nn.Module):
    """Attention to itself, to the context, feed-forward; each shifted, scaled and gated by the level."""

    def __init__(self, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.self_attn_layer_norm, self.self_attn = Norm(width), Attention(width, num_heads)
        self.cross_attention_layer_norm, self.cross_attention = Norm(width), Attention(width, num_heads)
        self.ffn_layer_norm, self.ffn = Norm(width), FeedForward(width)
        self.modulator = Projection(width, 9 * width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, level_BQE: Tensor, memory_BSE: Tensor, mask_BQS: Tensor) -> Tensor:
        parts = self.modulator(F.silu(level_BQE)).chunk(9, dim=-1)
        itself = torch.eye(x.shape[1], dtype=torch.bool, device=x.device).unsqueeze(0)
        h = self.self_attn_layer_norm(x) * (1 + parts[1]) + parts[0]
        x = x + parts[2] * self.dropout(self.self_attn(h, h, itself))
        h = self.cross_attention_layer_norm(x) * (1 + parts[4]) + parts[3]
        x = x + parts[5] * self.dropout(self.cross_attention(h, memory_BSE, mask_BQS))
        h = self.ffn_layer_norm(x) * (1 + parts[7]) + parts[6]
        out: Tensor = x + parts[8] * self.dropout(self.ffn(h))
        return out


class Denoiser(nn.Module):
    """Noisy concepts and their levels to clean ones, given context."""

    def __init__(self, dim: int, num_layers: int, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.embed_time = LevelEmbedder(width)
        self.initial_proj, self.final_proj = Projection(dim, width), Projection(width, dim)
        self.layers = nn.ModuleList(DenoiserLayer(width, num_heads, dropout) for _ in range(num_layers))
        self.layer_norm = Norm(width)

    def forward(self, noisy_BQD: Tensor, level_BQ: Tensor, memory_BSE: Tensor, mask_BQS: Tensor) -> Tensor:
        level_BQE, x_BQE = self.embed_time(level_BQ), self.initial_proj(noisy_BQD)
        for layer in self.layers:
            x_BQE = layer(x_BQE, level_BQE, memory_BSE, mask_BQS)
        out: Tensor = self.final_proj(self.layer_norm(x_BQE))
        return out


class PlainTwoTower(nn.Module):
    """Two-Tower, predicting x0; ``alpha_T`` and ``sigma_T`` are the schedule."""

    def __init__(self, dim: int, width: int, num_heads: int, num_layers: tuple[int, int], dropout: float = 0.0) -> None:
        super().__init__()
        self.sonar_normalizer = Normalizer(dim)
        self.encoder_frontend = Frontend(dim, width, normalizer=False)
        self.context_encoder = Decoder(num_layers[0], width, num_heads, dropout)
        self.denoiser = Denoiser(dim, num_layers[1], width, num_heads, dropout)

    def read(self, x_BSD: Tensor) -> Tensor:
        """Context of normalised concepts, after the zero vector [B, S + 1, E]."""
        return F.pad(self.context_encoder(self.encoder_frontend.pre_linear(x_BSD)), (0, 0, 1, 0))

    def loss(
        self, x_BSD: Tensor, level_BS: Tensor, drop_BS: Tensor, noise_BSD: Tensor, alpha_T: Tensor, sigma_T: Tensor
    ) -> Tensor:
        """Mean over the places of the squared errors, summed over D."""
        x_BSD = self.sonar_normalizer(x_BSD)
        num = x_BSD.shape[1]
        before = torch.ones(num, num + 1, dtype=torch.bool, device=x_BSD.device).tril()
        mask_BSS = before & ~drop_BS.unsqueeze(-1)
        mask_BSS[..., 0] = True
        noisy_BSD = alpha_T[level_BS].unsqueeze(-1) * x_BSD + sigma_T[level_BS].unsqueeze(-1) * noise_BSD
        guess_BSD = self.denoiser(noisy_BSD, level_BS, self.read(x_BSD), mask_BSS)
        return (guess_BSD - x_BSD).pow(2).sum(dim=-1).mean()

    @torch.no_grad()
    def next_concepts(
        self,
        x_BSD: Tensor,
        noise_BD: Tensor,
        levels: Sequence[int],
        alpha_T: Tensor,
        sigma_T: Tensor,
        memory_BSE: Tensor | None = None,
    ) -> Tensor:
        """From whole documents, read anew unless ``memory_BSE`` holds their context; the paper's settings of DDIM."""
        if memory_BSE is None:
            memory_BSE = self.read(self.sonar_normalizer(x_BSD))
        both_BSE = torch.cat([memory_BSE, torch.zeros_like(memory_BSE)])
        mask_BQS = torch.ones(len(both_BSE), 1, both_BSE.shape[1], dtype=torch.bool, device=x_BSD.device)
        mask_BQS[len(x_BSD) :, :, 1:] = False
        x_t = 0.6 * noise_BD.unsqueeze(1)
        x0 = x_t
        for level, following in zip(levels, [*levels[1:], None], strict=True):
            alpha, sigma = alpha_T[level], sigma_T[level]
            next_alpha = alpha_T[following] if following is not None else torch.ones_like(alpha)
            next_sigma = sigma_T[following] if following is not None else torch.zeros_like(sigma)
            level_BQ = torch.full((len(both_BSE), 1), level, device=x_t.device)
            given, free = self.denoiser(torch.cat([x_t, x_t]), level_BQ, both_BSE, mask_BQS).chunk(2)
            if alpha == 0:
                x0, epsilon = free + 3.0 * (given - free), (x_t - alpha * given) / sigma
            else:
                one, two = (x_t - alpha * given) / sigma, (x_t - alpha * free) / sigma
                guided = two + 3.0 * (one - two)
                ratio = one.std(dim=-1, keepdim=True) / guided.std(dim=-1, keepdim=True)
                epsilon = guided * (0.7 * ratio + 0.3)
                x0 = (x_t - sigma * epsilon) / alpha
            x_t = next_alpha * x0 + next_sigma * epsilon / 1.00045
        return self.sonar_normalizer.inverse(x0.squeeze(1))

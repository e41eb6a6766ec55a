"""The end of the SONAR speech encoder: one query reads all positions of a clip in a few decoder layers.

Attention with a single query needs no keys and values of the positions: the query is brought to where the positions
are, and what it read is brought back. The numbers are the reference's up to rounding, for a small part of the work.

Shapes: B clips, S positions, D model width, H heads, K head width, E embedding.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lcm_data.sonar.layers import FeedForward
from lcm_data.sonar.speech_config import SpeechEncoderConfig

_BOS = 2
"""The row of the embedding that is the query."""


class _OneQueryAttention(nn.Module):
    """Multi-head attention of one vector to the positions of a clip, parameters as fairseq2 names them.

    The bias of the keys adds the same to all scores of a head, so it changes nothing.
    """

    def __init__(self, config: SpeechEncoderConfig) -> None:
        super().__init__()
        self.num_heads = config.pooler_heads
        self.q_proj = nn.Linear(config.model_dim, config.model_dim)
        self.k_proj = nn.Linear(config.model_dim, config.model_dim)
        self.v_proj = nn.Linear(config.model_dim, config.model_dim)
        self.output_proj = nn.Linear(config.model_dim, config.model_dim)

    def forward(self, x_BD: Tensor, memory_BSD: Tensor, padding_BS: Tensor | None) -> Tensor:
        q_BHK = self.q_proj(x_BD).view(len(x_BD), self.num_heads, -1)
        num_in = x_BD.shape[1]
        k_HKD, v_HKD = (layer.weight.view(self.num_heads, -1, num_in) for layer in (self.k_proj, self.v_proj))
        asked_BHD = torch.einsum("bhk,hkd->bhd", q_BHK * q_BHK.shape[2] ** -0.5, k_HKD)
        scores_BHS = asked_BHD @ memory_BSD.transpose(1, 2)
        if padding_BS is not None:
            scores_BHS = scores_BHS.masked_fill(padding_BS.unsqueeze(1), -torch.inf)
        read_BHD = scores_BHS.softmax(dim=2) @ memory_BSD
        values_BHK = torch.einsum("bhd,hkd->bhk", read_BHD, v_HKD)
        out: Tensor = self.output_proj(values_BHK.flatten(1) + self.v_proj.bias)
        return out


class _LoneAttention(nn.Module):
    """Attention of one vector to itself gives its value, whatever the query and the key are."""

    def __init__(self, config: SpeechEncoderConfig) -> None:
        super().__init__()
        self.v_proj = nn.Linear(config.model_dim, config.model_dim)
        self.output_proj = nn.Linear(config.model_dim, config.model_dim)

    def forward(self, x_BD: Tensor) -> Tensor:
        out: Tensor = self.output_proj(self.v_proj(x_BD))
        return out


class _PoolerLayer(nn.Module):
    """Post-norm layer."""

    def __init__(self, config: SpeechEncoderConfig) -> None:
        super().__init__()
        self.self_attn = _LoneAttention(config)
        self.self_attn_layer_norm = nn.LayerNorm(config.model_dim)
        self.encoder_decoder_attn = _OneQueryAttention(config)
        self.encoder_decoder_attn_layer_norm = nn.LayerNorm(config.model_dim)
        self.ffn = FeedForward(config.model_dim, config.pooler_ffn_dim)
        self.ffn_layer_norm = nn.LayerNorm(config.model_dim)

    def forward(self, x_BD: Tensor, memory_BSD: Tensor, padding_BS: Tensor | None) -> Tensor:
        x_BD = self.self_attn_layer_norm(x_BD + self.self_attn(x_BD))
        read_BD = self.encoder_decoder_attn(x_BD, memory_BSD, padding_BS)
        x_BD = self.encoder_decoder_attn_layer_norm(x_BD + read_BD)
        out: Tensor = self.ffn_layer_norm(x_BD + self.ffn(x_BD))
        return out


class _Frontend(nn.Module):
    """Holds the embedding under fairseq2's name."""

    def __init__(self, config: SpeechEncoderConfig) -> None:
        super().__init__()
        self.embed = nn.Embedding(config.pooler_vocab, config.model_dim)


class _Stack(nn.Module):
    """Holds the layers under fairseq2's name."""

    def __init__(self, config: SpeechEncoderConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_PoolerLayer(config) for _ in range(config.pooler_layers))


class Pooler(nn.Module):
    """What a clip says, as one vector: [B, S, D] to [B, E]."""

    def __init__(self, config: SpeechEncoderConfig) -> None:
        super().__init__()
        self.decoder_frontend = _Frontend(config)
        self.decoder = _Stack(config)
        self.projection_out = nn.Linear(config.model_dim, config.embedding_dim, bias=False)

    def forward(self, memory_BSD: Tensor, padding_BS: Tensor | None) -> Tensor:
        """Read ``memory_BSD`` where ``padding_BS`` (None for nowhere) is false."""
        query_D = self.decoder_frontend.embed.weight[_BOS]
        # Position 0, here without the offset of the text networks: all sines are 0, all cosines 1.
        half = len(query_D) // 2
        place_D = torch.cat([query_D.new_zeros(half), query_D.new_ones(len(query_D) - half)])
        x_BD = (query_D * math.sqrt(len(query_D)) + place_D).expand(len(memory_BSD), -1)
        for layer in self.decoder.layers:
            x_BD = layer(x_BD, memory_BSD, padding_BS)
        vectors_BE: Tensor = self.projection_out(x_BD)
        return vectors_BE

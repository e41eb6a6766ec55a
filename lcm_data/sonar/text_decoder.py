"""The SONAR text decoder as a PyTorch module: all tokens at once, or one step at a time.

A sentence vector is the only thing the decoder attends to besides its own tokens. Softmax over one key is 1, so the
cross-attention of a layer is the same vector for every token, ``W_out (W_v e + b_v) + b_out``, and is computed once per
sentence; its query, key and layer norm have no influence and are not kept. Names and mathematics are those of fairseq2
0.8 and sonar-space 0.5. Keys and values of former steps are ``lcm_data.sonar.decoder_state``, choosing tokens is
``lcm_data.sonar.generate``, reading weights ``lcm_data.sonar.checkpoint``.

Shapes: P sentences, B hypotheses of each, T tokens, D model width, L layers, V vocabulary.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lcm_data.errors import UsageError
from lcm_data.sonar.config import TextDecoderConfig
from lcm_data.sonar.decoder_state import Attend, DecoderState, causal
from lcm_data.sonar.layers import FeedForward, joined, linear, packed, placed, sinusoid
from lcm_data.sonar.packing import Packing

__all__ = ["DecoderState", "TextDecoder", "TextDecoderConfig"]


class _CausalAttention(nn.Module):
    """Multi-head self-attention with biases; which keys a query sees is the caller's."""

    output_proj: nn.Module

    def __init__(self, config: TextDecoderConfig) -> None:
        super().__init__()
        self.q_proj = nn.Linear(config.model_dim, config.model_dim)
        self.k_proj = nn.Linear(config.model_dim, config.model_dim)
        self.v_proj = nn.Linear(config.model_dim, config.model_dim)
        self.output_proj = nn.Linear(config.model_dim, config.model_dim)
        self.qkv_proj: nn.Module | None = None

    def forward(self, x_PTD: Tensor, attend: Attend) -> Tensor:
        if self.qkv_proj is None:
            q, k, v = (linear(x_PTD, layer) for layer in (self.q_proj, self.k_proj, self.v_proj))
        else:
            q, k, v = linear(x_PTD, self.qkv_proj).chunk(3, dim=2)
        return linear(attend(q, k, v), self.output_proj)

    def pack(self) -> None:
        """See ``TextDecoder.pack``; one layer replaces those of query, key and value."""
        self.qkv_proj = packed(joined(self.q_proj, self.k_proj, self.v_proj), int8=False)
        self.output_proj = packed(self.output_proj, int8=False)
        del self.q_proj, self.k_proj, self.v_proj


class _CrossAttention(nn.Module):
    """What is left of the attention to a single vector."""

    def __init__(self, config: TextDecoderConfig) -> None:
        super().__init__()
        self.v_proj = nn.Linear(config.model_dim, config.model_dim)
        self.output_proj = nn.Linear(config.model_dim, config.model_dim)

    def forward(self, emb_PD: Tensor) -> Tensor:
        return linear(linear(emb_PD, self.v_proj), self.output_proj)


class DecoderLayer(nn.Module):
    """Pre-norm layer: own tokens, the sentence, feed-forward."""

    def __init__(self, config: TextDecoderConfig) -> None:
        super().__init__()
        self.self_attn_layer_norm = nn.LayerNorm(config.model_dim)
        self.self_attn = _CausalAttention(config)
        self.encoder_decoder_attn = _CrossAttention(config)
        self.ffn_layer_norm = nn.LayerNorm(config.model_dim)
        self.ffn = FeedForward(config.model_dim, config.ffn_dim)

    def forward(self, x_PTD: Tensor, sentence_PD: Tensor, attend: Attend) -> Tensor:
        """``sentence_PD`` is what ``encoder_decoder_attn`` makes of the sentence vectors."""
        x_PTD = x_PTD + self.self_attn(self.self_attn_layer_norm(x_PTD), attend)
        x_PTD = x_PTD + sentence_PD.unsqueeze(1)
        out: Tensor = x_PTD + self.ffn(self.ffn_layer_norm(x_PTD))
        return out


class _Frontend(nn.Module):
    """Holds the embedding under fairseq2's name."""

    def __init__(self, config: TextDecoderConfig) -> None:
        super().__init__()
        self.embed = nn.Embedding(config.vocab_size, config.model_dim)


class _Stack(nn.Module):
    """Holds the layers and the final norm under fairseq2's names."""

    def __init__(self, config: TextDecoderConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_layers))
        self.layer_norm = nn.LayerNorm(config.model_dim)


def _attend_packed(packing: Packing, num_heads: int) -> Attend:
    """Attention for tokens that lie one after the other, each a row of one column."""

    def attend(q_T1D: Tensor, k_T1D: Tensor, v_T1D: Tensor) -> Tensor:
        q, k, v = (part.view(len(part), num_heads, -1) for part in (q_T1D, k_T1D, v_T1D))
        return packing.attend(q, k, v).flatten(1).unsqueeze(1)

    return attend


class TextDecoder(nn.Module):
    """Sentence vectors and token prefixes to logits of the next token. Parameter names are fairseq2's.

    ``final_proj`` is the embedding itself. The position table is not stored and stays float32 whatever dtype the
    weights have. There is no dropout; gradients flow through ``forward``.
    """

    position_table: Tensor

    def __init__(self, config: TextDecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.decoder_frontend = _Frontend(config)
        self.decoder = _Stack(config)
        self.final_proj = nn.Linear(config.model_dim, config.vocab_size, bias=False)
        self.tie()
        self.reset_positions()

    def tie(self) -> None:
        """Make the output projection the embedding (again): loading with ``assign=True`` parts them."""
        self.final_proj.weight = self.decoder_frontend.embed.weight

    def reset_positions(self) -> None:
        """(Re)compute the position table in float32 on the device of the weights."""
        table = sinusoid(self.config.max_tokens, self.config.model_dim)
        self.register_buffer("position_table", table.to(self.decoder_frontend.embed.weight.device), persistent=False)

    def forward(self, emb_PD: Tensor, ids_PT: Tensor) -> Tensor:
        """Logits for the token after each prefix.

        Args:
            emb_PD: sentence vectors, any float dtype.
            ids_PT: tokens, beginning with the prompt ``[</s>, language]``; pad shorter rows at the end with anything.

        Returns:
            [P, T, V] in the dtype of the weights; entry t is about token t + 1.

        Raises:
            UsageError: more than ``config.max_tokens`` tokens, or vectors of another width.
        """
        self._check(emb_PD, ids_PT.shape[1])
        x_PTD = self._embed(ids_PT, self.position_table[: ids_PT.shape[1]])
        emb_PD = emb_PD.to(x_PTD.dtype)
        for layer in self._layers():
            x_PTD = layer(x_PTD, layer.encoder_decoder_attn(emb_PD), self._causal)
        return self.project(self.decoder.layer_norm(x_PTD))

    def hidden(self, emb_PD: Tensor, row_T: Tensor, ids_T: Tensor, packing: Packing) -> Tensor:
        """All tokens of packed sentences at once, for training: what ``project`` makes the logits of.

        Args:
            emb_PD: sentence vectors.
            row_T: for every token which of them is its sentence's.
            ids_T: tokens of all sentences one after the other, each beginning with the prompt ``[</s>, language]``.
            packing: of the same sentences, causal.

        Returns:
            [T, D]; entry t is about the token after token t.
        """
        x_TD = self.decoder_frontend.embed(ids_T) * math.sqrt(self.config.model_dim)
        x_T1D = placed(x_TD, packing.positions(self.position_table)).unsqueeze(1)
        attend = _attend_packed(packing, self.config.num_heads)
        for layer in self._layers():
            x_T1D = layer(x_T1D, layer.encoder_decoder_attn(emb_PD)[row_T], attend)
        hidden_TD: Tensor = self.decoder.layer_norm(x_T1D.squeeze(1))
        return hidden_TD

    def start(self, emb_PD: Tensor, ids_PT: Tensor) -> tuple[Tensor, DecoderState]:
        """As ``forward`` up to the output projection; also the state to go on from with ``step`` (with B = 1).

        Returns:
            [P, T, D], of which ``project`` makes the logits, and the state.
        """
        self._check(emb_PD, ids_PT.shape[1])
        emb_PD = emb_PD.to(self.decoder_frontend.embed.weight.dtype)
        sentences_LPD = torch.stack([layer.encoder_decoder_attn(emb_PD) for layer in self._layers()])
        state = DecoderState(sentences_LPD, self.config.num_heads)
        x_PTD = self._embed(ids_PT, self.position_table[: ids_PT.shape[1]])
        return self._through(x_PTD, state, state.open_prompt(ids_PT.shape[1])), state

    def step(self, ids_PB: Tensor, state: DecoderState) -> Tensor:
        """Append one token to each hypothesis of ``state``; returns [P, B, D], of which ``project`` makes the logits.

        A sentence that has ``config.max_tokens`` tokens already may be among others; its result means nothing.

        Raises:
            UsageError: all hypotheses have ``config.max_tokens`` tokens already.
        """
        last = self.config.max_tokens - 1
        if state.num_tokens.min() > last:
            raise UsageError(f"the decoder takes at most {self.config.max_tokens} tokens.")
        x_PBD = self._embed(ids_PB, self.position_table[state.positions_P.clamp(max=last)].unsqueeze(1))
        return self._through(x_PBD, state, state.open_step())

    def project(self, hidden: Tensor) -> Tensor:
        """Logits [..., V] in the dtype of the weights from what ``start`` and ``step`` return [..., D]."""
        return linear(hidden, self.final_proj)

    def pack(self) -> TextDecoder:
        """Rearrange the weights of the layers for speed, for good; returns itself. For inference only.

        The layers then have no parameters to save or to train, and take no more memory than before.
        """
        for layer in self._layers():
            layer.self_attn.pack()
            layer.ffn.pack(int8=False)
        return self

    def full_state(self) -> dict[str, Tensor]:
        """A state dict with all names of fairseq2: weights without influence, which this class lacks, are zeros."""
        from lcm_data.sonar.decoder_layout import decoder_shapes

        own = self.state_dict()
        like = self.decoder_frontend.embed.weight
        return {name: own.get(name, like.new_zeros(shape)) for name, shape in decoder_shapes(self.config).items()}

    def _layers(self) -> list[DecoderLayer]:
        return list(self.decoder.layers)  # type: ignore[arg-type]

    def _through(self, x_PTD: Tensor, state: DecoderState, attention: list[Attend]) -> Tensor:
        for layer, sentence_PD, attend in zip(self._layers(), state.sentences_LPD, attention, strict=True):
            x_PTD = layer(x_PTD, sentence_PD, attend)
        hidden: Tensor = self.decoder.layer_norm(x_PTD)
        return hidden

    def _embed(self, ids_PT: Tensor, positions: Tensor) -> Tensor:
        x_PTD: Tensor = self.decoder_frontend.embed(ids_PT) * math.sqrt(self.config.model_dim)
        return placed(x_PTD, positions)

    def _causal(self, q_PTD: Tensor, k_PTD: Tensor, v_PTD: Tensor) -> Tensor:
        return causal(q_PTD, k_PTD, v_PTD, self.config.num_heads)

    def _check(self, emb_PD: Tensor, num_tokens: int) -> None:
        if not 1 <= num_tokens <= self.config.max_tokens:
            raise UsageError(f"a prefix must have 1 to {self.config.max_tokens} tokens, got {num_tokens}.")
        if emb_PD.ndim != 2 or emb_PD.shape[1] != self.config.model_dim:
            raise UsageError(
                f"sentence vectors must have shape [N, {self.config.model_dim}], got {tuple(emb_PD.shape)}. "
                "They belong to another model."
            )

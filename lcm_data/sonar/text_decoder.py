"""The SONAR text decoder as a PyTorch module: all tokens at once, or one step at a time with a cache that never moves.

A sentence vector is the only thing the decoder attends to besides its own tokens. Softmax over one key is 1, so the
cross-attention of a layer is the same vector for every token, ``W_out (W_v e + b_v) + b_out``, and is computed once per
sentence; its query, key and layer norm have no influence and are not kept. Names and mathematics are those of fairseq2
0.8 and sonar-space 0.5. Choosing tokens is ``lcm_data.sonar.generate``; reading weights ``lcm_data.sonar.checkpoint``.

Shapes: P sentences, B hypotheses of each, T tokens, D model width, H heads, K head width, L layers, V vocabulary,
C slots of the cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lcm_data.errors import UsageError
from lcm_data.sonar.config import TextDecoderConfig
from lcm_data.sonar.layers import FeedForward, linear, sinusoid

__all__ = ["DecoderState", "TextDecoder", "TextDecoderConfig"]

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Queries, keys and values [P, H, T, K] to what is attended to, of the shape of the queries."""

_FIRST_STEPS = 16


class _CausalAttention(nn.Module):
    """Multi-head self-attention with biases; which keys a query sees is the caller's."""

    def __init__(self, config: TextDecoderConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.q_proj = nn.Linear(config.model_dim, config.model_dim)
        self.k_proj = nn.Linear(config.model_dim, config.model_dim)
        self.v_proj = nn.Linear(config.model_dim, config.model_dim)
        self.output_proj = nn.Linear(config.model_dim, config.model_dim)

    def forward(self, x_PTD: Tensor, attend: Attend) -> Tensor:
        num_sentences, num_tokens, _ = x_PTD.shape
        shape = (num_sentences, num_tokens, self.num_heads, -1)
        q, k, v = (linear(x_PTD, p).view(shape).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj))
        mixed_PTD = attend(q, k, v).transpose(1, 2).reshape(x_PTD.shape)
        return linear(mixed_PTD, self.output_proj)


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


class DecoderState:
    """Keys and values of what P sentences with B hypotheses each have said so far.

    A hypothesis that is continued, dropped or doubled does not move its keys: they stay in the slots they were written
    to, and ``visible_PBC`` says which slots are the past of which hypothesis. Reordering thus copies flags instead of
    the cache, and all hypotheses of a sentence share one read of its keys.

    Attributes:
        num_tokens: how many tokens every hypothesis has.
        num_slots: how many slots are filled.
    """

    def __init__(self, sentences_LPD: Tensor, num_heads: int) -> None:
        num_layers, num_sentences, dim = sentences_LPD.shape
        self.sentences_LPD = sentences_LPD
        self.keys_LPHCK = sentences_LPD.new_empty(num_layers, num_sentences, num_heads, 0, dim // num_heads)
        self.values_LPHCK = self.keys_LPHCK
        self.visible_PBC = torch.empty(num_sentences, 1, 0, dtype=torch.bool, device=sentences_LPD.device)
        self.num_tokens = 0
        self.num_slots = 0

    @property
    def num_sentences(self) -> int:
        """P."""
        return self.visible_PBC.shape[0]

    @property
    def beam_size(self) -> int:
        """B."""
        return self.visible_PBC.shape[1]

    def reorder(self, parents_PB: Tensor) -> None:
        """Hypothesis b of sentence p continues what was hypothesis ``parents_PB[p, b]``. B may change."""
        index = parents_PB.unsqueeze(2).expand(-1, -1, self.num_slots)
        self.visible_PBC = self.visible_PBC[:, :, : self.num_slots].gather(1, index)

    def keep(self, rows: Tensor) -> None:
        """Go on with some of the sentences only; ``rows`` are their indices."""
        self.sentences_LPD = self.sentences_LPD[:, rows]
        self.visible_PBC = self.visible_PBC[rows]
        capacity = self.keys_LPHCK.shape[3]
        self.keys_LPHCK = self._copied(self.keys_LPHCK, capacity, rows)
        self.values_LPHCK = self._copied(self.values_LPHCK, capacity, rows)

    def open(self, num_new: int, causal: bool) -> Tensor | None:
        """Make room for ``num_new`` slots per sentence; returns what the new queries see, [P, 1, T, C] or None (all).

        ``causal``: the slots are successive tokens of the only hypothesis, else one token of each hypothesis.
        """
        assert self.beam_size == 1 if causal else num_new == self.beam_size
        stop = self.num_slots + num_new
        if stop > self.keys_LPHCK.shape[3]:
            capacity = max(2 * self.num_slots, stop + _FIRST_STEPS * self.beam_size)
            self.keys_LPHCK = self._copied(self.keys_LPHCK, capacity)
            self.values_LPHCK = self._copied(self.values_LPHCK, capacity)
        own = torch.ones(num_new, num_new, dtype=torch.bool, device=self.visible_PBC.device)
        own = own.tril() if causal else own.diag().diag()
        past_PBC = self.visible_PBC[:, :, : self.num_slots].expand(-1, num_new, -1)
        seen_PBC = torch.cat([past_PBC, own.expand(self.num_sentences, -1, -1)], dim=2)
        self.visible_PBC = seen_PBC[:, -1:] if causal else seen_PBC
        self.num_slots = stop
        self.num_tokens += num_new if causal else 1
        return None if num_new == 1 else seen_PBC.unsqueeze(1)

    def attend(self, layer: int, mask: Tensor | None) -> Attend:
        """The attention of one layer over all filled slots; the last slots take the new keys and values."""

        def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            keys, values = self.keys_LPHCK[layer], self.values_LPHCK[layer]
            keys[:, :, self.num_slots - k.shape[2] : self.num_slots] = k
            values[:, :, self.num_slots - k.shape[2] : self.num_slots] = v
            past = slice(0, self.num_slots)
            return F.scaled_dot_product_attention(q, keys[:, :, past], values[:, :, past], attn_mask=mask)

        return run

    def _copied(self, old_LPHCK: Tensor, capacity: int, rows: Tensor | slice = slice(None)) -> Tensor:
        """The filled slots of ``rows`` in new memory for ``capacity`` slots, a layer at a time."""
        filled = slice(0, self.num_slots)
        parts = (layer_PHCK[rows, :, filled] for layer_PHCK in old_LPHCK)
        num_layers, _, num_heads, _, head_dim = old_LPHCK.shape
        new_LPHCK = old_LPHCK.new_empty(num_layers, self.num_sentences, num_heads, capacity, head_dim)
        for number, part_PHCK in enumerate(parts):
            new_LPHCK[number, :, :, filled] = part_PHCK
        return new_LPHCK


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
        x_PTD = self._embed(ids_PT, slice(0, ids_PT.shape[1]))
        emb_PD = emb_PD.to(x_PTD.dtype)
        for layer in self._layers():
            x_PTD = layer(x_PTD, layer.encoder_decoder_attn(emb_PD), _causal)
        return self._project(x_PTD)

    def start(self, emb_PD: Tensor, ids_PT: Tensor) -> tuple[Tensor, DecoderState]:
        """As ``forward``, and the state to go on from with ``step`` (one hypothesis per sentence)."""
        self._check(emb_PD, ids_PT.shape[1])
        emb_PD = emb_PD.to(self.decoder_frontend.embed.weight.dtype)
        sentences_LPD = torch.stack([layer.encoder_decoder_attn(emb_PD) for layer in self._layers()])
        state = DecoderState(sentences_LPD, self.config.num_heads)
        return self._advance(ids_PT, state, causal=True), state

    def step(self, ids_PB: Tensor, state: DecoderState) -> Tensor:
        """Append one token to each hypothesis of ``state``; returns logits [P, B, V] for the token after it.

        Raises:
            UsageError: the hypotheses have ``config.max_tokens`` tokens already.
        """
        if state.num_tokens >= self.config.max_tokens:
            raise UsageError(f"the decoder takes at most {self.config.max_tokens} tokens.")
        return self._advance(ids_PB, state, causal=False)

    def full_state(self) -> dict[str, Tensor]:
        """A state dict with all names of fairseq2: weights without influence, which this class lacks, are zeros."""
        from lcm_data.sonar.decoder_layout import decoder_shapes

        own = self.state_dict()
        like = self.decoder_frontend.embed.weight
        return {name: own.get(name, like.new_zeros(shape)) for name, shape in decoder_shapes(self.config).items()}

    def _layers(self) -> list[DecoderLayer]:
        return list(self.decoder.layers)  # type: ignore[arg-type]

    def _advance(self, ids_PT: Tensor, state: DecoderState, *, causal: bool) -> Tensor:
        # The tokens of a step are of equal age, those of a prompt follow each other.
        positions = slice(state.num_tokens, state.num_tokens + (ids_PT.shape[1] if causal else 1))
        mask = state.open(ids_PT.shape[1], causal)
        x_PTD = self._embed(ids_PT, positions)
        for number, layer in enumerate(self._layers()):
            x_PTD = layer(x_PTD, state.sentences_LPD[number], state.attend(number, mask))
        return self._project(x_PTD)

    def _embed(self, ids_PT: Tensor, positions: slice) -> Tensor:
        x_PTD: Tensor = self.decoder_frontend.embed(ids_PT) * math.sqrt(self.config.model_dim)
        # Added in float32 and cast back, as the reference does: in bfloat16 late positions would collapse.
        return (x_PTD.float() + self.position_table[positions]).to(x_PTD.dtype)

    def _project(self, x_PTD: Tensor) -> Tensor:
        return linear(self.decoder.layer_norm(x_PTD), self.final_proj)

    def _check(self, emb_PD: Tensor, num_tokens: int) -> None:
        if not 1 <= num_tokens <= self.config.max_tokens:
            raise UsageError(f"a prefix must have 1 to {self.config.max_tokens} tokens, got {num_tokens}.")
        if emb_PD.ndim != 2 or emb_PD.shape[1] != self.config.model_dim:
            raise UsageError(
                f"sentence vectors must have shape [N, {self.config.model_dim}], got {tuple(emb_PD.shape)}. "
                "They belong to another model."
            )


def _causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)

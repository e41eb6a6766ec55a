"""What hypotheses have said so far, as the text decoder needs it: keys and values that stay where they were written.

A hypothesis that is continued, dropped or doubled does not move its keys: which slots are the past of which hypothesis
is a table of flags, and only that is reordered. All hypotheses of a sentence share one read of its keys. The network is
``lcm_data.sonar.text_decoder``; which hypotheses go on is for ``lcm_data.sonar.generate``.

Shapes: P sentences, B hypotheses of each, T tokens, C slots, D model width, H heads, L layers.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Queries, keys and values [P, T, D] to what is attended to, [P, T, D]."""

_ROOM_STEPS = 16
"""Steps there is room for after the slots have been tidied up."""


class DecoderState:
    """Keys and values of P sentences with B hypotheses each; the sentences may be of different ages.

    All sentences write to the same slots in a step. Slots nobody sees any more are given up when room is needed, so
    there are about as many as the oldest sentence has tokens in all its hypotheses.

    Attributes:
        sentences_LPD: what each layer adds for the sentence.
        num_tokens: int64 [P] on the host, how many tokens the hypotheses of each sentence have.
        positions_P: the same on the device.
        num_slots: how many slots are filled.
    """

    def __init__(self, sentences_LPD: Tensor, num_heads: int) -> None:
        num_layers, num_sentences, dim = sentences_LPD.shape
        self.sentences_LPD = sentences_LPD
        self._num_heads = num_heads
        # A tensor for each layer: moving them one by one needs little extra memory.
        self._keys = [sentences_LPD.new_empty(num_sentences, 0, dim) for _ in range(num_layers)]
        self._values = list(self._keys)
        self._visible_PBC = torch.empty(num_sentences, 1, 0, dtype=torch.bool, device=sentences_LPD.device)
        self.num_tokens = np.zeros(num_sentences, np.int64)
        self.positions_P = torch.zeros(num_sentences, dtype=torch.int64, device=sentences_LPD.device)
        self.num_slots = 0

    @property
    def num_sentences(self) -> int:
        """P."""
        return self._visible_PBC.shape[0]

    @property
    def beam_size(self) -> int:
        """B."""
        return self._visible_PBC.shape[1]

    @property
    def capacity(self) -> int:
        """How many slots there is memory for."""
        return self._visible_PBC.shape[2]

    def reorder(self, parents_PB: Tensor) -> None:
        """Hypothesis b of sentence p continues what was hypothesis ``parents_PB[p, b]``. B may change."""
        self._visible_PBC = self._visible_PBC.gather(1, parents_PB.unsqueeze(2).expand(-1, -1, self.capacity))

    def keep(self, rows: Tensor) -> None:
        """Go on with some of the sentences only; ``rows`` are their indices."""
        self._tidy(rows)
        self.sentences_LPD = self.sentences_LPD[:, rows]
        self.positions_P = self.positions_P[rows]
        self.num_tokens = self.num_tokens[rows.cpu().numpy()]

    def admit(self, rows: Tensor, other: DecoderState, picks: Tensor) -> None:
        """The sentences ``picks`` of ``other`` take the places ``rows``. B must be equal, and ``other`` not older."""
        filled = other.num_slots
        assert other.beam_size == self.beam_size
        assert filled <= self.num_slots
        for mine, theirs in zip(self._keys + self._values, other._keys + other._values, strict=True):
            mine[rows, : self.num_slots] = 0  # invisible, but a NaN left by another sentence would still spread
            mine[rows, :filled] = theirs[picks, :filled]
        self._visible_PBC[rows] = False
        self._visible_PBC[rows, :, :filled] = other._visible_PBC[picks, :, :filled]
        self.sentences_LPD[:, rows] = other.sentences_LPD[:, picks]
        self.positions_P[rows] = other.positions_P[picks]
        self.num_tokens[rows.cpu().numpy()] = other.num_tokens[picks.cpu().numpy()]

    def open_prompt(self, num_tokens: int) -> list[Attend]:
        """Start with ``num_tokens`` tokens of one hypothesis; returns the attention of each layer."""
        assert self.num_slots == 0
        self.num_slots = num_tokens
        self._visible_PBC = self._visible_PBC.new_ones(self.num_sentences, 1, num_tokens)
        self._count(num_tokens)

        def attention(layer: int) -> Attend:
            def attend(q_PTD: Tensor, k_PTD: Tensor, v_PTD: Tensor) -> Tensor:
                self._keys[layer], self._values[layer] = k_PTD.contiguous(), v_PTD.contiguous()
                return causal(q_PTD, k_PTD, v_PTD, self._num_heads)

            return attend

        return [attention(layer) for layer in range(len(self._keys))]

    def open_step(self) -> list[Attend]:
        """Make room for one more token of each hypothesis; returns the attention of each layer."""
        start, stop = self.num_slots, self.num_slots + self.beam_size
        if stop > self.capacity:
            self._tidy(None)
            start, stop = self.num_slots, self.num_slots + self.beam_size
        self.num_slots = stop
        own_BB = torch.eye(self.beam_size, dtype=torch.bool, device=self._visible_PBC.device)
        self._visible_PBC[:, :, start:stop] = own_BB
        self._count(1)
        # One table for all layers; in the dtype of the queries no layer has to convert it.
        bias_PBC = self.sentences_LPD.new_zeros(self._visible_PBC.shape).masked_fill_(~self._visible_PBC, -torch.inf)
        bias_P1BC = bias_PBC.unsqueeze(1)[..., :stop]

        def attention(layer: int) -> Attend:
            def attend(q_PBD: Tensor, k_PBD: Tensor, v_PBD: Tensor) -> Tensor:
                keys, values = self._keys[layer], self._values[layer]
                keys[:, start:stop] = k_PBD
                values[:, start:stop] = v_PBD
                q, k, v = (heads(t, self._num_heads) for t in (q_PBD, keys[:, :stop], values[:, :stop]))
                return F.scaled_dot_product_attention(q, k, v, attn_mask=bias_P1BC).transpose(1, 2).flatten(2)

            return attend

        return [attention(layer) for layer in range(len(self._keys))]

    def _count(self, num_new: int) -> None:
        self.num_tokens += num_new
        self.positions_P += num_new

    def _tidy(self, rows: Tensor | None) -> None:
        """Move the visible slots of ``rows`` (None is all) together and make room for some steps."""
        if rows is None:
            rows = torch.arange(self.num_sentences, device=self._visible_PBC.device)
        visible_PBC = self._visible_PBC[rows]
        seen_PC = visible_PBC.any(dim=1)
        self.num_slots = int(seen_PC.sum(dim=1).max())
        # Sentences that see fewer slots get some that nobody sees.
        slots_PC = (~seen_PC).to(torch.int8).argsort(dim=1, stable=True)[:, : self.num_slots]
        flat = (rows.unsqueeze(1) * self.capacity + slots_PC).flatten()
        # A multiple of 8 is what the kernels of GPUs want of the table.
        capacity = -(-(self.num_slots + _ROOM_STEPS * self.beam_size) // 8) * 8
        for tensors in (self._keys, self._values):
            for layer, old_PCD in enumerate(tensors):
                new_PCD = old_PCD.new_empty(len(rows), capacity, old_PCD.shape[2])
                new_PCD[:, : self.num_slots] = old_PCD.flatten(0, 1)[flat].view(len(rows), -1, old_PCD.shape[2])
                tensors[layer] = new_PCD
        self._visible_PBC = visible_PBC.new_zeros(len(rows), self.beam_size, capacity)
        index = slots_PC.unsqueeze(1).expand(-1, self.beam_size, -1)
        self._visible_PBC[:, :, : self.num_slots] = visible_PBC.gather(2, index)


def heads(x_PTD: Tensor, num_heads: int) -> Tensor:
    """[P, T, D] as [P, H, T, D / H]."""
    num_sentences, num_tokens, dim = x_PTD.shape
    return x_PTD.view(num_sentences, num_tokens, num_heads, dim // num_heads).transpose(1, 2)


def causal(q_PTD: Tensor, k_PTD: Tensor, v_PTD: Tensor, num_heads: int) -> Tensor:
    """Attention of each token to itself and those before it."""
    q, k, v = (heads(t, num_heads) for t in (q_PTD, k_PTD, v_PTD))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)

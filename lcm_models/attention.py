"""Attention: rotary positions, who may see whom in packed and interleaved sequences, the key-value cache.

A rule says for a query and a key whether one may see the other. It is written once and becomes a dense mask (SDPA) or
a block mask (FlexAttention). Documents packed into one row never see each other; padding is a document of its own, so
that every query sees something and no softmax is empty.

Shapes: B rows, S concepts (columns of a row), Q queries, E model width, H heads, K head width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from lcm_data.errors import UsageError

Mask: TypeAlias = Tensor | BlockMask
"""A bool tensor [B, 1, Q, S], True where a query may see a key, or the same as a FlexAttention block mask."""

Rule: TypeAlias = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""``rule(row, head, query, key)`` on broadcastable index tensors: may the query see the key?"""

Rotary: TypeAlias = tuple[Tensor, Tensor]
"""Cosines and sines, each float32 [B, 1, S, K/2]."""

ROPE_BASE = 10000.0


# -- who sees whom -----------------------------------------------------------------------------------------------------


def positions(doc_BS: Tensor) -> Tensor:
    """Place of each concept in its document, from 0: [B, S]. A document is a run of equal ids."""
    index_S = torch.arange(doc_BS.shape[1], device=doc_BS.device)
    begins_BS = F.pad(doc_BS[:, 1:] != doc_BS[:, :-1], (1, 0), value=True)
    first_BS = torch.cummax(index_S * begins_BS, dim=1).values
    return index_S - first_BS


def causal_rule(doc_BS: Tensor) -> Rule:
    """A concept sees itself and what precedes it in its document."""

    def rule(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & (doc_BS[row, query] == doc_BS[row, key])

    return rule


def interleaved_rule(doc_BS: Tensor, drop_BS: Tensor) -> Rule:
    """For S clean concepts followed by S noisy ones, in which a noisy one stands for predicting the clean one.

    A clean concept sees itself and clean ones before it; a noisy one sees itself and clean ones before its place,
    or itself alone where ``drop_BS`` is set. (The order of the two halves does not matter: positions are explicit.)
    """
    num = doc_BS.shape[1]

    def rule(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        q, k = query % num, key % num
        same_document = doc_BS[row, q] == doc_BS[row, k]
        of_clean = (query < num) & (k <= q)
        of_noisy = (query >= num) & (k < q) & ~drop_BS[row, q]
        return (query == key) | (same_document & (key < num) & (of_clean | of_noisy))

    return rule


def cross_rule(doc_BS: Tensor, drop_BS: Tensor) -> Rule:
    """For S noisy queries and S + 1 keys, the zero vector and then the context of every concept.

    Query n sees the zero vector and the concepts before n in its document, or the zero vector alone where dropped.
    """

    def rule(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        k = (key - 1).clamp(min=0)
        before = (key > 0) & (k < query) & (doc_BS[row, query] == doc_BS[row, k]) & ~drop_BS[row, query]
        return (key == 0) | before

    return rule


def dense_mask(rule: Rule, num_rows: int, num_queries: int, num_keys: int, device: torch.device) -> Tensor:
    """The rule as a bool tensor [B, 1, Q, S]."""
    row = torch.arange(num_rows, device=device)[:, None, None]
    query = torch.arange(num_queries, device=device)[None, :, None]
    key = torch.arange(num_keys, device=device)[None, None, :]
    return rule(row, torch.zeros_like(row), query, key)[:, None]


def make_mask(kind: str, rule: Rule, num_rows: int, num_queries: int, num_keys: int, device: torch.device) -> Mask:
    """The rule for training attention of ``kind`` "sdpa" or "flex".

    Raises:
        UsageError: FlexAttention was asked to train on a CPU, which it cannot.
    """
    if kind == "flex":
        if device.type == "cpu" and torch.is_grad_enabled():
            raise UsageError("attention 'flex' trains on GPUs only: set attention to 'sdpa'.")
        return create_block_mask(rule, num_rows, None, num_queries, num_keys, device=device)
    return dense_mask(rule, num_rows, num_queries, num_keys, device)


# -- rotary positions --------------------------------------------------------------------------------------------------


def rotary(position_BS: Tensor, head_dim: int) -> Rotary:
    """Cosines and sines of rotary positions. Computed, not stored: bfloat16 weights leave them exact."""
    exponent = torch.arange(0, head_dim, 2, device=position_BS.device, dtype=torch.float32) / head_dim
    angle_BSK = position_BS.float().unsqueeze(-1) * ROPE_BASE**-exponent
    return angle_BSK.cos().unsqueeze(1), angle_BSK.sin().unsqueeze(1)


def rotate(x_BHSK: Tensor, angles: Rotary) -> Tensor:
    """Turn adjacent pairs (0, 1), (2, 3)... as fairseq2 does, not the two halves."""
    cos, sin = angles
    even, odd = x_BHSK.float().reshape(*x_BHSK.shape[:-1], -1, 2).unbind(-1)
    turned = torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1)
    return turned.flatten(-2).to(x_BHSK.dtype)


# -- the cache ---------------------------------------------------------------------------------------------------------


class KVCache:
    """Keys and values of one attention layer [B, H, capacity, K], of which ``length`` columns are kept.

    ``put`` writes behind the kept columns; ``keep`` decides that they stay. What is not kept is overwritten by the
    next ``put``: that is how noisy queries look at a context without entering it.
    """

    def __init__(self) -> None:
        self.length = 0
        self._k: Tensor | None = None
        self._v: Tensor | None = None

    def put(self, k_BHSK: Tensor, v_BHSK: Tensor) -> tuple[Tensor, Tensor]:
        """Write new columns and return all keys and values up to their end (views)."""
        end = self.length + k_BHSK.shape[2]
        if self._k is None or self._v is None or end > self._k.shape[2]:
            self._k, self._v = self._grown(self._k, k_BHSK, end), self._grown(self._v, v_BHSK, end)
        self._k[:, :, self.length : end] = k_BHSK
        self._v[:, :, self.length : end] = v_BHSK
        return self._k[:, :, :end], self._v[:, :, :end]

    def _grown(self, old: Tensor | None, new_BHSK: Tensor, end: int) -> Tensor:
        """A larger buffer; doubling, so that growing costs a constant number of copies per column."""
        rows, heads, _, head_dim = new_BHSK.shape
        grown = new_BHSK.new_zeros(rows, heads, max(end, 2 * self.length, 16), head_dim)
        if old is not None:
            grown[:, :, : self.length] = old[:, :, : self.length]
        return grown

    def keep(self, num_columns: int) -> None:
        """Keep so many of the columns last written."""
        self.length += num_columns

    def kept(self) -> tuple[Tensor, Tensor]:
        """Keys and values of the kept columns (views)."""
        assert self._k is not None
        assert self._v is not None
        return self._k[:, :, : self.length], self._v[:, :, : self.length]

    def select(self, rows: Tensor) -> None:
        """Keep only these rows, in this order."""
        if self._k is not None and self._v is not None:
            self._k, self._v = self._k[rows], self._v[rows]


# -- attention ---------------------------------------------------------------------------------------------------------


class Attention(nn.Module):
    """Multi-head attention with biases everywhere, as in the official code (there is no dropout on the weights)."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.output_proj = nn.Linear(width, width)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise the output projection; the others keep PyTorch's own."""
        nn.init.xavier_uniform_(self.output_proj.weight)
        nn.init.zeros_(self.output_proj.bias)

    def forward(self, x_BQE: Tensor, mask: Mask, angles: Rotary | None = None, cache: KVCache | None = None) -> Tensor:
        """Self-attention of new columns: among themselves, or with ``cache`` also to the columns it keeps."""
        k_BHSK, v_BHSK = self.keys_values(x_BQE, angles)
        if cache is not None:
            k_BHSK, v_BHSK = cache.put(k_BHSK, v_BHSK)
        return self.mix(x_BQE, k_BHSK, v_BHSK, mask, angles)

    def keys_values(self, x_BSE: Tensor, angles: Rotary | None = None) -> tuple[Tensor, Tensor]:
        """Keys and values [B, H, S, K] of ``x_BSE``."""
        k_BHSK = self._heads(self.k_proj(x_BSE))
        return (k_BHSK if angles is None else rotate(k_BHSK, angles)), self._heads(self.v_proj(x_BSE))

    def mix(self, x_BQE: Tensor, k_BHSK: Tensor, v_BHSK: Tensor, mask: Mask, angles: Rotary | None = None) -> Tensor:
        """What the queries of ``x_BQE`` get from given keys and values."""
        q_BHQK = self._heads(self.q_proj(x_BQE))
        if angles is not None:
            q_BHQK = rotate(q_BHQK, angles)
        if isinstance(mask, BlockMask):
            mixed = flex_attention(q_BHQK, k_BHSK, v_BHSK, block_mask=mask)
            assert isinstance(mixed, Tensor)
        else:
            mixed = F.scaled_dot_product_attention(q_BHQK, k_BHSK, v_BHSK, attn_mask=mask)
        out_BQE: Tensor = self.output_proj(mixed.transpose(1, 2).flatten(2))
        return out_BQE

    def _heads(self, x_BSE: Tensor) -> Tensor:
        num_rows, num_columns, _ = x_BSE.shape
        return x_BSE.reshape(num_rows, num_columns, self.num_heads, -1).transpose(1, 2)

"""Sentences of different lengths as the rows of one matrix, without padding: positions, attention and means of such.

``Groups`` does with any device and dtype what ``Varlen`` does with one FlashAttention call on a GPU. The network around
them is ``lcm_data.sonar.text_encoder``.

Shapes: N sentences, T tokens of all of them, D model width, H heads, K head width.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

logger = logging.getLogger(__name__)

VarlenAttention = Callable[[Tensor, Tensor, Tensor, Tensor, int], Tensor]
"""(q, k, v) [T, H, K], where sentences begin and the last ends [N + 1] int32, the longest length -> [T, H, K]."""


class Packing(Protocol):
    """The rows of one batch."""

    def positions(self, table_PD: Tensor) -> Tensor:
        """The row of the table for every token: [T, D]."""
        ...

    def attend(self, q_THK: Tensor, k_THK: Tensor, v_THK: Tensor) -> Tensor:
        """Bidirectional attention within each sentence: [T, H, K]."""
        ...

    def means(self, x_TD: Tensor) -> Tensor:
        """float32 [N, D]: the mean of each sentence, with ``length + 1e-7`` as denominator."""
        ...


class Groups:
    """Neighbours of equal length share every call, so sentences should be sorted by length.

    ``causal``: a token attends to itself and those before it in its sentence only.
    """

    def __init__(self, lengths: Sequence[int], causal: bool = False) -> None:
        self._groups = [(len(list(same)), length) for length, same in itertools.groupby(lengths)]
        self._causal = causal

    def positions(self, table_PD: Tensor) -> Tensor:
        return torch.cat([table_PD[:length].repeat(count, 1) for count, length in self._groups])

    def attend(self, q_THK: Tensor, k_THK: Tensor, v_THK: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return self._attend_learning(q_THK, k_THK, v_THK)
        mixed_THK = torch.empty(q_THK.shape, dtype=q_THK.dtype, device=q_THK.device)
        start = 0
        for count, length in self._groups:
            rows = slice(start, start + count * length)
            q, k, v = (t[rows].view(count, length, *t.shape[1:]).transpose(1, 2) for t in (q_THK, k_THK, v_THK))
            mixed_NHLK = F.scaled_dot_product_attention(q, k, v, is_causal=self._causal)
            mixed_THK[rows].view(count, length, *q_THK.shape[1:]).copy_(mixed_NHLK.transpose(1, 2))
            start = rows.stop
        return mixed_THK

    def _attend_learning(self, q_THK: Tensor, k_THK: Tensor, v_THK: Tensor) -> Tensor:
        """Pieces that are joined, for autograd: writing each into its place would copy all of them once a group."""
        sizes = [count * length for count, length in self._groups]
        parts_of = [torch.split(t, sizes) for t in (q_THK, k_THK, v_THK)]
        mixed = []
        for (count, length), *parts in zip(self._groups, *parts_of, strict=True):
            q, k, v = (part.reshape(count, length, *part.shape[1:]).transpose(1, 2) for part in parts)
            mixed_NHLK = _attention(q, k, v, self._causal)
            mixed.append(mixed_NHLK.transpose(1, 2).flatten(0, 1))
        return torch.cat(mixed)

    def means(self, x_TD: Tensor) -> Tensor:
        rows = torch.split(x_TD.float(), [count * length for count, length in self._groups])
        means = [
            part.view(count, length, -1).sum(dim=1) / (length + 1e-7)
            for part, (count, length) in zip(rows, self._groups, strict=True)
        ]
        return torch.cat(means)


def _attention(q_NHLK: Tensor, k_NHLK: Tensor, v_NHLK: Tensor, causal: bool) -> Tensor:
    """Attention of short sentences with gradients; on a CPU as products, whose backward is several times SDPA's."""
    if q_NHLK.device.type != "cpu":
        return F.scaled_dot_product_attention(q_NHLK, k_NHLK, v_NHLK, is_causal=causal)
    length, scale = q_NHLK.shape[2], q_NHLK.shape[3] ** -0.5
    q, k, v = (part.flatten(0, 1) for part in (q_NHLK, k_NHLK, v_NHLK))
    if causal:
        hidden_LL = torch.full((length, length), -torch.inf, dtype=q.dtype).triu(1)
        scores = torch.baddbmm(hidden_LL.expand(len(q), -1, -1), q, k.transpose(1, 2), alpha=scale)
    else:
        scores = torch.bmm(q * scale, k.transpose(1, 2))
    return torch.bmm(scores.softmax(dim=-1), v).view(q_NHLK.shape)


class Padded:
    """Sentences as rows of one padded batch while they attend: a fixed number of calls, with gradients, on any device.

    ``causal`` as in ``Groups``.
    """

    def __init__(self, lengths: Sequence[int], device: torch.device, causal: bool = False) -> None:
        self._lengths_N = torch.tensor(lengths, device=device)
        self._place_NL = torch.arange(max(lengths), device=device)
        self._real_NL = self._place_NL < self._lengths_N.unsqueeze(1)
        self._causal = causal

    def positions(self, table_PD: Tensor) -> Tensor:
        return table_PD[self._place_NL.expand_as(self._real_NL)[self._real_NL]]

    def attend(self, q_THK: Tensor, k_THK: Tensor, v_THK: Tensor) -> Tensor:
        shape = (*self._real_NL.shape, *q_THK.shape[1:])
        q, k, v = (t.new_zeros(shape).masked_scatter(self._real_NL[..., None, None], t) for t in (q_THK, k_THK, v_THK))
        # With a causal mask real tokens never reach the padding behind them.
        mask = None if self._causal else self._real_NL[:, None, None]
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        mixed_NHLK = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=self._causal)
        return mixed_NHLK.transpose(1, 2)[self._real_NL]

    def means(self, x_TD: Tensor) -> Tensor:
        row_T = torch.arange(len(self._lengths_N), device=x_TD.device).repeat_interleave(self._lengths_N)
        sums_ND = x_TD.new_zeros(len(self._lengths_N), x_TD.shape[1], dtype=torch.float32)
        return sums_ND.index_add(0, row_T, x_TD.float()) / (self._lengths_N.float() + 1e-7).unsqueeze(1)


class Varlen:
    """Lengths as data: a fixed number of calls whatever they are, which is what a GPU wants."""

    def __init__(self, lengths: Sequence[int], device: torch.device, attention: VarlenAttention) -> None:
        ends = [0, *itertools.accumulate(lengths)]
        host_N1 = torch.tensor(ends, dtype=torch.int32, pin_memory=device.type == "cuda")
        self._ends_N1 = host_N1.to(device, non_blocking=True)
        self._num_tokens = ends[-1]
        self._longest = max(lengths)
        self._attention = attention

    def positions(self, table_PD: Tensor) -> Tensor:
        starts_N, lengths_N = self._ends_N1[:-1], self._ends_N1.diff()
        # With the size given, nothing has to wait for the device.
        starts_T = starts_N.repeat_interleave(lengths_N, output_size=self._num_tokens)
        return table_PD[torch.arange(self._num_tokens, device=starts_T.device) - starts_T]

    def attend(self, q_THK: Tensor, k_THK: Tensor, v_THK: Tensor) -> Tensor:
        return self._attention(q_THK, k_THK, v_THK, self._ends_N1, self._longest)

    def means(self, x_TD: Tensor) -> Tensor:
        lengths_N = self._ends_N1.diff()
        sums_ND = torch.segment_reduce(x_TD.float(), "sum", lengths=lengths_N, axis=0, unsafe=True)
        return sums_ND / (lengths_N.float() + 1e-7).unsqueeze(1)


def gpu_attention(device: torch.device, dtype: torch.dtype, num_heads: int, head_dim: int) -> VarlenAttention | None:
    """torch's attention over packed sentences, if it works on this GPU; tried once on a few numbers.

    None on a CPU and in float32, for which there is no kernel; None with a warning if it is missing (before torch
    2.10), fails, or computes something else than ``Groups``.
    """
    if device.type != "cuda" or dtype not in (torch.float16, torch.bfloat16):
        return None
    try:
        attention = _flash_attention()
        wrong = largest_difference(attention, device, dtype, num_heads, head_dim)
    except (ImportError, AttributeError, RuntimeError, TypeError, ValueError) as error:
        logger.warning("packed attention does not work here (%s); groups of equal length are slower", error)
        return None
    if not wrong < 0.05:  # also if it is not a number
        logger.warning("packed attention is off by %.2g here; groups of equal length are slower", wrong)
        return None
    return attention


def largest_difference(
    attention: VarlenAttention, device: torch.device, dtype: torch.dtype, num_heads: int, head_dim: int
) -> float:
    """How far ``attention`` is from ``Groups`` on random numbers near 1."""
    lengths = [9, 3, 3, 1]
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(sum(lengths), 3 * num_heads * head_dim, generator=generator).to(device, dtype)
    q, k, v = (part.view(-1, num_heads, head_dim) for part in qkv.chunk(3, dim=1))  # strides as in the network
    with torch.inference_mode():
        packed = Varlen(lengths, device, attention).attend(q, k, v)
        return float((packed.float() - Groups(lengths).attend(q, k, v).float()).abs().max())


def _flash_attention() -> VarlenAttention:
    from torch.nn.attention.varlen import varlen_attn

    def attention(q: Tensor, k: Tensor, v: Tensor, ends: Tensor, longest: int) -> Tensor:
        mixed = varlen_attn(q, k, v, ends, ends, longest, longest)
        assert isinstance(mixed, Tensor)
        return mixed

    return attention

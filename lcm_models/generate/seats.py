"""Letting new documents into a batch that is under way: the states of both, joined.

Rows are aligned at their ends, so a shorter context gets padding columns in front, and columns that are padding for all
rows (of long documents that have left) are cut off: memory follows the longest document that is there.

Shapes: B rows, H heads, S columns, K head width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lcm_models.attention import KVCache
from lcm_models.model import PADDING, State


def join(state: State, new: State) -> State:
    """Both states as one, the rows of ``new`` last. ``state`` has predicted a concept before and holds one at least."""
    lengths = [*state.lengths, *new.lengths]
    num = max(lengths)
    doc_BS = torch.cat([_fit(part.doc_BS, num, PADDING) for part in (state, new)])
    joined = State(doc_BS, lengths, [*state.generators, *new.generators], tables=state.tables)
    joined.context = _join_caches(state.context, new.context, new.num_rows, num, lead=0)
    joined.cross = _join_caches(state.cross, new.cross, new.num_rows, num, lead=1)
    if state.output_BSD is not None and new.output_BSD is not None:
        joined.output_BSD = torch.cat([state.output_BSD[:, -1:], new.output_BSD[:, -1:]])
    return joined


def _join_caches(caches: list[KVCache], new: list[KVCache], num_new: int, num: int, lead: int) -> list[KVCache]:
    """Layer by layer. The first ``lead`` columns are not context: they stay in front."""
    joined = []
    for layer, cache in enumerate(caches):
        newcomer = new[layer].kept() if new and new[layer].length else (None, None)
        pairs = zip(cache.kept(), newcomer, strict=True)
        k_BHSK, v_BHSK = (_join_columns(old, fresh, num_new, num, lead) for old, fresh in pairs)
        both = KVCache()
        both.put(k_BHSK, v_BHSK)
        both.keep(num + lead)
        joined.append(both)
    return joined


def _join_columns(old: Tensor, fresh: Tensor | None, num_new: int, num: int, lead: int) -> Tensor:
    if fresh is None:  # nothing read yet: the columns in front are the same for every document
        fresh = old[:1, :, :lead].expand(num_new, -1, -1, -1)
    parts = [
        torch.cat([part[:, :, :lead], _fit(part[:, :, lead:].transpose(2, -1), num).transpose(2, -1)], dim=2)
        for part in (old, fresh.to(old.dtype))
    ]
    return torch.cat(parts)


def _fit(x_S: Tensor, num: int, padding: int = 0) -> Tensor:
    """The last ``num`` entries of the last dimension, with padding in front if there are fewer."""
    missing = num - x_S.shape[-1]
    return F.pad(x_S, (missing, 0), value=padding) if missing >= 0 else x_S[..., -num:]

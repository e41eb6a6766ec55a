"""Draws tokens one by one: greedily, or by chance from all, from the k likeliest, or from a nucleus of probability p.

The chance of a draw is a pure function of the seed, the key of the sentence and the position, so a sentence gets the
same text in any batch, order and process. Settings are in ``lcm_data.sonar.settings``.

Shapes: P sentences not yet finished, N sentences, S longest sequence, V vocabulary, K candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lcm_data.sonar.scores import log_probs, prompt, prompt_scores
from lcm_data.sonar.settings import PROMPT_LENGTH, Generation, Hypothesis
from lcm_data.sonar.tokenizer import EOS

if TYPE_CHECKING:
    from lcm_data.sonar.text_decoder import TextDecoder

_FIRST_CANDIDATES = 256
_SHRINK_SHARE = 1 / 8

UInt64 = npt.NDArray[np.uint64]


def draw(
    decoder: TextDecoder, emb_ND: Tensor, lang_id: int, how: Generation, keys: Sequence[int]
) -> list[list[Hypothesis]]:
    """One sequence for each sentence vector; see ``lcm_data.sonar.generate.generate``.

    The score is that of the whole distribution, before ``top_k`` and ``top_p`` cut it.
    """
    limit = how.limit(decoder.config.max_tokens)
    device, num_sentences = emb_ND.device, len(emb_ND)
    chances_PS = torch.from_numpy(uniforms(how.seed, keys, limit)).to(device) if how.mode == "sample" else None
    logits_P2V, state = decoder.start(emb_ND, prompt(lang_id, num_sentences, device))
    sums_N = prompt_scores(logits_P2V, lang_id, how)
    logits_PV = logits_P2V[:, -1]
    ids_NS = torch.zeros(num_sentences, limit, dtype=torch.int64, device=device)
    lengths_N = torch.full((num_sentences,), limit, dtype=torch.int64, device=device)
    origin_P = torch.arange(num_sentences, device=device)
    open_N = torch.ones(num_sentences, dtype=torch.bool, device=device)
    for length in range(PROMPT_LENGTH, limit):
        lprobs_PV = log_probs(logits_PV, how, length, limit)
        tokens_P = _choose(lprobs_PV, how, None if chances_PS is None else chances_PS[origin_P, length])
        gained_P = lprobs_PV.gather(1, tokens_P.unsqueeze(1)).squeeze(1)
        ids_NS[origin_P, length] = tokens_P
        sums_N[origin_P] += gained_P.where(open_N[origin_P], 0)  # sentences that have ended may still be in the batch
        ends_P = open_N[origin_P] & (tokens_P == EOS)
        lengths_N[origin_P] = torch.where(ends_P, length + 1, lengths_N[origin_P])
        open_N[origin_P] &= ~ends_P
        if length == limit - 1:
            break
        rows = open_N[origin_P].nonzero().squeeze(1)
        if len(rows) == 0:
            break
        if len(origin_P) - len(rows) > _SHRINK_SHARE * len(origin_P):
            origin_P, tokens_P = origin_P[rows], tokens_P[rows]
            state.keep(rows)
        logits_PV = decoder.step(tokens_P.unsqueeze(1), state)[:, 0]
    scores_N = sums_N / ((lengths_N - 1).double() ** how.len_penalty).float()
    return [
        [Hypothesis(ids=ids[PROMPT_LENGTH:length], score=score, at_limit=length == limit)]
        for ids, score, length in zip(ids_NS.tolist(), scores_N.tolist(), lengths_N.tolist(), strict=True)
    ]


def uniforms(seed: int, keys: Sequence[int], num_positions: int) -> npt.NDArray[np.float64]:
    """Numbers in [0, 1), float64 [N, S], each a function of seed, key and position alone (hashed by SplitMix64)."""
    # Python integers of any size and sign are taken modulo 2^64.
    mask = (1 << 64) - 1
    keys_N1 = np.array([int(key) & mask for key in keys], np.uint64)[:, None]
    state_N1 = _mix(_mix(np.array([[seed & mask]], np.uint64)) ^ keys_N1)
    positions_S = np.arange(1, num_positions + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    hashed: UInt64 = _mix(state_N1 + positions_S) >> np.uint64(11)
    return hashed.astype(np.float64) * 2.0**-53


def _mix(x: UInt64) -> UInt64:
    """The output function of SplitMix64 (Steele, Lea and Flood 2014); wraps around."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _choose(lprobs_PV: Tensor, how: Generation, chances_P: Tensor | None) -> Tensor:
    """The next token of each sentence, int64 [P]."""
    if chances_P is None:
        return lprobs_PV.argmax(dim=1)
    lprobs_PK, ids_PK = _likeliest(lprobs_PV, how)
    # In the order of the ids: two tokens whose probabilities differ by a rounding error must not swap places.
    order_PK = ids_PK.argsort(dim=1)
    sums_PK = lprobs_PK.gather(1, order_PK).double().exp().cumsum(dim=1)
    targets_P1 = chances_P.unsqueeze(1) * sums_PK[:, -1:]
    # The first sum above the target; rounding must not take it past the last candidate that has a probability.
    found_P1 = (sums_PK <= targets_P1).sum(dim=1, keepdim=True)
    last_P1 = (sums_PK < sums_PK[:, -1:]).sum(dim=1, keepdim=True)
    return ids_PK.gather(1, order_PK.gather(1, torch.minimum(found_P1, last_P1))).squeeze(1)


def _likeliest(lprobs_PV: Tensor, how: Generation) -> tuple[Tensor, Tensor]:
    """Log probabilities and ids [P, K] of the candidates; those that ``top_p`` excludes are minus infinity."""
    vocab_size = lprobs_PV.shape[1]
    if how.top_k is None and how.top_p in (None, 1.0):
        return lprobs_PV, torch.arange(vocab_size, device=lprobs_PV.device).expand_as(lprobs_PV)
    num = min(_FIRST_CANDIDATES if how.top_k is None else how.top_k, vocab_size)
    total_P1 = torch.logsumexp(lprobs_PV, dim=1, keepdim=True)
    while True:
        best_PK, ids_PK = lprobs_PV.topk(num, dim=1)
        if how.top_p is None:
            return best_PK, ids_PK
        if how.top_k is not None:
            total_P1 = torch.logsumexp(best_PK, dim=1, keepdim=True)
        probs_PK = (best_PK - total_P1).double().exp()
        before_PK = probs_PK.cumsum(dim=1) - probs_PK
        # A nucleus is small as a rule; sorting all of a large vocabulary would cost more than the network.
        if how.top_k is not None or num == vocab_size or bool((before_PK[:, -1] > how.top_p).all()):
            return best_PK.masked_fill(before_PK > how.top_p, -torch.inf), ids_PK
        num = min(8 * num, vocab_size)

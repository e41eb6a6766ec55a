"""What all ways of generating share: the prompt, its score, and the log probabilities of what may come next.

Shapes: P sentences, R rows (hypotheses of all sentences), D model width, V vocabulary, K candidates.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lcm_data.sonar.layers import product
from lcm_data.sonar.settings import PROMPT_LENGTH, Generation
from lcm_data.sonar.tokenizer import EOS, PAD, UNK

Lengths = npt.NDArray[np.int64]
"""Tokens of each sentence [P], on the host: what may come next depends on them."""

_LOGITS_AT_ONCE = {"cpu": 5 << 18, "cuda": 1 << 28}
"""Numbers: on a CPU what fits into its caches next to the weights, on a GPU what memory is sure to have."""

_NUM_SPECIAL = 4
_BLOCK = 64


def prompt(lang_id: int, num_sentences: int, device: torch.device) -> Tensor:
    """``[</s>, language]`` for each sentence, int64 [P, 2]."""
    return torch.tensor([EOS, lang_id], device=device).expand(num_sentences, -1)


def log_probs(logits_PV: Tensor, how: Generation, lengths: Lengths, limit: int) -> Tensor:
    """Log probabilities float32 [P, V] of what may follow ``lengths`` tokens; what may not is minus infinity.

    Masked after normalising, as fairseq2 does: the rest does not sum to one.
    """
    if how.temperature != 1.0:
        logits_PV = logits_PV / how.temperature
    lprobs_PV = torch.log_softmax(logits_PV, dim=-1, dtype=torch.float32)
    eos_P = lprobs_PV[:, EOS].clone()
    _forbid(lprobs_PV, how, lengths)
    last = np.flatnonzero(lengths >= limit - 1)
    if len(last) > 0:
        rows = torch.from_numpy(last).to(lprobs_PV.device)
        lprobs_PV[rows] = -torch.inf
        lprobs_PV[rows, EOS] = eos_P[rows]
    return lprobs_PV


def prompt_scores(logits_PV: Tensor, lang_id: int, how: Generation) -> Tensor:
    """Log probability float32 [P] of the language token after ``</s>``; it is part of every score."""
    if how.temperature != 1.0:
        logits_PV = logits_PV / how.temperature
    return torch.log_softmax(logits_PV, dim=-1, dtype=torch.float32)[:, lang_id]


def likeliest(
    hidden_RD: Tensor, weight_VD: Tensor, num: int, how: Generation, lengths: Lengths, limit: int
) -> tuple[Tensor, Tensor]:
    """The ``num`` largest of ``log_probs``, best first, and their tokens, both [R, K], from hidden states.

    ``lengths`` are those of the rows. The logits are made and used up in slices of the vocabulary: in float32 all of
    them would be larger than the network's weights in a layer, and on a CPU be read from memory again and again.
    """
    width = _LOGITS_AT_ONCE.get(weight_VD.device.type, _LOGITS_AT_ONCE["cpu"]) // len(hidden_RD)
    width = max(_BLOCK * _BLOCK, width // _BLOCK * _BLOCK)
    sums, values, tokens = [], [], []
    eos_R1 = None
    for start in range(0, len(weight_VD), width):
        logits_RW = product(hidden_RD, weight_VD[start : start + width]).float()
        if how.temperature != 1.0:
            logits_RW /= how.temperature
        top_R1 = logits_RW.amax(dim=1, keepdim=True)
        if eos_R1 is None:  # the tokens with rules of their own come first
            special = logits_RW[:, :_NUM_SPECIAL].clone()
            eos_R1 = special[:, EOS : EOS + 1]
            _forbid(logits_RW, how, lengths)
            best = _topk(logits_RW, num)
            logits_RW[:, :_NUM_SPECIAL] = special
        else:
            best = _topk(logits_RW, num)
        values.append(best[0])
        tokens.append(best[1] + start)
        # Powers of two are three times as fast as torch.exp here, and as precise.
        powers_RW = logits_RW.sub_(top_R1).mul_(math.log2(math.e)).exp2_()
        sums.append(powers_RW.sum(dim=1, keepdim=True).log_() + top_R1)
    assert eos_R1 is not None
    total_R1 = torch.cat(sums, dim=1).logsumexp(dim=1, keepdim=True)
    values_RK, picks_RK = torch.cat(values, dim=1).topk(min(num, len(weight_VD)), dim=1)
    tokens_RK = torch.cat(tokens, dim=1).gather(1, picks_RK)
    last = np.flatnonzero(lengths >= limit - 1)
    if len(last) > 0:
        rows = torch.from_numpy(last).to(values_RK.device)
        values_RK[rows] = -torch.inf
        values_RK[rows, 0] = eos_R1[rows, 0]
        tokens_RK[rows] = EOS
    return values_RK - total_R1, tokens_RK


def _forbid(scores_RV: Tensor, how: Generation, lengths: Lengths) -> None:
    """In place: what ``</s>``, padding and the unknown token may not, where they are among others."""
    scores_RV[:, UNK] -= how.unk_penalty
    scores_RV[:, PAD] = -torch.inf
    early = np.flatnonzero(lengths < PROMPT_LENGTH + how.min_tokens - 1)
    if len(early) > 0:
        scores_RV[torch.from_numpy(early).to(scores_RV.device), EOS] = -torch.inf


def _topk(x_RW: Tensor, num: int) -> tuple[Tensor, Tensor]:
    """As ``torch.topk``, by way of the largest of each block: the winners are in the blocks with the largest."""
    num_rows, width = x_RW.shape
    if width % _BLOCK or width // _BLOCK < 2 * num:
        values, indices = x_RW.topk(min(num, width), dim=1)
        return values, indices
    blocks = x_RW.view(num_rows, -1, _BLOCK)
    _, chosen_RK = blocks.amax(dim=2).topk(num, dim=1)
    few_RX = blocks.gather(1, chosen_RK.unsqueeze(2).expand(-1, -1, _BLOCK)).flatten(1)
    values, picks_RK = few_RX.topk(num, dim=1)
    return values, chosen_RK.gather(1, picks_RK // _BLOCK) * _BLOCK + picks_RK % _BLOCK

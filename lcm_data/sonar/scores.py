"""What all ways of generating share: the prompt, its score, and the log probabilities of what may come next."""

from __future__ import annotations

import torch
from torch import Tensor

from lcm_data.sonar.settings import PROMPT_LENGTH, Generation
from lcm_data.sonar.tokenizer import EOS, PAD, UNK


def prompt(lang_id: int, num_sentences: int, device: torch.device) -> Tensor:
    """``[</s>, language]`` for each sentence, int64 [P, 2]."""
    return torch.tensor([EOS, lang_id], device=device).expand(num_sentences, -1)


def log_probs(logits: Tensor, how: Generation, length: int, limit: int) -> Tensor:
    """Log probabilities float32 [..., V] of what may follow ``length`` tokens; what may not is minus infinity.

    Masked after normalising, as fairseq2 does: the rest does not sum to one.
    """
    if how.temperature != 1.0:
        logits = logits / how.temperature
    lprobs = torch.log_softmax(logits, dim=-1, dtype=torch.float32)
    if length == limit - 1:
        eos = lprobs[..., EOS].clone()
        lprobs.fill_(-torch.inf)[..., EOS] = eos
        return lprobs
    lprobs[..., UNK] -= how.unk_penalty
    lprobs[..., PAD] = -torch.inf
    if length < PROMPT_LENGTH + how.min_tokens - 1:
        lprobs[..., EOS] = -torch.inf
    return lprobs


def prompt_scores(logits_P2V: Tensor, lang_id: int, how: Generation) -> Tensor:
    """Log probability float32 [P] of the language token after ``</s>``; it is part of every score."""
    logits_PV = logits_P2V[:, 0]
    if how.temperature != 1.0:
        logits_PV = logits_PV / how.temperature
    return torch.log_softmax(logits_PV, dim=-1, dtype=torch.float32)[:, lang_id]

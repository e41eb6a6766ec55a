"""Beam search with the results of fairseq2, for all hypotheses of all sentences at once.

fairseq2 visits one sentence after the other in every step and moves its whole cache; here a step is a fixed number of
tensor operations, and finished sentences leave the batch. Settings are in ``lcm_data.sonar.settings``.

Shapes: P sentences still searching, B beams, S longest sequence, V vocabulary, N sentences.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lcm_data.errors import UsageError
from lcm_data.sonar.scores import log_probs, prompt, prompt_scores
from lcm_data.sonar.settings import PROMPT_LENGTH, Generation, Hypothesis
from lcm_data.sonar.tokenizer import EOS

if TYPE_CHECKING:
    from lcm_data.sonar.text_decoder import TextDecoder

_SHRINK_SHARE = 1 / 8
"""Finished sentences are dropped from the batch once they are this share of it; before, moving the rest costs more."""


def beam_search(decoder: TextDecoder, emb_ND: Tensor, lang_id: int, how: Generation) -> list[list[Hypothesis]]:
    """The n best sequences of each sentence vector; see ``lcm_data.sonar.generate.generate``.

    In every step the best 2 B continuations of a sentence are looked at. A ``</s>`` among the first B of them finishes
    a hypothesis, and the first B others live on; with B finished hypotheses a sentence is done.
    """
    if 2 * how.beam_size > decoder.config.vocab_size:
        raise UsageError(
            f"beam_size {how.beam_size} is too large for {decoder.config.vocab_size} tokens; at most half."
        )
    limit = how.limit(decoder.config.max_tokens)
    first = prompt(lang_id, len(emb_ND), emb_ND.device)
    logits_P2V, state = decoder.start(emb_ND, first)
    # One hypothesis with the score of the prompt becomes B in the first step.
    scores_PB = prompt_scores(logits_P2V, lang_id, how).unsqueeze(1)
    logits_PBV = logits_P2V[:, -1:]
    beams = _Beams(len(emb_ND), how.beam_size, limit, emb_ND.device)
    for length in range(PROMPT_LENGTH, limit):
        lprobs_PBV = log_probs(logits_PBV, how, length, limit)
        tokens_PC, parents_PC, scores_PC = _candidates(lprobs_PBV, scores_PB, how.beam_size)
        del lprobs_PBV
        beams.finish(tokens_PC, parents_PC, scores_PC, length)
        if length == limit - 1:
            break
        # The first B that do not end; a stable sort keeps the order of the scores.
        alive_PB = (tokens_PC == EOS).to(torch.int8).argsort(dim=1, stable=True)[:, : how.beam_size]
        tokens_PB, parents_PB, scores_PB = (t.gather(1, alive_PB) for t in (tokens_PC, parents_PC, scores_PC))
        beams.extend(tokens_PB, parents_PB, length)
        state.reorder(parents_PB)
        rows = beams.still_searching()
        if rows is not None:
            if len(rows) == 0:
                break
            beams.keep(rows)
            state.keep(rows)
            tokens_PB, scores_PB = tokens_PB[rows], scores_PB[rows]
        logits_PBV = decoder.step(tokens_PB, state)
    return beams.best(how)


def _candidates(lprobs_PBV: Tensor, scores_PB: Tensor, beam_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, parents and cumulative scores [P, C] of the best C = 2 B continuations of each sentence, best first."""
    num_sentences, _, vocab_size = lprobs_PBV.shape
    num_best = min(2 * beam_size, vocab_size)
    # The best of all are among the best of each hypothesis: V is much larger than 2 B.
    best_PBC, tokens_PBC = lprobs_PBV.topk(num_best, dim=2)
    total_PX = (best_PBC + scores_PB.unsqueeze(2)).view(num_sentences, -1)
    scores_PC, chosen_PC = total_PX.topk(num_best, dim=1)
    tokens_PC = tokens_PBC.view(num_sentences, -1).gather(1, chosen_PC)
    return tokens_PC, chosen_PC // num_best, scores_PC


class _Beams:
    """Tokens of the hypotheses that live, and what has finished, by sentence in the order of finishing."""

    def __init__(self, num_sentences: int, beam_size: int, limit: int, device: torch.device) -> None:
        self._beam_size = beam_size
        self._limit = limit
        self._ids_PBS = torch.zeros(num_sentences, 1, limit - PROMPT_LENGTH, dtype=torch.int64, device=device)
        self._origin_P = torch.arange(num_sentences, device=device)
        # Slot B takes what must not be kept, so that a step needs no list of what it keeps.
        shape = (num_sentences, beam_size + 1)
        self._done_ids_NBS = torch.zeros(*shape, limit - PROMPT_LENGTH, dtype=torch.int64, device=device)
        self._done_scores_NB = torch.zeros(shape, device=device)
        self._done_lengths_NB = torch.zeros(shape, dtype=torch.int64, device=device)
        self._num_done_N = torch.zeros(num_sentences, dtype=torch.int64, device=device)
        self._news = False

    def finish(self, tokens_PC: Tensor, parents_PC: Tensor, scores_PC: Tensor, length: int) -> None:
        """Keep the hypotheses that end here, at position ``length``."""
        ends_PB = tokens_PC[:, : self._beam_size] == EOS
        ends_PB &= scores_PC[:, : self._beam_size] != -torch.inf
        self._news = bool(ends_PB.any())
        if not self._news:
            return
        num_done_P = self._num_done_N[self._origin_P]
        slots_PB = num_done_P.unsqueeze(1) + ends_PB.cumsum(1) - 1
        slots_PB = torch.where(ends_PB, slots_PB, self._beam_size).clamp(max=self._beam_size)
        num_steps = length - PROMPT_LENGTH
        index = parents_PC[:, : self._beam_size].unsqueeze(2).expand(-1, -1, num_steps)
        rows_P1 = self._origin_P.unsqueeze(1)
        self._done_ids_NBS[rows_P1, slots_PB, :num_steps] = self._ids_PBS[:, :, :num_steps].gather(1, index)
        self._done_scores_NB[rows_P1, slots_PB] = scores_PC[:, : self._beam_size]
        self._done_lengths_NB[rows_P1, slots_PB] = length + 1
        self._num_done_N[self._origin_P] = (num_done_P + ends_PB.sum(1)).clamp(max=self._beam_size)

    def extend(self, tokens_PB: Tensor, parents_PB: Tensor, length: int) -> None:
        """Append the tokens at position ``length`` to the hypotheses they continue."""
        num_steps = length - PROMPT_LENGTH
        index = parents_PB.unsqueeze(2).expand(-1, -1, self._ids_PBS.shape[2])
        self._ids_PBS = self._ids_PBS.gather(1, index)
        self._ids_PBS[:, :, num_steps] = tokens_PB

    def still_searching(self) -> Tensor | None:
        """Rows to go on with when enough others have finished to be worth dropping, else None."""
        if not self._news:
            return None
        rows = (self._num_done_N[self._origin_P] < self._beam_size).nonzero().squeeze(1)
        num_finished = len(self._origin_P) - len(rows)
        return rows if len(rows) == 0 or num_finished > _SHRINK_SHARE * len(self._origin_P) else None

    def keep(self, rows: Tensor) -> None:
        """Drop all other rows."""
        self._ids_PBS = self._ids_PBS[rows]
        self._origin_P = self._origin_P[rows]

    def best(self, how: Generation) -> list[list[Hypothesis]]:
        """What has finished, best first; of equal scores the one that finished first.

        Numbers that are not finite never finish anything: such a sentence gets ``</s>`` alone with the score NaN.
        """
        divisors_NB = (self._done_lengths_NB - 1).clamp(min=1).double() ** how.len_penalty
        scores_NB = self._done_scores_NB / divisors_NB.float()
        num_done = self._num_done_N.tolist()
        all_ids, scores, lengths = (t.cpu().numpy() for t in (self._done_ids_NBS, scores_NB, self._done_lengths_NB))
        results = []
        for row, count in enumerate(num_done):
            order = np.argsort(-scores[row, :count], kind="stable")  # NaN last
            found = [
                Hypothesis(
                    ids=[*all_ids[row, slot, : lengths[row, slot] - PROMPT_LENGTH - 1].tolist(), EOS],
                    score=float(scores[row, slot]),
                    at_limit=bool(lengths[row, slot] == self._limit),
                )
                for slot in order
            ]
            results.append(found or [Hypothesis(ids=[EOS], score=math.nan, at_limit=False)])
        return results

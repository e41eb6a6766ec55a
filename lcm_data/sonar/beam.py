"""The choices of a beam search, with the results of fairseq2, for all hypotheses of all sentences at once.

fairseq2 visits one sentence after the other in every step; here a step is a fixed number of tensor operations whatever
the sentences' ages. Which sentences are in the batch is ``lcm_data.sonar.generate``, settings are
``lcm_data.sonar.settings``.

Shapes: P sentences in the batch, B beams, C = 2 B candidates, S longest sequence, D model width.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lcm_data.sonar.scores import Lengths, likeliest
from lcm_data.sonar.settings import PROMPT_LENGTH, Generation, Hypothesis
from lcm_data.sonar.tokenizer import EOS

if TYPE_CHECKING:
    from lcm_data.sonar.text_decoder import TextDecoder


class Beams:
    """A ``lcm_data.sonar.generate.Choices``: the hypotheses that live, and what has finished, of P sentences.

    In every step the best 2 B continuations of a sentence are looked at. A ``</s>`` among the first B of them finishes
    a hypothesis, and the first B others live on; with B finished hypotheses a sentence is done.
    """

    def __init__(self, decoder: TextDecoder, how: Generation, scores_P: Tensor) -> None:
        self._decoder = decoder
        self._how = how
        self._limit = how.limit(decoder.config.max_tokens)
        shape, device = (len(scores_P), how.beam_size), scores_P.device
        self._scores_PB = scores_P.unsqueeze(1)  # one hypothesis, until B are chosen
        self._ids_PBS = torch.zeros(*shape, self._limit - PROMPT_LENGTH, dtype=torch.int64, device=device)
        # Slot B takes what must not be kept, so that a step needs no list of what it keeps.
        shape = (len(scores_P), how.beam_size + 1)
        self._done_ids_PBS = torch.zeros(*shape, self._limit - PROMPT_LENGTH, dtype=torch.int64, device=device)
        self._done_scores_PB = torch.zeros(shape, device=device)
        self._done_lengths_PB = torch.zeros(shape, dtype=torch.int64, device=device)
        self._num_done_P = torch.zeros(len(scores_P), dtype=torch.int64, device=device)

    def choose(self, hidden_PBD: Tensor, lengths: Lengths, lengths_P: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens and parents int64 [P, B] of the hypotheses that live on."""
        beam_size = self._how.beam_size
        lprobs_RC, tokens_RC = likeliest(
            hidden_PBD.flatten(0, 1),
            self._decoder.final_proj.weight,
            2 * beam_size,
            self._how,
            lengths.repeat(hidden_PBD.shape[1]),
            self._limit,
        )
        # The best of all are among the best of each hypothesis.
        num_best = lprobs_RC.shape[1]
        totals_PX = (lprobs_RC + self._scores_PB.view(-1, 1)).view(len(lengths), -1)
        scores_PC, chosen_PC = totals_PX.topk(num_best, dim=1)
        tokens_PC = tokens_RC.view(len(lengths), -1).gather(1, chosen_PC)
        parents_PC = chosen_PC // num_best
        # Sentences that are done may still be in the batch and grow beyond the limit.
        num_steps = min(int(lengths.max()) + 1, self._limit) - PROMPT_LENGTH
        self._finish(tokens_PC, parents_PC, scores_PC, lengths_P, num_steps)
        # The first B that do not end; a stable sort keeps the order of the scores.
        alive_PB = (tokens_PC == EOS).to(torch.int8).argsort(dim=1, stable=True)[:, :beam_size]
        tokens_PB, parents_PB, self._scores_PB = (t.gather(1, alive_PB) for t in (tokens_PC, parents_PC, scores_PC))
        self._extend(tokens_PB, parents_PB, lengths_P, num_steps)
        return tokens_PB, parents_PB

    def finished(self) -> Tensor:
        """Which sentences are done, bool [P]."""
        return self._num_done_P >= self._how.beam_size

    def keep(self, rows: Tensor) -> None:
        """Drop all other rows."""
        for name, tensor in self._tensors().items():
            setattr(self, name, tensor[rows])

    def admit(self, rows: Tensor, other: Beams, picks: Tensor) -> None:
        """The sentences ``picks`` of ``other`` take the places ``rows``."""
        theirs = other._tensors()
        for name, tensor in self._tensors().items():
            tensor[rows] = theirs[name][picks]

    def take(self, rows: Tensor) -> list[list[Hypothesis]]:
        """What has finished, best first; of equal scores the one that finished first.

        Numbers that are not finite never finish anything: such a sentence gets ``</s>`` alone with the score NaN.
        """
        lengths_PB = self._done_lengths_PB[rows]
        divisors_PB = (lengths_PB - 1).clamp(min=1).double() ** self._how.len_penalty
        scores_PB = self._done_scores_PB[rows] / divisors_PB.float()
        num_done = self._num_done_P[rows].tolist()
        all_ids, scores, lengths = (t.cpu().numpy() for t in (self._done_ids_PBS[rows], scores_PB, lengths_PB))
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

    def _finish(
        self, tokens_PC: Tensor, parents_PC: Tensor, scores_PC: Tensor, lengths_P: Tensor, num_steps: int
    ) -> None:
        """Keep the hypotheses that end here."""
        beam_size = self._how.beam_size
        ends_PB = (tokens_PC[:, :beam_size] == EOS) & (scores_PC[:, :beam_size] != -torch.inf)
        slots_PB = self._num_done_P.unsqueeze(1) + ends_PB.cumsum(1) - 1
        slots_PB = torch.where(ends_PB, slots_PB, beam_size).clamp(max=beam_size)
        index_PBS = parents_PC[:, :beam_size].unsqueeze(2).expand(-1, -1, num_steps)
        rows_P1 = torch.arange(len(slots_PB), device=slots_PB.device).unsqueeze(1)
        self._done_ids_PBS[rows_P1, slots_PB, :num_steps] = self._ids_PBS[:, :, :num_steps].gather(1, index_PBS)
        self._done_scores_PB.scatter_(1, slots_PB, scores_PC[:, :beam_size])
        self._done_lengths_PB.scatter_(1, slots_PB, (lengths_P + 1).unsqueeze(1).expand(-1, beam_size))
        self._num_done_P = (self._num_done_P + ends_PB.sum(1)).clamp(max=beam_size)

    def _extend(self, tokens_PB: Tensor, parents_PB: Tensor, lengths_P: Tensor, num_steps: int) -> None:
        """Append tokens to the hypotheses they continue."""
        index_PBS = parents_PB.unsqueeze(2).expand(-1, -1, num_steps)
        self._ids_PBS[:, :, :num_steps] = self._ids_PBS[:, :, :num_steps].gather(1, index_PBS)
        place_PB1 = (lengths_P - PROMPT_LENGTH).clamp(max=self._ids_PBS.shape[2] - 1).view(-1, 1, 1)
        self._ids_PBS.scatter_(2, place_PB1.expand(-1, tokens_PB.shape[1], -1), tokens_PB.unsqueeze(2))

    def _tensors(self) -> dict[str, Tensor]:
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}

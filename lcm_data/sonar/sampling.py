"""Draws tokens one by one: greedily, or by chance from all, from the k likeliest, or from a nucleus of probability p.

The chance of a draw is a pure function of the seed, the key of the sentence and the position, so a sentence gets the
same text in any batch, order and process. Which sentences are in the batch is ``lcm_data.sonar.generate``, settings
are ``lcm_data.sonar.settings``.

Shapes: P sentences in the batch, N sentences, S longest sequence, D model width, V vocabulary, K candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lcm_data.sonar.scores import Lengths, log_probs
from lcm_data.sonar.settings import PROMPT_LENGTH, Generation, Hypothesis
from lcm_data.sonar.tokenizer import EOS

if TYPE_CHECKING:
    from lcm_data.sonar.text_decoder import TextDecoder

_FIRST_CANDIDATES = 256

UInt64 = npt.NDArray[np.uint64]


class Draws:
    """A ``lcm_data.sonar.generate.Choices``: one sequence of each of P sentences.

    The score is that of the whole distribution, before ``top_k`` and ``top_p`` cut it.
    """

    def __init__(self, decoder: TextDecoder, how: Generation, scores_P: Tensor, keys: Sequence[int]) -> None:
        self._decoder = decoder
        self._how = how
        self._limit = how.limit(decoder.config.max_tokens)
        num_sentences, device = len(scores_P), scores_P.device
        self._chances_PS: Tensor | None = None
        if how.mode == "sample":
            self._chances_PS = torch.from_numpy(uniforms(how.seed, keys, self._limit)).to(device)
        self._sums_P = scores_P.clone()
        self._ids_PS = torch.zeros(num_sentences, self._limit, dtype=torch.int64, device=device)
        self._ends_P = torch.full((num_sentences,), self._limit, dtype=torch.int64, device=device)
        self._open_P = torch.ones(num_sentences, dtype=torch.bool, device=device)

    def choose(self, hidden_PBD: Tensor, lengths: Lengths, lengths_P: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens and parents int64 [P, 1]; the parents are all 0."""
        lprobs_PV = log_probs(self._decoder.project(hidden_PBD[:, 0]), self._how, lengths, self._limit)
        # Sentences that have ended may still be in the batch.
        place_P1 = lengths_P.clamp(max=self._limit - 1).unsqueeze(1)
        chances_P = None if self._chances_PS is None else self._chances_PS.gather(1, place_P1).squeeze(1)
        tokens_P = _choose(lprobs_PV, self._how, chances_P)
        gained_P = lprobs_PV.gather(1, tokens_P.unsqueeze(1)).squeeze(1)
        self._sums_P += gained_P.where(self._open_P, 0)
        self._ids_PS.scatter_(1, place_P1, tokens_P.unsqueeze(1))
        ends_P = self._open_P & (tokens_P == EOS)
        self._ends_P = torch.where(ends_P, lengths_P + 1, self._ends_P)
        self._open_P = self._open_P & ~ends_P
        return tokens_P.unsqueeze(1), torch.zeros_like(place_P1)

    def finished(self) -> Tensor:
        """Which sentences are done, bool [P]."""
        return ~self._open_P

    def take(self, rows: Tensor) -> list[list[Hypothesis]]:
        """The only hypothesis of each sentence."""
        ends_P = self._ends_P[rows]
        scores_P = self._sums_P[rows] / ((ends_P - 1).double() ** self._how.len_penalty).float()
        return [
            [Hypothesis(ids=ids[PROMPT_LENGTH:end], score=score, at_limit=end == self._limit)]
            for ids, score, end in zip(self._ids_PS[rows].tolist(), scores_P.tolist(), ends_P.tolist(), strict=True)
        ]

    def keep(self, rows: Tensor) -> None:
        """Drop all other rows."""
        for name, tensor in self._tensors().items():
            setattr(self, name, tensor[rows])

    def admit(self, rows: Tensor, other: Draws, picks: Tensor) -> None:
        """The sentences ``picks`` of ``other`` take the places ``rows``."""
        theirs = other._tensors()
        for name, tensor in self._tensors().items():
            tensor[rows] = theirs[name][picks]

    def _tensors(self) -> dict[str, Tensor]:
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}


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

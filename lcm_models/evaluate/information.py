"""Mutual information of a sentence and its context by a causal language model (LCM paper §2.4.1).

``(log p(s | context) - log p(s)) / |s|`` in nats a token: above 0 the context makes the sentence likelier. (The formula
printed in the paper has the other sign; its prose and the official code have this one.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F

from lcm_data.errors import UsageError
from lcm_models.evaluate.networks import load_network

CONTEXT_SENTENCES = 10
_BATCH_TOKENS = 4096
_DEFAULT_LENGTH = 1024


class Gain(NamedTuple):
    """By how much the context raises the log probability of a sentence, in nats, and its number of tokens."""

    nats: float
    tokens: int


class LanguageModel:
    """A causal language model of the package transformers, from a folder or by name.

    Raises:
        MissingExtraError: transformers is not installed.
        CheckpointError: it cannot be loaded.
        UsageError: its tokenizer has no token to begin a text with.
    """

    def __init__(self, path: str, device: torch.device | None = None) -> None:
        what = "a causal language model"
        self._tokenizer, self._model = load_network("AutoModelForCausalLM", path, what, device)
        config = self._model.config
        self._max_len = int(getattr(config, "max_position_embeddings", None) or _DEFAULT_LENGTH)
        self._line = self._ids("\n") or self._begin(path)

    def _begin(self, path: str) -> list[int]:
        for name in ("bos_token_id", "eos_token_id"):
            if (token := getattr(self._tokenizer, name, None)) is not None:
                return [int(token)]
        raise UsageError(
            f"the tokenizer of {path!r} has no newline and no token that begins a text. Give another model."
        )

    def gains(self, sentences: Sequence[str], contexts: Sequence[Sequence[str]]) -> list[Gain]:
        """The gain of each sentence from the sentences before it, of which the last ten are read.

        Sentences are lines: one begins behind a newline with and without context, so that its tokens are the same. A
        context that is too long for the model loses its beginning, a sentence its end.
        """
        alone: list[tuple[list[int], list[int]]] = []
        after: list[tuple[list[int], list[int]]] = []
        for sentence, context in zip(sentences, contexts, strict=True):
            ids = self._ids(sentence)[: self._max_len // 2]
            before = [*self._line]
            for line in context[-CONTEXT_SENTENCES:]:
                before += [*self._ids(line), *self._line]
            alone.append((self._line, ids))
            after.append((before[-(self._max_len - len(ids)) :], ids))
        with_context, without = self._log_probabilities(after), self._log_probabilities(alone)
        return [
            Gain(given - free, len(ids)) for given, free, (_, ids) in zip(with_context, without, alone, strict=True)
        ]

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    @torch.no_grad()
    def _log_probabilities(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[float]:
        """Log probability of the second part of each pair after the first."""
        found = [0.0] * len(pairs)
        order = sorted(range(len(pairs)), key=lambda i: -len(pairs[i][0]) - len(pairs[i][1]))
        start = 0
        while start < len(order):
            longest = len(pairs[order[start]][0]) + len(pairs[order[start]][1])
            some = order[start : start + max(1, _BATCH_TOKENS // longest)]
            start += len(some)
            rows = [torch.tensor(pairs[i][0] + pairs[i][1]) for i in some]
            ids_BT = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(self._model.device)
            lengths_B1 = torch.tensor([[len(row)] for row in rows], device=ids_BT.device)
            real_BT = torch.arange(ids_BT.shape[1], device=ids_BT.device) < lengths_B1
            logits_BTV = self._model(input_ids=ids_BT, attention_mask=real_BT.long()).logits
            for row, i in enumerate(some):
                first, last = len(pairs[i][0]), len(rows[row])
                scores_NV = logits_BTV[row, first - 1 : last - 1].float()
                loss = F.cross_entropy(scores_NV, ids_BT[row, first:last], reduction="sum")
                found[i] = -float(loss) if last > first else 0.0
        return found


def mutual_information(gains: Sequence[Gain]) -> float | None:
    """Nats a token: the mean over sentences, weighted by their tokens; None if there is no token."""
    tokens = sum(gain.tokens for gain in gains)
    return sum(gain.nats for gain in gains) / tokens if tokens else None

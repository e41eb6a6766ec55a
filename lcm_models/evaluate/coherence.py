"""How well the sentences of a document go together: by their vectors, and by a classifier if one is given."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lcm_data.errors import CheckpointError
from lcm_models.evaluate.networks import load_network

TEMPERATURE = 3.0
_LONG, _WINDOW, _STRIDE = 15, 10, 5
_MAX_TOKENS = 512


def local_coherence(x_SD: Tensor) -> float | None:
    """Mean cosine of sentences n and n + 2; None for fewer than three."""
    if len(x_SD) < 3:
        return None
    return float(F.cosine_similarity(x_SD[2:].float(), x_SD[:-2].float(), dim=1).mean())


class CoherenceModel:
    """A sequence classifier of the package transformers that scores documents, as the official code uses one.

    The score is ``sigmoid(logit / 3)`` (with two classes, of the second over the first). A document of more than 15
    sentences is the mean of its runs of 10, every 5.

    Raises:
        MissingExtraError: transformers is not installed.
        CheckpointError: it cannot be loaded, or has more than two classes.
    """

    def __init__(self, path: str, device: torch.device | None = None) -> None:
        what = "a coherence model"
        self._tokenizer, self._model = load_network("AutoModelForSequenceClassification", path, what, device)
        if self._model.config.num_labels > 2:
            raise CheckpointError(
                f"{path!r} has {self._model.config.num_labels} classes; a coherence model has 1 or 2."
            )
        known = getattr(self._model.config, "max_position_embeddings", None) or _MAX_TOKENS
        self._max_tokens = min(int(known), _MAX_TOKENS)

    def score(self, sentences: Sequence[str]) -> float:
        """The coherence of a document, 0 to 1; at least one sentence."""
        scores = [self._score(" ".join(part)) for part in spans(sentences)]
        return sum(scores) / len(scores)

    @torch.no_grad()
    def _score(self, text: str) -> float:
        inputs = self._tokenizer(text, truncation=True, max_length=self._max_tokens, return_tensors="pt")
        logits = self._model(**inputs.to(self._model.device)).logits[0].float()
        logit = logits[0] if len(logits) == 1 else logits[1] - logits[0]
        return float(torch.sigmoid(logit / TEMPERATURE))


def spans(sentences: Sequence[str]) -> list[Sequence[str]]:
    """The runs of sentences that are scored."""
    if len(sentences) <= _LONG:
        return [sentences]
    return [sentences[start : start + _WINDOW] for start in range(0, len(sentences) - _STRIDE, _STRIDE)]

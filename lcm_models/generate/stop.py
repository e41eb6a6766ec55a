"""When a document ends: like the end-of-text concept, like the concept before it, or long enough (LCM paper §2.3.1)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from lcm_models.config import Frozen

Stop = Literal["end_of_text", "repetition", "max_new", "max_len", "not_finite"]
"""Why a document ended; ``max_len``: the model takes no longer ones."""


class StopRules(Frozen):
    """Thresholds are cosines of raw concepts; the concept that reaches one is not part of the document.

    The paper's are 0.9 for both.
    """

    max_new: int = Field(64, ge=1, description="New concepts of a document at most.")
    min_new: int = Field(0, ge=0, description="Concepts before which the two rules below are not asked.")
    end_of_text: float | None = Field(0.9, ge=-1, le=1, description="Cosine with the end-of-text concept; null: never.")
    repetition: float | None = Field(0.9, ge=-1, le=1, description="Cosine with the concept before; null: never.")

    def reasons(
        self, x_BD: Tensor, previous_BD: Tensor, has_previous: list[bool], counts: list[int], end_D: Tensor | None
    ) -> list[Stop | None]:
        """Why each new concept ends its document without being part of it; None: it does not.

        Args:
            x_BD: new concepts, raw.
            previous_BD: the concepts before them.
            has_previous: false where there is none yet.
            counts: new concepts that each document has already.
            end_D: the end-of-text concept, if there is one.
        """
        finite = torch.isfinite(x_BD).all(dim=1).tolist()
        repeats = _at_least(F.cosine_similarity(x_BD, previous_BD, dim=1), self.repetition)
        ends = [False] * len(counts)
        if end_D is not None:
            ends = _at_least(F.cosine_similarity(x_BD, end_D.unsqueeze(0), dim=1), self.end_of_text)
        found: list[Stop | None] = []
        for row, count in enumerate(counts):
            if not finite[row]:
                found.append("not_finite")
            elif count >= self.min_new and ends[row]:
                found.append("end_of_text")
            elif count >= self.min_new and has_previous[row] and repeats[row]:
                found.append("repetition")
            else:
                found.append(None)
        return found


def _at_least(cosine_B: Tensor, threshold: float | None) -> list[bool]:
    return [False] * len(cosine_B) if threshold is None else (cosine_B >= threshold).tolist()

"""From sentence vectors to token ids: the way to each method.

Settings are ``lcm_data.sonar.settings``, scores ``lcm_data.sonar.scores``, beam search ``lcm_data.sonar.beam``, drawing
tokens ``lcm_data.sonar.sampling``, the network ``lcm_data.sonar.text_decoder``. Texts, batches and devices are
``lcm_data.decode``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lcm_data.errors import UsageError
from lcm_data.sonar.beam import beam_search
from lcm_data.sonar.sampling import draw
from lcm_data.sonar.settings import Generation, Hypothesis

if TYPE_CHECKING:
    from lcm_data.sonar.text_decoder import TextDecoder

__all__ = ["Generation", "Hypothesis", "generate"]


def generate(
    decoder: TextDecoder,
    emb_ND: Tensor,
    lang_id: int,
    how: Generation | None = None,
    keys: Sequence[int] | None = None,
) -> list[list[Hypothesis]]:
    """Say N sentence vectors in a language, all as one batch.

    Args:
        decoder: on the device where it will run; ``emb_ND`` is moved there.
        emb_ND: sentence vectors [N, D].
        lang_id: token of the target language (``SonarTokenizer.lang_id``).
        how: the settings; None is beam search as sonar-space does it.
        keys: N integers, the names of the sentences for the draws of mode "sample": key, seed and position determine
            the chance of a draw, whatever else is in the batch. None is 0, 1, 2, ...

    Returns:
        For each sentence its hypotheses, best first: up to ``beam_size`` of a beam search (fewer when the limit leaves
        no room for more), else one.

    Raises:
        UsageError: vectors of another width, or keys of another number.
    """
    how = how or Generation()
    if keys is not None and len(keys) != len(emb_ND):
        raise UsageError(f"{len(keys)} keys for {len(emb_ND)} vectors; give one each.")
    if len(emb_ND) == 0:
        return []
    with torch.inference_mode():
        emb_ND = emb_ND.to(decoder.position_table.device)
        if how.mode == "beam":
            return beam_search(decoder, emb_ND, lang_id, how)
        return draw(decoder, emb_ND, lang_id, how, range(len(emb_ND)) if keys is None else keys)

"""From sentence vectors to token ids: which sentences are in the batch, and their way through the network.

A batch has seats. A sentence that ends gives its seat to the next one, so that every step, which reads all weights,
serves as many hypotheses as there is memory for; new sentences wait with their prompt read, many at once. What a
sentence becomes does not depend on its company. Which tokens are chosen is ``lcm_data.sonar.beam`` and
``lcm_data.sonar.sampling``, scores are ``lcm_data.sonar.scores``, the network is ``lcm_data.sonar.text_decoder``.
Texts and devices are ``lcm_data.decode``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lcm_data.errors import UsageError
from lcm_data.sonar.beam import Beams
from lcm_data.sonar.sampling import Draws
from lcm_data.sonar.scores import Lengths, prompt, prompt_scores
from lcm_data.sonar.settings import Generation, Hypothesis

if TYPE_CHECKING:
    from lcm_data.sonar.text_decoder import TextDecoder

__all__ = ["Generation", "Hypothesis", "generate", "stream"]

_SHRINK_SHARE = 1 / 8
"""Empty seats nobody waits for are removed once they are this share; before, moving the rest costs more."""

_LOOK_EVERY = {"cpu": 1, "cuda": 4}
"""Steps between looks at who has finished. A GPU has to be waited for, which costs more than some idle seats."""


class Choices(Protocol):
    """How the tokens of P sentences are chosen; made of the scores float32 [P] of their prompts."""

    def choose(self, hidden_PBD: Tensor, lengths: Lengths, lengths_P: Tensor) -> tuple[Tensor, Tensor]:
        """The next tokens [P, B], and which hypothesis each of them continues.

        The number of tokens of the sentences so far is given twice, on the host and on the device.
        """
        ...

    def finished(self) -> Tensor:
        """Which sentences are done, bool [P]."""
        ...

    def take(self, rows: Tensor) -> list[list[Hypothesis]]:
        """The results of sentences that are done."""
        ...

    def keep(self, rows: Tensor) -> None:
        """Go on with some of the sentences."""
        ...

    def admit(self, rows: Tensor, other: Any, picks: Tensor) -> None:
        """The sentences ``picks`` of ``other`` take the places ``rows``."""
        ...


def generate(
    decoder: TextDecoder,
    emb_ND: Tensor,
    lang_id: int,
    how: Generation | None = None,
    keys: Sequence[int] | None = None,
    seats: int | None = None,
) -> list[list[Hypothesis]]:
    """Say N sentence vectors in a language.

    Args:
        decoder: on the device where it will run; ``emb_ND`` is moved there.
        emb_ND: sentence vectors [N, D].
        lang_id: token of the target language (``SonarTokenizer.lang_id``).
        how: the settings; None is beam search as sonar-space does it.
        keys: N integers, the names of the sentences for the draws of mode "sample": key, seed and position determine
            the chance of a draw, whatever else is in the batch. None is 0, 1, 2, ...
        seats: sentences in the batch at once; None is all.

    Returns:
        For each sentence its hypotheses, best first: up to ``beam_size`` of a beam search (fewer when the limit leaves
        no room for more), else one.

    Raises:
        UsageError: vectors of another width, or keys of another number.
    """
    found = dict(stream(decoder, emb_ND, lang_id, how, keys, seats))
    return [found[row] for row in range(len(emb_ND))]


@torch.inference_mode()
def stream(
    decoder: TextDecoder,
    emb_ND: Tensor,
    lang_id: int,
    how: Generation | None = None,
    keys: Sequence[int] | None = None,
    seats: int | None = None,
) -> Iterator[tuple[int, list[Hypothesis]]]:
    """As ``generate``, each sentence with its row as soon as it is done."""
    how = how or Generation()
    how.check_fits(decoder.config.vocab_size, decoder.config.max_tokens)
    if keys is not None and len(keys) != len(emb_ND):
        raise UsageError(f"{len(keys)} keys for {len(emb_ND)} vectors; give one each.")
    keys = range(len(emb_ND)) if keys is None else keys
    emb_ND = emb_ND.to(decoder.position_table.device)
    look_every = _LOOK_EVERY.get(emb_ND.device.type, 1)
    blocks = _blocks(len(emb_ND), seats)

    def opened() -> _Group | None:
        rows = next(blocks, None)
        return None if rows is None else _Group(decoder, emb_ND, lang_id, how, keys, rows)

    group, waiting = opened(), None
    while group is not None:
        yield from group.release()
        while len(empty := group.empty()) > 0:
            if waiting is None or not waiting.busy():
                waiting = opened()
                if waiting is None:
                    break
                yield from waiting.release()
            group.admit(empty, waiting)
        if not group.busy():
            return
        if len(empty) > _SHRINK_SHARE * len(group.rows):
            group.shrink()
        for _ in range(look_every):
            group.advance()
            if group.over().any():
                break


def _blocks(num: int, size: int | None) -> Iterator[npt.NDArray[np.int64]]:
    """The numbers below ``num``, ``size`` at a time."""
    size = size or num
    for start in range(0, num, max(1, size)):
        yield np.arange(start, min(start + size, num))


class _Group:
    """Sentences and all there is about them, between the choice of their next tokens and the network's reading these.

    Attributes:
        rows: int64 [P], the row of the sentence vector in each seat, -1 where the seat is empty.
    """

    def __init__(
        self,
        decoder: TextDecoder,
        emb_ND: Tensor,
        lang_id: int,
        how: Generation,
        keys: Sequence[int],
        rows: npt.NDArray[np.int64],
    ) -> None:
        self.rows = rows
        self._decoder = decoder
        self._limit = how.limit(decoder.config.max_tokens)
        emb_PD = emb_ND[torch.from_numpy(rows).to(emb_ND.device)]
        hidden_P2D, self._state = decoder.start(emb_PD, prompt(lang_id, len(rows), emb_ND.device))
        scores_P = prompt_scores(decoder.project(hidden_P2D[:, 0]), lang_id, how)
        self._tokens_PB: Tensor
        self._choices: Choices
        if how.mode == "beam":
            self._choices = Beams(decoder, how, scores_P)
        else:
            self._choices = Draws(decoder, how, scores_P, [keys[row] for row in rows])
        self._choose(hidden_P2D[:, 1:])

    def busy(self) -> bool:
        """Whether anybody is left."""
        return bool((self.rows >= 0).any())

    def empty(self) -> npt.NDArray[np.int64]:
        """The empty seats."""
        return np.flatnonzero(self.rows < 0)

    def over(self) -> npt.NDArray[np.bool_]:
        """Whose sentence has reached the limit."""
        return (self.rows >= 0) & (self._state.num_tokens + 1 >= self._limit)

    def advance(self) -> None:
        """One step of all."""
        self._choose(self._decoder.step(self._tokens_PB, self._state))

    def release(self) -> list[tuple[int, list[Hypothesis]]]:
        """Rows and results of the sentences that are done; their seats are empty then."""
        done = self.over() | self._choices.finished().cpu().numpy() & (self.rows >= 0)
        seats = np.flatnonzero(done)
        if len(seats) == 0:
            return []
        results = self._choices.take(self._index(seats))
        rows = self.rows[seats].tolist()
        self.rows[seats] = -1
        return list(zip(rows, results, strict=True))

    def admit(self, seats: npt.NDArray[np.int64], other: _Group) -> None:
        """As many sentences of ``other`` as there are seats change over."""
        picks = np.flatnonzero(other.rows >= 0)[: len(seats)]
        seats = seats[: len(picks)]
        self.rows[seats] = other.rows[picks]
        other.rows[picks] = -1
        places, chosen = self._index(seats), self._index(picks)
        self._state.admit(places, other._state, chosen)
        self._choices.admit(places, other._choices, chosen)
        self._tokens_PB[places] = other._tokens_PB[chosen]

    def shrink(self) -> None:
        """Remove the empty seats."""
        busy = np.flatnonzero(self.rows >= 0)
        self.rows = self.rows[busy]
        kept = self._index(busy)
        self._state.keep(kept)
        self._choices.keep(kept)
        self._tokens_PB = self._tokens_PB[kept]

    def _choose(self, hidden_PBD: Tensor) -> None:
        self._tokens_PB, parents_PB = self._choices.choose(hidden_PBD, self._state.num_tokens, self._state.positions_P)
        self._state.reorder(parents_PB)

    def _index(self, seats: npt.NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(seats).to(self._state.positions_P.device)

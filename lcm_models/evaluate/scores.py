"""One model (or baseline) on one language and split: figures over all places, a sample of guesses, continuations.

Guesses and continuations that are kept are vectors; ``judge`` says them and judges the sentences.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from lcm_models.config import Frozen
from lcm_models.evaluate.coherence import local_coherence
from lcm_models.evaluate.documents import Array, EvalDocument, Partition, Window, hash_of, windows
from lcm_models.evaluate.places import Means, place_figures
from lcm_models.evaluate.pool import Pool, make_pool
from lcm_models.evaluate.predict import Guess
from lcm_models.generate.loop import Request, generate
from lcm_models.generate.stop import StopRules
from lcm_models.model import ConceptModel


@dataclass(frozen=True)
class Continued:
    """The continuation [N, D] of a document behind its first ``num_prefix`` sentences."""

    document: int
    num_prefix: int
    x_ND: Array


@dataclass
class Scored:
    """``figures`` are means, ``counts`` how many of what; ``guess_KD`` are the guesses of the sampled places."""

    figures: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    guess_KD: Array = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    continued: list[Continued] = field(default_factory=list)

    def forget_vectors(self) -> None:
        """Keep figures and counts only."""
        self.guess_KD, self.continued = np.zeros((0, 0), np.float32), []


@dataclass(frozen=True)
class Material:
    """What every model meets on one language and split: the same documents, windows, candidates and places."""

    partition: Partition
    documents: list[EvalDocument]
    windows: list[Window]
    pool: Pool
    places: list[tuple[int, int]]
    """Window and place in it whose guesses are kept."""
    prefixes: list[tuple[int, int]]
    """Document and sentences of its prefix, to be continued."""

    @classmethod
    def of(cls, partition: Partition, max_len: int, pool: int, keep: int, continued: int, share: float) -> Material:
        """Read a partition; all that is drawn is drawn with its seed.

        Args:
            max_len: concepts of a window at most.
            pool: candidates of contrastive accuracy.
            keep: places whose guesses are kept.
            continued: documents to continue, the first ``share`` of their sentences given.
        """
        documents = partition.documents()
        if not documents:
            return cls(partition, [], [], Pool(*[torch.zeros(0)] * 5), [], [])
        cut = windows(documents, max_len)
        places = [(number, place) for number, window in enumerate(cut) for place in range(1, len(window.x_SD))]
        order = np.random.default_rng(hash_of(partition.seed, "places")).permutation(len(places))[:keep]
        chosen = [places[i] for i in np.sort(order)]
        numbers = sorted(range(len(documents)), key=lambda i: hash_of(partition.seed, "prefix", documents[i].doc_id))
        lengths = [len(document.x_SD) for document in documents]
        prefixes = [(i, min(lengths[i] - 1, int(np.ceil(share * lengths[i])))) for i in sorted(numbers[:continued])]
        return cls(partition, documents, cut, make_pool(documents, pool, partition.seed), chosen, prefixes)

    def truth(self) -> Array:
        """The true concepts [K, D] of the sampled places."""
        return np.stack([self.windows[number].x_SD[place] for number, place in self.places])

    def seeds(self, seed: int) -> list[int]:
        """A seed for each window, that of its document and place."""
        return [
            hash_of(seed, self.partition.name, self.documents[each.document].doc_id, each.start) >> 1
            for each in self.windows
        ]


def score(material: Material, guesses: Iterable[Guess]) -> Scored:
    """Figures over all places, and the guesses of the sampled ones."""
    means, kept = Means(), defaultdict[int, list[tuple[int, int]]](list)
    for slot, (number, place) in enumerate(material.places):
        kept[number].append((slot, place))
    width = material.documents[0].x_SD.shape[1]
    scored = Scored(guess_KD=np.zeros((len(material.places), width), np.float32))
    not_finite = 0
    for number, guess_SD in guesses:
        window = material.windows[number]
        truth_SD = torch.from_numpy(window.x_SD)
        means.add(place_figures(guess_SD, truth_SD, material.pool, window.document, window.start))
        not_finite += int((~torch.isfinite(guess_SD[1:]).all(dim=1)).sum())
        for slot, place in kept[number]:
            scored.guess_KD[slot] = guess_SD[place].numpy()
    scored.figures = means.means()
    scored.counts = {"documents": len(material.documents), "places": means.counts["l2"], "not_finite": not_finite}
    scored.counts |= {f"{name}_places": means.counts[name] for name in ("par", "ca")}
    return scored


def continue_documents(
    model: ConceptModel,
    material: Material,
    stop: StopRules,
    sampling: Frozen,
    end_of_text: Tensor | None,
    context: int,
    seed: int,
    max_rows: int,
) -> tuple[list[Continued], dict[str, float]]:
    """Continuations of the prefixes, and how they end and hang together.

    Figures: ``ended``, the share that ended by the end-of-text concept; ``repeated`` by repetition; ``length``,
    sentences over those of the document, cut at ``stop.max_new``; ``local_coherence``.
    """
    requests = (
        Request(
            torch.from_numpy(material.documents[i].x_SD[:num][-context:]),
            hash_of(seed, material.partition.name, material.documents[i].doc_id) >> 1,
        )
        for i, num in material.prefixes
    )
    made = list(generate(model, requests, stop, sampling, end_of_text, max_rows))
    found = [Continued(i, num, each.x_ND.numpy()) for (i, num), each in zip(material.prefixes, made, strict=True)]
    reasons = [each.stop for each in made]
    figures = {
        "ended": reasons.count("end_of_text") / len(made),
        "repeated": reasons.count("repetition") / len(made),
    }
    return found, figures | vector_figures(material, found, stop.max_new)


def true_continuations(material: Material, max_new: int) -> list[Continued]:
    """What follows the prefixes in the documents, at most ``max_new`` sentences."""
    return [Continued(i, num, material.documents[i].x_SD[num : num + max_new]) for i, num in material.prefixes]


def vector_figures(material: Material, continued: list[Continued], max_new: int) -> dict[str, float]:
    """Length and local coherence of continuations."""
    true = true_continuations(material, max_new)
    means = Means()
    for each, reference in zip(continued, true, strict=True):
        coherence = local_coherence(torch.from_numpy(each.x_ND))
        values = {"length": len(each.x_ND) / len(reference.x_ND)}
        values |= {} if coherence is None else {"local_coherence": coherence}
        means.add({name: torch.tensor([value]) for name, value in values.items()})
    return means.means()

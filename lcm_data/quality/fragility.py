"""Fragility: how a sentence suffers when its vector is disturbed before it is decoded (LCM paper §2.5.2, eq 26-28).

    fragility(w) = -E[ score(w, decode(denormalize(sqrt(1 - a) normalize(x) + sqrt(a) e))) ],  a ~ U(0, 1), e ~ N(0, I)

The expectation over ``a`` is a mean over evenly spaced noise levels; the paper takes .1 to .9. Noise depends on the
seed, the id of the sentence and the level alone: in any batch, run and language it is the same.

Shapes: N sentences, D dimensions, L noise levels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lcm_data.normalize import Normalizer
from lcm_data.quality.sentences import Sentences
from lcm_data.quality.textscores import sentence_bleu, sentence_chrf

Array = np.ndarray[Any, Any]
Decode = Callable[[Array], Sequence[str]]
Likeness = Callable[[Sequence[str]], Array]
"""Cosine [N] of decoded texts with the sentences they come from."""

LENGTHS = (50, 100, 150, 250)
"""Bounds of the length buckets in characters; the paper finds sentences over 250 hard."""

_NUM_WORST = 5


@dataclass(frozen=True)
class Curve:
    """Mean scores of ``num_sentences`` at each level; the first level is 0, no noise."""

    num_sentences: int
    levels: tuple[float, ...]
    scores: dict[str, tuple[float, ...]]

    @property
    def fragility(self) -> dict[str, float]:
        """Minus the mean over the noisy levels, by score."""
        return {name: -float(np.mean(values[1:])) for name, values in self.scores.items()}


@dataclass(frozen=True)
class Fragility:
    """Of one language: all sentences, by length (characters), and the most fragile by chrF with what became of them."""

    curve: Curve
    fragility: dict[str, float]
    by_length: dict[str, Curve]
    worst: list[dict[str, Any]]


def noise_levels(num: int) -> tuple[float, ...]:
    """``num`` levels between 0 and 1, evenly spaced: 9 gives .1, .2, ... .9."""
    return tuple((i + 1) / (num + 1) for i in range(num))


def disturb(x_ND: Array, ids: Array, normalizer: Normalizer, level: float, seed: int = 0) -> Array:
    """The vectors with noise of variance ``level`` in the normalised space; level 0 changes nothing but rounding."""
    normal_ND = normalizer.normalize(x_ND.astype(np.float32))
    key = round(level * 1e6)
    noise_ND = np.stack([_generator(seed, int(one), key).standard_normal(x_ND.shape[1], np.float32) for one in ids])
    return normalizer.denormalize(np.float32(np.sqrt(1 - level)) * normal_ND + np.float32(np.sqrt(level)) * noise_ND)


def measure(
    sentences: Sentences,
    normalizer: Normalizer,
    levels: Sequence[float],
    decode: Decode,
    likenesses: Mapping[str, Likeness],
    *,
    seed: int = 0,
    show: Callable[[int, int], None] = lambda done, total: None,
) -> Fragility:
    """Decode at every level and score by chrF2 and BLEU (0 to 100), and by each of ``likenesses`` (-1 to 1).

    ``show`` is told how many levels of how many are done.
    """
    assert sentences.texts is not None
    every = (0.0, *levels)
    rows: dict[str, list[Array]] = {}
    decoded: list[Sequence[str]] = []
    for done, level in enumerate(every):
        show(done, len(every))
        texts = decode(disturb(sentences.emb_ND, sentences.ids, normalizer, level, seed))
        decoded.append(texts)
        rows.setdefault("chrf", []).append(sentence_chrf(texts, sentences.texts))
        rows.setdefault("bleu", []).append(sentence_bleu(texts, sentences.texts, sentences.lang))
        for name, likeness in likenesses.items():
            rows.setdefault(name, []).append(likeness(texts))
    scores_LN = {name: np.stack(values) for name, values in rows.items()}
    curve = _curve(every, scores_LN, np.arange(len(sentences)))
    return Fragility(
        curve,
        curve.fragility,
        {name: _curve(every, scores_LN, chosen) for name, chosen in length_buckets(sentences.texts).items()},
        _worst(sentences.texts, decoded, every, scores_LN["chrf"]),
    )


def of_sentences(
    sentences: Sentences, normalizer: Normalizer, levels: Sequence[float], decode: Decode, seed: int = 0
) -> Array:
    """Fragility of each sentence [N], 0 to 1, for a regressor to learn: 1 minus the mean of chrF over the levels.

    (The paper's, minus the mean, shifted by 1: so the a = -4 and b = 3.5 of its eq 19 give weights of 0.38 to 0.97.)
    """
    assert sentences.texts is not None
    scores = [
        sentence_chrf(decode(disturb(sentences.emb_ND, sentences.ids, normalizer, level, seed)), sentences.texts)
        for level in levels
    ]
    found: Array = 1 - np.mean(scores, axis=0) / 100
    return found


def length_buckets(texts: Sequence[str]) -> dict[str, Array]:
    """Indices of the texts of each length that has any; names such as ``51-100`` and ``251+`` characters."""
    sizes = np.array([len(text) for text in texts])
    found = {}
    for low, high in zip((0, *LENGTHS), (*LENGTHS, None), strict=True):
        chosen = np.flatnonzero((sizes > low) & (sizes <= high if high is not None else True))
        if len(chosen):
            found[f"{low + 1}-{high}" if high is not None else f"{low + 1}+"] = chosen
    return found


def _generator(*key: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))


def _curve(levels: Sequence[float], scores_LN: Mapping[str, Array], chosen: Array) -> Curve:
    means = {name: tuple(float(x) for x in values[:, chosen].mean(axis=1)) for name, values in scores_LN.items()}
    return Curve(len(chosen), tuple(levels), means)


def _worst(
    texts: Sequence[str], decoded: Sequence[Sequence[str]], levels: Sequence[float], chrf_LN: Array
) -> list[dict[str, Any]]:
    """The sentences with the least mean chrF over the noisy levels, and what they became in the middle one."""
    means_N = chrf_LN[1:].mean(axis=0)
    middle = len(levels) // 2
    return [
        {
            "text": texts[row],
            "fragility": -float(means_N[row]),
            "without_noise": decoded[0][row],
            "level": levels[middle],
            "with_noise": decoded[middle][row],
        }
        for row in np.argsort(means_N, kind="stable")[:_NUM_WORST]
    ]

"""Fragility: no noise is auto-encoding, noise is as strong as it says and the same every time, and it hurts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sacrebleu", reason="needs the extra 'quality'")

from lcm_data.decode import Decoder
from lcm_data.encode import Encoder
from lcm_data.normalize import Normalizer
from lcm_data.quality.fragility import disturb, length_buckets, measure, noise_levels, of_sentences
from lcm_data.quality.roundtrip import likeness, round_trip
from lcm_data.quality.sentences import Sentences, embed_texts

TEXTS = [f"I am Paul and have {i} apples." + " Hello, my name is Paul!" * (i % 4) for i in range(30)]


@pytest.fixture(scope="module")
def sentences(encoder: Encoder) -> Sentences:
    return embed_texts(encoder, "eng_Latn", np.arange(30) * 7, TEXTS)


@pytest.fixture(scope="module")
def normalizer(sentences: Sentences) -> Normalizer:
    return Normalizer.fit(sentences.emb_ND)


class Lookup:
    """A decoder that knows the sentences: it says the one whose vector is nearest."""

    def __init__(self, sentences: Sentences) -> None:
        self.table_ND, self.texts = sentences.emb_ND, sentences.texts or ()

    def __call__(self, emb_ND: Any) -> Sequence[str]:
        return [self.texts[int(np.argmin(np.linalg.norm(self.table_ND - x, axis=1)))] for x in emb_ND]


def test_levels() -> None:
    assert noise_levels(9) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
    assert noise_levels(1) == (0.5,)


def test_no_noise_changes_nothing_but_rounding(sentences: Sentences, normalizer: Normalizer) -> None:
    same = disturb(sentences.emb_ND, sentences.ids, normalizer, 0.0)
    np.testing.assert_allclose(same, sentences.emb_ND, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("level", [0.1, 0.5, 0.9])
def test_noise_is_as_strong_as_it_says(level: float) -> None:
    """In the normalised space sqrt(1 - a) of the vector is left, and the rest has variance a."""
    x_ND = np.random.default_rng(0).standard_normal((300, 64)).astype(np.float32) * 0.01 + 0.3
    normalizer = Normalizer.fit(x_ND, method="standard")
    normal = normalizer.normalize(x_ND)
    noise = normalizer.normalize(disturb(x_ND, np.arange(300), normalizer, level)) - np.sqrt(1 - level) * normal
    assert noise.var() == pytest.approx(level, rel=0.05)
    assert abs(noise.mean()) < 0.02
    assert abs((noise * normal).mean()) < 0.02


def test_noise_depends_on_id_level_and_seed_only(sentences: Sentences, normalizer: Normalizer) -> None:
    whole = disturb(sentences.emb_ND, sentences.ids, normalizer, 0.3)
    part = disturb(sentences.emb_ND[10:12], sentences.ids[10:12], normalizer, 0.3)
    np.testing.assert_allclose(whole[10:12], part, rtol=1e-6)
    zeros = np.zeros_like(sentences.emb_ND)
    assert not np.allclose(whole, disturb(sentences.emb_ND, sentences.ids, normalizer, 0.3, seed=1))
    noises = disturb(zeros, sentences.ids, normalizer, 0.3)
    assert len(np.unique(noises[:, 0])) == len(noises)


def test_the_curve_begins_with_auto_encoding(sentences: Sentences, normalizer: Normalizer, decoder: Decoder) -> None:
    assert sentences.texts is not None
    found = measure(sentences, normalizer, [0.5], lambda emb: decoder.decode(emb, "eng_Latn").texts, {})
    trip, points = round_trip(decoder, sentences.emb_ND, sentences.texts, "eng_Latn")
    assert found.curve.scores["chrf"][0] == pytest.approx(points.chrf.mean())
    assert trip.scores.num_sentences == found.curve.num_sentences == 30


def test_noise_hurts_a_decoder_that_knows(sentences: Sentences, normalizer: Normalizer, encoder: Encoder) -> None:
    likenesses = {"cosine": likeness(encoder, sentences, sentences.emb_ND), "judge": likeness(encoder, sentences)}
    found = measure(sentences, normalizer, noise_levels(9), Lookup(sentences), likenesses)
    for name, best in (("chrf", 100), ("bleu", 100), ("cosine", 1), ("judge", 1)):
        values = found.curve.scores[name]
        assert values[0] == pytest.approx(best, abs=1e-4)
        assert values[0] >= values[3] > values[9]
        assert found.fragility[name] == pytest.approx(-np.mean(values[1:]))
    assert found.curve.scores["cosine"] == pytest.approx(found.curve.scores["judge"], abs=1e-4)
    assert found.curve.levels == (0.0, *noise_levels(9))


def test_fragility_of_single_sentences(sentences: Sentences, normalizer: Normalizer) -> None:
    levels, decode = noise_levels(3), Lookup(sentences)
    each = of_sentences(sentences, normalizer, levels, decode)
    assert each.shape == (30,)
    assert each.min() >= 0
    assert each.max() <= 1
    whole = measure(sentences, normalizer, levels, decode, {})
    assert each.mean() == pytest.approx(1 + whole.fragility["chrf"] / 100)
    worst = measure(sentences, normalizer, levels, decode, {}).worst[0]
    assert each.max() == pytest.approx(1 + worst["fragility"] / 100)


def test_by_length_and_worst(sentences: Sentences, normalizer: Normalizer) -> None:
    found = measure(sentences, normalizer, [0.3, 0.9], Lookup(sentences), {})
    assert sum(curve.num_sentences for curve in found.by_length.values()) == 30
    weighted = sum(curve.num_sentences * curve.scores["chrf"][1] for curve in found.by_length.values()) / 30
    assert weighted == pytest.approx(found.curve.scores["chrf"][1])
    fragilities = [each["fragility"] for each in found.worst]
    assert fragilities == sorted(fragilities, reverse=True)
    assert found.worst[0]["text"] in TEXTS
    assert found.worst[0]["without_noise"] == found.worst[0]["text"]
    assert found.worst[0]["level"] == 0.3


def test_length_buckets() -> None:
    found = length_buckets(["a" * n for n in (1, 50, 51, 250, 251, 900)])
    assert {name: rows.tolist() for name, rows in found.items()} == {
        "1-50": [0, 1],
        "51-100": [2],
        "151-250": [3],
        "251+": [4, 5],
    }


def test_an_empty_text_is_like_nothing(sentences: Sentences, encoder: Encoder) -> None:
    cosines = likeness(encoder, sentences.take(np.arange(3)))(["", TEXTS[1], "  "])
    assert cosines.tolist() == pytest.approx([0, 1, 0], abs=1e-5)


def test_likeness_is_the_cosine(sentences: Sentences, encoder: Encoder) -> None:
    two = sentences.take(np.array([0, 1]))
    other = embed_texts(encoder, "eng_Latn", np.arange(2), ["Paul!", "Hello"]).emb_ND
    expected = [float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) for a, b in zip(two.emb_ND, other, strict=True)]
    assert likeness(encoder, two)(["Paul!", "Hello"]).tolist() == pytest.approx(expected, abs=1e-5)

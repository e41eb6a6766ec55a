"""From vectors back to text: the same language (auto-encoding) or another one (translation), scored against references.

Also the cosine of decoded text with where it came from, by the encoder of the space or by an unrelated one.

Shapes: N sentences, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lcm_data.decode.base import Decoder
from lcm_data.encode.base import Encoder
from lcm_data.quality.fragility import Likeness, length_buckets
from lcm_data.quality.sentences import Sentences, embed_texts
from lcm_data.quality.textscores import TextScores, corpus_scores, sentence_chrf
from lcm_data.quality.xsim import unit_rows

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class RoundTrip:
    """How well texts came back.

    Attributes:
        lang: the language decoded into.
        scores: of all texts together.
        cut: share of texts that the decoder's length limit ended.
        chrf_by_length: mean sentence chrF2 and number of sentences by length of the reference in characters.
    """

    lang: str
    scores: TextScores
    cut: float
    chrf_by_length: dict[str, tuple[float, int]]


@dataclass(frozen=True)
class Points:
    """For drawing: length in characters and chrF2 of each sentence, both [N]."""

    lengths: Array
    chrf: Array


def round_trip(decoder: Decoder, emb_ND: Array, references: Sequence[str], lang: str) -> tuple[RoundTrip, Points]:
    """Decode vectors into ``lang`` and compare with the references; at least one.

    Raises:
        UnknownNameError: the decoder does not know the language.
    """
    decoded = decoder.decode(emb_ND, lang)
    chrf = sentence_chrf(decoded.texts, references)
    buckets = length_buckets(references).items()
    result = RoundTrip(
        lang,
        corpus_scores(decoded.texts, references, lang),
        float(np.mean(decoded.truncated)),
        {name: (float(chrf[rows].mean()), len(rows)) for name, rows in buckets},
    )
    return result, Points(np.array([len(text) for text in references]), chrf)


def likeness(encoder: Encoder, sentences: Sentences, emb_ND: Array | None = None) -> Likeness:
    """Cosine [N] of decoded texts with the sentences they come from, in the space of ``encoder``.

    ``emb_ND`` are the vectors of the sentences, if this encoder made them; else it encodes them. A text that is empty,
    or whose vector is not finite, or zero, has cosine 0.

    Raises:
        UnknownNameError: the encoder does not know the language.
    """
    assert sentences.texts is not None
    original_ND = _unit_or_zero(encoder, sentences.lang, sentences.texts) if emb_ND is None else unit_rows(emb_ND)

    def cosines(texts: Sequence[str]) -> Array:
        return np.asarray((_unit_or_zero(encoder, sentences.lang, texts) * original_ND).sum(axis=1))

    return cosines


def _unit_or_zero(encoder: Encoder, lang: str, texts: Sequence[str]) -> Array:
    """Vectors [N, D] of length 1, and of length 0 where there is none."""
    full = [row for row, text in enumerate(texts) if text.strip()]
    unit_ND = np.zeros((len(texts), encoder.dim), np.float32)
    if full:
        embedded = embed_texts(encoder, lang, np.array(full), [texts[row] for row in full])
        unit_ND[embedded.ids.astype(np.int64)] = unit_rows(embedded.emb_ND)
    return unit_ND

"""What must hold for any text and any vector, however odd: the checks of the fuzz tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lcm_data.decode import Decoder
from lcm_data.encode import Encoder
from lcm_data.sonar.tokenizer import EOS, UNK, SonarTokenizer

Vectors = np.ndarray[Any, np.dtype[Any]]

UNKNOWN_MARK = " \u2047 "
"""What SentencePiece writes for a token that stands for unknown characters."""


def check_tokenizer(cutting: SonarTokenizer, whole: SonarTokenizer, texts: Sequence[str], lang: str) -> None:
    """Counts agree with the ids, and ids with the texts: nothing is lost that the counts do not show.

    ``whole`` is the same tokenizer with room for every text.
    """
    cut, full = cutting.encode(texts, lang), whole.encode(texts, lang)
    assert len(cut.lengths) == len(texts)
    assert cut.full_lengths.tolist() == full.lengths.tolist()
    assert not full.truncated.any()
    assert len(cut.ids) == cut.lengths.sum(dtype=np.int64)
    counts = zip(texts, cut.rows(), full.rows(), cut.truncated, cut.num_unknown, full.num_unknown, strict=True)
    for text, row, ids, truncated, num_unknown, num_unknown_in_all in counts:
        assert ids[0] == whole.lang_id(lang)
        assert ids[-1] == EOS
        assert (ids[1:-1] <= whole.num_pieces).all()
        assert not np.isin(ids[1:-1], [0, 2, EOS]).any()
        assert row.tolist() == ids[: cutting.max_tokens].tolist()
        assert truncated == (len(ids) > cutting.max_tokens)
        assert num_unknown == (row == UNK).sum()
        said = whole.decode(ids)
        assert said.count(UNKNOWN_MARK) >= num_unknown_in_all
        if num_unknown_in_all == 0:
            assert said == normalized(whole, text), repr(text)
        if len(ids) == 2:
            assert normalized(whole, text) == ""


def normalized(tokenizer: SonarTokenizer, text: str) -> str:
    """A text as the tokenizer takes it: NFKC, single blanks, no control characters."""
    said: str = tokenizer._model.Normalize(text)
    return said.replace("\u2581", " ").removeprefix(" ")


def check_encoder(encoder: Encoder, texts: Sequence[str], lang: str) -> None:
    """Finite vectors in the order of the texts, whatever shares their batch."""
    prepared = encoder.prepare(texts, lang)
    vectors = encoder.embed(prepared)
    assert vectors.shape == (len(texts), encoder.dim)
    assert np.isfinite(vectors).all()
    assert (np.linalg.norm(vectors, axis=1) > 1e-3).all()
    backwards = encoder.embed(encoder.prepare(texts[::-1], lang))[::-1]
    np.testing.assert_allclose(backwards, vectors, atol=2e-6, rtol=0)


def check_decoder(decoder: Decoder, vectors: Vectors, lang: str) -> None:
    """A finite score with a text, or NaN without one; a row that is not finite takes nothing else with it."""
    keys = np.arange(len(vectors)) + 5
    said = decoder.decode(vectors, lang, keys)
    assert len(said) == len(vectors)
    with np.errstate(over="ignore"):
        sound = np.isfinite(vectors.astype(np.float32)).all(axis=1)
    silent = np.isnan(said.scores)
    assert not np.isinf(said.scores).any()
    assert silent[~sound].all()
    assert not silent[np.abs(vectors).max(axis=1, initial=0.0) <= 100.0].any()  # no sentence vector is so long
    assert (said.num_tokens == 0).tolist() == silent.tolist()
    assert not said.truncated[silent].any()
    assert {said.texts[row] for row in np.flatnonzero(silent)} <= {""}
    rows = np.flatnonzero(sound)
    alone = decoder.decode(vectors[rows], lang, keys[rows])
    np.testing.assert_allclose(alone.scores, said.scores[rows], atol=1e-4)
    for text in said.texts:
        text.encode()  # no half of a character

"""Random and hostile texts and vectors for tokenizer, encoder and decoder; the checks are tests/support/fuzzing.py."""

from __future__ import annotations

import lzma
import random
import time
from pathlib import Path

import numpy as np
import pytest
from fuzzing import check_decoder, check_encoder, check_tokenizer
from hypothesis import example, given, settings
from hypothesis import strategies as st
from manyscripts import ODDITIES, SENTENCES, noise, strings

from lcm_data.decode import Decoder, DecoderOptions, load_decoder
from lcm_data.encode import Encoder, EncoderOptions, load_encoder
from lcm_data.errors import UsageError
from lcm_data.sonar.tokenizer import SonarTokenizer

LANGS = ("eng_Latn", "ace_Arab", "zul_Latn")

LONG = ["a" * 100_000, "word " * 20_000, "\u0301" * 100_000, "\U00012000" * 100_000, "\n" * 100_000, "</s>" * 25_000]

TEXTS = st.lists(
    st.one_of(
        st.text(max_size=60),
        st.lists(st.sampled_from([*ODDITIES, *SENTENCES.values()]), max_size=4).map("".join),
        st.tuples(st.characters(exclude_categories=["Cs"]), st.integers(1, 700)).map(lambda pair: pair[0] * pair[1]),
    ),
    max_size=6,
)

FINITE = st.floats(allow_nan=False, allow_infinity=False, width=32)
NUMBERS = st.one_of(
    FINITE,
    st.sampled_from([np.nan, np.inf, -np.inf, 0.0, -0.0, 65504.0, 1e-45, 1e-38, 3.4e38, 6e-8, 1e300]),
    st.floats(-0.2, 0.2),
)
VECTORS = st.lists(st.tuples(NUMBERS, NUMBERS, st.integers(0, 2**31)), min_size=1, max_size=6)

Tokenizers = tuple[SonarTokenizer, SonarTokenizer]


@pytest.fixture(scope="module", params=["small", "scripts", "bytes"])
def tokenizers(
    request: pytest.FixtureRequest, golden: Path, tiny: Path, tmp_path_factory: pytest.TempPathFactory
) -> Tokenizers:
    """A vocabulary that knows little, one that knows much, and one that falls back to bytes."""
    path = {"small": golden, "bytes": tiny}.get(request.param, golden) / "sentencepiece.model"
    if request.param == "scripts":
        path = tmp_path_factory.mktemp("scripts") / "scripts.model"
        path.write_bytes(lzma.decompress((golden / "scripts.model.xz").read_bytes()))
    return SonarTokenizer(path, max_tokens=12), SonarTokenizer(path, max_tokens=1 << 30)  # many texts are just cut


@pytest.fixture(scope="module")
def encoder(golden: Path) -> Encoder:
    return load_encoder(EncoderOptions(model=str(golden), device="cpu", threads=1))


@pytest.fixture(scope="module", params=["beam", "greedy", "sample"])
def decoder(request: pytest.FixtureRequest, golden: Path) -> Decoder:
    return load_decoder(DecoderOptions(model=str(golden), device="cpu", mode=request.param, max_tokens=8, beam_size=3))


def vectors_of(seeds: list[tuple[float, float, int]], dim: int) -> np.ndarray:
    """Rows of a number, with another one at a random place, and ordinary numbers elsewhere in every third row."""
    rows = np.empty((len(seeds), dim))
    for row, (most, one, seed) in zip(rows, seeds, strict=True):
        rng = np.random.default_rng(seed)
        row[:] = most if seed % 3 else rng.normal(0, 0.1, dim)
        row[rng.integers(dim)] = one
    return rows


@given(texts=TEXTS, lang=st.sampled_from(LANGS))
@example(texts=["", " ", "\0", "\ufffd", "\u2581"], lang="eng_Latn")
@settings(max_examples=60)
def test_any_text_can_be_tokenised(tokenizers: Tokenizers, texts: list[str], lang: str) -> None:
    check_tokenizer(*tokenizers, texts, lang)


def test_long_lines_can_be_tokenised(tokenizers: Tokenizers) -> None:
    check_tokenizer(*tokenizers, LONG, "eng_Latn")


@given(before=st.text(max_size=5), half=st.characters(categories=["Cs"]), after=st.text(max_size=5))
def test_half_a_character_is_refused(tokenizers: Tokenizers, before: str, half: str, after: str) -> None:
    with pytest.raises(UsageError, match="text 1 is not valid Unicode"):
        tokenizers[0].encode(["fine", before + half + after, "fine"], "eng_Latn")


@given(texts=TEXTS, lang=st.sampled_from(LANGS))
@settings(max_examples=40)
def test_any_text_gets_a_vector(encoder: Encoder, texts: list[str], lang: str) -> None:
    check_encoder(encoder, texts, lang)


def test_long_lines_get_a_vector(encoder: Encoder) -> None:
    check_encoder(encoder, [*LONG, "short", ""], "eng_Latn")


@given(seeds=VECTORS, lang=st.sampled_from(LANGS))
@example(seeds=[(1e30, 1e30, 1), (65504.0, 65504.0, 1), (0.1, 0.1, 0), (0.0, -0.0, 1)], lang="eng_Latn")
@settings(max_examples=20)
def test_any_vector_gets_a_text_or_none(decoder: Decoder, seeds: list[tuple[float, float, int]], lang: str) -> None:
    check_decoder(decoder, vectors_of(seeds, decoder.dim), lang)


@pytest.mark.slow
def test_a_long_run(golden: Path, tokenizers: Tokenizers, encoder: Encoder) -> None:
    """100,000 strings a vocabulary, 10,000 of them also encoded and said again."""
    rng = random.Random(20261123)
    started = time.perf_counter()
    texts = [text for seed in range(8) for text in strings(12_500, 1000 + seed)]
    for start in range(0, len(texts), 500):
        some = texts[start : start + 500]
        some[rng.randrange(500)] = noise(rng, 100_000)
        check_tokenizer(*tokenizers, some, rng.choice(LANGS))
    print(f"\n{len(texts)} strings tokenised in {time.perf_counter() - started:.0f} s")
    if tokenizers[0].path.parent != golden:
        return
    started = time.perf_counter()
    decoder = load_decoder(DecoderOptions(model=str(golden), device="cpu", max_tokens=12, beam_size=2))
    for start in range(0, 10_000, 200):
        some = texts[start : start + 200]
        check_encoder(encoder, some, "eng_Latn")
        vectors = encoder.embed(encoder.prepare(some, "eng_Latn"))
        vectors[::7] *= 10.0 ** rng.randint(-40, 38)
        check_decoder(decoder, vectors, "eng_Latn")
    print(f"10000 strings encoded and decoded in {time.perf_counter() - started:.0f} s")

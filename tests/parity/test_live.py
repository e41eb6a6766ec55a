"""Our encoder and tokenizer against sonar-space itself, in one process (``make parity``; skipped without it)."""

from __future__ import annotations

import importlib.util
import lzma
import os
import random
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from manyscripts import score, strings

from lcm_data.encode import EncoderOptions, load_encoder
from lcm_data.sonar.files import find_model
from lcm_data.sonar.fingerprint import file_sha256

pytestmark = [
    pytest.mark.parity,
    pytest.mark.skipif(importlib.util.find_spec("sonar") is None, reason="sonar-space is not installed"),
]

LANGS = ("eng_Latn", "fra_Latn", "ace_Arab", "zul_Latn")


@pytest.fixture(scope="module")
def golden() -> Path:
    return Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Words in several scripts, and noise over all of Unicode, of very different lengths."""
    rng = random.Random(5)
    words = ["the", "sea", "of", "stars", "Привет", "мир", "你好", "世界", "नमस्ते", "مرحبا", "42", "3.14", "e\u0301"]
    plain = [" ".join(rng.choices(words, k=rng.choice([1, 2, 5, 9, 20, 60, 250]))) for _ in range(60)]
    noise = []
    for _ in range(300):
        points = (chr(rng.choice([rng.randrange(0x500), rng.randrange(0x30000)])) for _ in range(rng.randrange(30)))
        noise.append("".join(c for c in points if unicodedata.category(c) != "Cs"))
    return ["", " ", "a", *plain, *noise, "Hello " * 700]


@pytest.fixture(scope="module", params=["golden", "wide"])
def folder(request: pytest.FixtureRequest, golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "golden":
        return golden
    from lcm_data.sonar.random_model import write_random_checkpoint

    words = [f"The sea {i}, мир и {i} 你好 नमस्ते" for i in range(200)]
    return write_random_checkpoint(
        tmp_path_factory.mktemp("wide"), words, model_dim=256, num_layers=6, num_heads=4, ffn_dim=2048
    )


@pytest.mark.parametrize("lang", LANGS)
def test_vectors(folder: Path, texts: list[str], lang: str) -> None:
    ours, theirs = (
        load_encoder(EncoderOptions(model=str(folder), backend=backend, device="cpu"))
        for backend in ("native", "sonar-space")
    )
    a, b = ours.prepare(texts, lang), theirs.prepare(texts, lang)
    assert a.num_tokens.tolist() == b.num_tokens.tolist()
    assert a.truncated.tolist() == b.truncated.tolist()
    assert a.truncated.any()
    assert a.num_unknown.tolist() == b.num_unknown.tolist()
    x, y = ours.embed(a), theirs.embed(b)
    error = float(np.abs(x - y).max())
    print(f"\n{folder.name} {lang}: largest difference {error:.2e}, largest value {np.abs(y).max():.2f}")
    assert error < 1e-6


@pytest.mark.parametrize("lang", LANGS)
@pytest.mark.parametrize("vocabulary", ["small", "scripts"])
def test_token_ids_and_decoding(golden: Path, tmp_path: Path, vocabulary: str, lang: str) -> None:
    """Beyond the golden strings: 5,000 others for each language."""
    import lcm_data.encode.sonar_space as backend
    from lcm_data.languages import FLORES_200
    from lcm_data.sonar.tokenizer import SonarTokenizer

    backend._import_sonar()
    from fairseq2.models.nllb.tokenizer import NllbTokenizerConfig, load_nllb_tokenizer

    path = golden / "sentencepiece.model"
    if vocabulary == "scripts":
        path = tmp_path / "scripts.model"
        path.write_bytes(lzma.decompress((golden / "scripts.model.xz").read_bytes()))
    theirs = load_nllb_tokenizer(path, NllbTokenizerConfig(langs=list(FLORES_200), default_lang="eng_Latn"))
    ours = SonarTokenizer(path, max_tokens=100_000)
    encode, decode = theirs.create_encoder(lang=lang), theirs.create_decoder()
    texts, ties = strings(5000, seed=100 + LANGS.index(lang)), 0
    for text, row in zip(texts, ours.encode(texts, lang).rows(), strict=True):
        wanted = encode(text)
        if row.tolist() != wanted.tolist():  # only the other of two segmentations that score the same
            ties += 1
            assert score(ours, row.tolist()) == score(ours, wanted.tolist()), repr(text)
        assert ours.decode(row) == decode(wanted), repr(text)
    print(f"\n{vocabulary} {lang}: {len(texts)} strings, {ties} ties")
    assert ties <= 5


def test_the_languages_of_the_official_card() -> None:
    import lcm_data.encode.sonar_space as backend
    from lcm_data.languages import FLORES_200

    backend._import_sonar()
    from fairseq2.assets import get_asset_store

    card = get_asset_store().retrieve_card("text_sonar_basic_encoder")
    langs = card.field("tokenizer_config").as_(dict)["_set_"]["langs"]
    assert tuple(langs) == FLORES_200


def test_half_precision_stays_close_to_the_reference(folder: Path, texts: list[str]) -> None:
    exact = load_encoder(EncoderOptions(model=str(folder), device="cpu"))
    wanted = exact.embed(exact.prepare(texts, "eng_Latn"))
    errors = {}
    for backend in ("native", "sonar-space"):
        encoder = load_encoder(EncoderOptions(model=str(folder), backend=backend, device="cpu", dtype="bfloat16"))
        vectors = encoder.embed(encoder.prepare(texts, "eng_Latn"))
        errors[backend] = float(np.linalg.norm(vectors - wanted) / np.linalg.norm(wanted))
    print(f"\n{folder.name} bfloat16 relative error: {errors}")
    assert errors["native"] < 1.2 * errors["sonar-space"]


def test_a_card_of_sonar_space_itself(golden: Path, tmp_path: Path) -> None:
    """Loaded by sonar-space's own loader, in a process of its own: cards are read once, at import."""
    vocab_size = find_model(golden).layout().config.vocab_size
    card = f"""name: my_sonar_encoder
base: text_sonar_basic_encoder
checkpoint: {golden / "model.safetensors"}
tokenizer: {golden / "sentencepiece.model"}
model_config:
  _set_:
    model_dim: 48
    num_encoder_layers: 3
    num_encoder_attn_heads: 4
    ffn_inner_dim: 96
    vocab_info: {{size: {vocab_size}, unk_idx: 1, bos_idx: 2, eos_idx: 3, pad_idx: 1}}
"""
    (tmp_path / "cards.yaml").write_text(card)
    code = f"""
import numpy as np
from lcm_data.encode import EncoderOptions, load_encoder
texts = ["Hello Paul", "", "La mer."]
vectors = []
for backend, model in (("sonar-space", "my_sonar_encoder"), ("native", {str(golden)!r})):
    encoder = load_encoder(EncoderOptions(model=model, backend=backend, device="cpu"))
    vectors.append(encoder.embed(encoder.prepare(texts, "fra_Latn")))
    print(encoder.provenance)
assert np.abs(vectors[0] - vectors[1]).max() < 1e-6
"""
    environment = {**os.environ, "FAIRSEQ2_USER_ASSET_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    provenance = done.stdout.splitlines()
    revision = file_sha256(golden / "model.safetensors")
    assert all(revision in line for line in provenance)

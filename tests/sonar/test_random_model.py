from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lcm_data.encode import EncoderOptions, describe_encoder, load_encoder
from lcm_data.errors import UsageError
from lcm_data.sonar.random_model import write_random_checkpoint

TEXTS = ["One sentence about the sea.", "Une phrase sur la mer.", "海についての文。"] * 30


def test_same_arguments_same_files(tmp_path: Path) -> None:
    a, b, c = (
        write_random_checkpoint(tmp_path / name, TEXTS, model_dim=16, num_heads=2, num_layers=1, seed=seed)
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    for name in ("model.safetensors", "sentencepiece.model", "config.json"):
        assert (a / name).read_bytes() == (b / name).read_bytes()
    assert (a / "model.safetensors").read_bytes() != (c / "model.safetensors").read_bytes()


def test_it_says_that_it_is_not_trained(tiny: Path) -> None:
    assert json.loads((tiny / "config.json").read_text())["trained"] is False
    assert describe_encoder(EncoderOptions(model=str(tiny)))["trained"] == "false"


def test_other_words_give_clearly_other_vectors(tiny: Path) -> None:
    encoder = load_encoder(EncoderOptions(model=str(tiny), device="cpu"))
    texts = ["Hello, my name is Paul.", "I have seven apples.", "меня зовут Павел", "你好，我叫保罗。"]
    vectors = encoder.embed(encoder.prepare(texts, "eng_Latn"))
    norms = np.linalg.norm(vectors, axis=1)
    cosines = (vectors @ vectors.T) / np.outer(norms, norms)
    assert (cosines[~np.eye(4, dtype=bool)] < 0.95).all()
    assert (norms > 0.02).all()
    assert (norms < 2).all()  # fits half floats with room to spare


def test_unseen_characters_still_tell_apart(tiny: Path) -> None:
    encoder = load_encoder(EncoderOptions(model=str(tiny), device="cpu"))
    a, b = encoder.embed(encoder.prepare(["\U00010330", "\U00010331"], "eng_Latn"))
    assert not np.allclose(a, b, atol=1e-4)


def test_many_characters_need_no_large_vocab_size(tmp_path: Path) -> None:
    texts = ["".join(chr(0x4E00 + 40 * i + j) for j in range(40)) for i in range(20)]
    folder = write_random_checkpoint(tmp_path / "m", texts, model_dim=16, num_heads=2, num_layers=1, vocab_size=10)
    assert load_encoder(EncoderOptions(model=str(folder), device="cpu")).dim == 16


def test_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least one text"):
        write_random_checkpoint(tmp_path, ["", "  "])

"""Our encoder against what sonar-space computed (``tests/parity/make_golden.py``), for both kinds of checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from m2m100 import encoder_state, hf_ids, m2m100_encoder
from safetensors.torch import load_file, save_file

from lcm_data.encode import EncoderOptions, load_encoder
from lcm_data.sonar.checkpoint import load_text_encoder


@pytest.fixture(scope="module")
def reference(golden: Path) -> dict[str, torch.Tensor]:
    return load_file(golden / "golden.safetensors")


@pytest.fixture(scope="module")
def about(golden: Path) -> dict[str, Any]:
    return json.loads((golden / "sentences.json").read_text())


@pytest.fixture(scope="module", params=["fairseq2", "huggingface"])
def model(request: pytest.FixtureRequest, golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "fairseq2":
        return golden
    folder = tmp_path_factory.mktemp("hf")
    save_file(encoder_state(load_file(golden / "model.safetensors")), folder / "model.safetensors")
    (folder / "sentencepiece.bpe.model").write_bytes((golden / "sentencepiece.model").read_bytes())
    (folder / "config.json").write_text(json.dumps({"encoder_attention_heads": 4, "scale_embedding": True}))
    return folder


@pytest.mark.parametrize("lang", ["eng_Latn", "fra_Latn", "ace_Arab", "zul_Latn"])
def test_vectors_equal_those_of_sonar_space(
    model: Path, lang: str, reference: dict[str, torch.Tensor], about: dict[str, Any]
) -> None:
    encoder = load_encoder(EncoderOptions(model=str(model), device="cpu"))
    vectors = encoder.embed(encoder.prepare(about["sentences"], lang))
    wanted = reference[f"vectors.{lang}"].numpy()
    assert np.abs(wanted).max() > 0.01
    np.testing.assert_allclose(vectors, wanted, atol=3e-7, rtol=0)


def test_ids_equal_those_of_fairseq2(golden: Path, reference: dict[str, torch.Tensor], about: dict[str, Any]) -> None:
    tokenizer = load_text_encoder(golden, device="cpu").tokenizer
    for lang in about["langs"]:
        tokens = tokenizer.encode(about["sentences"], lang)
        lengths = reference[f"lengths.{lang}"]
        assert tokens.full_lengths.tolist() == lengths.tolist()
        for ours, theirs in zip(tokens.rows(), reference[f"ids.{lang}"].split(lengths.tolist()), strict=True):
            assert ours.tolist() == theirs[:514].tolist()


def test_golden_sentences_cover_the_traps(golden: Path, about: dict[str, Any]) -> None:
    tokens = load_text_encoder(golden, device="cpu").tokenizer.encode(about["sentences"], "eng_Latn")
    assert tokens.truncated.sum() >= 2
    assert any((row == 1).any() for row in tokens.rows()), "no unknown character"
    assert tokens.lengths.min() == 2


def test_decoding_equals_that_of_fairseq2(golden: Path, about: dict[str, Any]) -> None:
    tokenizer = load_text_encoder(golden, device="cpu").tokenizer
    tokenizer.max_tokens = 10_000
    rows = tokenizer.encode(about["sentences"], "eng_Latn").rows()
    assert [tokenizer.decode(row) for row in rows] == about["decoded"]


def test_transformers_computes_the_same(
    golden: Path, reference: dict[str, torch.Tensor], about: dict[str, Any]
) -> None:
    pytest.importorskip("transformers")
    network = m2m100_encoder(load_file(golden / "model.safetensors"), num_heads=4)
    tokenizer = load_text_encoder(golden, device="cpu").tokenizer
    for lang in about["langs"]:
        rows = tokenizer.encode(about["sentences"], lang).rows()
        assert max(map(len, rows)) == 514
        with torch.inference_mode():
            for row, wanted in zip(rows, reference[f"vectors.{lang}"], strict=True):
                hidden = network(input_ids=hf_ids(torch.from_numpy(row).long())[None]).last_hidden_state
                torch.testing.assert_close(hidden[0].mean(0), wanted, atol=3e-7, rtol=0)

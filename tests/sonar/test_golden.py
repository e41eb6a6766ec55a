"""Our encoder against what sonar-space computed (``tests/parity/make_golden.py``), for both kinds of checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lcm_data.encode import EncoderOptions, load_encoder
from lcm_data.sonar.checkpoint import load_text_encoder

HF_NAMES = {
    "self_attn.output_proj": "self_attn.out_proj",
    "ffn.inner_proj": "fc1",
    "ffn.output_proj": "fc2",
    "ffn_layer_norm": "final_layer_norm",
}


@pytest.fixture(scope="module")
def reference(golden: Path) -> dict[str, torch.Tensor]:
    return load_file(golden / "golden.safetensors")


@pytest.fixture(scope="module")
def about(golden: Path) -> dict[str, Any]:
    return json.loads((golden / "sentences.json").read_text())


def hf_state(golden: Path) -> dict[str, torch.Tensor]:
    """The golden checkpoint as transformers' M2M100Encoder names and orders it."""
    state = {}
    for name, tensor in load_file(golden / "model.safetensors").items():
        hf = name.removeprefix("encoder.")
        for ours, theirs in HF_NAMES.items():
            hf = hf.replace(ours, theirs)
        if name == "encoder_frontend.embed.weight":
            hf, tensor = "embed_tokens.weight", tensor.clone()
            tensor[:4] = tensor[[2, 0, 3, 1]]
        state[hf] = tensor
    return state


@pytest.fixture(scope="module", params=["fairseq2", "huggingface"])
def model(request: pytest.FixtureRequest, golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "fairseq2":
        return golden
    folder = tmp_path_factory.mktemp("hf")
    save_file(hf_state(golden), folder / "model.safetensors")
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
    transformers = pytest.importorskip("transformers")
    from transformers.models.m2m_100.modeling_m2m_100 import M2M100Encoder

    state = hf_state(golden)
    vocab, dim = state["embed_tokens.weight"].shape
    network = M2M100Encoder(
        transformers.M2M100Config(
            vocab_size=vocab,
            d_model=dim,
            encoder_layers=3,
            encoder_attention_heads=4,
            encoder_ffn_dim=96,
            max_position_embeddings=1024,
            scale_embedding=True,
            activation_function="relu",
        )
    ).eval()
    network.load_state_dict(state)
    tokens = load_text_encoder(golden, device="cpu").tokenizer.encode(about["sentences"], "eng_Latn")
    theirs_of = torch.arange(vocab)
    theirs_of[:4] = torch.tensor([1, 3, 0, 2])
    with torch.inference_mode():
        for row, wanted in zip(tokens.rows(), reference["vectors.eng_Latn"], strict=True):
            hidden = network(input_ids=theirs_of[torch.from_numpy(row).long()][None]).last_hidden_state
            torch.testing.assert_close(hidden[0].mean(0), wanted, atol=3e-7, rtol=0)

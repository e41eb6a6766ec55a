"""What files and folders are said to be, and what the cache is said to hold."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lcm_data.errors import CheckpointError, UnknownNameError
from lcm_data.sonar import hub
from lcm_data.sonar.describe import describe_model
from lcm_data.sonar.files import find_model
from lcm_data.sonar.fingerprint import file_sha256
from lcm_data.sonar.inventory import known_models, other_models
from lcm_data.sonar.random_model import write_random_checkpoint

HF_NAMES = {
    "encoder_decoder_attn": "encoder_attn",
    "attn.output_proj": "attn.out_proj",
    "ffn.inner_proj": "fc1",
    "ffn.output_proj": "fc2",
    "ffn_layer_norm": "final_layer_norm",
    "encoder_frontend.embed": "encoder.embed_tokens",
    "decoder_frontend.embed": "decoder.embed_tokens",
}


@pytest.fixture(scope="session")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random encoder of 2 layers and decoder of 3 in one file."""
    texts = [f"Hello, I have {i} apples." for i in range(120)]
    folder = tmp_path_factory.mktemp("both")
    return write_random_checkpoint(folder, texts, model_dim=32, num_heads=4, vocab_size=320, decoder_layers=3)


@pytest.fixture
def folder(both: Path, tmp_path: Path) -> Path:
    """A model folder without weights."""
    for name in ("config.json", "sentencepiece.model"):
        (tmp_path / name).write_bytes((both / name).read_bytes())
    return tmp_path


def as_hf(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    renamed = {}
    for name, tensor in state.items():
        theirs = name.replace("layer_norm", "encoder.layer_norm") if name.startswith("layer_norm") else name
        for ours, other in HF_NAMES.items():
            theirs = theirs.replace(ours, other)
        renamed[f"model.{theirs}"] = tensor
    return renamed


def one(path: Path | str) -> dict[str, Any]:
    (about,) = describe_model(path)
    return about


def test_one_file_with_encoder_and_decoder(both: Path) -> None:
    about = one(both)
    path = both / "model.safetensors"
    tensors = load_file(path)
    assert about["file"] == str(path)
    assert about["bytes"] == path.stat().st_size
    assert (about["format"], about["naming"], about["dtype"]) == ("safetensors", "fairseq2", "float32")
    assert about["kind"] == "text encoder and text decoder"
    assert about["fingerprint"] == file_sha256(path) == find_model(both).identity()["encoder_revision"]
    assert about["tokenizer_fingerprint"] == file_sha256(both / "sentencepiece.model")
    assert about["space"] == find_model(both).space == find_model(both, "decoder").identity("decoder")["space"]
    assert (about["languages"], about["trained"], about["licence"]) == (202, False, None)
    encoder, decoder = about["networks"]
    assert (encoder["num_layers"], encoder["model_dim"], encoder["num_heads"], encoder["max_tokens"]) == (2, 32, 4, 514)
    assert (decoder["num_layers"], decoder["ffn_dim"], decoder["max_tokens"]) == (3, 128, 512)
    in_file = sum(tensor.numel() for tensor in tensors.values())
    assert encoder["num_parameters"] + decoder["num_parameters"] == in_file


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
@pytest.mark.parametrize("how", ["zip", "legacy", "fairseq", "hf", "hf bf16 in parts"])
def test_formats_and_namings(both: Path, folder: Path, kind: str, how: str) -> None:
    tensors = load_file(both / "model.safetensors")
    state = {n: t for n, t in tensors.items() if n.startswith("decoder") == (kind == "decoder")}
    path = folder / "weights.pt"
    if how in ("zip", "legacy"):
        torch.save({"model": state}, path, _use_new_zipfile_serialization=how == "zip")
    elif how == "fairseq":
        torch.save({"state_dict": {**as_hf(state), f"model.{kind}.version": torch.zeros(1)}}, path)
    elif how == "hf":
        save_file(as_hf(state), path)
    else:
        theirs = list(as_hf({name: tensor.bfloat16() for name, tensor in state.items()}).items())
        weight_map = {}
        for part in range(2):
            save_file(dict(theirs[part::2]), folder / f"part{part}.safetensors")
            weight_map |= {name: f"part{part}.safetensors" for name, _ in theirs[part::2]}
        path = folder / "model.safetensors.index.json"
        path.write_text(json.dumps({"weight_map": weight_map}))
    about = one(folder)
    assert about == one(path)
    expected = {
        "zip": ("torch zip", "fairseq2", "float32"),
        "legacy": ("torch before 1.6", "fairseq2", "float32"),
        "fairseq": ("torch zip", "fairseq", "float32"),
        "hf": ("safetensors", "Hugging Face", "float32"),
        "hf bf16 in parts": ("safetensors in 2 files", "Hugging Face", "bfloat16"),
    }
    assert (about["format"], about["naming"], about["dtype"]) == expected[how]
    assert about["kind"] == f"text {kind}"
    assert about["networks"][0]["num_layers"] == (2 if kind == "encoder" else 3)


def test_several_files_in_one_folder(both: Path, folder: Path) -> None:
    tensors = load_file(both / "model.safetensors")
    save_file({n: t for n, t in tensors.items() if not n.startswith("decoder")}, folder / "encoder.safetensors")
    save_file({n: t for n, t in tensors.items() if n.startswith("decoder")}, folder / "decoder.safetensors")
    save_file({"a": torch.zeros(1, dtype=torch.int16)}, folder / "other.safetensors")
    found = describe_model(folder)
    assert [about["kind"] for about in found] == ["text decoder", "text encoder", "unknown"]
    assert found[0]["space"] == found[1]["space"]
    assert (found[2]["dtype"], found[2]["networks"]) == ("int16", [])


def test_a_file_that_is_no_weights_beside_some(both: Path, folder: Path) -> None:
    (folder / "model.safetensors").write_bytes((both / "model.safetensors").read_bytes())
    torch.save(print, folder / "training_args.bin")
    weights, other = describe_model(folder)
    assert weights["kind"] == "text encoder and text decoder"
    assert (other["kind"], other["bytes"]) == ("unknown", (folder / "training_args.bin").stat().st_size)
    assert "holds more than tensors (print)" in other["problem"]
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"training_args\.bin holds more than tensors"):
        describe_model(folder)


def test_quantized_weights_cannot_be_loaded(both: Path, folder: Path) -> None:
    tensors = load_file(both / "model.safetensors")
    name = "decoder.layers.0.ffn.inner_proj.weight"
    save_file({**tensors, name: tensors[name].to(torch.int8)}, folder / "model.safetensors")
    encoder, decoder = one(folder)["networks"]
    assert encoder["num_layers"] == 2
    assert f"tensor {name!r} is stored as int8" in decoder["problem"]


def test_a_speech_encoder_and_a_network_that_does_not_fit(folder: Path, both: Path) -> None:
    torch.save({"model": {"encoder.w2v_model.layer_norm.bias": torch.zeros(1)}}, folder / "spenc.eng.pt")
    about = one(folder)
    assert (about["kind"], about["naming"]) == ("speech encoder", "fairseq")
    assert "of a speech encoder is missing" in about["networks"][0]["problem"]
    assert "tokenizer" not in about
    tensors = load_file(both / "model.safetensors")
    save_file({**tensors, "encoder.layers.0.gate": torch.zeros(1)}, folder / "spenc.eng.pt")
    encoder, decoder = one(folder)["networks"]
    assert "lacks, such as 'encoder.layers.0.gate'" in encoder["problem"]
    assert decoder["num_layers"] == 3


def test_a_sentence_transformers_folder(tmp_path: Path) -> None:
    modules = [{"type": f"sentence_transformers.models.{name}", "path": ""} for name in ("Transformer", "Pooling")]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    about = one(tmp_path)
    assert about["kind"] == "sentence-transformers folder"
    assert about["modules"] == "Transformer -> Pooling"


def test_weights_without_a_tokenizer(both: Path, tmp_path: Path) -> None:
    """Nothing is downloaded for a look."""
    (tmp_path / "w.safetensors").write_bytes((both / "model.safetensors").read_bytes())
    (tmp_path / "config.json").write_text('{"num_heads": 4}')
    about = one(tmp_path)
    assert (about["tokenizer"], about["tokenizer_fingerprint"], about["space"]) == (None, None, "unknown")
    assert about["licence"] == hub.LICENCE_NOTE


def test_wrong_and_missing_files(both: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no weights"):
        describe_model(tmp_path)
    (tmp_path / "cut.pt").write_bytes((both / "model.safetensors").read_bytes()[:-9])
    with pytest.raises(CheckpointError, match=r"cut\.pt is truncated or damaged"):
        describe_model(tmp_path)
    for name in ("text_sonar_basic_encoder", "hf:owner/repo"):
        with pytest.raises(CheckpointError, match=f"not in the cache; fetch it with: lcm-data models fetch {name}"):
            describe_model(name)
    with pytest.raises(CheckpointError, match="no such file or folder"):
        describe_model(tmp_path / "none" / "such")
    with pytest.raises(UnknownNameError):
        describe_model("nonsense")


def test_the_published_models_and_the_cache(both: Path, own_cache: Path) -> None:
    models = {model["name"]: model for model in known_models()}
    mini = models.pop("sonar-mini")
    assert (mini["kind"], mini["cached"]) == ("text enc/dec", "ships")
    ears = models.pop("sonar-mini-speech")
    assert (ears["kind"], ears["cached"], ears["dim"]) == ("speech enc", "ships", mini["dim"])
    speech = [name for name, model in models.items() if model["kind"] == "speech encoder"]
    assert {name.removesuffix(name[-3:]) for name in speech} == {"sonar_speech_encoder_"}
    models = {name: model for name, model in models.items() if name not in speech}
    assert {name: model["kind"] for name, model in models.items()} == {
        "text_sonar_basic_encoder": "text encoder",
        "text_sonar_basic_decoder": "text decoder",
        "text_sonar_finetuned_decoder": "text decoder",
    }
    parameters = {name: f"{model['parameters'] / 1e6:.1f}" for name, model in models.items()}
    assert set(parameters.items()) >= {("text_sonar_basic_encoder", "766.1"), ("text_sonar_basic_decoder", "866.9")}
    assert {model["cached"] for model in models.values()} == {"no"}
    assert other_models() == []

    def put(folder: str, name: str) -> Path:
        path = own_cache / "models" / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((both / "model.safetensors").read_bytes())
        return path

    size = (both / "model.safetensors").stat().st_size
    encoder = put("text_sonar_basic_encoder", "sonar_text_encoder.pt")
    put("text_sonar_basic_decoder", "sonar_text_decoder.pt.part")
    by_hand = put("owner--repo@v2", "model.safetensors")
    elsewhere = put("../hub", "model.safetensors")
    note = own_cache / "models" / "o--r@main" / "complete.json"
    note.parent.mkdir()
    note.write_text(json.dumps({"name": "hf:o/r@main", "weights": str(elsewhere)}))
    put("nllb-tokenizer", "sentencepiece.source.256000.model")
    models = {
        model["name"]: model
        for model in known_models()
        if not model["name"].startswith("sonar-mini") and model["name"] not in speech
    }
    found = [(model["cached"], model["path"], model["cached_bytes"]) for model in models.values()]
    assert found == [("yes", str(encoder), size), ("partial", None, size), ("no", None, 0)]
    others = {other["name"]: (other["cached"], other["path"]) for other in other_models()}
    assert others == {
        "hf:o/r@main": ("yes", str(elsewhere)),
        "hf:owner/repo@v2": ("yes", str(by_hand)),
        "nllb-tokenizer": ("yes", str(own_cache / "models" / "nllb-tokenizer" / "sentencepiece.source.256000.model")),
    }


def test_weights_of_which_some_files_are_missing(own_cache: Path) -> None:
    folder = own_cache / "models" / "owner--large@main"
    folder.mkdir(parents=True)
    names = [f"model-{part}.safetensors" for part in (1, 2)]
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": dict(zip("ab", names, strict=True))})
    )
    (folder / names[0]).write_bytes(b"1" * 100)
    (folder / f"{names[1]}.part").write_bytes(b"2" * 30)
    (other,) = other_models()
    assert (other["name"], other["cached"]) == ("hf:owner/large@main", "partial")
    assert (other["path"], other["cached_bytes"]) == (None, 130)


def test_a_look_at_safetensors_needs_no_torch(both: Path) -> None:
    look = f"from lcm_data.sonar.describe import describe_model; describe_model({str(both)!r})"
    code = f"import sys; {look}; print('torch' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=True)
    assert ran.stdout == "False\n"

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lcm_data.encode import EncoderOptions, describe_encoder
from lcm_data.errors import CheckpointError, UnknownNameError, UsageError
from lcm_data.sonar.checkpoint import find_model, load_text_encoder
from lcm_data.sonar.fingerprint import file_sha256

State = dict[str, torch.Tensor]

HF_NAMES = {
    "self_attn.output_proj": "self_attn.out_proj",
    "ffn.inner_proj": "fc1",
    "ffn.output_proj": "fc2",
    "ffn_layer_norm": "final_layer_norm",
}


@pytest.fixture
def state(tiny: Path) -> State:
    return load_file(tiny / "model.safetensors")


@pytest.fixture
def folder(tiny: Path, tmp_path: Path) -> Path:
    """A model folder without weights."""
    for name in ("config.json", "sentencepiece.model"):
        (tmp_path / name).write_bytes((tiny / name).read_bytes())
    return tmp_path


def hf(state: State, prefix: str) -> State:
    renamed = {}
    for name, tensor in state.items():
        theirs = prefix + name.removeprefix("encoder.")
        for ours, other in HF_NAMES.items():
            theirs = theirs.replace(ours, other)
        if name == "encoder_frontend.embed.weight":
            theirs, tensor = f"{prefix}embed_tokens.weight", torch.cat([tensor[[2, 0, 3, 1]], tensor[4:]])
        renamed[theirs] = tensor
    return renamed


def loaded(path: Path) -> State:
    return load_text_encoder(path, device="cpu").encoder.state_dict()


@pytest.mark.parametrize("level", ["none", "model", "state_dict", "legacy"])
def test_torch_files_under_any_level(folder: Path, state: State, level: str) -> None:
    target = folder / "weights.bin"  # the name says nothing; the content decides
    if level == "legacy":
        torch.save({"model": state}, target, _use_new_zipfile_serialization=False)
    else:
        torch.save(state if level == "none" else {level: state, "epoch": 3}, target)
    for name, tensor in loaded(target).items():
        assert torch.equal(tensor, state[name])


@pytest.mark.parametrize("prefix", ["", "encoder.", "model.encoder.", "some.other.wrapper."])
@pytest.mark.parametrize("spare", [False, True])
def test_hugging_face_names_under_any_prefix(folder: Path, state: State, prefix: str, spare: bool) -> None:
    theirs = hf(state, prefix)
    if spare:
        theirs["shared.weight"] = theirs[f"{prefix}embed_tokens.weight"].clone()
        theirs["embed_positions._float_tensor"] = torch.zeros(1)
    save_file(theirs, folder / "model.safetensors")
    for name, tensor in loaded(folder).items():
        assert torch.equal(tensor, state[name])


def test_a_port_that_keeps_only_the_shared_table(folder: Path, state: State) -> None:
    theirs = hf(state, "model.encoder.")
    theirs["model.shared.weight"] = theirs.pop("model.encoder.embed_tokens.weight")
    theirs["model.decoder.layers.0.fc1.weight"] = torch.zeros(2, 2)
    save_file(theirs, folder / "model.safetensors")
    for name, tensor in loaded(folder).items():
        assert torch.equal(tensor, state[name])


def test_half_precision_files_load_into_float32(folder: Path, state: State) -> None:
    save_file({name: tensor.half() for name, tensor in state.items()}, folder / "model.safetensors")
    assert all(tensor.dtype == torch.float32 for tensor in loaded(folder).values())
    model = load_text_encoder(folder, device="cpu", dtype="bfloat16")
    assert all(tensor.dtype == torch.bfloat16 for tensor in model.encoder.parameters())
    assert model.encoder.position_table.dtype == torch.float32


def without(state: State, *names: str) -> State:
    return {name: tensor for name, tensor in state.items() if name not in names}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: without(s, "encoder.layers.0.ffn.inner_proj.bias"), "missing, such as 'encoder.layers.0.ffn"),
        (lambda s: without(s, "layer_norm.weight"), "missing, such as 'layer_norm.weight'"),
        (lambda s: {**s, "encoder.layers.0.gate.weight": torch.zeros(1)}, "lacks, such as 'encoder.layers.0.gate"),
        (lambda s: {**s, "layer_norm.bias": torch.zeros(7)}, r"has shape \(7,\), expected \(32,\)"),
        (lambda s: {"a": torch.zeros(1)}, "no SONAR text encoder.*found 1 tensors such as a"),
        (lambda s: {"decoder_frontend.embed.weight": torch.zeros(4, 4)}, "holds a SONAR text decoder"),
        (lambda s: {"model.decoder.layers.0.encoder_attn.k_proj.bias": torch.zeros(1)}, "holds a text decoder"),
        (lambda s: {"encoder.w2v_model.layer_norm.bias": torch.zeros(1)}, "holds a SONAR speech encoder"),
    ],
)
def test_another_network_is_named(folder: Path, state: State, change: object, message: str) -> None:
    save_file({k: v.contiguous() for k, v in change(state).items()}, folder / "model.safetensors")  # type: ignore[operator]
    with pytest.raises(CheckpointError, match=message):
        load_text_encoder(folder, device="cpu")


@pytest.mark.parametrize("kind", ["safetensors", "torch"])
@pytest.mark.parametrize("keep", [5, 100, -40])
def test_truncated_files_are_errors(folder: Path, state: State, kind: str, keep: int) -> None:
    path = folder / "weights.bin"
    if kind == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"truncated or damaged|begins with"):
        load_text_encoder(path, device="cpu")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "an empty file"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"hello there, not a model", "begins with b'hello th'"),
    ],
)
def test_files_that_are_no_weights_are_named(folder: Path, content: bytes, message: str) -> None:
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        load_text_encoder(folder, device="cpu")


def test_a_pickle_with_code_is_not_run(folder: Path) -> None:
    torch.save({"model": print}, folder / "weights.pt")
    with pytest.raises(CheckpointError, match="holds more than tensors and was not loaded"):
        load_text_encoder(folder, device="cpu")


def test_heads_come_from_config_or_from_the_usual_width(folder: Path, state: State) -> None:
    save_file(state, folder / "model.safetensors")
    assert load_text_encoder(folder, device="cpu").encoder.config.num_heads == 4
    (folder / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"number of heads is unknown.*config.json"):
        load_text_encoder(folder, device="cpu")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"num_heads": 4, "scale_embedding": False}, "only True is SONAR"),
        ({"num_heads": 4, "activation_function": "gelu"}, "only 'relu' is SONAR"),
        ({"num_heads": 5}, "multiple of num_heads"),
        ([1], "must hold a JSON object"),
    ],
)
def test_a_config_of_another_architecture(folder: Path, state: State, config: object, message: str) -> None:
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=message):
        load_text_encoder(folder, device="cpu")


def test_a_tokenizer_of_another_model(folder: Path, state: State, golden: Path) -> None:
    save_file(state, folder / "model.safetensors")
    large = {**state, "encoder_frontend.embed.weight": state["encoder_frontend.embed.weight"][:400].clone()}
    save_file(large, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="They belong to different models"):
        load_text_encoder(folder, device="cpu")


def test_a_folder_must_be_unambiguous(folder: Path, state: State) -> None:
    with pytest.raises(CheckpointError, match="holds no weights"):
        find_model(folder)
    for name in ("a.pt", "b.safetensors"):
        (folder / name).write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"several weights files \(a.pt, b.safetensors\)"):
        find_model(folder)
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").unlink()
    (folder / "second.model").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"several tokenizers.*config.json"):
        find_model(folder)


def test_unknown_device_and_dtype(tiny: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown dtype 'float8'"):
        load_text_encoder(tiny, dtype="float8")
    with pytest.raises(UsageError, match="unknown device 'gpu'"):
        load_text_encoder(tiny, device="gpu")
    with pytest.raises(UsageError, match="this machine shows"):
        load_text_encoder(tiny, device="cuda:99")


def test_the_fingerprint_is_remembered_and_follows_the_content(folder: Path, state: State, own_cache: Path) -> None:
    path = folder / "model.safetensors"
    save_file(state, path)
    first = load_text_encoder(folder, device="cpu").fingerprint
    notes = list((own_cache / "sha256").iterdir())
    assert first == file_sha256(path)
    assert any(json.loads(note.read_text())["sha256"] == first for note in notes)
    save_file({**state, "layer_norm.bias": torch.ones(32)}, path)
    assert load_text_encoder(folder, device="cpu").fingerprint != first


def test_a_cache_that_cannot_be_written_costs_only_time(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LCM_DATA_CACHE", str(tmp_path / "file" / "below"))
    assert len(file_sha256(tiny / "config.json")) == 64


def test_describing_agrees_with_loading(tiny: Path) -> None:
    model = load_text_encoder(tiny, device="cpu")
    described = describe_encoder(EncoderOptions(model=str(tiny), dtype="bfloat16"))
    assert described["encoder_revision"] == model.fingerprint
    assert described["dim"] == str(model.dim) == "32"
    assert described["max_seq_len"] == "514"
    assert described["compute_dtype"] == "bfloat16"


def test_describing_a_safetensors_model_needs_no_torch(tiny: Path) -> None:
    code = (
        "import sys; from lcm_data.encode import *; "
        f"describe_encoder(EncoderOptions(model={str(tiny)!r})); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0

"""Which files are read as a text decoder, and what is said of the others."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lcm_data.errors import CheckpointError
from lcm_data.sonar import hub
from lcm_data.sonar.checkpoint import load_text_decoder, load_text_encoder, read_decoder_state
from lcm_data.sonar.decoder_layout import EMBED, OUTPUT
from lcm_data.sonar.files import find_model
from lcm_data.sonar.random_model import write_random_checkpoint

State = dict[str, torch.Tensor]

HF_NAMES = {
    "encoder_decoder_attn": "encoder_attn",
    "attn.output_proj": "attn.out_proj",
    "ffn.inner_proj": "fc1",
    "ffn.output_proj": "fc2",
    "ffn_layer_norm": "final_layer_norm",
}


@pytest.fixture(scope="session")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random encoder and decoder in one file."""
    texts = [f"Hello, I have {i} apples." for i in range(120)]
    sizes = {"model_dim": 32, "num_heads": 4, "vocab_size": 320, "decoder_layers": 3, "max_target_tokens": 60}
    return write_random_checkpoint(tmp_path_factory.mktemp("both"), texts, **sizes)  # type: ignore[arg-type]


@pytest.fixture
def state(both: Path) -> State:
    """The tensors of the decoder alone."""
    return {k: v for k, v in load_file(both / "model.safetensors").items() if k.startswith("decoder")}


@pytest.fixture
def folder(both: Path, tmp_path: Path) -> Path:
    """A model folder without weights."""
    for name in ("config.json", "sentencepiece.model"):
        (tmp_path / name).write_bytes((both / name).read_bytes())
    return tmp_path


def hf(state: State, prefix: str) -> State:
    renamed = {}
    for name, tensor in state.items():
        theirs = prefix + name.removeprefix("decoder.")
        for ours, other in HF_NAMES.items():
            theirs = theirs.replace(ours, other)
        if name == EMBED:
            theirs, tensor = f"{prefix}embed_tokens.weight", torch.cat([tensor[[2, 0, 3, 1]], tensor[4:]])
        renamed[theirs] = tensor
    return renamed


def assert_loads(path: Path, state: State) -> None:
    loaded = load_text_decoder(path, device="cpu").decoder.state_dict()
    assert len(loaded) > 40
    assert loaded[OUTPUT].data_ptr() == loaded[EMBED].data_ptr()
    for name, tensor in loaded.items():
        assert torch.equal(tensor, state[EMBED if name == OUTPUT else name]), name


def test_one_file_for_encoder_and_decoder(both: Path, state: State) -> None:
    assert_loads(both, state)
    decoder = load_text_decoder(both, device="cpu")
    encoder = load_text_encoder(both, device="cpu")
    assert (decoder.decoder.config.num_layers, encoder.encoder.config.num_layers) == (3, 2)
    assert (decoder.decoder.config.max_tokens, encoder.encoder.config.max_tokens) == (60, 514)
    assert decoder.fingerprint == encoder.fingerprint
    assert json.loads((both / "config.json").read_text())["model_type"] == "sonar_text_encoder_decoder"


def test_a_decoder_does_not_change_the_encoder_beside_it(both: Path, tmp_path: Path) -> None:
    texts = [f"Hello, I have {i} apples." for i in range(120)]
    alone = write_random_checkpoint(tmp_path, texts, model_dim=32, num_heads=4, vocab_size=320)
    mixed = load_file(both / "model.safetensors")
    for name, tensor in load_file(alone / "model.safetensors").items():
        assert torch.equal(tensor, mixed[name])


def test_two_files_in_one_folder(both: Path, folder: Path, state: State) -> None:
    tensors = load_file(both / "model.safetensors")
    save_file({k: v for k, v in tensors.items() if k not in state}, folder / "encoder.safetensors")
    save_file(state, folder / "decoder.safetensors")
    assert_loads(folder, state)
    assert find_model(folder).weights.name == "encoder.safetensors"
    assert load_text_encoder(folder, device="cpu").dim == 32
    for kind, name in (("encoder", "decoder"), ("decoder", "encoder")):
        load = load_text_encoder if kind == "encoder" else load_text_decoder
        with pytest.raises(CheckpointError, match=rf"holds a SONAR text {name}, not a text {kind}"):
            load(folder / f"{name}.safetensors", device="cpu")


@pytest.mark.parametrize("level", ["none", "model", "state_dict"])
@pytest.mark.parametrize("tied", ["none", "same storage", "copy"])
def test_torch_files_under_any_level(folder: Path, state: State, level: str, tied: str) -> None:
    full = dict(state)
    if tied != "none":
        full[OUTPUT] = state[EMBED] if tied == "same storage" else state[EMBED].clone()
    torch.save(full if level == "none" else {level: full, "epoch": 3}, folder / "sonar_text_decoder.pt")
    assert_loads(folder, state)


@pytest.mark.parametrize("prefix", ["", "decoder.", "model.decoder.", "some.other.wrapper."])
@pytest.mark.parametrize("spare", ["none", "all", "shared only", "head only"])
def test_hugging_face_names_under_any_prefix(folder: Path, state: State, prefix: str, spare: str) -> None:
    theirs = hf(state, prefix)
    embed = theirs[f"{prefix}embed_tokens.weight"]
    if spare == "all":
        more = {"model.shared.weight": embed.clone(), "lm_head.weight": embed.clone()}
        theirs = {**theirs, **more, f"{prefix}version": torch.zeros(1), "final_logits_bias": torch.zeros(1, 4)}
    elif spare != "none":
        del theirs[f"{prefix}embed_tokens.weight"]
        theirs["shared.weight" if spare == "shared only" else "lm_head.weight"] = embed
    save_file(theirs, folder / "model.safetensors")
    assert_loads(folder, state)


def test_a_hugging_face_file_with_both(
    both: Path, folder: Path, state: State, caplog: pytest.LogCaptureFixture
) -> None:
    tensors = load_file(both / "model.safetensors")
    encoder = {k.removeprefix("encoder."): v for k, v in tensors.items() if k not in state}
    encoder["embed_tokens.weight"] = encoder.pop("encoder_frontend.embed.weight")
    renamed = {f"model.encoder.{k}": v for k, v in encoder.items()}
    for ours, theirs in HF_NAMES.items():
        renamed = {k.replace(ours, theirs): v for k, v in renamed.items()}
    save_file({**renamed, **hf(state, "model.decoder.")}, folder / "model.safetensors")
    assert_loads(folder, state)
    with caplog.at_level(logging.WARNING):
        load_text_encoder(both, device="cpu")
        assert caplog.messages == []
        load_text_encoder(folder, device="cpu")
    assert "In ports of the decoder alone the encoder means nothing" in caplog.text


def test_raw_fairseq_names(folder: Path, state: State) -> None:
    theirs = hf(state, "decoder.")
    theirs["decoder.output_projection.weight"] = theirs["decoder.embed_tokens.weight"]
    theirs["decoder.embed_positions._float_tensor"] = theirs["decoder.version"] = torch.zeros(1)
    torch.save({"state_dict": theirs}, folder / "checkpoint.pt")
    assert_loads(folder, state)


def test_files_without_the_weights_that_do_nothing(folder: Path, state: State) -> None:
    idle = ("encoder_decoder_attn.q_proj", "encoder_decoder_attn.k_proj", "encoder_decoder_attn_layer_norm")
    save_file({k: v for k, v in state.items() if not any(part in k for part in idle)}, folder / "model.safetensors")
    assert_loads(folder, state)


def test_half_precision(folder: Path, state: State) -> None:
    save_file({name: tensor.half() for name, tensor in state.items()}, folder / "model.safetensors")
    assert load_text_decoder(folder, device="cpu").decoder.final_proj.weight.dtype == torch.float32
    decoder = load_text_decoder(folder, device="cpu", dtype="bfloat16").decoder
    assert all(parameter.dtype == torch.bfloat16 for parameter in decoder.parameters())
    assert decoder.position_table.dtype == torch.float32
    assert decoder.final_proj.weight is decoder.decoder_frontend.embed.weight


def without(state: State, name: str) -> State:
    return {key: tensor for key, tensor in state.items() if key != name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: without(s, "decoder.layers.0.ffn.inner_proj.bias"), "missing, such as 'decoder.layers.0.ffn"),
        (lambda s: without(s, "decoder.layer_norm.weight"), "missing, such as 'decoder.layer_norm.weight'"),
        (lambda s: {**s, "decoder.layers.0.gate.weight": torch.zeros(1)}, "lacks, such as 'decoder.layers.0.gate"),
        (lambda s: {**s, "post_sentemb_proj.weight": torch.zeros(1)}, "lacks, such as 'post_sentemb_proj.weight'"),
        (lambda s: {**s, "decoder.layer_norm.bias": torch.zeros(7)}, r"has shape \(7,\), expected \(32,\)"),
        (lambda s: {**s, OUTPUT: torch.zeros(7, 32)}, r"'final_proj.weight' has shape \(7, 32\)"),
        (lambda s: {**s, OUTPUT: s[EMBED] + 1}, "'final_proj.weight' differs from the embedding"),
        (lambda s: {"a": torch.zeros(1)}, "no SONAR text decoder.*found 1 tensors such as a"),
        (lambda s: {"encoder_frontend.embed.weight": torch.zeros(4, 4)}, "holds a SONAR text encoder, not a text dec"),
        (lambda s: {"layers.0.fc1.weight": torch.zeros(4, 4)}, "holds a text encoder, not a text decoder"),
        (lambda s: {"encoder.w2v_model.layer_norm.bias": torch.zeros(1)}, "holds a SONAR speech encoder"),
    ],
)
def test_another_network_is_named(folder: Path, state: State, change: Callable[[State], State], message: str) -> None:
    save_file({k: v.contiguous() for k, v in change(state).items()}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=message):
        load_text_decoder(folder, device="cpu")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "number of heads is unknown"),
        ({"num_heads": 4, "activation_function": "gelu"}, "only 'relu' is SONAR"),
        ({"num_heads": 5}, "multiple of num_heads"),
        ({"num_heads": 4, "max_target_tokens": 0}, "max_tokens must be a positive integer"),
    ],
)
def test_a_config_of_another_architecture(folder: Path, state: State, config: object, message: str) -> None:
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=message):
        load_text_decoder(folder, device="cpu")


def test_the_tokenizer_must_fit(folder: Path, state: State) -> None:
    save_file({**state, EMBED: state[EMBED][:400].clone()}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="They belong to different models"):
        load_text_decoder(folder, device="cpu")


def test_the_known_names_are_the_published_files(both: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    urls = {name: model.weights.url.rsplit("/", 1)[-1] for name, model in hub.MODELS.items() if "decoder" in name}
    assert urls == {
        "text_sonar_basic_decoder": "sonar_text_decoder.pt",
        "text_sonar_finetuned_decoder": "finetuned_decoder.pt",
    }
    # Put there by hand, as a machine without network would have it.
    cached = own_cache / "models" / "text_sonar_basic_decoder"
    cached.mkdir(parents=True)
    torch.save({"model": load_file(both / "model.safetensors")}, cached / "sonar_text_decoder.pt")
    (cached / "sentencepiece.source.256000.model").write_bytes((both / "sentencepiece.model").read_bytes())
    (cached / "config.json").write_text('{"num_heads": 4}')
    model = load_text_decoder("text_sonar_basic_decoder", device="cpu")
    assert (model.name, model.dim) == ("text_sonar_basic_decoder", 32)


def test_what_is_read_serves_the_reference_too(both: Path) -> None:
    files = find_model(both, "decoder")
    state = read_decoder_state(files.weights, files.layout("decoder"))
    assert state[OUTPUT].data_ptr() == state[EMBED].data_ptr()

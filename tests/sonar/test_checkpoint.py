from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from lcm_data.encode import EncoderOptions, describe_encoder
from lcm_data.errors import CheckpointError, UnknownNameError, UsageError
from lcm_data.languages import FLORES_200
from lcm_data.sonar.checkpoint import load_text_encoder
from lcm_data.sonar.config import TextEncoderConfig
from lcm_data.sonar.files import find_model, name_of_space
from lcm_data.sonar.fingerprint import file_sha256
from lcm_data.sonar.weights import read_header, read_tensors

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


@pytest.mark.parametrize(
    "kept", ["shared.weight", "model.shared.weight", "lm_head.weight", "model.decoder.embed_tokens.weight"]
)
def test_a_port_that_keeps_one_of_its_equal_tables(folder: Path, state: State, kept: str) -> None:
    theirs = hf(state, "model.encoder.")
    theirs[kept] = theirs.pop("model.encoder.embed_tokens.weight")
    theirs["model.decoder.layers.0.fc1.weight"] = torch.zeros(2, 2)
    save_file(theirs, folder / "model.safetensors")
    for name, tensor in loaded(folder).items():
        assert torch.equal(tensor, state[name])


def test_an_encoder_at_the_top_beside_a_decoder(folder: Path, state: State) -> None:
    theirs = {**hf(state, ""), "decoder.layers.0.fc1.weight": torch.zeros(2, 2), "decoder.odd": torch.zeros(1)}
    save_file(theirs, folder / "model.safetensors")
    assert loaded(folder).keys() == state.keys()
    save_file({**theirs, "odd": torch.zeros(1)}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="lacks, such as 'odd'"):
        loaded(folder)


def test_two_encoders_are_not_chosen_between(folder: Path, state: State) -> None:
    torch.save({**hf(state, "query."), **hf(state, "passage.")}, folder / "model.pt")
    with pytest.raises(CheckpointError, match=r"holds 2 text encoders, under 'passage\.', 'query\.'; expected one"):
        loaded(folder)


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


@pytest.fixture(scope="module")
def small_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A few tensors in each format."""
    folder = tmp_path_factory.mktemp("small")
    tensors = {f"layers.{i}.weight": torch.arange(40.0).reshape(5, 8) for i in range(4)}
    save_file(tensors, folder / "safetensors")
    torch.save({"model": tensors}, folder / "torch zip")
    torch.save({"model": tensors}, folder / "torch before 1.6", _use_new_zipfile_serialization=False)
    return {path.name: path for path in folder.iterdir()}


@pytest.mark.parametrize("kind", ["safetensors", "torch zip", "torch before 1.6"])
@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_cut_anywhere_is_an_error(
    small_files: dict[str, Path], tmp_path: Path, kind: str, data: st.DataObject
) -> None:
    content = small_files[kind].read_bytes()
    assert len(read_tensors(small_files[kind])) == len(read_header(small_files[kind])) == 4
    cut = tmp_path / "cut"
    cut.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    for read in (read_header, read_tensors):
        with pytest.raises(CheckpointError, match=r"truncated or damaged|or is damaged|begins with|an empty file"):
            read(cut)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("kind", ["safetensors", "torch zip", "torch before 1.6"])
@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_bytes_are_an_error_or_other_numbers(
    small_files: dict[str, Path], tmp_path: Path, kind: str, data: st.DataObject
) -> None:
    """Whatever the bytes are, nothing but a CheckpointError comes out (content is what fingerprints are for)."""
    content = bytearray(small_files[kind].read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    damaged = tmp_path / "damaged"
    damaged.write_bytes(content)
    try:
        read_header(damaged)
        assert len(read_tensors(damaged)) <= 4
    except CheckpointError as error:
        assert str(damaged) in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    "header", [b'{"a": {"dtype": "F32", "shape": [1e999], "data_offsets": [0, 4]}}', b'{"a": ' + b"[" * 100_000]
)
def test_a_header_that_no_program_wrote(tmp_path: Path, header: bytes) -> None:
    (tmp_path / "w").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(CheckpointError, match="its header is not readable"):
        read_header(tmp_path / "w")


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_quantized_weights_are_refused(folder: Path, state: State, dtype: torch.dtype) -> None:
    """As plain numbers they would give vectors that mean nothing."""
    name = "encoder.layers.1.ffn.inner_proj.weight"
    save_file({**state, name: state[name].to(dtype)}, folder / "model.safetensors")
    for read in (lambda: find_model(folder).identity(), lambda: load_text_encoder(folder, device="cpu")):
        with pytest.raises(CheckpointError, match=rf"{name}' is stored as \w+; expected float64.*Quantized"):
            read()
    save_file({**state, "encoder.version": torch.tensor([3])}, folder / "model.safetensors")  # of no network
    assert find_model(folder).identity()["dim"] == "32"


def test_a_pickle_that_holds_itself(tmp_path: Path) -> None:
    endless: dict[str, object] = {}
    endless["model"] = endless
    torch.save(endless, tmp_path / "weights.pt")
    assert read_tensors(tmp_path / "weights.pt") == {}


def test_a_torch_file_of_something_else(folder: Path) -> None:
    torch.save([1, 2], folder / "list.pt")
    with pytest.raises(CheckpointError, match="holds a list, expected a dict of tensors"):
        read_tensors(folder / "list.pt")
    with zipfile.ZipFile(folder / "archive.pt", "w") as archive:
        archive.writestr("word/document.xml", "<w/>")
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        read_tensors(folder / "archive.pt")


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_weights_in_several_files(folder: Path, state: State, suffix: str) -> None:
    parts = [dict(list(state.items())[part::2]) for part in range(2)]
    names = [f"weights-{part + 1}-of-2.{suffix}" for part in range(2)]
    for part, name in zip(parts, names, strict=True):
        save = save_file if suffix == "safetensors" else torch.save
        save(part, folder / name)
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    index = folder / f"{stem}.{suffix}.index.json"
    weight_map = {tensor: name for part, name in zip(parts, names, strict=True) for tensor in part}
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}, indent=2))
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded(folder).items())
    assert find_model(index).layout().config == find_model(folder).layout().config
    before = find_model(folder).fingerprint
    (folder / names[1]).write_bytes((folder / names[0]).read_bytes())
    assert find_model(folder).fingerprint != before
    with pytest.raises(CheckpointError, match=rf"says that {names[1]} holds '.*', but it does not"):
        loaded(folder)
    (folder / names[1]).unlink()
    with pytest.raises(CheckpointError, match=rf"cannot read weights .*{names[1]}: No such file"):
        loaded(folder)
    index.write_text(json.dumps({"weight_map": {"a": f"../{names[0]}"}}))
    with pytest.raises(CheckpointError, match="expected weights files beside it"):
        loaded(folder)
    index.write_text("{}")
    with pytest.raises(CheckpointError, match="no index of weights"):
        loaded(folder)
    index.write_text('{"weight_map": {}}')
    with pytest.raises(CheckpointError, match="names no tensors"):
        loaded(folder)
    (folder / "again.bin").write_text('{"weight_map": {"a": "again.bin"}}')
    index.write_text('{"weight_map": {"a": "again.bin"}}')
    with pytest.raises(CheckpointError, match=r"names 'again\.bin', which is an index again"):
        loaded(folder)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_in_a_torch_file(folder: Path, state: State, dtype: torch.dtype) -> None:
    torch.save({name: tensor.to(dtype) for name, tensor in state.items()}, folder / "sonar_text_encoder.pt")
    for name, tensor in loaded(folder).items():
        assert torch.equal(tensor, state[name].to(dtype).float())


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
    with pytest.raises(CheckpointError, match=r"holds more than tensors \(print\), or is damaged, and was not loaded"):
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
        ({"num_heads": 4, "languages": "eng_Latn"}, r'"languages" must be a list of names'),
        ({"num_heads": 4, "languages": None}, r'"languages" must be a list of names'),
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


def test_the_space_is_named_guessed_or_made_of_tokenizer_and_width(folder: Path, state: State, tiny: Path) -> None:
    save_file(state, folder / "model.safetensors")
    files = find_model(folder)
    assert files.space == files.identity()["space"] == f"sonar-{file_sha256(files.tokenizer)[:12]}-32"
    hints = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**hints, "space": "mine"}))
    assert find_model(folder).identity()["space"] == "mine"
    published = TextEncoderConfig()
    assert name_of_space(published, {}, None) == "sonar"
    assert name_of_space(published, {"trained": False}, files.tokenizer).endswith("-1024")
    assert name_of_space(TextEncoderConfig(vocab_size=1000), {}, None) == "unknown"


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


def test_what_config_json_decides_is_in_the_identity(tiny: Path, tmp_path: Path) -> None:
    """The weights are the same, the vectors are not."""
    folder = Path(shutil.copytree(tiny, tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())

    def identity(**changes: Any) -> dict[str, str]:
        (folder / "config.json").write_text(json.dumps({**config, **changes}))
        return find_model(folder).identity()

    before = identity()
    assert before["num_heads"] == str(config["num_heads"])
    assert identity(num_heads=config["num_heads"] // 2) == {**before, "num_heads": str(config["num_heads"] // 2)}
    turned = identity(languages=list(find_model(folder).languages)[::-1])
    assert turned["tokenizer_revision"] != before["tokenizer_revision"]
    assert {**turned, "tokenizer_revision": before["tokenizer_revision"]} == before
    usual = identity(languages=list(FLORES_200))["tokenizer_revision"]
    assert usual == file_sha256(find_model(folder).tokenizer)

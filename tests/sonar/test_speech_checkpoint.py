from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fairseqspeech import fairseq_checkpoint
from safetensors.torch import load_file, save_file

from lcm_data.errors import CheckpointError, UnknownNameError, UsageError
from lcm_data.languages import FLORES_200
from lcm_data.sonar import hub, speech_models
from lcm_data.sonar.checkpoint import load_text_encoder
from lcm_data.sonar.describe import describe_model
from lcm_data.sonar.random_speech import write_random_speech
from lcm_data.sonar.speech_checkpoint import (
    find_speech_model,
    is_speech_encoder,
    load_speech_encoder,
    read_speech_state,
)
from lcm_data.sonar.speech_config import SpeechEncoderConfig
from lcm_data.sonar.speech_encoder import SpeechEncoder
from lcm_data.sonar.speech_layout import speech_shapes

SIZES = SpeechEncoderConfig(
    model_dim=32, num_layers=3, num_heads=4, ffn_dim=48, kernel_size=7, pooler_layers=2, pooler_heads=2,
    pooler_ffn_dim=40, pooler_vocab=5, embedding_dim=24, max_positions=90,
)  # fmt: skip

Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_speech(tmp_path_factory.mktemp("speech"), SIZES, seed=3)


def test_sizes_are_read_off_the_file(folder: Path) -> None:
    files = find_speech_model(folder)
    assert files.layout().config == SIZES
    assert files.layout().fairseq2
    assert load_speech_encoder(files.weights, device="cpu").dim == 24
    assert is_speech_encoder(files.weights)


def test_the_published_names_mean_the_same(folder: Path, tmp_path: Path) -> None:
    state = load_file(folder / "model.safetensors")
    torch.save(fairseq_checkpoint(state), tmp_path / "spenc.v5ap.xyz.pt")
    shutil.copy(folder / "config.json", tmp_path)
    files = find_speech_model(tmp_path)
    layout = files.layout()
    assert (layout.config, layout.fairseq2) == (SIZES, False)
    for name, tensor in read_speech_state(files.weights, layout).items():
        assert torch.equal(tensor, state[name]), name


def test_the_network_has_just_the_tensors_of_the_layout() -> None:
    with torch.device("meta"):
        network = SpeechEncoder(SIZES)
    assert {name: tuple(t.shape) for name, t in network.state_dict().items()} == speech_shapes(SIZES)


def test_numbers_of_parameters() -> None:
    shapes = speech_shapes(SIZES)
    counted = sum(torch.Size(shape).numel() for name, shape in shapes.items() if ".running_" not in name)
    unread = 2 * SIZES.pooler_layers * (32 * 32 + 32)
    assert SIZES.num_parameters == counted + unread
    english, other = (hub.MODELS[f"sonar_speech_encoder_{language}"].config for language in ("eng", "fra"))
    assert (english.num_parameters, other.num_parameters) == (658_084_160, 708_474_176)


def test_heads_of_the_pooler_are_those_of_the_encoder_unless_said_otherwise(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "model.safetensors", tmp_path)
    config = find_speech_model(tmp_path).layout().config
    assert (config.pooler_heads, config.max_positions) == (4, 4096)


def test_identity_and_space(folder: Path, tmp_path: Path) -> None:
    identity = find_speech_model(folder).identity()
    assert identity["space"] == f"sonar-speech-{identity['encoder_revision'][:12]}"
    assert (identity["dim"], identity["max_seq_len"], identity["trained"]) == ("24", "90", "false")
    named = write_random_speech(tmp_path, SIZES, space="my-space")
    assert find_speech_model(named).identity()["space"] == "my-space"
    from lcm_data.sonar.speech_checkpoint import speech_space

    assert speech_space(SpeechEncoderConfig(), {}, "0" * 64) == "sonar"
    assert speech_space(SpeechEncoderConfig(), {"trained": False}, "0" * 64) != "sonar"


def _without(name: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {key: tensor for key, tensor in tensors.items() if key != name}


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda t: {"a": torch.zeros(1)}, "holds 1 tensors that are none, not a SONAR speech encoder"),
        (lambda t: {"encoder_frontend.embed.weight": torch.zeros(9, 4)}, "holds a text encoder, not a SONAR speech"),
        (_without("layer_norm.weight"), "the tensor 'layer_norm.weight' of a speech encoder is missing"),
        (_without("encoder.layers.1.conv.batch_norm.running_var"), "1 tensors of a speech encoder are missing"),
        (lambda t: {**t, "encoder.layers.0.gate": torch.zeros(1)}, "lacks, such as 'encoder.layers.0.gate'"),
        (lambda t: {**t, "layer_norm.bias": torch.zeros(7)}, r"'layer_norm.bias' has shape \(7,\), expected \(32,\)"),
        (lambda t: {**t, "layer_norm.bias": torch.zeros(32, dtype=torch.int8)}, "is stored as int8"),
    ],
)
def test_files_that_cannot_be_loaded(
    folder: Path, tmp_path: Path, change: Callable[[Tensors], Tensors], match: str
) -> None:
    save_file(change(load_file(folder / "model.safetensors")), tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=match):
        load_speech_encoder(tmp_path, device="cpu")


def test_a_config_that_does_not_fit(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "model.safetensors", tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"pooler_heads": 5}))
    with pytest.raises(CheckpointError, match="multiple of pooler_heads"):
        find_speech_model(tmp_path).layout()


def test_asked_for_as_text_and_the_other_way_round(folder: Path, golden: Path) -> None:
    (folder / "tok.model").write_bytes((golden / "sentencepiece.model").read_bytes())
    with pytest.raises(CheckpointError, match="holds a SONAR speech encoder, not a text encoder"):
        load_text_encoder(folder, device="cpu")
    with pytest.raises(CheckpointError, match="holds a text encoder, not a SONAR speech"):
        load_speech_encoder(golden, device="cpu")


def test_wrong_names(folder: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"language of a speech encoder 'en'\. Did you mean '"):
        find_speech_model("sonar_speech_encoder_en")
    with pytest.raises(UnknownNameError, match="sonar_speech_encoder_<language>"):
        find_speech_model("sonar_speech")
    with pytest.raises(UnknownNameError, match="dtype"):
        load_speech_encoder(folder, dtype="int8")
    with pytest.raises(UsageError, match="unknown device"):
        load_speech_encoder(folder, device="abacus")


def test_the_published_files() -> None:
    urls = {name: model.weights.url for name, model in hub.MODELS.items() if model.kind == "speech encoder"}
    assert len(urls) == 58
    site = "https://dl.fbaipublicfiles.com/SONAR"
    assert urls["sonar_speech_encoder_eng"] == f"{site}/spenc.eng.pt"
    assert urls["sonar_speech_encoder_fra"] == f"{site}/spenc.v3ap.fra.pt"
    assert urls["sonar_speech_encoder_cmn"] == f"{site}/spenc.v5ap.cmn.pt"
    assert [hub.MODELS[f"sonar_speech_encoder_{x}"].config.pooler_layers for x in ("eng", "fra")] == [3, 6]


def test_languages_to_models() -> None:
    assert speech_models.speech_model("eng_Latn") == "sonar_speech_encoder_eng"
    assert {speech_models.speech_model(f"zho_{script}") for script in ("Hans", "Hant")} == {"sonar_speech_encoder_cmn"}
    assert speech_models.speech_model("yue_Hant") == "sonar_speech_encoder_yue"
    spoken = speech_models.spoken_languages()
    assert set(spoken) <= set(FLORES_200)
    assert {speech_models.speech_model(lang) for lang in spoken} == {
        f"sonar_speech_encoder_{code}" for code in speech_models.FILES
    }
    with pytest.raises(UnknownNameError, match="language of a speech encoder 'isl_Latn'"):
        speech_models.speech_model("isl_Latn")


def test_download_by_name_needs_no_tokenizer(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_cache: Path
) -> None:
    """The file lies in the cache, so nothing is asked of the network."""
    target = own_cache / "models" / "sonar_speech_encoder_deu"
    target.mkdir(parents=True)
    torch.save(fairseq_checkpoint(load_file(folder / "model.safetensors")), target / "spenc.v3ap.deu.pt")
    shutil.copy(folder / "config.json", target)
    model = load_speech_encoder("sonar_speech_encoder_deu", device="cpu")
    assert model.files.name == "sonar_speech_encoder_deu"
    assert model.encoder.config == SIZES


def test_description(folder: Path, tmp_path: Path) -> None:
    state: dict[str, Any] = fairseq_checkpoint(load_file(folder / "model.safetensors"))
    torch.save(state, tmp_path / "spenc.eng.pt")
    for path, naming in ((folder, "fairseq2"), (tmp_path, "fairseq")):
        (about,) = describe_model(path)
        assert (about["kind"], about["naming"]) == ("speech encoder", naming)
        assert about["networks"][0]["pooler_layers"] == 2
        assert about["networks"][0]["embedding_dim"] == 24
        assert about["space"].startswith("sonar-speech-")
        assert "tokenizer" not in about

"""Our speech encoder against sonar-space itself, in one process (``make parity``; skipped without it)."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from speechlike import clip

from lcm_data.encode import EncoderOptions, load_speech_encoder
from lcm_data.sonar.random_speech import write_random_speech
from lcm_data.sonar.speech_config import SpeechEncoderConfig

pytestmark = [
    pytest.mark.parity,
    pytest.mark.skipif(importlib.util.find_spec("sonar") is None, reason="sonar-space is not installed"),
]

WAVES = [clip(length, seed) for seed, length in enumerate([900, 16000, 9999, 48001, 30000, 170_000, 8000, 1700])]


def sizes(width: int, **others: int) -> SpeechEncoderConfig:
    return SpeechEncoderConfig(model_dim=width, pooler_vocab=width, embedding_dim=width, **others)


FORMS = {
    "small": sizes(48, num_layers=3, num_heads=4, ffn_dim=96, pooler_layers=3, pooler_heads=3, pooler_ffn_dim=64),
    "deep": sizes(128, num_layers=24, num_heads=2, ffn_dim=512, pooler_layers=6, pooler_heads=2, pooler_ffn_dim=512),
    "wide": sizes(1024, num_layers=1, pooler_layers=1),
}


@pytest.fixture(scope="module", params=FORMS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_speech(tmp_path_factory.mktemp(request.param), FORMS[request.param], seed=11)


def fbank(wave: np.ndarray[Any, Any], standardize: bool) -> Any:
    import torch

    import lcm_data.encode.sonar_space as backend

    backend._import_sonar()
    from fairseq2.data.audio import WaveformToFbankConverter

    convert = WaveformToFbankConverter(
        num_mel_bins=80, waveform_scale=2**15, channel_last=True, standardize=standardize
    )
    return convert({"waveform": torch.from_numpy(wave).unsqueeze(1), "sample_rate": 16000.0, "format": -1})["fbank"]


def test_features() -> None:
    """But for energies that are lost beside the loudest of their frame in the reference's float32 (e^16 is 2^23)."""
    import torch

    from lcm_data.sonar.speech_features import filter_bank, speech_features

    errors, checked = [], 0.0
    for wave in WAVES:
        raw, standard = fbank(wave, False), fbank(wave, True)
        ours = speech_features([torch.from_numpy(wave)])[0].view(-1, 80)
        heard = raw > raw.amax(dim=1, keepdim=True) - 16
        checked += float(heard.float().mean()) / len(WAVES)
        raw_error = (filter_bank(torch.from_numpy(wave)) - raw)[heard].abs().max()
        error = (ours - standard[: len(ours)])[heard[: len(ours)]].abs().max()
        errors.append((float(raw_error), float(error)))
    print(f"\nlargest difference of energies {max(e[0] for e in errors):.2e}, features {max(e[1] for e in errors):.2e}")
    assert checked > 0.99
    assert max(max(pair) for pair in errors) <= 1e-4


@pytest.mark.parametrize("how", ["batched", "single"])
def test_vectors(folder: Path, how: str) -> None:
    budget = 10_000 if how == "batched" else 1
    options = {"model": str(folder), "device": "cpu", "token_budget": budget}
    ours, theirs = (
        load_speech_encoder(EncoderOptions(backend=backend, **options))  # type: ignore[arg-type]
        for backend in ("native", "sonar-space")
    )
    a, b = ours.prepare(WAVES), theirs.prepare(WAVES)
    x, y = ours.embed(a), theirs.embed(b)
    relative = float((np.linalg.norm(x - y, axis=1) / np.linalg.norm(y, axis=1)).max())
    print(f"\n{folder.name} {how}: largest difference {np.abs(x - y).max():.2e}, relative {relative:.2e}")
    assert np.abs(x - y).max() <= 1e-5
    assert relative <= 1e-4  # most of it is the features of the shortest clip


def test_the_network_alone(folder: Path) -> None:
    """On the same features, so that what is left is the rounding of the network."""
    import torch

    from lcm_data.encode.sonar_space_speech import reference_speech_model
    from lcm_data.sonar.speech_checkpoint import find_speech_model, load_speech_encoder
    from lcm_data.sonar.speech_config import num_positions
    from lcm_data.sonar.speech_features import speech_features

    theirs, ours = reference_speech_model(find_speech_model(folder)), load_speech_encoder(folder, device="cpu").encoder
    ours.pack()
    from fairseq2.nn import BatchLayout

    features, lengths = (
        speech_features([torch.from_numpy(wave) for wave in WAVES]),
        [num_positions(len(w)) for w in WAVES],
    )
    frames = features.view(len(WAVES), -1, 80)
    with torch.inference_mode():
        x = ours(features, lengths)
        y = theirs(frames, BatchLayout.of(frames, [2 * length for length in lengths])).sentence_embeddings
    relative = float(((x - y).norm(dim=1) / y.norm(dim=1)).max())
    print(f"\n{folder.name}: largest difference {float((x - y).abs().max()):.2e}, relative {relative:.2e}")
    assert relative <= 1e-5


def test_sizes_and_names_are_those_of_the_cards() -> None:
    import lcm_data.encode.sonar_space as backend

    backend._import_sonar()
    from fairseq2.assets import get_asset_store

    from lcm_data.sonar import hub

    store = get_asset_store()
    names = {name.rstrip("@") for name in store.asset_names}
    cards = {name for name in names if name.startswith("sonar_speech_encoder_") and not name.endswith("_base")}
    ours = {name: model for name, model in hub.MODELS.items() if model.kind == "speech encoder"}
    assert set(ours) - cards == {"sonar_speech_encoder_swe"}  # published, without a card
    assert cards <= set(ours)
    for name in cards:
        card = store.retrieve_card(name)
        assert card.field("checkpoint").as_(str) == ours[name].weights.url
        assert card.field("model_arch").as_(str) == ("english" if name.endswith("_eng") else "non_english")


def test_a_published_file_goes_through_their_converter(folder: Path) -> None:
    """The names that we give a file of the published form are those that sonar-space expects."""
    from fairseqspeech import fairseq_checkpoint
    from safetensors.torch import load_file

    import lcm_data.encode.sonar_space as backend

    backend._import_sonar()
    from fairseq2.models.w2vbert import W2VBertConfig
    from sonar.models.sonar_speech import SonarSpeechEncoderConfig, _convert_sonar_speech_checkpoint

    state = load_file(folder / "model.safetensors")
    config = SonarSpeechEncoderConfig(
        W2VBertConfig().w2v2_config.encoder_config, 0.1, 1024, 1024, 1, 2, 3, 16, None, 4096, 0.1
    )
    converted = _convert_sonar_speech_checkpoint(fairseq_checkpoint(state), config)
    assert set(state) <= set(converted)
    assert all(converted[name].equal(tensor) for name, tensor in state.items())

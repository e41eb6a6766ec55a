"""Our filter bank and speech encoder against what sonar-space computed (``tests/parity/make_golden_speech.py``)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from fairseqspeech import fairseq_checkpoint
from safetensors.torch import load_file
from speechlike import LENGTHS, clips

from lcm_data.encode import EncoderOptions, load_speech_encoder
from lcm_data.sonar.speech_config import num_positions
from lcm_data.sonar.speech_features import filter_bank, speech_features


@pytest.fixture(scope="module")
def speech(golden: Path) -> Path:
    return golden / "speech"


@pytest.fixture(scope="module")
def reference(speech: Path) -> dict[str, torch.Tensor]:
    return load_file(speech / "golden.safetensors")


@pytest.fixture(scope="module", params=["fairseq2", "fairseq"])
def model(request: pytest.FixtureRequest, speech: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden weights under the names of safetensors files and of the published ones."""
    if request.param == "fairseq2":
        return speech
    folder = tmp_path_factory.mktemp("spenc")
    torch.save(fairseq_checkpoint(load_file(speech / "speech_encoder.safetensors")), folder / "spenc.eng.pt")
    (folder / "config.json").write_bytes((speech / "config.json").read_bytes())
    return folder


@pytest.mark.parametrize("number", [1, 2, 3])
def test_features_equal_those_of_fairseq2(reference: dict[str, torch.Tensor], number: int) -> None:
    wanted = reference[f"features.{number}"]
    ours = speech_features([torch.from_numpy(clips()[number])])
    num_frames = 2 * num_positions(LENGTHS[number])
    assert len(wanted) - num_frames in (0, 1)  # an odd last frame is cut off
    torch.testing.assert_close(ours[0].view(-1, 80), wanted[:num_frames], atol=1e-4, rtol=0)


def test_two_frames_are_as_far_apart_as_can_be(reference: dict[str, torch.Tensor]) -> None:
    """Where they hardly differ, the reference's rounding shows."""
    torch.testing.assert_close(
        speech_features([torch.from_numpy(clips()[0])]).view(2, 80), reference["features.0"], atol=1e-3, rtol=0
    )


def test_energies_equal_those_of_fairseq2(reference: dict[str, torch.Tensor]) -> None:
    torch.testing.assert_close(filter_bank(torch.from_numpy(clips()[2])), reference["raw.2"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("how", ["batched", "single"])
def test_vectors_equal_those_of_sonar_space(model: Path, how: str, reference: dict[str, torch.Tensor]) -> None:
    options = EncoderOptions(model=str(model), device="cpu", token_budget=4000 if how == "batched" else 1)
    encoder = load_speech_encoder(options)
    prepared = encoder.prepare(clips())
    assert prepared.num_tokens.max() > 256, "no clip attends in blocks"
    vectors, wanted = encoder.embed(prepared), reference[how].numpy()
    np.testing.assert_allclose(vectors, wanted, atol=1e-5, rtol=0)
    lengths = np.linalg.norm(wanted, axis=1)
    assert lengths.min() > 0.1
    assert (np.linalg.norm(vectors - wanted, axis=1) / lengths)[2:].max() < 1e-5

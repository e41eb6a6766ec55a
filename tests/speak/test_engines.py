"""Engines say sentences; files hold what they said."""

from __future__ import annotations

import io
import json
import shutil
import wave
from pathlib import Path

import numpy as np
import pytest

from lcm_data.errors import CheckpointError, UsageError
from lcm_data.speak import load_speaker
from lcm_data.speak.files import sound_file

needs_espeak = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="the program espeak-ng is not installed")


@pytest.fixture(scope="session")
def vits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A VITS model of random weights that knows the letters a to e."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("vits")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "ffn_dim": 16, "flow_size": 16,
             "spectrogram_bins": 16, "upsample_initial_channel": 16, "upsample_rates": [4, 4],
             "upsample_kernel_sizes": [8, 8], "resblock_kernel_sizes": [3], "resblock_dilation_sizes": [[1]],
             "prior_encoder_num_flows": 1, "posterior_encoder_num_wavenet_layers": 1,
             "prior_encoder_num_wavenet_layers": 1, "duration_predictor_num_flows": 1, "vocab_size": 7}  # fmt: skip
    transformers.VitsModel(transformers.VitsConfig(**sizes)).save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps({letter: number for number, letter in enumerate("_abcde ")}))
    tokenizer = transformers.VitsTokenizer(
        str(folder / "vocab.json"), pad_token="_", unk_token="_", normalize=True, phonemize=False, is_uroman=False
    )
    tokenizer.save_pretrained(folder)
    return folder


@needs_espeak
@pytest.mark.parametrize(
    ("lang", "text"), [("eng_Latn", "The door is open."), ("zho_Hans", "门开着。"), ("rus_Cyrl", "-v Дверь открыта.")]
)
def test_espeak_says_a_sentence(lang: str, text: str) -> None:
    speaker = load_speaker("espeak-ng", lang)
    samples = speaker.say(text)
    assert samples.dtype == np.float32
    assert 0.3 < len(samples) / speaker.rate < 5
    assert 0.05 < np.abs(samples).max() <= 1
    assert (speaker.say(text) == samples).all()
    assert speaker.name.startswith("espeak-ng ")


@needs_espeak
def test_languages_without_a_voice_are_refused() -> None:
    with pytest.raises(UsageError, match=r"espeak-ng has no voice for wol_Latn; it has them for .*deu_Latn.*VITS"):
        load_speaker("espeak-ng", "wol_Latn")


def test_a_missing_program_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UsageError, match=r"not installed.*apt install espeak-ng"):
        load_speaker("espeak-ng", "eng_Latn")


def test_vits_by_path(vits: Path) -> None:
    speaker = load_speaker(str(vits), "eng_Latn")
    first = speaker.say("abc de")
    assert first.dtype == np.float32
    assert first.ndim == 1
    assert len(first) > 100
    assert np.isfinite(first).all()
    assert (speaker.say("abc de") == first).all()  # what is drawn by chance depends on the sentence alone
    assert speaker.rate == 16000


def test_other_engines_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no speech engine 'festival': give espeak-ng or the folder of a VITS model"):
        load_speaker("festival", "eng_Latn")
    pytest.importorskip("transformers")
    with pytest.raises(CheckpointError, match="is no VITS model"):
        load_speaker(str(tmp_path), "eng_Latn")


def test_wav_files_hold_the_samples() -> None:
    samples = np.array([0, 0.5, -0.5, 1.5, -1.5], np.float32)
    with wave.open(io.BytesIO(sound_file(samples, 8000, "wav"))) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (8000, 1, 2)
        assert np.frombuffer(file.readframes(5), "<i2").tolist() == [0, 16384, -16384, 32767, -32768]


@pytest.mark.parametrize("num", [0, 1, 10_000])
def test_flac_files_hold_the_samples(num: int) -> None:
    av = pytest.importorskip("av")
    wanted = np.random.default_rng(0).integers(-32768, 32768, num).astype("<i2")
    data = sound_file(wanted.astype(np.float32) / 32768, 22050, "flac")
    with av.open(io.BytesIO(data)) as container:
        assert container.streams.audio[0].rate == 22050
        frames = [frame.to_ndarray()[0] for frame in container.decode(audio=0)]
    assert np.array_equal(np.concatenate([*frames, np.zeros(0, "<i2")]), wanted)

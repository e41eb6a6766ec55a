"""The small speech encoder that ships: when it is taken, and that it hears something."""

from __future__ import annotations

from pathlib import Path

import pytest
from speechcorpus import Spoken, write_recording, write_segments

from lcm_data.corpus import open_corpus
from lcm_data.errors import UnknownNameError
from lcm_data.sonar import hub
from lcm_data.sonar.describe import describe_model
from pipelines import encode
from pipelines.encode import default_speech_model

pytest.importorskip("av")


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LCM_DATA_CACHE", str(tmp_path / "cache"))


def test_it_is_of_the_space_of_the_text_encoder_that_ships() -> None:
    (text,), (speech,) = describe_model(hub.MINI), describe_model(hub.MINI_SPEECH)
    assert speech["space"] == text["space"]
    assert speech["bytes"] < 15_000_000


def test_text_and_speech_without_any_model(tmp_path: Path) -> None:
    row = Spoken(write_recording(tmp_path / "a.wav", 2.0), 0.5, 1.5)
    corpus = write_segments(tmp_path / "corpus", {"eng_Latn": [row, "A sentence beside it."]})
    encode.run(encode.EncodeConfig(corpus=str(corpus)))
    metadata = open_corpus(str(corpus)).embeddings.metadata
    assert metadata["encoder"] == hub.MINI
    assert metadata["speech_encoder.eng_Latn"] == hub.MINI_SPEECH


def test_languages_it_did_not_learn_are_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"language of sonar-mini-speech 'tha_Thai'.*eng_Latn"):
        default_speech_model(hub.MINI, "tha_Thai", asked=True)


def test_published_ones_for_the_published_space_and_where_they_are_cached(tmp_path: Path) -> None:
    assert default_speech_model("text_sonar_basic_encoder", "eng_Latn", asked=False) == "sonar_speech_encoder_eng"
    assert default_speech_model(hub.MINI, "eng_Latn", asked=False) == hub.MINI_SPEECH
    weights = tmp_path / "cache/models/sonar_speech_encoder_eng/spenc.eng.pt"
    weights.parent.mkdir(parents=True)
    weights.touch()
    assert default_speech_model(hub.MINI, "eng_Latn", asked=False) == "sonar_speech_encoder_eng"
    assert default_speech_model(hub.MINI, "eng_Latn", asked=True) == hub.MINI_SPEECH

"""``search``: the encoder that the corpus names answers in every language, recordings ask as words do, errors help."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jobs import write_jsonl

pytest.importorskip("faiss", reason="needs the extra 'cpu'")

from lcm_data.errors import CheckpointError, InputError, SpaceError, UnknownNameError, UsageError
from pipelines import encode, segment
from pipelines.encode import EncodeConfig
from pipelines.search import SearchConfig, run
from pipelines.segment import SegmentConfig

TEXTS = {
    "eng_Latn": ["Click the button to print the document.", "The dragon attacks at night."],
    "fra_Latn": ["Cliquez sur le bouton pour imprimer le document.", "Le dragon attaque la nuit."],
    "arb_Arab": ["انقر على الزر لطباعة المستند.", "يهاجم التنين ليلا."],
}


@pytest.fixture(scope="session")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sentences in three languages, in the space that ships."""
    folder = tmp_path_factory.mktemp("mini")
    rows = [{"id": f"d{n}", "lang": lang, "text": text} for lang, some in TEXTS.items() for n, text in enumerate(some)]
    source = write_jsonl(folder / "docs.jsonl", rows)
    how = {"corpus": str(folder / "corpus"), "executor": "local"}
    segment.run(SegmentConfig(inputs=[str(source)], validation=0, test=0, **how))
    encode.run(EncodeConfig(model="sonar-mini", **how))
    return folder / "corpus"


def ask(corpus: Path, text: str | None = "Press the button to print.", **how: Any) -> Any:
    return run(SearchConfig(**{"corpus": str(corpus), "text": text, "lang": "en", **how}))


def test_answers_come_in_every_language(mini: Path) -> None:
    result = ask(mini, k=3)
    assert {hit["text"] for hit in result["hits"]} == {texts[0] for texts in TEXTS.values()}
    scores = [hit["score"] for hit in result["hits"]]
    assert scores == sorted(scores, reverse=True)
    assert [hit["rank"] for hit in result["hits"]] == [1, 2, 3]
    for lang, texts in TEXTS.items():
        (hit,) = ask(mini, text="A dragon attacks in the night.", k=1, within=[lang])["hits"]
        assert (hit["lang"], hit["doc_id"], hit["sent_idx"], hit["text"]) == (lang, "d1", 0, texts[1])
    (hit,) = ask(mini, text=TEXTS["fra_Latn"][1], lang="fr", k=1)["hits"]
    assert (hit["text"], hit["score"]) == (TEXTS["fra_Latn"][1], pytest.approx(1, abs=1e-3))


def test_the_command_shows_what_it_found(call: Callable[..., Any], mini: Path) -> None:
    out = call("search", mini, "Press to print.", "--lang", "en", "-k", 2, "--within", "fr", "--within", "ar").out
    lines = out.splitlines()
    assert lines[0] == "Nearest to: Press to print."
    assert lines[1].split() == ["rank", "score", "lang", "document", "position", "text"]
    assert "Cliquez sur le bouton" in out
    assert "among the 4 of 6 sentences that pass the filters; exact" in " ".join(out.split())
    words = ("search", mini, "print", "--lang", "en", "--where", "lang = 'fra_Latn' and length(text) < 30")
    (hit,) = call(*words, "--json").json["hits"]
    assert hit["text"] == "Le dragon attaque la nuit."
    assert "none of the 6 sentences" in call(*words[:-1], "false").out


def test_errors_of_the_command(call: Callable[..., Any], mini: Path, tmp_path: Path) -> None:
    def error(*args: object) -> str:
        called = call("search", *args, code=2)
        assert called.out == ""
        return str(called.err)

    assert "has 3 languages: say in which one you ask" in error(mini, "print")
    assert "unknown language 'xx'" in error(mini, "print", "--lang", "xx")
    assert "no language 'deu_Latn'" in error(mini, "print", "--lang", "en", "--within", "de")
    assert "is no condition on a row" in error(mini, "print", "--lang", "en", "--where", "1 1")
    assert "give a sentence to look for, or --audio" in error(mini, "--lang", "en")
    assert "is not a corpus" in error(tmp_path, "print", "--lang", "en")


@pytest.mark.parametrize(
    ("how", "kind", "message"),
    [
        ({"text": "  "}, UsageError, "is empty"),
        ({"audio": "x.wav"}, UsageError, "and not both"),
        ({"text": None, "audio": "nosuch.wav"}, InputError, "cannot read the recording 'nosuch.wav'"),
        ({"lang": "swh_Latn"}, UnknownNameError, r"unknown language .* 'swh_Latn'"),
        ({"backend": "oddencoder:OddEncoder", "model": "one@given"}, SpaceError, "never mixed"),
        ({"split": ["test"]}, UsageError, "no split 'test'"),
        ({"model": "nosuch"}, UnknownNameError, "nosuch"),
    ],
)
def test_what_cannot_be_asked(mini: Path, how: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        ask(mini, **how)


# --- recordings -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A corpus of text and speech (or of one of them), encoded by random networks of one space."""
    pytest.importorskip("av", reason="needs the extra 'audio'")
    from speechcorpus import Spoken, write_recording, write_segments
    from speechmodels import write_models

    folder = tmp_path_factory.mktemp("spoken")
    models = write_models(folder / "models")
    sound = write_recording(folder / "a.wav", 6.0, seed=1)
    clips = [Spoken(sound, 0.5, 1.5), Spoken(sound, 2.0, 4.0, text="what it says"), Spoken(sound, 4.5, 6.0)]

    def make(kind: str) -> Path:
        corpus = folder / kind
        rows: dict[str, Any] = {"both": ["Hello Paul.", *clips], "speech": clips, "text": ["Hello Paul."]}
        write_segments(corpus, {"eng_Latn": rows[kind]})
        given = {"model": str(models / "text")} if kind != "speech" else {}
        encode.run(EncodeConfig(corpus=str(corpus), speech_model=str(models / "speech"), device="cpu", **given))
        return corpus

    return make


def test_a_recording_asks(spoken: Callable[[str], Path], tmp_path: Path) -> None:
    from speechcorpus import write_recording

    corpus = spoken("both")
    models = corpus.parent / "models"
    # The beginning of another file of the same sound is what the second clip hears, if cut at the same places.
    write_recording(tmp_path / "q.wav", 6.0, seed=1)
    from lcm_data.audio.read import read_clip

    wave = read_clip(str(tmp_path / "q.wav"), None, 2.0, 4.0)
    import wave as wavelib

    with wavelib.open(str(tmp_path / "cut.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes((wave * 32768).round().astype("<i2").tobytes())
    how: dict[str, Any] = {"text": None, "audio": str(tmp_path / "cut.wav"), "lang": None}
    result = ask(corpus, **how, speech_model=str(models / "speech"), device="cpu")
    best = result["hits"][0]
    assert (best["text"], best["t_start"], best["t_end"]) == ("what it says", 2.0, 4.0)
    assert best["score"] == pytest.approx(1, abs=1e-3)
    assert json.dumps(result)
    with pytest.raises(CheckpointError, match="Say where it is with --speech-model"):
        ask(corpus, **how)


def test_an_encoder_given_by_path_is_asked_for(spoken: Callable[[str], Path]) -> None:
    """A corpus keeps the name of the encoder's folder only."""
    corpus = spoken("text")
    with pytest.raises(CheckpointError, match=r"names its encoder 'text'.*Say where it is with --model"):
        ask(corpus)
    edited = (corpus / "embeddings/_lcm/manifest.json").read_text().replace('"native"', '"of_my_own"')
    (corpus / "embeddings/_lcm/manifest.json").write_text(edited)
    with pytest.raises(UsageError, match="cannot be loaded by name: give --backend"):
        ask(corpus, model=str(corpus.parent / "models" / "text"))


def test_words_in_a_corpus_of_speech(spoken: Callable[[str], Path]) -> None:
    corpus = spoken("speech")
    models = corpus.parent / "models"
    with pytest.raises(UsageError, match=r"from speech alone.*--audio FILE"):
        ask(corpus)
    assert len(ask(corpus, model=str(models / "text"), backend="native", device="cpu")["hits"]) == 3

"""Without --model: the space that ships where no big one is cached, said in one line; decoders follow the corpus."""

from __future__ import annotations

from pathlib import Path

import pytest

from lcm_data.corpus import open_corpus
from lcm_data.sonar import hub
from lcm_data.sonar.describe import describe_model
from pipelines import decode, encode, evaluate_space, segment
from pipelines.decode import default_decoder

TEXT = "Click the button to open the file. You must save the document first."


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("default")
    (folder / "doc.txt").write_text(TEXT)
    made = str(folder / "corpus")
    inputs = [str(folder / "doc.txt")]
    segment.run(segment.SegmentConfig(inputs=inputs, corpus=made, lang="eng_Latn", validation=0, test=0))
    return made


def test_the_road_without_a_model(
    corpus: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LCM_DATA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hub, "_told", set())
    encode.run(encode.EncodeConfig(corpus=corpus))
    told = [record.getMessage() for record in caplog.records if "sonar-mini" in record.getMessage()]
    assert len(told) == 1
    assert "no --model given" in told[0]
    assert open_corpus(corpus).embeddings.metadata["encoder"] == "sonar-mini"
    said = str(tmp_path / "said")
    decode.run(decode.DecodeConfig(embeddings=corpus, corpus=said, lang="eng_Latn", max_tokens=40))
    (document,) = open_corpus(said).segments.documents()
    assert len(document["text"]) == 2
    assert all(text.strip() for text in document["text"])


def test_asked_for_it_says_nothing(
    corpus: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "_told", set())
    encode.make_stage(encode.EncodeConfig(corpus=corpus, model="sonar-mini", overwrite=True))
    assert not caplog.records


def test_big_weights_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LCM_DATA_CACHE", str(tmp_path))
    assert encode.EncodeConfig(corpus="c").model == "sonar-mini"
    assert encode.EncodeConfig(corpus="c", backend="sonar-space").model == "text_sonar_basic_encoder"
    weights = tmp_path / "models" / "text_sonar_basic_encoder" / "sonar_text_encoder.pt"
    weights.parent.mkdir(parents=True)
    weights.touch()
    assert encode.EncodeConfig(corpus="c").model == "text_sonar_basic_encoder"
    assert encode.EncodeConfig(corpus="c", model="mine").model == "mine"


def test_decoders_follow_the_space() -> None:
    (mini,) = describe_model("sonar-mini")
    assert default_decoder({"space": mini["space"]}) == "sonar-mini"
    assert default_decoder({"space": "sonar"}) == "text_sonar_basic_decoder"


def test_translations_say_how_good_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A floor far below what it reaches: that the weights which ship are those of a trained space."""
    monkeypatch.setenv("LCM_DATA_CACHE", str(tmp_path / "cache"))
    pairs = [
        ("Click the button to open the file.", "Klicken Sie auf die Schaltfläche, um die Datei zu öffnen."),
        ("Enter the name of the new folder.", "Geben Sie den Namen des neuen Ordners ein."),
        ("Specifies the font size of the text.", "Gibt die Schriftgröße des Textes an."),
        ("The password is not correct.", "Das Passwort ist nicht richtig."),
        ("Select the printer from the list.", "Wählen Sie den Drucker aus der Liste aus."),
        ("This package contains the documentation.", "Dieses Paket enthält die Dokumentation."),
        ("Deletes the selected rows.", "Löscht die ausgewählten Zeilen."),
        ("You can change the language later.", "Sie können die Sprache später ändern."),
    ]
    table = tmp_path / "pairs.tsv"
    table.write_text("eng_Latn\tdeu_Latn\n" + "".join(f"{a}\t{b}\n" for a, b in pairs), "utf-8")
    out = str(tmp_path / "out")
    report = evaluate_space.run(
        evaluate_space.EvaluateSpaceConfig(source=str(table), out=out, min_sentences=1, plots=False)
    )
    found = report.languages["deu_Latn"].xsim
    assert found is not None
    assert found["to_pivot"].cosine < 0.5  # by chance 7 of 8

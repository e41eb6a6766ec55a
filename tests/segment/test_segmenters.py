"""What every segmenter of the table promises, and how its model is named, found and refused."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lcm_data.errors import CheckpointError, MissingExtraError, UnknownNameError, UsageError
from lcm_data.segment import SEGMENTERS, ScoredSegmenter, Segmenter, load_segmenter, segment_documents

MODELS = {"sat": "sat_folder", "spacy": "spacy_folder", "stanza": "stanza_folder"}


@pytest.fixture(scope="module", params=[*SEGMENTERS, "spacy with model"])
def segmenter(request: pytest.FixtureRequest) -> Segmenter:
    name = request.param.split()[0]
    if name in MODELS and request.param != "spacy":
        return load_segmenter(name, str(request.getfixturevalue(MODELS[name])))
    return load_segmenter(name)


def test_protocol_and_provenance(segmenter: Segmenter) -> None:
    assert isinstance(segmenter, Segmenter)
    assert len(segmenter.fingerprint) > 5
    assert "/" not in segmenter.fingerprint.partition("/")[2] or "tmp" not in segmenter.fingerprint


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_nothing_is_lost_or_too_long(
    segmenter: Segmenter, hard_text: st.SearchStrategy[str], data: st.DataObject
) -> None:
    text = data.draw(hard_text)
    (segments,) = segment_documents([text], "eng_Latn", segmenter, max_chars=25)
    pieces = [text[start:end] for start, end, _ in segments]
    assert "".join("".join(pieces).split()) == "".join(text.split())
    assert all(piece and piece == piece.strip() for piece in pieces)
    assert [s.start for s in segments] == sorted(s.start for s in segments)
    assert [s.para for s in segments] == sorted(s.para for s in segments)


def test_spans_do_not_depend_on_the_batch(segmenter: Segmenter, prose: str) -> None:
    paragraphs = [prose, "", "One. Two.", prose[:80], " \n "]
    together = segmenter.segment(paragraphs, "eng_Latn")
    assert together == [segmenter.segment([paragraph], "eng_Latn")[0] for paragraph in paragraphs]
    assert len(together[0]) > 1


def test_language_nonsense_is_refused(segmenter: Segmenter) -> None:
    with pytest.raises(UsageError, match="FLORES-200 code such as 'eng_Latn'"):
        segmenter.segment(["Hello."], "English")


def test_import_is_light() -> None:
    import subprocess

    code = (
        "import sys, lcm_data.segment; print([m for m in ('torch', 'spacy', 'stanza', 'wtpsplit') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_unknown_name_lists_the_known() -> None:
    with pytest.raises(UnknownNameError, match=r"Did you mean 'rules'.*sat, spacy, stanza"):
        load_segmenter("rule")


def test_users_own_segmenter_by_path() -> None:
    assert load_segmenter("lcm_data.segment.rules:RuleSegmenter").fingerprint == load_segmenter("rules").fingerprint


def test_rules_take_no_model() -> None:
    with pytest.raises(UsageError, match="takes no model, got 'x'"):
        load_segmenter("rules", "x")


class Nameless:
    def segment(self, paragraphs: list[str], lang: str) -> list[list[tuple[int, int]]]:
        return [[(0, len(paragraph))] for paragraph in paragraphs]


class Helpless:
    fingerprint = "helpless-1"


class Broken(Nameless):
    def __init__(self) -> None:
        raise RuntimeError("no weights\nanywhere.")


class Refusing(Nameless):
    def __init__(self) -> None:
        raise CheckpointError("weights are missing.")


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (Nameless, r"segmenter 'own:Own' has no 'fingerprint': got None\."),
        (Helpless, r"segmenter 'own:Own' has no method 'segment"),
        (Broken, r"cannot build the segmenter 'own:Own' without a model: RuntimeError: no weights anywhere\.$"),
    ],
)
def test_users_own_that_is_none(cls: type, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "own", SimpleNamespace(Own=cls))
    with pytest.raises(UsageError, match=message):
        load_segmenter("own:Own")


def test_users_own_without_a_model_given_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "own", SimpleNamespace(Own=Broken))
    with pytest.raises(UsageError, match=r"with the model 'x': TypeError: .*unexpected keyword argument 'model'"):
        load_segmenter("own:Own", "x")


def test_our_own_errors_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "own", SimpleNamespace(Own=Refusing))
    with pytest.raises(CheckpointError, match="weights are missing"):
        load_segmenter("own:Own")


@pytest.mark.parametrize(("name", "package"), [("sat", "wtpsplit"), ("spacy", "spacy"), ("stanza", "stanza")])
def test_missing_library(name: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"needs the package '{package}'.*lcm-data\[{name}\]"):
        load_segmenter(name)


@pytest.mark.parametrize("name", MODELS)
def test_missing_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"absent.*(Give|folder)"):
        load_segmenter(name, str(tmp_path / "absent"))


@pytest.mark.parametrize("name", MODELS)
def test_folder_without_a_model(name: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=tmp_path.name):
        load_segmenter(name, str(tmp_path))


def test_spacy_senter_is_enabled_and_cuts(spacy_folder: Path) -> None:
    segmenter = load_segmenter("spacy", str(spacy_folder))
    assert segmenter.fingerprint.endswith("/senter")
    assert segmenter.segment(["it rains today . we stay in ."], "eng_Latn") == [[(0, 17), (17, 29)]]


def test_spacy_model_of_another_language(spacy_folder: Path) -> None:
    with pytest.raises(UsageError, match="for language 'en', got documents in 'deu_Latn'"):
        load_segmenter("spacy", str(spacy_folder)).segment(["Ja."], "deu_Latn")


def test_spacy_name_that_is_not_installed() -> None:
    with pytest.raises(
        CheckpointError, match=r"cannot load spaCy model 'en_core_web_sm'.*spacy download en_core_web_sm"
    ):
        load_segmenter("spacy", "en_core_web_sm")


def test_spacy_model_that_finds_no_sentences(tmp_path: Path) -> None:
    import spacy

    spacy.blank("en").to_disk(tmp_path / "blank")
    with pytest.raises(CheckpointError, match="no senter, parser or sentencizer"):
        load_segmenter("spacy", str(tmp_path / "blank"))


def test_spacy_long_text_is_cut_as_a_short_one() -> None:
    text = "It was so, and so it stayed. " * 2000  # 58,000 characters: four chunks
    (spans,) = load_segmenter("spacy").segment([text], "eng_Latn")
    assert [end - start for start, end in spans] == [29] * 2000


def test_spacy_long_text_without_ends() -> None:
    text = "word " * 10_000
    (spans,) = load_segmenter("spacy").segment([text], "eng_Latn")
    assert spans[0][0] == 0
    assert spans[-1][1] == len(text)
    assert 3 <= len(spans) <= 5


def test_spacy_without_the_tokenizer_of_a_language_says_so(caplog: pytest.LogCaptureFixture) -> None:
    (spans,) = load_segmenter("spacy").segment(["ერთი . ორი ."], "kat_Geor")
    assert len(spans) == 2
    assert "cannot tokenize 'ka' here" in caplog.text


def test_stanza_language_that_is_not_there(stanza_folder: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"no stanza model for 'zh-hans'.*it has: en.*stanza\.download\('zh-hans'"
    ):
        load_segmenter("stanza", str(stanza_folder)).segment(["好。"], "zho_Hans")


def test_stanza_damaged_model(stanza_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "en" / "tokenize").mkdir(parents=True)
    (tmp_path / "resources.json").write_bytes((stanza_folder / "resources.json").read_bytes())
    (tmp_path / "en" / "tokenize" / "tiny.pt").write_bytes(b"not a model")
    with pytest.raises(CheckpointError, match="cannot load the stanza tokenizer for 'en'"):
        load_segmenter("stanza", str(tmp_path)).segment(["Hello."], "eng_Latn")


def test_stanza_cuts_where_stanza_does(stanza_folder: Path, prose: str) -> None:
    import stanza

    pipeline = stanza.Pipeline(
        "en", dir=str(stanza_folder), processors="tokenize", download_method=None, logging_level="ERROR"
    )
    line = prose.split("\n")[0]
    starts = [sentence.tokens[0].start_char for sentence in pipeline(line).sentences]
    (spans,) = load_segmenter("stanza", str(stanza_folder)).segment([line], "eng_Latn")
    assert [start for start, _ in spans] == starts
    assert len(starts) > 3


def test_sat_name_that_is_not_cached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match="'segment-any-text/sat-12l-sm' is not in the Hugging Face cache"):
        load_segmenter("sat", "sat-12l-sm")


def test_sat_damaged_weights(sat_folder: Path, tmp_path: Path) -> None:
    for file in sat_folder.iterdir():
        content = file.read_bytes()
        (tmp_path / file.name).write_bytes(content[:1000] if file.suffix == ".safetensors" else content)
    with pytest.raises(CheckpointError, match="cannot load the SaT model"):
        load_segmenter("sat", str(tmp_path))


def test_sat_scores_decide_and_steer_the_cap(sat_folder: Path, prose: str) -> None:
    from lcm_data.segment.sat_adapter import SatSegmenter

    segmenter = SatSegmenter(str(sat_folder), threshold=2.0)  # no probability reaches it: capping does all
    assert isinstance(segmenter, ScoredSegmenter)
    ((spans, scores),) = segmenter.segment_scored([prose], "eng_Latn")
    assert spans == [(0, len(prose))]
    assert len(scores) == len(prose)
    assert max(scores) <= 1.0
    (segments,) = segment_documents([prose], "eng_Latn", segmenter, max_chars=60)
    assert len(segments) > 3
    assert all(end - start <= 60 for start, end, _ in segments)

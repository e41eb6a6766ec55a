"""Vectors of two embedding spaces never meet: in a corpus, with a codebook, with a normaliser; all name their space."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jobs import ODD, SMALL_BOOK, cli, copy, error_line, snapshot, write_jsonl

from lcm_data.corpus import open_corpus
from lcm_data.errors import PlanMismatchError, SpaceError, UsageError
from lcm_data.normalize import Normalizer
from lcm_data.quantize.codebook import Codebook
from lcm_data.quantize.storage import load_codebook, save_codebook
from lcm_data.store.files import open_files
from lcm_data.store.plan import load_plan
from pipelines import encode, normalize, quantize, segment
from pipelines.encode import EncodeConfig
from pipelines.normalize import NormalizeConfig
from pipelines.quantize import QuantizeConfig
from pipelines.segment import SegmentConfig

SPACE = r"the space oddencoder:OddEncoder:[0-9a-f]{12}"
ONE, TWO = rf"{SPACE} \(encoder one, 16 dimensions\)", rf"{SPACE} \(encoder two, 16 dimensions\)"


def run_encode(corpus: Path, **settings: Any) -> Any:
    given = {"backend": "oddencoder:OddEncoder", "model": "one", "executor": "local", **settings}
    return encode.run(EncodeConfig(corpus=str(corpus), **given))


def run_quantize(corpus: Path, **settings: Any) -> Any:
    given = {"levels": 2, "units": 8, "iterations": 2, "executor": "local", **settings}
    return quantize.run(QuantizeConfig(corpus=str(corpus), **given))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole corpus of the encoder "one". Read only."""
    folder = tmp_path_factory.mktemp("made")
    rows = [{"id": f"d{n}", "lang": "eng_Latn", "text": f"Document {n}. It has two sentences."} for n in range(40)]
    write_jsonl(folder / "in.jsonl", rows)
    corpus = folder / "corpus"
    segment.run(SegmentConfig(inputs=[str(folder / "in.jsonl")], corpus=str(corpus), executor="local"))
    run_encode(corpus)
    run_quantize(corpus)
    normalize.run(NormalizeConfig(corpus=str(corpus)))
    return corpus


@pytest.fixture
def own(made: Path, tmp_path: Path) -> Path:
    return copy(made, tmp_path / "own")


def test_the_space_is_recorded_wherever_vectors_are(made: Path) -> None:
    corpus = open_corpus(made)
    space = corpus.embeddings.manifest.provenance["space"]
    assert re.fullmatch(SPACE, f"the space {space}")
    for data in (corpus.embeddings, corpus.codes):
        plan = load_plan(data.files)
        assert plan is not None
        for provenance in (data.metadata, data.manifest.provenance, plan.notes["provenance"]):
            assert provenance["space"] == space
            assert provenance["dim"] == "16"
            assert provenance["encoder_revision"].startswith(space.rpartition(":")[2])
    assert load_codebook(str(made / "codebook")).provenance.encoder_space == space
    assert Normalizer.load(made / "normalizer.safetensors").info.space == space


def test_the_space_is_shown(made: Path) -> None:
    stages = cli("status", made, "--json").json["stages"]
    assert [stage.get("dim") for stage in stages] == [None, "16", "16"]
    assert [stage.get("encoder") for stage in stages] == [None, "one", "one"]
    shown = cli("status", made).out
    assert re.search(rf"^embeddings: {ONE}$", shown, flags=re.M)
    assert re.search(rf"^codes: {ONE}$", shown, flags=re.M)
    facts = cli("inspect", made, "--stage", "embeddings", "--json").json["facts"]
    assert facts.items() >= {"encoder": "one", "dim": "16", "space": stages[1]["space"]}.items()


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_another_encoder_does_not_encode_into_a_corpus(own: Path, more: list[str]) -> None:
    before = snapshot(own)
    message = error_line("encode", own, *ODD[:2], "--model", "two", *more, code=4)
    assert re.search(rf"embeddings is of {ONE}, what would be added is of {TWO}\. Two spaces are never mixed", message)
    assert "Write to a new corpus, or add --overwrite" in message
    assert snapshot(own) == before


def test_an_unfinished_stage_is_not_finished_by_another_encoder(own: Path) -> None:
    (own / "embeddings/_lcm/manifest.json").unlink()
    for commit in (own / "embeddings/_lcm/commits").iterdir():
        commit.unlink()
    with pytest.raises(SpaceError, match=f"{ONE}.*{TWO}"):
        run_encode(own, model="two")


def test_other_weights_of_one_space_are_refused_too(own: Path) -> None:
    """A fine-tuned encoder may share its space with the first one; a corpus still has one encoder."""
    run_encode(own, model="first@ours", overwrite=True)
    assert open_corpus(own).embeddings.manifest.provenance["space"] == "ours"
    with pytest.raises(PlanMismatchError, match=r"config encoder\.encoder_revision: '[0-9a-f]+' -> '[0-9a-f]+'"):
        run_encode(own, model="second@ours")


def test_codes_do_not_outlive_their_space(own: Path) -> None:
    run_encode(own, model="two", overwrite=True)
    codes = snapshot(own / "codes")
    with pytest.raises(SpaceError, match=rf"codes is of {ONE}, what would be added is of {TWO}.*--overwrite"):
        run_quantize(own)
    assert snapshot(own / "codes") == codes
    run_quantize(own, overwrite=True)
    assert open_corpus(own).codes.metadata["encoder"] == "two"


def test_a_codebook_of_another_space(own: Path, made: Path) -> None:
    run_encode(own, model="two", overwrite=True)
    before = snapshot(own)
    book = made / "codebook"
    message = error_line("quantize", own, *SMALL_BOOK, "--codebook", book, "--overwrite", code=4)
    assert re.search(rf"the codebook \S+ is of {ONE}, the corpus is of {TWO}\.", message)
    assert "leaving --codebook out" in message
    assert snapshot(own) == before


def save(book: Codebook, folder: Path, **changes: Any) -> str:
    changed = Codebook.build(np.array(book.tables_MKD), replace(book.provenance, **changes))
    save_codebook(open_files(str(folder)), changed)
    return str(folder)


def test_codebooks_that_say_less(own: Path, made: Path, tmp_path: Path) -> None:
    """Of the same space but other weights; without a space, as older ones; of another width."""
    book = load_codebook(str(made / "codebook"))
    other = {"encoder": "other", "encoder_fingerprint": "f" * 64}
    for number, space in enumerate((book.provenance.encoder_space, "")):
        path = save(book, tmp_path / f"book{number}", **other, encoder_space=space)
        with pytest.raises(PlanMismatchError, match=r"of another encoder \(other, ffffffffffff\) than the corpus"):
            run_quantize(own, codebook=path, overwrite=True)
    path = save(book, tmp_path / "unknown", encoder_fingerprint="", encoder_space="")
    assert run_quantize(own, codebook=path, overwrite=True).manifest.rows == len(open_corpus(own).embeddings)
    wide = Codebook.build(np.zeros((1, 8, 17), np.float32), book.provenance)
    save_codebook(open_files(str(tmp_path / "wide")), wide)
    with pytest.raises(UsageError, match="for vectors of 17 dimensions, the corpus has 16"):
        run_quantize(own, codebook=str(tmp_path / "wide"), overwrite=True)


def test_a_codebook_written_before_spaces_were_recorded(made: Path, tmp_path: Path) -> None:
    book = load_codebook(str(made / "codebook"))
    manifest = {key: value for key, value in book.manifest.items() if key != "encoder_space"}
    Codebook(book.tables_MKD, manifest).save(tmp_path / "old")
    old = Codebook.load(tmp_path / "old", verify=True)
    assert old.provenance == replace(book.provenance, encoder_space="")


def test_a_normaliser_of_another_space_or_width(own: Path, made: Path) -> None:
    from lcm_models import ConceptLoader, DataConfig, SourceConfig

    def normalizer_for(corpus: Path, file: Path) -> Normalizer:
        config = DataConfig(sources=(SourceConfig(path=str(corpus)),), batch_rows=1, end_of_text=None)
        return ConceptLoader(config).normalizer(str(file))

    file = made / "normalizer.safetensors"
    normalizer = Normalizer.load(file)
    assert normalizer_for(own, file).fingerprint == normalizer.fingerprint
    run_encode(own, model="two", overwrite=True)
    with pytest.raises(SpaceError, match=rf"the normaliser .* is of {ONE}, .* is of {TWO}.*lcm-data normalize"):
        normalizer_for(own, file)
    Normalizer.fit(np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32)).save(own / "narrow")
    with pytest.raises(UsageError, match=r"is for 3 dimensions, .* has 16"):
        normalizer_for(own, own / "narrow")
    replace(normalizer, info=replace(normalizer.info, space="")).save(own / "unknown")
    normalizer_for(own, own / "unknown")
    with pytest.raises(PlanMismatchError, match="fitted with other settings or on other embeddings"):
        normalize.run(NormalizeConfig(corpus=str(own)))


def test_a_normaliser_of_other_weights_of_the_same_space(own: Path, caplog: pytest.LogCaptureFixture) -> None:
    from lcm_models import ConceptLoader, DataConfig, SourceConfig

    def loader() -> ConceptLoader:
        return ConceptLoader(DataConfig(sources=(SourceConfig(path=str(own)),), batch_rows=1, end_of_text=None))

    file = own / "normalizer.safetensors"
    for model in ("one@named", "two@named"):
        file.unlink(missing_ok=True)
        run_encode(own, model=model, overwrite=True)
        if model == "one@named":
            normalize.run(NormalizeConfig(corpus=str(own)))
            older = file.read_bytes()
            assert loader().normalizer().info.encoder_revision
            assert "fitted on" not in cli("status", own).out
    file.write_bytes(older)
    with pytest.raises(UsageError, match=r"fitted on vectors of other weights .*lcm-data normalize .* --overwrite"):
        loader().normalizer()
    assert loader().normalizer(str(file)).dim == 16  # named: a choice
    assert "of other weights than those of" in caplog.text
    assert "normalizer.safetensors: it was fitted on vectors of other weights" in cli("status", own).out
    (problem,) = cli("verify", own, "--json", code=5).json["beside"]
    assert problem["path"] == "normalizer.safetensors"
    normalize.run(NormalizeConfig(corpus=str(own), overwrite=True))
    assert cli("status", own, "--json").json["beside"] == {}
    loader().normalizer()


@pytest.fixture
def sentences(tmp_path: Path) -> dict[str, Any]:
    """Settings of a real encoder of another kind."""
    pytest.importorskip("sentence_transformers", reason="needs the extra 'sentence-transformers'")
    from sentencefolder import write_sentence_folder

    model = write_sentence_folder(tmp_path / "minisentences")
    return {"backend": "sentence-transformers", "model": str(model), "device": "cpu"}


def test_an_encoder_of_another_kind(own: Path, sentences: dict[str, Any]) -> None:
    with pytest.raises(SpaceError, match=r"encoder one.*sentence-transformers:\w+ \(encoder minisentences, 32 dim"):
        run_encode(own, **sentences)


@pytest.mark.slow
def test_a_corpus_of_an_encoder_of_another_kind(own: Path, sentences: dict[str, Any]) -> None:
    report = run_encode(own, **sentences, prompt="query: ", overwrite=True)
    data = open_corpus(own).embeddings
    assert report.manifest.rows == len(data) > 0
    assert data.dim == 32
    assert data.metadata["prompt"] == "query: "
    assert run_encode(own, **sentences, prompt="query: ").units_done == 0
    with pytest.raises(SpaceError, match=r"32 dimensions, prompt 'query: '\), what would be added .*32 dimensions\)"):
        run_encode(own, **sentences)  # without the prompt these are other vectors

"""``lcm-data generate`` as its users see it: a corpus written on, readable like any other, and what is refused."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest
import torch
from jobs import ODD, check_whole, cli, copy
from trainedlcm import write_checkpoint

from lcm_data.corpus import open_corpus
from lcm_data.schema import sentence_id, vectors
from lcm_data.store.shard import parse_shard_path
from lcm_data.workers.base import Task
from pipelines import normalize
from pipelines.generate import GenerateConfig, make_stage
from pipelines.normalize import NormalizeConfig

QUICK = ("--sampling", "steps=4", "--max-new", 3, "--repetition-cosine", "none", "--end-of-text-cosine", 1)


@pytest.fixture(scope="module")
def prepared(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished corpus with a normaliser."""
    corpus = copy(finished, tmp_path_factory.mktemp("prepared") / "corpus")
    normalize.run(NormalizeConfig(corpus=str(corpus)))
    return corpus


@pytest.fixture(scope="module")
def checkpoint(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("runs") / "two-tower", "two-tower", prepared)


@pytest.fixture(scope="module")
def written(checkpoint: Path, prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished output. Read only."""
    out = tmp_path_factory.mktemp("written") / "out"
    report = cli("generate", checkpoint, prepared, out, "--with-prefix", "--threads", 1, *QUICK, "--json").json
    assert report["verb"] == "generate"
    assert report["units_done"] == report["units"] >= 2
    assert report["extra"]["ended by"].startswith("length ")
    return out


def test_every_document_is_written_on_behind_its_prefix(prepared: Path, written: Path) -> None:
    check_whole(written, ["embeddings"])
    source, made = open_corpus(prepared).embeddings, open_corpus(written).embeddings
    assert made.manifest.provenance["space"] == source.manifest.provenance["space"]
    assert made.manifest.provenance["generator"] == "two-tower"
    documents = {(each.lang, each.doc_id): each for each in source.documents(splits=["test"])}
    assert len(documents) == made.manifest.rows_in > 1
    for each in made.documents():
        before = documents.pop((each.lang, each.doc_id))
        num = -(-len(before) // 2)
        assert each["generated"] == [False] * num + [True] * 3
        assert each["stop"] == [""] * (num + 2) + ["max_new"]
        assert each["sid"][:num] == before["sid"][:num]
        assert np.array_equal(each.vectors()[:num], before.vectors()[:num])
        assert each["sent_idx"] == list(range(num + 3))
        assert each["sid"][num] == sentence_id(each.lang, each.doc_id, num)
        assert np.isfinite(each.vectors()).all()
        assert each["norm"][-1] == pytest.approx(np.linalg.norm(each.vectors()[-1].astype(float)), rel=1e-2)
    assert documents == {}


def test_units_and_batches_change_nothing(checkpoint: Path, prepared: Path, written: Path, tmp_path: Path) -> None:
    """The worker by itself on units of a document or more, against the whole run."""
    config = GenerateConfig(
        corpus=str(tmp_path / "out"), checkpoint=str(checkpoint), prefixes=str(prepared), sampling={"steps": 4},
        max_new=3, repetition_cosine=None, end_of_text_cosine=1, unit_documents=1, batch_rows=2, threads=1,
    )  # fmt: skip
    stage = make_stage(config)
    plan = stage.make_plan()
    worker = stage.make_worker(plan)
    assert len(pickle.dumps(worker)) < 10_000
    worker.setup()
    one = {}
    for unit in plan.units:
        output = worker.work(worker.read(Task(unit)))
        (table,) = output.tables.values()
        lang = parse_shard_path(next(iter(output.tables)))[1]
        assert set(table["generated"].to_pylist()) == {True}  # the prefix only on request
        for doc_id in set(table["doc_id"].to_pylist()):
            one[lang, doc_id] = vectors(table.filter(pc.field("doc_id") == doc_id)["emb"])
    other = {(each.lang, each.doc_id): each.vectors()[-3:] for each in open_corpus(written).embeddings.documents()}
    assert one.keys() == other.keys()
    assert all(np.allclose(one[key].astype(float), other[key].astype(float), atol=2e-3) for key in one)


def test_bad_documents_become_rejects(checkpoint: Path, prepared: Path, tmp_path: Path) -> None:
    """Rows of a unit are its documents: all are done or rejected."""
    where = {"corpus": str(tmp_path / "out"), "checkpoint": str(checkpoint), "prefixes": str(prepared)}
    config = GenerateConfig(**where, splits=None, max_new=1, sampling={"steps": 4})
    stage = make_stage(config)
    plan = stage.make_plan()
    worker = stage.make_worker(plan)
    worker.setup()
    unit = plan.units[0]
    assert unit.rows > 1
    output = worker.work(worker.read(Task(unit, skip=(0,))))
    assert [each.reason for each in output.rejects] == ["crashed_worker"]
    assert output.rows_in == unit.rows == output.rows_done + 1
    with torch.no_grad():
        for parameter in worker._model.parameters():  # type: ignore[attr-defined]
            parameter.fill_(torch.nan)
    output = worker.work(worker.read(Task(unit)))
    assert [each.reason for each in output.rejects] == ["not_finite"] * unit.rows
    assert (output.rows_done, output.tables) == (0, {})


def test_the_other_verbs_know_it(written: Path, call: Callable[..., Any]) -> None:
    assert call("verify", written, "--json").json["problems"] == 0
    (stage,) = call("status", written, "--json").json["stages"]
    assert (stage["stage"], stage["state"]) == ("embeddings", "complete")
    rows = call("inspect", written, "--json").json["rows"]
    assert {row["lang"] for row in rows} == set(open_corpus(written).embeddings.langs)


@pytest.mark.slow
def test_it_can_be_said(written: Path, tmp_path: Path) -> None:
    decoder = ("--backend", "odddecoder:OddDecoder", "--model", "one")
    cli("decode", written, tmp_path / "text", "--lang", "fr", *decoder)
    assert len(open_corpus(tmp_path / "text").segments) == len(open_corpus(written).embeddings)
    cli("encode", tmp_path / "text", *ODD)


def test_a_dry_run_creates_nothing(checkpoint: Path, prepared: Path, tmp_path: Path, call: Callable[..., Any]) -> None:
    found = call("generate", checkpoint, prepared, tmp_path / "out", *QUICK, "--dry-run", "--json", "-q").json
    assert found["rows_open"] == sum(1 for _ in open_corpus(prepared).embeddings.documents(splits=["test"]))
    assert not (tmp_path / "out").exists()
    text = call("generate", checkpoint, prepared, tmp_path / "out", *QUICK, "--dry-run").out
    assert "documents" in text


def test_settings_may_stand_in_a_file(
    checkpoint: Path, prepared: Path, tmp_path: Path, call: Callable[..., Any]
) -> None:
    (tmp_path / "run.yaml").write_text("sampling: {guidance: 1.5}\nsplits: null\nmax_new: 7\n")
    ran = call("generate", checkpoint, prepared, "o", "--config", tmp_path / "run.yaml", "--print-config", "--json")
    assert (ran.json["sampling"], ran.json["splits"], ran.json["max_new"]) == ({"guidance": 1.5}, None, 7)


REFUSED: dict[str, tuple[list[object], str]] = {
    "no checkpoint": (["{tmp}", "{corpus}", "{tmp}/o"], "holds no checkpoint: give the folder of a run"),
    "no corpus": (["{model}", "{tmp}/none", "{tmp}/o"], "holds no finished stage"),
    "no split": (["{model}", "{corpus}", "{tmp}/o", "--split", "dev"], "no split 'dev' in"),
    "language": (["{model}", "{corpus}", "{tmp}/o", "--lang", "spa_Latn"], "no language 'spa_Latn'"),
    "same folder": (["{model}", "{corpus}", "{corpus}"], "would take the place of those of"),
    "other stage": (["{model}", "{corpus}", "{other}"], "holds other embeddings than generated concepts"),
    "sampling": (["{model}", "{corpus}", "{tmp}/o", "--sampling", "guidence=2"], "Did you mean 'guidance'?"),
    "no pair": (["{model}", "{corpus}", "{tmp}/o", "--sampling", "guidance"], "give name=value"),
    "too many steps": (
        ["{model}", "{corpus}", "{tmp}/o", "--sampling", "steps=101"],
        "got 101, allowed are 1 to 100",
    ),
    "value": (["{model}", "{corpus}", "{tmp}/o", "--sampling", "steps=0"], "steps: Input should be greater"),
    "prefix twice": (
        ["{model}", "{corpus}", "{tmp}/o", "--prefix-share", ".5", "--prefix-sentences", "3"],
        "give one of them",
    ),
    "dtype": (["{model}", "{corpus}", "{tmp}/o", "--dtype", "int8"], "dtype: Input should be 'float32'"),
    "end of text": (["{model}", "{corpus}", "{tmp}/o", "--end-of-text", "{tmp}/e.npy"], "e.npy does not exist"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(
    case: str, call: Callable[..., Any], checkpoint: Path, prepared: Path, finished: Path, tmp_path: Path
) -> None:
    args, message = REFUSED[case]
    names = {"tmp": tmp_path, "corpus": prepared, "model": checkpoint, "other": finished}
    ran = call("generate", *(str(arg).format(**names) for arg in args), code=2)
    assert ran.out == ""
    assert message in ran.err
    assert ran.err.startswith("lcm-data: ")


def changed(checkpoint: Path, folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of a checkpoint that says something else of itself."""
    shutil.copytree(checkpoint, folder)
    notes = json.loads((folder / "model.json").read_text("utf-8"))
    change(notes)
    (folder / "model.json").write_text(json.dumps(notes))
    return folder


def test_models_and_corpora_that_do_not_fit(
    call: Callable[..., Any], checkpoint: Path, prepared: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "out"
    wide = changed(checkpoint, tmp_path / "wide", lambda notes: notes["config"].update(concept_dim=32))
    assert "takes concepts of 32 dimensions, those of" in call("generate", wide, prepared, out, code=2).err
    other = changed(checkpoint, tmp_path / "other", lambda notes: notes["provenance"].update(space="another"))
    message = call("generate", other, prepared, out, code=4).err
    assert "is of the space another" in message
    assert "Two spaces are never mixed" in message
    weights = changed(checkpoint, tmp_path / "weights", lambda notes: notes["provenance"].update(encoder_revision="x"))
    call("generate", weights, prepared, out, "--max-new", 3, "--dry-run")
    assert caplog.messages[0].startswith(f"{prepared}/embeddings was encoded with other weights than what the model")
    odd = changed(checkpoint, tmp_path / "odd", lambda notes: notes.update(variant="three-tower"))
    assert "holds no Large Concept Model" in call("generate", odd, prepared, out, code=2).err
    base = write_checkpoint(tmp_path / "base", "base", prepared)
    message = call("generate", base, prepared, out, "--prefix-sentences", 0, code=2).err
    assert "base needs a prefix of 1 sentence at least" in message


def test_documents_longer_than_any_in_training_are_told(
    call: Callable[..., Any], checkpoint: Path, prepared: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The checkpoint has seen 32 concepts in training and takes 64."""
    rules = ("--repetition-cosine", "none", "--end-of-text", "none", "--sampling", "steps=1")
    where = ("generate", checkpoint, prepared)
    args = (*rules, "--threads", 1, "--json")
    call(*where, tmp_path / "none", *args, "--max-new", 16, "--dry-run")
    call(*where, tmp_path / "none", *args, "--max-new", 30, "--prefix-sentences", 2, "--dry-run")
    assert caplog.messages == []
    found = call(*where, tmp_path / "out", *args, "--max-new", 31).json
    (message,) = caplog.messages
    assert message == (
        f"documents may grow to 47 concepts (16 read, 31 new), and {checkpoint} was trained on 32 at most: what comes "
        "after is extrapolated. Lower --max-new or --context."
    )
    lengths = [len(each) for each in open_corpus(prepared).embeddings.documents(splits=["test"])]
    assert found["extra"]["longer than in training"] == sum(-(-length // 2) + 31 > 32 for length in lengths) > 0
    caplog.clear()
    call(*where, tmp_path / "none", *args, "--max-new", 60, "--context", 30, "--dry-run")
    assert caplog.messages[0].startswith("documents may grow to 64 concepts (30 read, 34 new), and")


def test_a_quantised_model_brings_its_codebook(call: Callable[..., Any], prepared: Path, tmp_path: Path) -> None:
    quant = write_checkpoint(tmp_path / "quant", "quant-d", prepared)
    call("generate", quant, prepared, tmp_path / "out", "--max-new", 2, "--dry-run")
    shutil.rmtree(quant / "codebook")
    assert "codebook" in call("generate", quant, prepared, tmp_path / "out", "--dry-run", code=2).err


def test_the_end_of_text_is_found(checkpoint: Path, prepared: Path, tmp_path: Path) -> None:
    """That of the checkpoint, of the corpus, of the training data; the one it was trained with, if it was named."""
    from lcm_models.generate.trained import read_trained

    provenance = open_corpus(prepared).embeddings.manifest.provenance
    own, elsewhere = prepared / "end_of_text.safetensors", tmp_path / "named.safetensors"
    shutil.copy(own, elsewhere)

    def found(setting: str, corpus: Path, brought: bool = False, **data: Any) -> str | None:
        folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        changed(checkpoint, folder, lambda notes: notes["data"].update(data))
        if not brought:  # as checkpoints of the official code, and others without one
            (folder / "end_of_text.safetensors").unlink()
        facts = read_trained(str(folder))
        end = facts.end_of_text(setting, str(corpus), provenance)
        return None if end is None else end[0]

    assert found("auto", tmp_path) == found("auto", prepared) == str(own)  # of the training data; of the corpus
    assert found("auto", prepared, end_of_text=str(elsewhere)) == str(elsewhere)
    assert found("auto", prepared, end_of_text=None) is None
    with_own = found("auto", prepared, brought=True, end_of_text=str(tmp_path / "gone.safetensors"))
    assert with_own is not None
    assert Path(with_own).parent.parent == tmp_path, "that of the checkpoint, wherever the file is now"
    assert found("none", prepared) is None
    assert found(str(elsewhere), prepared, end_of_text=None) == str(elsewhere)

"""``lcm-data evaluate`` as its users see it: models side by side, beside baselines, on vectors and on sentences."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jobs import copy, embedded
from trainedlcm import write_checkpoint

from pipelines import normalize
from pipelines.normalize import NormalizeConfig

pytest.importorskip("transformers", reason="needs transformers")

QUICK = ("--sampling", "steps=3", "--threads", 1, "-q")
ODD = ("--decoder", "one", "--decoder-backend", "odddecoder:OddDecoder", "--backend", "oddencoder:OddEncoder")


@pytest.fixture(scope="module")
def prepared(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    corpus = copy(finished, tmp_path_factory.mktemp("prepared") / "corpus")
    normalize.run(NormalizeConfig(corpus=str(corpus)))
    return corpus


@pytest.fixture(scope="module")
def runs(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for variant in ("base", "two-tower"):
        write_checkpoint(folder / variant, variant, prepared)
    return folder


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tinylm import write_causal_lm, write_classifier

    texts = [each["text"][:200] for each in embedded(["eng_Latn"])]
    folder = tmp_path_factory.mktemp("networks")
    write_causal_lm(folder / "lm", texts)
    write_classifier(folder / "coherence", texts)
    return folder


def test_models_beside_baselines(call: Callable[..., Any], runs: Path, prepared: Path, tmp_path: Path) -> None:
    args = ("evaluate", runs / "base", runs / "two-tower", prepared, "--split", "train", "--split", "test", *QUICK)
    found = call(*args, "--json", "--out", tmp_path).json
    assert found == json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert list(found["results"]) == ["base", "two-tower", "copy", "mean", "truth"]
    assert list(found["results"]["base"]) == ["test/eng_Latn", "test/fra_Latn", "train/eng_Latn", "train/fra_Latn"]
    assert found["mean"]["truth"] == {"l2": 0, "cosine": pytest.approx(1), "ca": 1, "par": pytest.approx(1)}
    for name in ("base", "two-tower", "copy", "mean"):
        assert found["mean"][name]["l2"] > 0
        assert 0 < found["mean"][name]["ca"] < 1
    places = {name: [each["places"] for each in found["counts"][name].values()] for name in found["counts"]}
    assert len(set(map(tuple, places.values()))) == 1  # the same places for all
    assert found["models"]["base"]["variant"] == "base"
    assert any(note.startswith("MI: no --language-model") for note in found["skipped"])
    again = call(*args, "--json", "--batch-concepts", 32).json
    for name, figures in found["mean"].items():
        assert again["mean"][name] == pytest.approx(figures, abs=1e-3), name


def test_sentences(call: Callable[..., Any], runs: Path, prepared: Path, networks: Path) -> None:
    found = call(
        "evaluate", runs / "base", prepared, *ODD, "--model", "one", "--language-model", networks / "lm",
        "--coherence-model", networks / "coherence", "--decode-sample", 6, "--continuations", 2, "--max-new", 3,
        "--json", *QUICK[2:],
    ).json  # fmt: skip
    truth, base, copied = (found["mean"][name] for name in ("truth", "base", "copy"))
    assert {"l2_roundtrip", "mi", "rouge_l", "ovl_3", "coherence", "length", "words", "ended", "repeated"} <= set(base)
    assert {"l2_roundtrip", "mi"} <= set(copied)
    assert "rouge_l" not in copied
    assert (truth["rouge_l"], truth["length"], truth["words"]) == (1, 1, 1)
    assert 0 <= base["rouge_l"] < 1
    assert base["l2_roundtrip"] > 0
    assert found["counts"]["base"]["test/eng_Latn"]["decoded"] == 6
    assert found["skipped"] == []


def test_documents_and_weights_are_read_once(
    call: Callable[..., Any], runs: Path, prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many models there are, and also for what is said of sentences. One partition is in memory at a time."""
    import gc
    import weakref

    from lcm_models import checkpoint
    from lcm_models.evaluate.documents import EvalDocument, Partition

    read, loaded, vectors, left = [], [], list[weakref.ref[Any]](), []
    read_documents, load_model = Partition.documents, checkpoint.load_model

    def documents(partition: Partition) -> list[EvalDocument]:
        read.append(partition.name)
        found = read_documents(partition)
        gc.collect()
        left.append(sum(each() is not None for each in vectors))
        vectors.extend(weakref.ref(each.x_SD) for each in found)
        return found

    def load(path: str | Path, **how: Any) -> Any:
        loaded.append(Path(path).name)
        return load_model(path, **how)

    monkeypatch.setattr(Partition, "documents", documents)
    monkeypatch.setattr(checkpoint, "load_model", load)
    said = (*ODD, "--model", "one", "--decode-sample", 2, "--continuations", 1, "--max-new", 2)
    splits = ("--split", "train", "--split", "test")
    found = call("evaluate", runs / "base", runs / "two-tower", prepared, *splits, *said, "--json", *QUICK).json
    assert sorted(read) == sorted(found["results"]["truth"])
    assert len(read) == 4
    assert sorted(loaded) == ["base", "two-tower"]
    assert left == [0, 0, 0, 0]


def test_the_screen(call: Callable[..., Any], runs: Path, prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    named = f"first={runs / 'base'}"
    ran = call("evaluate", named, runs / "two-tower", prepared, "--continuations", 2, "--max-new", 2, *QUICK)
    assert max(map(len, ran.out.splitlines())) <= 100
    head, *rows = [line.split() for line in ran.out.splitlines()[1:7]]
    assert head == ["l2", "cosine", "CA", "%", "PAR"]
    assert [row[0] for row in rows] == ["first", "two-tower", "copy", "mean", "truth"]
    assert rows[-1][1:] == ["0.0000", "1.000", "100.0", "1.000"]
    assert "Continuations" in ran.out
    assert "By split and language" in ran.out
    assert "not measured: " in ran.out


def test_more_than_a_model_has_seen_is_told(
    call: Callable[..., Any], runs: Path, prepared: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The models have seen 32 concepts in training and take 64."""
    call("evaluate", runs / "base", prepared, "--continuations", 1, "--max-new", 16, "--json", *QUICK[2:])
    assert caplog.messages == []
    call("evaluate", runs / "base", prepared, "--continuations", 1, "--max-new", 17, "--json", *QUICK[2:])
    (message,) = caplog.messages
    assert message.startswith("documents may grow to 33 concepts (16 read, 17 new)")
    caplog.clear()
    call("evaluate", runs / "base", prepared, "--window", 40, "--json", *QUICK[2:])
    (message,) = caplog.messages
    assert message == (
        f"documents may have 40 concepts, and {runs / 'base'} was trained on 32 at most: what comes after is "
        "extrapolated. Lower --window."
    )


REFUSED: dict[str, tuple[list[object], str]] = {
    "no checkpoint": (["{tmp}", "{corpus}"], "holds no checkpoint"),
    "no corpus": (["{runs}/base", "{tmp}"], "is not a corpus"),
    "no split": (["{runs}/base", "{corpus}", "--split", "dev"], "no split 'dev'"),
    "same name": (["{runs}/base", "{runs}/base", "{corpus}"], "two of the models are called 'base'"),
    "sampling": (["{runs}/base", "{runs}/two-tower", "{corpus}", "--sampling", "stepps=2"], "Did you mean 'steps'?"),
    "window": (["{runs}/base", "{corpus}", "--window", "100"], "--window 100: one of the models takes 64"),
    "encoder alone": (["{runs}/base", "{corpus}", "--model", "one"], "give a --decoder, too"),
    "language model": (["{runs}/base", "{corpus}", "--language-model", "{tmp}"], "cannot load a causal language model"),
    "report there": (["{runs}/base", "{corpus}", "--out", "{done}"], "has a report.json. Name another folder"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str, call: Callable[..., Any], runs: Path, prepared: Path, tmp_path: Path) -> None:
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "report.json").write_text("{}")
    args, message = REFUSED[case]
    names = {"tmp": tmp_path, "corpus": prepared, "runs": runs, "done": tmp_path / "done"}
    ran = call("evaluate", *(str(arg).format(**names) for arg in args), code=2)
    assert ran.out == ""
    assert message in ran.err


def test_networks_of_another_space(call: Callable[..., Any], runs: Path, prepared: Path) -> None:
    args = ("evaluate", runs / "base", prepared, *ODD, "--model", "two@elsewhere", *QUICK[2:])
    assert "Give the encoder that belongs to the corpus" in call(*args, code=4).err


def test_the_sample_does_not_depend_on_shards(prepared: Path) -> None:
    from lcm_data.corpus import open_corpus
    from lcm_models.evaluate.documents import Partition

    data = open_corpus(prepared).embeddings
    everything = Partition(data, "train", "eng_Latn", 0, seed=0).documents()
    assert len(everything) == 3
    assert all(each.texts and len(each.texts) == len(each.x_SD) > 1 for each in everything)
    some = Partition(data, "train", "eng_Latn", 1, seed=0).documents()
    assert len(some) == 1
    assert {each.doc_id for each in some} <= {each.doc_id for each in everything}
    more = Partition(data, "train", "eng_Latn", 2, seed=0).documents()
    assert {each.doc_id for each in some} < {each.doc_id for each in more}  # a larger sample holds the smaller one


def test_guesses_that_are_not_finite_are_told(
    call: Callable[..., Any], runs: Path, prepared: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "broken"
    shutil.copytree(runs / "base", folder)
    weights = load_file(folder / "model.safetensors")
    weights["postnet.bias"][:] = float("nan")
    save_file(weights, folder / "model.safetensors")
    said = (*ODD, "--model", "one", "--decode-sample", 3, "--continuations", 1, "--out", tmp_path / "report")
    found = call("evaluate", folder, prepared, "--json", *said, *QUICK[2:]).json
    assert not {"l2", "l2_roundtrip"} & found["mean"]["broken"].keys()
    assert any("guesses of broken in test/eng_Latn: not finite" in note for note in found["skipped"])

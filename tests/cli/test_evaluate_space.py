"""``evaluate-space`` as a user runs it: a whole report from a small random model, and what is refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jobs import write_jsonl

pytest.importorskip("sacrebleu", reason="needs the extra 'quality'")
pytest.importorskip("matplotlib", reason="needs the extra 'quality'")

LANGS = ("deu_Latn", "eng_Latn", "fra_Latn", "jpn_Jpan")
QUICK = ("--beam-size", 1, "--noise-levels", 2, "--fragility-sample", 4, "--decode-sample", 6, "--threads", 1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random encoder and decoder; texts end after 24 tokens at the latest."""
    from lcm_data.sonar.random_model import write_random_checkpoint

    texts = [f"Sentence {i} of Paul. Satz {i}. Phrase {i}! 文 {i}。" for i in range(200)]
    sizes = {"model_dim": 32, "num_heads": 4, "vocab_size": 320, "decoder_layers": 2, "max_target_tokens": 24}
    return write_random_checkpoint(tmp_path_factory.mktemp("model"), texts, **sizes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty sentences in four languages: German is the same as English, one French one is missing."""
    rows = []
    for i in range(30):
        english = f"Sentence number {i} says {i * i} words to Paul."
        rows.append(
            {"id": i, "eng_Latn": english, "deu_Latn": english, "fra_Latn": f"Phrase {i}!", "jpn_Jpan": f"文 {i}"}
        )
    rows[7]["fra_Latn"] = ""
    return write_jsonl(tmp_path_factory.mktemp("text") / "text.jsonl", rows)


@pytest.fixture(scope="module")
def done(text: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished report."""
    from pipelines.evaluate_space import EvaluateSpaceConfig, run

    out = tmp_path_factory.mktemp("done")
    how = {"beam_size": 1, "noise_levels": 2, "fragility_sample": 4, "decode_sample": 6, "threads": 1}
    run(
        EvaluateSpaceConfig(
            source=str(text), out=str(out), model=str(model), decoder=str(model), judge_model=str(model),
            to="en", all_pairs=True, **how,
        )
    )  # fmt: skip
    return out


def test_the_report_is_whole(done: Path) -> None:
    report = json.loads((done / "report.json").read_text("utf-8"))
    assert {path.name for path in done.iterdir()} == {
        *("report.json", "xsim.png", "norms.png", "autoencoding.png", "lengths.png", "fragility.png")
    }
    assert set(report["languages"]) == set(LANGS)
    assert report["languages"]["fra_Latn"]["sentences"] == 29
    assert report["languages"]["fra_Latn"]["blank"] == 1
    for lang, each in report["languages"].items():
        assert each["autoencoding"]["scores"]["num_sentences"] == 6
        assert each["fragility"]["curve"]["levels"] == pytest.approx([0, 1 / 3, 2 / 3])
        assert set(each["fragility"]["fragility"]) == {"chrf", "bleu", "cosine", "judge_cosine"}
        assert len(each["fragility"]["worst"]) == 4
        assert (each["translation"] is None) == (lang == "eng_Latn")
        assert (each["xsim"] is None) == (lang == "eng_Latn")
        assert each["space"]["norm"]["mean"] > 0
    assert report["skipped"] == []
    assert len(report["pairs"]) == 12
    assert report["all_languages"]["num_sentences"] == 119
    assert report["provenance"]["encoder"]["encoder_revision"] == report["provenance"]["decoder"]["decoder_revision"]
    assert report["provenance"]["normalizer"]["rows"] == "119"
    assert len(report["provenance"]["normalizer"]["fingerprint"]) == 64
    assert report["signatures"]["BLEU char"].startswith("nrefs:1")
    assert report["settings"]["to"] == "eng_Latn"
    assert report["versions"]["torch"]
    assert report["seconds"]["all"] > 0


def test_means_are_over_the_languages_that_have_a_figure(done: Path) -> None:
    report = json.loads((done / "report.json").read_text("utf-8"))
    errors = [each["xsim"]["to_pivot"]["margin"] for each in report["languages"].values() if each["xsim"]]
    assert report["mean"]["xsim_margin"] == pytest.approx(sum(errors) / 3)
    scores = [each["autoencoding"]["scores"]["chrf"] for each in report["languages"].values()]
    assert report["mean"]["autoencoding_chrf"] == pytest.approx(sum(scores) / 4)


def test_a_language_equal_to_the_pivot_is_always_found(done: Path) -> None:
    """German here is English; the model puts the language first, so vectors differ, yet neighbours are right."""
    report = json.loads((done / "report.json").read_text("utf-8"))
    errors = {lang: each["xsim"]["to_pivot"]["cosine"] for lang, each in report["languages"].items() if each["xsim"]}
    assert errors["deu_Latn"] < 0.1 < errors["jpn_Jpan"]


def test_the_screen(call: Callable[..., Any], text: Path, model: Path, tmp_path: Path) -> None:
    ran = call("evaluate-space", text, tmp_path / "out", "--model", model, "--decoder", model, "--to", "deu", *QUICK)
    lines = ran.out.splitlines()
    assert max(map(len, lines)) <= 100
    assert [line.split()[0] for line in lines if line.startswith(LANGS)] == [*LANGS, *LANGS]
    assert "xsim" in ran.out
    assert f"report and plots: {tmp_path / 'out'}" in ran.out
    assert "time: " in ran.out


def test_json_is_what_the_file_holds(call: Callable[..., Any], text: Path, model: Path, tmp_path: Path) -> None:
    ran = call("evaluate-space", text, tmp_path, "--model", model, "--lang", "fr", "--no-plots", "--json", "-q")
    assert ran.json == json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert ran.err == ""
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]
    assert set(ran.json["languages"]) == {"eng_Latn", "fra_Latn"}
    assert ran.json["skipped"] == ["auto-encoding, translation and fragility: no --decoder was given"]
    assert ran.json["mean"].keys() == {
        *("tokens", "truncated", "unknown", "norm", "mean_cosine", "xsim_cosine", "xsim_margin")
    }


def test_the_same_run_gives_the_same_figures(call: Callable[..., Any], text: Path, model: Path, tmp_path: Path) -> None:
    args = (
        "evaluate-space",
        text,
        tmp_path,
        "--model",
        model,
        "--decoder",
        model,
        "--no-plots",
        "--sample",
        25,
        *QUICK,
    )
    first = call(*args, "--json").json
    again = call(*args, "--json", "--overwrite").json
    assert first["languages"] == again["languages"]
    assert call(*args, "--json", "--overwrite", "--seed", 1).json["languages"] != first["languages"]


def test_a_corpus(call: Callable[..., Any], finished: Path, tmp_path: Path) -> None:
    ran = call("evaluate-space", finished, tmp_path / "out", "--json")
    assert set(ran.json["languages"]) == {"eng_Latn", "fra_Latn"}
    assert ran.json["skipped"] == [
        "auto-encoding, translation and fragility: no --decoder was given",
        "similarity search: sentences of a corpus are not aligned",
    ]
    assert ran.json["provenance"]["corpus"]["encoder_backend"] == "odd"
    assert ran.json["languages"]["eng_Latn"]["space"]["dim"] == 16
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"report.json", "norms.png"}
    assert "similarity search" in call("evaluate-space", finished, tmp_path / "out", "--overwrite").out


def test_a_corpus_with_a_decoder(call: Callable[..., Any], finished: Path, tmp_path: Path) -> None:
    from lcm_data.corpus import open_corpus
    from lcm_data.sonar.random_model import write_random_checkpoint

    sizes = {"model_dim": 16, "num_heads": 4, "decoder_layers": 1, "max_target_tokens": 24}
    decoder = write_random_checkpoint(tmp_path / "model", ["Some words."] * 9, **sizes)  # type: ignore[arg-type]
    about = json.loads((decoder / "config.json").read_text("utf-8"))
    about["space"] = open_corpus(finished).embeddings.metadata["space"]
    (decoder / "config.json").write_text(json.dumps(about))
    args = ("evaluate-space", finished, tmp_path / "out", "--decoder", decoder, "--no-plots", "--json", *QUICK)
    report = call(*args).json
    assert report["languages"]["eng_Latn"]["autoencoding"]["scores"]["num_sentences"] == 6
    assert set(report["languages"]["eng_Latn"]["fragility"]["fragility"]) == {"chrf", "bleu"}  # no encoder: no cosine
    again = call(*args, "--backend", "oddencoder:OddEncoder", "--model", "one", "--overwrite").json
    assert "cosine" in again["languages"]["eng_Latn"]["fragility"]["fragility"]


def test_languages_a_model_does_not_know_are_named(call: Callable[..., Any], text: Path, tmp_path: Path) -> None:
    odd = ("--backend", "oddencoder:OddEncoder", "--model", "one")
    rows = [json.loads(line) | {"amh_Ethi": "x"} for line in text.read_text("utf-8").splitlines()]
    more = write_jsonl(
        tmp_path / "more.jsonl", [row | {"spa_Latn": "x"} if i < 3 else row for i, row in enumerate(rows)]
    )
    report = call("evaluate-space", more, tmp_path / "out", *odd, "--no-plots", "--json").json
    assert set(report["languages"]) == set(LANGS)
    assert "amh_Ethi: the encoder does not know it" in report["skipped"]


REFUSED: dict[str, tuple[list[object], str]] = {
    "no input": (["{tmp}/none", "{tmp}/o"], "neither a folder nor a file of a known format"),
    "language": (["{text}", "{tmp}/o", "--lang", "spa_Latn"], "no texts in spa_Latn. It has: deu_Latn"),
    "unknown language": (["{text}", "{tmp}/o", "--lang", "qqq"], "unknown language"),
    "no decoder": (["{text}", "{tmp}/o", "--to", "fr"], "give a --decoder, too"),
    "few sentences": (["{text}", "{tmp}/o", "--min-sentences", "100"], "no language has 100 sentences"),
    "report there": (["{text}", "{done}"], "has a report.json. Name another folder, or add --overwrite"),
    "setting": (["{text}", "{tmp}/o", "--sample", "-1"], "sample: "),
}


@pytest.mark.parametrize(("args", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(
    args: list[str], message: str, call: Callable[..., Any], text: Path, model: Path, done: Path, tmp_path: Path
) -> None:
    filled = [arg.format(tmp=tmp_path, text=text, done=done) for arg in args]
    ran = call("evaluate-space", *filled, "--model", model, code=2)
    assert ran.out == ""
    assert ran.err.startswith("lcm-data: ")
    assert message in ran.err
    assert not (tmp_path / "o").exists()


def test_a_decoder_of_another_space_is_refused(
    call: Callable[..., Any], text: Path, model: Path, finished: Path, tmp_path: Path
) -> None:
    from lcm_data.sonar.random_model import write_random_checkpoint

    other = write_random_checkpoint(tmp_path / "m", ["Other words entirely."] * 9, model_dim=32, decoder_layers=1)
    ran = call("evaluate-space", text, tmp_path / "o", "--model", model, "--decoder", other, code=4)
    assert "Two spaces are never mixed" in ran.err
    ran = call("evaluate-space", finished, tmp_path / "o", "--decoder", model, code=4)
    assert "the corpus is of the space" in ran.err
    ran = call("evaluate-space", finished, tmp_path / "o", "--model", model, code=2)
    assert "--model has other weights" in ran.err


@pytest.mark.parametrize(
    ("package", "args"), [("matplotlib", []), ("sacrebleu", ["--no-plots", "--decoder", "{model}"])]
)
def test_a_missing_package_is_named_before_the_work(
    package: str, args: list[str], call: Callable[..., Any], text: Path, model: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, package, None)
    filled = [arg.format(model=model) for arg in args]
    ran = call("evaluate-space", text, tmp_path / "o", "--model", model, *filled, code=2)
    assert "lcm-data[quality]" in ran.err


def test_settings_from_a_file(call: Callable[..., Any], text: Path, model: Path, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(f"model: {model}\nsample: 21\nplots: false\n")
    shown = call(
        "evaluate-space", text, tmp_path / "o", "--config", tmp_path / "s.yaml", "--print-config", "--json"
    ).json
    assert (shown["sample"], shown["plots"], shown["pivot"]) == (21, False, "eng_Latn")
    assert not (tmp_path / "o").exists()

"""The script that trains all variants with equal budgets and measures them side by side runs, resumes and reports."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from benchmark import benchmark

from lcm_models import LCMS
from lcm_models.data import ConceptLoader, DataConfig

QUICK = (
    "model.width=16", "model.num_heads=2", "model.max_len=64", "data.max_len=16", "data.batch_concepts=32",
    "data.end_of_text=null", "evaluate.splits=['validation']", "evaluate.continuations=2", "evaluate.max_new=3",
    "evaluate.sampling.steps=4", "two_tower.model.num_denoiser_layers=1",
)  # fmt: skip
ROWS = ["base", "one-tower", "two-tower", "two-tower, guidance 1, steps 2", "quant-d", "quant-c"]


def call(corpus: Path, out: Path, *more: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run the script; what it printed is what it left."""
    module = benchmark("side_by_side")
    given = [f"--set={each}" for each in QUICK]
    arguments = ["--corpus", str(corpus), "--out", str(out), *given, "--also", "two-tower:guidance=1,steps=2", *more]
    monkeypatch.setattr("sys.argv", ["side_by_side", *arguments])
    module.main()
    return (out / "tables.md").read_text("utf-8")


def sections(text: str) -> dict[str, dict[str, list[str]]]:
    """Tables by their titles: cells by the name of the row, the first being that of the columns."""
    chunks = text.split("\n\n")
    tables = {}
    for title, table in itertools.pairwise(chunks):
        if table.startswith("|"):
            lines = [[cell.strip() for cell in line[1:-1].split("|")] for line in table.splitlines()]
            tables[title] = {name: cells for name, *cells in lines if name != "---"}
    return tables


@pytest.fixture(scope="module")
def done(trained_on: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("side-by-side")
    with pytest.MonkeyPatch.context() as patch:
        pictures = [f"--plot={folder / 'curves.png'}", f"--plot-languages={folder / 'languages.png'}"]
        text = call(trained_on, folder, "--steps", "2", *pictures, monkeypatch=patch)
    return folder, text


def test_every_variant_has_its_rows(done: tuple[Path, str]) -> None:
    folder, text = done
    budgets, figures, *others = sections(text).items()
    by_place = list(itertools.takewhile(lambda each: each[0] != "continuations", others))
    assert budgets[0].startswith("2 steps, ")
    assert list(budgets[1]) == ["", *LCMS]
    assert [cells[-1] for cells in budgets[1].values()][-2:] == ["nats of a code", "squared error of a concept"]
    assert figures[0].startswith("mean of 2 languages and splits: ")
    assert list(figures[1]) == ["", *ROWS, "copy", "mean", "truth"]
    assert [title for title, _ in by_place] == figures[1][""]
    assert list(by_place[0][1]) == ["", "validation/deu_Latn", "validation/eng_Latn"]
    assert by_place[0][1][""] == [*ROWS, "copy", "mean", "truth"]
    for name in ("curves.png", "languages.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")


def test_what_is_done_is_not_done_again(
    done: tuple[Path, str], trained_on: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, text = done
    capsys.readouterr()
    assert call(trained_on, folder, "--steps", "2", monkeypatch=monkeypatch) == text
    assert capsys.readouterr() == (text, "")
    longer = call(trained_on, folder, "--steps", "3", "--langs", "eng_Latn", monkeypatch=monkeypatch)
    assert "base: step 2 to 3" in capsys.readouterr().err
    assert [title for title in sections(longer) if title.startswith("validation/eng_Latn: ")]
    assert "validation/deu_Latn" not in longer
    parts = [json.loads(line)["steps"] for line in (folder / "base" / "cpu_seconds.jsonl").read_text().splitlines()]
    assert parts == [2, 1]


def test_sentences_where_there_is_a_decoder(done: tuple[Path, str], trained_on: Path, tmp_path: Path) -> None:
    """``--decoder`` and ``--model`` reach the evaluation."""
    module, seen = benchmark("side_by_side"), []

    def run(config: Any) -> None:
        seen.append(config)
        Path(config.out).mkdir(parents=True)
        Path(config.out, "report.json").write_text("{}")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.evaluate, "run", run)
        given = module.parse(
            ["--corpus", str(trained_on), "--out", str(tmp_path), "--decoder", "d", "--model", "m", "--langs", "fr"]
        )
        module.report(given, "defaults", {"base": str(done[0] / "base")}, {"steps": 3})
    (config,) = seen
    assert (config.decoder, config.model, config.langs, config.sampling) == ("d", "m", ["fra_Latn"], {"steps": 3})


def test_all_variants_see_the_same_concepts(trained_on: Path) -> None:
    """Reading codes, too, changes neither the order of documents nor how they fill rows."""
    settings = {"sources": [{"path": str(trained_on)}], "max_len": 16, "batch_concepts": 64, "prefetch": 0}
    plain, coded = (
        iter(ConceptLoader(DataConfig.model_validate({**settings, "with_codes": codes}))) for codes in (False, True)
    )
    for _ in range(20):
        a, b = next(plain), next(coded)
        assert (a.x_BSD == b.x_BSD).all()
        assert (a.doc_BS == b.doc_BS).all()

"""What a stage was made from must not change under it: a rerun refuses, says what differs, and touches nothing."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jobs import ODD, SMALL_BOOK, STAGES, check_whole, cli, copy, digests, error_line, snapshot, write_jsonl

from lcm_data.errors import InputError, PlanMismatchError, UsageError
from lcm_data.quantize.codebook import Provenance
from lcm_data.quantize.fit import FitOptions, fit_codebook
from lcm_data.quantize.storage import load_codebook, save_codebook
from lcm_data.store.files import open_files
from pipelines import encode, normalize, quantize, segment
from pipelines.encode import EncodeConfig
from pipelines.look import corpus_status
from pipelines.normalize import NormalizeConfig
from pipelines.quantize import QuantizeConfig
from pipelines.segment import SegmentConfig

ROWS = [{"id": f"d{n:02d}", "lang": "eng_Latn", "text": f"Document {n}. It has two sentences."} for n in range(60)]


def run_segment(folder: Path, **settings: Any) -> Any:
    given = {"inputs": [str(folder / "in")], "corpus": str(folder / "corpus"), "executor": "local", **settings}
    return segment.run(SegmentConfig(**given))


def run_encode(folder: Path, **settings: Any) -> Any:
    given = {"backend": "oddencoder:OddEncoder", "model": "one", "executor": "local", **settings}
    return encode.run(EncodeConfig(corpus=str(folder / "corpus"), **given))


def run_quantize(folder: Path, **settings: Any) -> Any:
    given = {"levels": 2, "units": 8, "iterations": 2, "executor": "local", **settings}
    return quantize.run(QuantizeConfig(corpus=str(folder / "corpus"), **given))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with input and a finished corpus of its own. Read only."""
    folder = tmp_path_factory.mktemp("made")
    write_jsonl(folder / "in" / "a.jsonl", ROWS[:40])
    write_jsonl(folder / "in" / "b.jsonl", ROWS[40:])
    run_segment(folder)
    run_encode(folder)
    run_quantize(folder)
    return folder


@pytest.fixture
def own(made: Path, tmp_path: Path) -> Path:
    """A copy of it to change; times are kept."""
    return copy(made, tmp_path / "own")


CHANGES: dict[str, tuple[str, dict[str, Any], str]] = {
    "max-chars": ("segment", {"max_chars": 100}, r"config max_chars: 250 -> 100"),
    "split-seed": ("segment", {"split_seed": 1}, r"config splits\.seed: 0 -> 1"),
    "language": ("segment", {"lang": "fr"}, r"config lang: 'detected.*' -> 'fra_Latn'"),
    "unit-bytes": ("segment", {"unit_bytes": 500}, r"config unit_bytes: 8388608 -> 500"),
    "weights": ("encode", {"model": "two"}, r"is of the space .*\(encoder one.*is of the space .*\(encoder two"),
    "store-dtype": ("encode", {"store_dtype": "float32"}, r"config store_dtype: 'float16' -> 'float32'"),
    "text": ("encode", {"text": False}, r"config text: True -> False"),
    "levels": ("quantize", {"levels": 3}, r"config fit\.num_levels: 2 -> 3"),
    "seed": ("quantize", {"seed": 5}, r"config fit\.seed: 0 -> 5"),
}
RUNS = {"segment": run_segment, "encode": run_encode, "quantize": run_quantize}


@pytest.mark.parametrize("change", CHANGES)
def test_other_settings_are_refused(own: Path, change: str) -> None:
    verb, settings, line = CHANGES[change]
    before = snapshot(own)
    with pytest.raises(PlanMismatchError, match=line):
        RUNS[verb](own, **settings)
    assert snapshot(own) == before


def edit(folder: Path) -> None:
    write_jsonl(folder / "in" / "a.jsonl", [*ROWS[:39], {**ROWS[39], "text": "Another text. Quite another."}])


def grow(folder: Path) -> None:
    write_jsonl(folder / "in" / "c.jsonl", [{**ROWS[0], "id": "new"}])


def shrink(folder: Path) -> None:
    (folder / "in" / "b.jsonl").unlink()


@pytest.mark.parametrize(
    ("change", "line"),
    [(edit, r"input  a\.jsonl: '\d+ bytes"), (grow, r"input  added: c\.jsonl"), (shrink, r"input  removed: b\.jsonl")],
)
def test_other_inputs_are_refused(own: Path, change: Any, line: str) -> None:
    change(own)
    before = snapshot(own)
    with pytest.raises(PlanMismatchError, match=line):
        run_segment(own)
    assert snapshot(own) == before


def test_a_later_stage_notices_that_an_earlier_one_was_made_anew(own: Path) -> None:
    run_segment(own, max_chars=10, overwrite=True)
    states = [stage["state"] for stage in corpus_status(str(own / "corpus"))]
    assert states == ["complete", "outdated, rerun with --overwrite", "outdated, rerun with --overwrite"]
    with pytest.raises(PlanMismatchError, match=r"embeddings is outdated: .*--overwrite, in order"):
        run_quantize(own, overwrite=True)
    with pytest.raises(PlanMismatchError, match=r"embeddings is outdated: "):
        normalize.run(NormalizeConfig(corpus=str(own / "corpus")))
    with pytest.raises(PlanMismatchError, match=r"input  data/split=.*sha256"):
        run_encode(own)
    run_encode(own, overwrite=True)
    assert "outdated" in corpus_status(str(own / "corpus"))[2]["state"]
    with pytest.raises(PlanMismatchError, match="input"):
        run_quantize(own)
    run_quantize(own, overwrite=True)
    check_whole(own / "corpus")


def test_overwrite_starts_one_stage_anew(own: Path) -> None:
    before = digests(own / "corpus")
    run_encode(own, store_dtype="float32", overwrite=True)
    after = digests(own / "corpus")
    assert [after[stage] == before[stage] for stage in STAGES] == [True, False, True]
    run_encode(own, overwrite=True)
    assert digests(own / "corpus") == before


def test_files_that_no_plan_knows_are_not_swept_away(own: Path) -> None:
    """Someone put them there: a copy of ``data`` alone, say."""
    shutil.rmtree(own / "corpus/embeddings/_lcm")
    before = snapshot(own / "corpus/embeddings/data")
    with pytest.raises(UsageError, match=r"embeddings holds \d+ files such as data/split=.*but no _lcm/plan\.json"):
        run_encode(own)
    assert snapshot(own / "corpus/embeddings/data") == before
    run_encode(own, overwrite=True)
    check_whole(own / "corpus", ["segments", "embeddings"])


def test_how_it_runs_may_change(own: Path) -> None:
    before = snapshot(own / "corpus/embeddings/data")
    run_encode(own, workers=2, threads=1, device="cpu", max_reject_rate=0.5, unit_timeout=100)
    assert snapshot(own / "corpus/embeddings/data") == before


def test_the_command_line_says_it_with_exit_code_4(own: Path) -> None:
    before = snapshot(own)
    message = error_line("segment", own / "in", own / "corpus", "--max-chars", 100, code=4)
    assert "max_chars: 250 -> 100" in message
    assert "--overwrite" in message
    assert "Two spaces are never mixed" in error_line("encode", own / "corpus", *ODD[:2], "--model", "two", code=4)
    assert "num_units: 8 -> 4" in error_line(
        "quantize", own / "corpus", *SMALL_BOOK[:2], "--units", 4, "--iterations", 2, code=4
    )
    error_line("encode", own / "corpus", *ODD[:2], "--model", "two", "--dry-run", code=4)
    assert snapshot(own) == before


# --- settings that cannot work must not cost or bind anything ------------------------------------------------------


def test_overwrite_deletes_nothing_before_it_has_something_better(own: Path) -> None:
    before = snapshot(own / "corpus")
    write_jsonl(own / "in" / "a.jsonl", [[1, 2]] * 3)
    for wrong in ({"text_column": "body"}, {"inputs": ["nowhere/*.jsonl"]}, {"segmenter": "nosuch"}):
        with pytest.raises((UsageError, InputError)):
            run_segment(own, overwrite=True, **wrong)
    for wrong in ({"units": 1000}, {"trainer": "nosuch"}, {"codebook": str(own / "nowhere")}):
        with pytest.raises(Exception, match=r"fewer than the 1,000 units|nosuch|nowhere"):
            run_quantize(own, overwrite=True, **wrong)
    assert snapshot(own / "corpus") == before


def test_settings_that_cannot_work_do_not_bind_the_next_run(own: Path) -> None:
    shutil.rmtree(own / "corpus" / "codes")
    shutil.rmtree(own / "corpus" / "codebook")
    with pytest.raises(UsageError, match=r"\d+ sentences to fit on are fewer than the 8,192 units"):
        run_quantize(own, levels=64, units=8192)
    with pytest.raises(UsageError, match="unknown trainer"):
        run_quantize(own, trainer="nosuch")
    with pytest.raises(ValueError, match="unknown executor"):
        run_quantize(own, executor="nosuch")
    assert "codes" not in [stage["stage"] for stage in cli("status", own / "corpus", "--json").json["stages"]]
    run_quantize(own)


# --- codebooks -------------------------------------------------------------------------------------------------------


def test_a_codebook_of_another_corpus(own: Path, made: Path, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "in" / "a.jsonl", [{**row, "text": f"Other text {row['id']}. More."} for row in ROWS[:10]])
    run_segment(tmp_path)
    run_encode(tmp_path)
    book = str(made / "corpus" / "codebook")
    report = run_quantize(tmp_path, codebook=book)  # ten documents are too few to fit one, but not to use one
    fingerprint = load_codebook(book).fingerprint
    assert report.manifest.rows == 20
    assert fingerprint[:12] in report.extra["codebook"]
    assert load_codebook(str(tmp_path / "corpus" / "codebook")).fingerprint == fingerprint  # kept beside its codes
    # The same codebook from another place is the same codebook; a fitted one is not.
    shutil.copytree(book, tmp_path / "moved")
    assert run_quantize(tmp_path, codebook=str(tmp_path / "moved")).units_done == 0
    with pytest.raises(PlanMismatchError, match="codebook"):
        run_quantize(tmp_path)


def test_a_codebook_that_does_not_fit(own: Path, tmp_path: Path) -> None:
    book = str(tmp_path / "wider")
    rows = np.random.default_rng(0).standard_normal((80, 32)).astype(np.float32)
    save_codebook(
        open_files(book),
        fit_codebook(rows[:60], rows[60:], FitOptions(num_levels=1, num_units=4), Provenance(encoder="x")),
    )
    before = snapshot(own)
    with pytest.raises(UsageError, match="is for vectors of 32 dimensions, the corpus has 16"):
        run_quantize(own, codebook=book, overwrite=True)
    run_encode(own, model="two", overwrite=True)
    with pytest.raises(PlanMismatchError, match=r"the codebook .* is of the space .* the corpus is of the space"):
        run_quantize(own, codebook=str(own / "corpus" / "codebook"), overwrite=True)
    assert {path: how for path, how in snapshot(own).items() if "codes/" in path} == {
        path: how for path, how in before.items() if "codes/" in path
    }


def test_codes_of_two_codebooks_never_mix(own: Path) -> None:
    commits = sorted((own / "corpus/codes/_lcm/commits").iterdir())
    commits[0].unlink()  # the stage is unfinished ...
    (own / "corpus/codes/_lcm/manifest.json").unlink()
    shutil.rmtree(own / "corpus" / "codebook")  # ... and its codebook is lost: the same one is fitted again
    before = digests(own / "corpus")["embeddings"]
    run_quantize(own)
    assert check_whole(own / "corpus")["embeddings"] == before

    commits[0].unlink()
    used = own / "corpus/codes/_lcm/codebook.txt"
    used.write_text("0" * 64)
    with pytest.raises(PlanMismatchError, match="holds codes of the codebook 000000000000"):
        run_quantize(own)


# --- the normaliser --------------------------------------------------------------------------------------------------


def test_the_normaliser_is_not_replaced_unasked(own: Path) -> None:
    corpus = str(own / "corpus")
    first = normalize.run(NormalizeConfig(corpus=corpus))
    assert normalize.run(NormalizeConfig(corpus=corpus)).fingerprint == first.fingerprint
    before = snapshot(own)
    with pytest.raises(PlanMismatchError, match="--overwrite"):
        normalize.run(NormalizeConfig(corpus=corpus, method="standard"))
    assert {k for k, v in snapshot(own).items() if before.get(k) != v} == set()
    other = normalize.run(NormalizeConfig(corpus=corpus, method="standard", overwrite=True))
    assert other.fingerprint != first.fingerprint
    assert os.path.exists(other.path)


# --- out of order ----------------------------------------------------------------------------------------------------


def test_a_stage_needs_the_one_before_it_finished(own: Path) -> None:
    for stage, verb in (("segments", "encode"), ("embeddings", "quantize")):
        path = own / "corpus" / stage / "_lcm"
        (path / "manifest.json").rename(own / "aside")
        with pytest.raises(InputError, match="is not finished"):
            RUNS[verb](own, overwrite=True)
        (own / "aside").rename(path / "manifest.json")
    with pytest.raises(InputError, match="holds no finished stage"):
        encode.run(EncodeConfig(corpus=str(own / "nothing"), model="one", backend="oddencoder:OddEncoder"))
    assert not (own / "nothing").exists()

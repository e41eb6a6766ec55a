"""Documents given twice: language and id are the identity, and the first row that can be used is kept."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jobs import write_jsonl

from lcm_data.documents import Columns, ReadOptions, list_inputs
from lcm_data.documents.detect import LanguageDetector
from lcm_data.progress import silent
from lcm_data.runner import RunOptions
from lcm_data.schema import sentence_id
from lcm_data.store.files import open_files
from lcm_data.store.plan import Plan, Unit, save_plan
from pipelines import scanning, segment
from pipelines.scanning import Scanning, plan_units
from pipelines.segment import SegmentConfig

ENGLISH = "The quick brown fox jumps over the lazy dog near the river bank."
GERMAN = "Der schnelle braune Fuchs springt heute über den faulen Hund am Ufer."
FRENCH = "Le renard brun et rapide saute par-dessus le chien paresseux au bord de la rivière."
UNIT_BYTES = [1, 150, 1 << 20]

Kept = list[tuple[str, str, str]]


def segmented(folder: Path, unit_bytes: int, **given: Any) -> tuple[Kept, Counter[str]]:
    """Language, id and text of the kept documents (of one sentence each), and the reasons of the rejects."""
    corpus = folder / "corpus"
    how = {"validation": 0.0, "test": 0.0, "executor": "local", "max_reject_rate": 1.0, **given}
    report = segment.run(SegmentConfig(inputs=[str(folder / "in")], corpus=str(corpus), unit_bytes=unit_bytes, **how))
    kept: Kept = []
    sids: list[str] = []
    for path in sorted((corpus / "segments" / "data").rglob("*.parquet")):
        table = pq.ParquetFile(path).read()
        lang = path.parent.name.partition("=")[2] or path.parent.name
        kept += [(lang, row["doc_id"], row["text"]) for row in table.to_pylist()]
        sids += table.column("sid").to_pylist()
    assert len(set(sids)) == len(sids)
    assert set(sids) == {sentence_id(lang, doc_id, 0) for lang, doc_id, _ in kept}
    return sorted(kept), Counter(report.manifest.rejects)


def from_rows(folder: Path, rows: list[Any], unit_bytes: int, **given: Any) -> tuple[Kept, Counter[str]]:
    write_jsonl(folder / "in" / "a.jsonl", rows)
    return segmented(folder, unit_bytes, **given)


@pytest.mark.parametrize("unit_bytes", UNIT_BYTES)
@pytest.mark.parametrize("lang_first", [True, False])
def test_given_and_detected_language_are_the_same(tmp_path: Path, unit_bytes: int, lang_first: bool) -> None:
    rows = [{"id": "a", "text": ENGLISH, "lang": "eng_Latn"}, {"id": "a", "text": ENGLISH}]
    kept, rejects = from_rows(tmp_path, rows if lang_first else rows[::-1], unit_bytes)
    assert kept == [("eng_Latn", "a", ENGLISH)]
    assert rejects == {"duplicate_id": 1}


@pytest.mark.parametrize("unit_bytes", UNIT_BYTES)
@pytest.mark.parametrize("lang", [{}, {"lang": "en"}])
def test_rejected_row_does_not_claim_its_id(tmp_path: Path, unit_bytes: int, lang: dict[str, str]) -> None:
    rows = [{"id": "a", "text": text, **lang} for text in ("", ENGLISH, ENGLISH + " ")]
    kept, rejects = from_rows(tmp_path, rows, unit_bytes)
    assert kept == [("eng_Latn", "a", ENGLISH)]
    assert rejects == {"empty_text": 1, "duplicate_id": 1}


@pytest.mark.parametrize("unit_bytes", UNIT_BYTES)
def test_uncertain_language_does_not_claim_an_id(tmp_path: Path, unit_bytes: int) -> None:
    rows = [{"id": "a", "text": "1234"}, {"id": "a", "text": ENGLISH}]
    kept, rejects = from_rows(tmp_path, rows, unit_bytes)
    assert kept == [("eng_Latn", "a", ENGLISH)]
    assert rejects == {"uncertain_language": 1}


def test_score_that_is_needed_decides_who_claims(tmp_path: Path) -> None:
    weak = "Yes no taxi"
    score = LanguageDetector().detect(weak).score
    assert 0 < score < 0.9
    rows = [{"id": "a", "text": weak}, {"id": "a", "text": ENGLISH}, {"id": "b", "text": ENGLISH}]
    kept, rejects = from_rows(tmp_path, rows, 1 << 20, min_lang_score=0.9)
    assert kept == [("eng_Latn", "a", ENGLISH), ("eng_Latn", "b", ENGLISH)]
    assert rejects == {"uncertain_language": 1}


@pytest.mark.parametrize("unit_bytes", UNIT_BYTES)
def test_translations_without_languages_are_kept(tmp_path: Path, unit_bytes: int) -> None:
    rows = [{"id": n, "text": text} for n in (1, 2) for text in (ENGLISH, GERMAN, FRENCH)]
    kept, rejects = from_rows(tmp_path, [*rows, rows[1]], unit_bytes)
    texts = {"eng_Latn": ENGLISH, "deu_Latn": GERMAN, "fra_Latn": FRENCH}
    assert kept == sorted((lang, n, text) for n in "12" for lang, text in texts.items())
    assert rejects == {"duplicate_id": 1}


def test_default_language_makes_duplicates(tmp_path: Path) -> None:
    rows = [{"id": 1, "text": ENGLISH}, {"id": 1, "text": GERMAN}, {"id": 1, "text": GERMAN, "lang": "de"}]
    kept, rejects = from_rows(tmp_path, rows, 1, lang="eng_Latn")
    assert kept == [("deu_Latn", "1", GERMAN), ("eng_Latn", "1", ENGLISH)]
    assert rejects == {"duplicate_id": 1}


@pytest.mark.parametrize("unit_bytes", UNIT_BYTES)
@pytest.mark.parametrize("given_first", [True, False])
def test_given_id_goes_before_a_generated_one(tmp_path: Path, unit_bytes: int, given_first: bool) -> None:
    rows = [{"text": ENGLISH}, {"text": ENGLISH + " "}]
    rows.insert(0 if given_first else 2, {"id": "a.jsonl#1", "text": "Somebody chose this very name for a document."})
    kept, rejects = from_rows(tmp_path, rows, unit_bytes)
    assert [doc_id for _, doc_id, _ in kept] == (
        ["a.jsonl#1", "a.jsonl#2"] if given_first else ["a.jsonl#0", "a.jsonl#1"]
    )
    assert ("eng_Latn", "a.jsonl#1", "Somebody chose this very name for a document.") in kept
    assert rejects == {"duplicate_id": 1}


def test_id_that_is_the_name_of_a_text_file(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "b.txt").write_text(ENGLISH)
    kept, rejects = from_rows(tmp_path, [{"id": "b.txt", "text": ENGLISH}], 1 << 20)
    assert kept == [("eng_Latn", "b.txt", ENGLISH)]
    assert rejects == {"duplicate_id": 1}


@pytest.mark.parametrize("unit_bytes", UNIT_BYTES)
def test_parquet(tmp_path: Path, unit_bytes: int) -> None:
    ids = ["a", "a", "b", "b", "c", "c", "c", None]
    texts = [ENGLISH, ENGLISH, "", ENGLISH, GERMAN, FRENCH, GERMAN, ENGLISH]
    langs = ["eng_Latn", None, None, None, None, None, "de", None]
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"id": ids, "text": texts, "lang": langs}), tmp_path / "in" / "a.parquet", row_group_size=3)
    kept, rejects = segmented(tmp_path, unit_bytes)
    english = [("eng_Latn", doc_id, ENGLISH) for doc_id in ("a", "b", "a.parquet#7")]
    assert kept == sorted([*english, ("deu_Latn", "c", GERMAN), ("fra_Latn", "c", FRENCH)])
    assert rejects == {"duplicate_id": 2, "empty_text": 1}


def described(folder: Path, **given: Any) -> Scanning:
    inputs = list_inputs([folder / "in"])
    how = {"lang": None, "slice_bytes": 200, **given}
    return Scanning(open_files(str(folder / "stage")), inputs, Columns(), ReadOptions(), **how)


def test_only_slices_with_suspects_are_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_again: list[int] = []
    read = scanning.read

    def counting(part: Any, *args: Any) -> Any:
        read_again.append(part.first_row)
        return read(part, *args)

    monkeypatch.setattr(scanning, "read", counting)
    texts = {"eng_Latn": ENGLISH, "deu_Latn": GERMAN, "fra_Latn": FRENCH}
    rows = [{"id": n, "text": text, "lang": lang} for n in range(10) for lang, text in texts.items()]
    rows += [{"text": ENGLISH}, {"id": "alone", "text": ENGLISH}]
    write_jsonl(tmp_path / "in" / "a.jsonl", rows)
    units = plan_units(described(tmp_path, slice_bytes=1), None, silent)
    assert len(units) == 32
    assert not any("duplicates" in unit.spec for unit in units)
    assert read_again == []
    write_jsonl(tmp_path / "in" / "a.jsonl", [*rows, rows[4]])
    units = plan_units(described(tmp_path, slice_bytes=1), None, silent)
    assert [unit.id for unit in units if "duplicates" in unit.spec] == [32]
    assert read_again == [3, 4, 5, 32]


def test_scan_left_by_a_killed_run_of_other_settings_is_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scanning, "_PARALLEL_BYTES", 0)
    rows = [{"id": n % 20, "text": ENGLISH} for n in range(30)]
    for name in ("a", "b"):
        write_jsonl(tmp_path / "in" / f"{name}.jsonl", rows)
    planned = described(tmp_path)
    left = planned.files.child("_lcm/scan")
    save_plan(left, Plan("scan", {"slice_bytes": 7}, {"old.jsonl": "x"}, (Unit(0, 1, {}),)))
    units = plan_units(planned, RunOptions(executor="local", workers=1), silent)
    assert units == plan_units(planned, None, silent)
    assert sum(len(unit.spec.get("duplicates", ())) for unit in units) == 40
    assert left.list() == {}


documents = st.fixed_dictionaries(
    {"text": st.sampled_from(["", "12", ENGLISH, GERMAN])},
    optional={
        "id": st.sampled_from(["a", "b", "a.jsonl#0", "a.jsonl#3", 7, [], ""]),
        "lang": st.sampled_from(["eng_Latn", "de", "", "klingon"]),
    },
)


def usable(row: dict[str, Any], number: int) -> tuple[str, str, bool] | None:
    """Language and id of a row and whether the id is generated, by the rules of the documentation; None: a reject."""
    if row.get("id") == [] or row.get("lang") == "klingon" or not row["text"]:
        return None
    lang = {"eng_Latn": "eng_Latn", "de": "deu_Latn"}.get(row.get("lang", ""))
    lang = lang or {ENGLISH: "eng_Latn", GERMAN: "deu_Latn"}.get(row["text"])
    given_id = row.get("id", "")
    return None if lang is None else (lang, str(given_id) if given_id != "" else f"a.jsonl#{number}", given_id == "")


@settings(max_examples=60, deadline=None)
@given(st.lists(documents, min_size=1, max_size=12), st.sampled_from([1, 100, 300, 1 << 20]))
def test_first_usable_row_of_each_identity_is_kept(rows: list[dict[str, Any]], slice_bytes: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        write_jsonl(Path(name) / "in" / "a.jsonl", rows)
        units = plan_units(described(Path(name), slice_bytes=slice_bytes), None, silent)
    firsts = np.cumsum([0, *(unit.rows for unit in units)])
    duplicates = {
        int(first) + row for first, unit in zip(firsts, units, strict=False) for row in unit.spec.get("duplicates", ())
    }
    kept: dict[tuple[str, str], int] = {}
    for generated in (False, True):
        for number, row in enumerate(rows):
            found = usable(row, number)
            if found and found[2] == generated:
                kept.setdefault(found[:2], number)
    assert duplicates == {n for n, row in enumerate(rows) if usable(row, n)} - set(kept.values())

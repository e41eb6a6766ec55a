"""Reading translations: every layout, samples that stay aligned, and what cannot be read."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from lcm_data.errors import InputError, UsageError
from lcm_data.quality.aligned import AlignedText, read_aligned

ENGLISH = ["one", 'two, "quoted"', "three\u2028still three", "four"]
FRENCH = ["un", "deux", "trois", None]


def write_jsonl(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


def as_jsonl(folder: Path) -> Path:
    rows = [{"id": i, "eng_Latn": e, "fra_Latn": f} for i, (e, f) in enumerate(zip(ENGLISH, FRENCH, strict=True))]
    return write_jsonl(folder / "t.jsonl", rows)


def as_packed(folder: Path) -> Path:
    """Two zstd frames one after the other, as `cat a.zst b.zst` makes them."""
    data = as_jsonl(folder).read_bytes()
    middle = data.index(b"\n") + 1
    packed = b"".join(zstandard.compress(part) for part in (data[:middle], data[middle:]))
    (folder / "t2.jsonl.zst").write_bytes(packed)
    return folder / "t2.jsonl.zst"


def as_csv(folder: Path) -> Path:
    lines = ["eng_Latn,note,fra_Latn"]
    lines += [f'"{e.replace(chr(34), chr(34) * 2)}",x,{f or ""}' for e, f in zip(ENGLISH, FRENCH, strict=True)]
    (folder / "t.csv").write_text("\r\n".join(lines), "utf-8-sig")
    return folder / "t.csv"


def as_tsv(folder: Path) -> Path:
    lines = ["eng_Latn\tfra_Latn"] + [f"{e}\t{f or ' '}" for e, f in zip(ENGLISH, FRENCH, strict=True)]
    (folder / "t.tsv.gz").write_bytes(gzip.compress("\n".join(lines).encode() + b"\n"))
    return folder / "t.tsv.gz"


def as_parquet(folder: Path) -> Path:
    pq.write_table(pa.table({"n": [1, 2, 3, 4], "eng_Latn": ENGLISH, "fra_Latn": FRENCH}), folder / "t.parquet")
    return folder / "t.parquet"


def as_lines(folder: Path) -> Path:
    for lang, texts in (("eng_Latn", ENGLISH), ("fra_Latn", FRENCH)):
        (folder / f"{lang}.dev").write_text("".join(f"{text or ''}\n" for text in texts), "utf-8")
    (folder / "README").write_text("not a language")
    return folder


def as_pairs(folder: Path) -> Path:
    rows = [{"id": i, "lang": "fr", "en": e, "text": f} for i, (e, f) in enumerate(zip(ENGLISH, FRENCH, strict=True))]
    return write_jsonl(folder / "p.jsonl", rows)


def as_dict(found: AlignedText) -> dict[str, dict[int, str]]:
    return {lang: dict(zip(found.ids[lang].tolist(), found.texts[lang], strict=True)) for lang in found.texts}


@pytest.mark.parametrize("write", [as_jsonl, as_packed, as_csv, as_tsv, as_parquet, as_lines, as_pairs])
def test_layouts(write: Callable[[Path], Path], tmp_path: Path) -> None:
    found = read_aligned(str(write(tmp_path)), pivot="eng_Latn")
    english = dict(enumerate(ENGLISH[:3]))  # of the pivot only what another language needs
    assert as_dict(found) == {"eng_Latn": english, "fra_Latn": {0: "un", 1: "deux", 2: "trois"}}
    assert (found.num_rows, found.langs) == (4, ("eng_Latn", "fra_Latn"))
    assert found.num_blank == {"fra_Latn": 1}


def test_a_glob_chooses_the_files(tmp_path: Path) -> None:
    as_lines(tmp_path)
    (tmp_path / "eng_Latn.devtest").write_text("other\n")
    assert read_aligned(f"{tmp_path}/*.dev", pivot="eng_Latn").num_rows == 4
    with pytest.raises(InputError, match=r"more than one file of eng_Latn: eng_Latn.dev, eng_Latn.devtest"):
        read_aligned(str(tmp_path), pivot="eng_Latn")


def test_one_language_is_enough(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "t.jsonl", [{"deu_Latn": f"Satz {i}"} for i in range(10)])
    found = read_aligned(str(file), pivot="eng_Latn", sample=4)
    assert len(found.texts["deu_Latn"]) == 4


def many(folder: Path, num: int = 500) -> Path:
    rows = [{lang: f"{lang} {i}" for lang in ("eng_Latn", "fra_Latn", "deu_Latn")} for i in range(num)]
    return write_jsonl(folder / "many.jsonl", rows)  # type: ignore[arg-type]


def test_a_sample_is_aligned_and_always_the_same(tmp_path: Path) -> None:
    file = str(many(tmp_path))
    found = read_aligned(file, pivot="eng_Latn", sample=50)
    assert {len(ids) for ids in found.ids.values()} == {50}
    for lang, ids in found.ids.items():
        assert (ids == found.ids["eng_Latn"]).all()
        assert found.texts[lang] == [f"{lang} {i}" for i in ids]
    assert as_dict(found) == as_dict(read_aligned(file, pivot="eng_Latn", sample=50))
    other = read_aligned(file, pivot="eng_Latn", sample=50, seed=1)
    assert set(other.ids["eng_Latn"]) != set(found.ids["eng_Latn"])
    larger = read_aligned(file, pivot="eng_Latn", sample=100)
    assert set(found.ids["deu_Latn"]) < set(larger.ids["deu_Latn"])


def test_the_pivot_of_pairs_has_what_the_others_need(tmp_path: Path) -> None:
    rows = [{"lang": lang, "en": f"e{i}", "text": f"{lang} {i}"} for i in range(300) for lang in ("fr", "deu_Latn")]
    found = read_aligned(str(write_jsonl(tmp_path / "p.jsonl", rows)), pivot="eng_Latn", sample=20)  # type: ignore[arg-type]
    assert len(found.texts["fra_Latn"]) == len(found.texts["deu_Latn"]) == 20
    needed = np.union1d(found.ids["fra_Latn"], found.ids["deu_Latn"])
    assert found.ids["eng_Latn"].tolist() == needed.tolist()
    assert len(needed) == 40


def test_chosen_languages_and_the_pivot(tmp_path: Path) -> None:
    file = str(many(tmp_path, 20))
    assert set(read_aligned(file, langs=["fra_Latn"], pivot="eng_Latn").texts) == {"eng_Latn", "fra_Latn"}
    with pytest.raises(UsageError, match=r"no texts in jpn_Jpan\. It has: deu_Latn, eng_Latn, fra_Latn"):
        read_aligned(file, langs=["jpn_Jpan"], pivot="eng_Latn")


def test_rows_with_other_columns_are_not_lost(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"eng_Latn": "a", "fra_Latn": "b"}, {"eng_Latn": "c", "deu_Latn": "d"}]
    found = read_aligned(str(write_jsonl(tmp_path / "t.jsonl", rows)), pivot="eng_Latn")
    assert as_dict(found)["deu_Latn"] == {1: "d"}


BAD: dict[str, tuple[str, bytes, str]] = {
    "no languages": ("a.jsonl", b'{"source": "x", "target": "y"}\n', "columns source, target: no layout"),
    "pairs without a side": ("a.jsonl", b'{"lang": "fr", "text": "y"}\n', "no layout of translations"),
    "unknown language": ("a.jsonl", b'{"lang": "qq", "text": "y", "en": "x"}\n', "row 1 of .*unknown language"),
    "both sides the same": ("a.jsonl", b'{"lang": "en", "text": "y", "en": "x"}\n', "both sides are eng_Latn"),
    "no text": ("a.jsonl", b'{"eng_Latn": 3}\n', "row 1 of .*its text is a int"),
    "no JSON": ("a.jsonl", b'{"eng_Latn": "a"}\n{"eng', "line 2 of .*is not JSON"),
    "no object": ("a.jsonl", b"[1]\n", "is list, expected an object"),
    "empty": ("a.jsonl", b"", "has no rows"),
    "only blanks": ("a.jsonl", b'{"eng_Latn": " ", "fra_Latn": null}\n', "no text in any language"),
    "fields": ("a.tsv", b"eng_Latn\tfra_Latn\na\tb\tc\n", "record 2 of .*has 3 fields, the header 2"),
    "quoting": ("a.csv", b'eng_Latn,fra_Latn\n"a"b,c\n', "no sound CSV"),
    "bytes": ("a.tsv", b"eng_Latn\n\xff\n", "is not UTF-8"),
    "one text": ("a.txt", b"hello\n", "is one text file"),
    "Parquet": ("a.parquet", b"PAR1 not really", "is not a Parquet file"),
    "format": ("a.xlsx", b"", "neither a folder nor a file of a known format"),
}


@pytest.mark.parametrize(("name", "data", "message"), BAD.values(), ids=BAD)
def test_what_cannot_be_read(name: str, data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=f"(?s){message}"):
        read_aligned(str(tmp_path / name), pivot="eng_Latn")


def test_files_must_correspond(tmp_path: Path) -> None:
    (tmp_path / "eng_Latn.txt").write_text("a\nb\nc\n")
    (tmp_path / "fra_Latn.txt").write_text("a\nb\n")
    with pytest.raises(InputError, match="fra_Latn ends after 2 lines"):
        read_aligned(str(tmp_path), pivot="eng_Latn")


def test_folders_without_languages(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    for source in (tmp_path, tmp_path / "*.dev"):
        with pytest.raises(InputError, match="no files named by a FLORES-200 code"):
            read_aligned(str(source), pivot="eng_Latn")
    with pytest.raises(InputError, match="neither a folder nor a file"):
        read_aligned(str(tmp_path / "nothing"), pivot="eng_Latn")

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os

import fsspec
import pytest

from lcm_data.documents import list_inputs
from lcm_data.documents.inputs import file_format
from lcm_data.errors import InputError, MissingExtraError


@pytest.fixture
def tree(tmp_path):
    for name in ("en/a.jsonl", "en/b.jsonl.gz", "fr/a.jsonl", "fr/x.parquet", "note.pdf", ".hidden/c.txt", "_SUCCESS"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    return tmp_path


def names(*patterns):
    return [file.name for file in list_inputs([str(pattern) for pattern in patterns]).files]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.jsonl", ("jsonl", None)),
        ("A.NDJSON.GZ", ("jsonl", "gz")),
        ("a.json.zst", ("jsonl", "zst")),
        ("a.b.csv", ("csv", None)),
        ("a.tsv.gz", ("tsv", "gz")),
        ("a.md", ("text", None)),
        ("a.parquet", ("parquet", None)),
        ("a.parquet.gz", None),
        ("a.tar.zst", None),
        ("a.gz", None),
        ("jsonl", None),
    ],
)
def test_format_by_suffix(name, expected):
    assert file_format(name) == expected


def test_folder(tree):
    found = list_inputs([tree])
    assert [file.name for file in found.files] == ["en/a.jsonl", "en/b.jsonl.gz", "fr/a.jsonl", "fr/x.parquet"]
    assert [file.compression for file in found.files] == [None, "gz", None, None]
    assert sorted(os.path.relpath(uri, tree) for uri in found.skipped) == [".hidden/c.txt", "_SUCCESS", "note.pdf"]
    json.dumps([dataclasses.asdict(file) for file in found.files])


def test_patterns(tree):
    assert names(tree / "en") == ["a.jsonl", "b.jsonl.gz"]
    assert names(tree / "**" / "*.jsonl") == ["en/a.jsonl", "fr/a.jsonl"]
    assert names(tree / "*" / "a.jsonl", tree / "en" / "a.jsonl") == ["en/a.jsonl", "fr/a.jsonl"]
    assert names(tree / "e*") == ["en/a.jsonl", "en/b.jsonl.gz"]
    assert names(f"file://{tree}/fr") == ["a.jsonl", "x.parquet"]
    assert names(tree / ".hidden" / "c.txt") == ["c.txt"]


def test_names_are_unique(tree):
    assert names(tree / "en", tree / "fr" / "a.jsonl") == ["en/a.jsonl", "en/b.jsonl.gz", "fr/a.jsonl"]


def test_names_do_not_depend_on_the_place(tree, monkeypatch):
    whole = names(tree)
    moved = tree.rename(tree.parent / "moved")
    assert names(moved) == whole
    monkeypatch.chdir(moved)
    assert names(".") == whole
    assert names("en/a.jsonl") == ["a.jsonl"]


def test_name_with_wildcards_is_a_file(tmp_path):
    (tmp_path / "a[1]*.jsonl").write_text("x")
    (tmp_path / "a1.jsonl").write_text("x")
    assert names(tmp_path / "a[1]*.jsonl") == ["a[1]*.jsonl"]


def test_links(tmp_path):
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "in" / "a.txt").write_text("x")
    (tmp_path / "in" / "sub" / "circle").symlink_to(tmp_path / "in")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "b.txt").write_text("x")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "out")
    assert names(tmp_path / "in") == ["a.txt", "link/b.txt"]
    (tmp_path / "in" / "broken.txt").symlink_to("nowhere")
    with pytest.raises(InputError, match=r"cannot read .*broken\.txt"):
        list_inputs([tmp_path / "in"])


def test_folder_that_cannot_be_listed(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "closed").mkdir()
    listing = os.scandir

    def scandir(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return listing(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(InputError, match="Permission denied"):
        list_inputs([tmp_path])


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("nothing", "no such file or folder"),
        ("*.csv", "nothing matches"),
        ("note.pdf", r"no known format. Known suffixes: .jsonl .ndjson .*\.gz or \.zst"),
        ("a**b/*", "bad pattern"),
        ("*.pdf", "no input files in .*1 of other formats"),
    ],
)
def test_nothing_to_read(tree, pattern, message):
    with pytest.raises(InputError, match=message):
        list_inputs([tree / pattern])


def test_file_name_that_is_not_utf8(tmp_path):
    (tmp_path / "é.txt").write_text("x")
    assert names(tmp_path) == ["é.txt"]
    try:
        with open(os.fsencode(tmp_path) + b"/\xff.txt", "w"):
            pass
    except OSError:
        pytest.skip("this file system has only UTF-8 names")
    with pytest.raises(InputError, match="is not UTF-8"):
        list_inputs([tmp_path])


def test_unknown_protocols():
    with pytest.raises(InputError, match="Protocol not known"):
        list_inputs(["nope://x/a.jsonl"])
    if importlib.util.find_spec("gcsfs") is None:
        with pytest.raises(MissingExtraError, match=r"'gcsfs'.*pip install 'lcm-data\[gcs\]'"):
            list_inputs(["gs://x/a.jsonl"])


def test_fingerprint_follows_content(tmp_path):
    path = tmp_path / "a.jsonl"
    content = bytearray(b"x" * 300_000)
    prints = set()
    for change in (0, 299_999, 299_999 - 60_000):
        content[change] += 1
        path.write_bytes(content)
        os.utime(path, ns=(5, 5))
        prints.add(list_inputs([path]).files[0].fingerprint)
    os.utime(path, ns=(5, 6))
    prints.add(list_inputs([path]).files[0].fingerprint)
    path.write_bytes(content + b"x")
    os.utime(path, ns=(5, 6))
    prints.add(list_inputs([path]).files[0].fingerprint)
    assert len(prints) == 5


def test_fingerprint_says_what_differs(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("x")
    prints = []
    for nanoseconds in (1_700_000_000_000_000_000, 1_700_000_000_000_000_007):
        os.utime(path, ns=(nanoseconds, nanoseconds))
        prints.append(list_inputs([path]).files[0].fingerprint.split(" ", 1))
    assert prints[0][0] == prints[1][0]
    assert prints[0][1] == "modified 2023-11-14T22:13:20.000000000Z"
    assert prints[1][1] == "modified 2023-11-14T22:13:20.000000007Z"


@pytest.mark.parametrize("given", ["", "corpus", "corpus/segments", "corpus/segments/data", "corpus/*", "corp*"])
def test_a_corpus_is_no_input(tmp_path, given):
    for name in ("corpus/segments/_lcm/plan.json", "corpus/segments/data/split=train/part-000000.parquet"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("x")
    with pytest.raises(InputError, match=r"segments' is \(part of\) a corpus of lcm-data.*give the documents it was"):
        list_inputs([tmp_path / given])


def test_documents_beside_the_stages_of_a_corpus(tmp_path):
    (tmp_path / "segments/_lcm").mkdir(parents=True)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/a.txt").write_text("x")
    assert names(tmp_path / "docs") == ["a.txt"]


def test_memory_file_system(corpus, as_texts):
    with fsspec.open("memory://inputs-test/d/a.jsonl", "wb") as file:
        file.write(b'{"text": "a"}\n{"text": "b"}\n')
    with fsspec.open("memory://inputs-test/d/e/b.csv.gz", "wb", compression="gzip") as file:
        file.write(b"text\nc\n")
    for pattern in ("memory://inputs-test/d", "memory://inputs-test/d/**/*.*", "memory://inputs-test/d/"):
        rows = corpus(slice_bytes=5, piece_bytes=7).rows(pattern)
        assert as_texts(rows) == ["a", "b", "c"]
        assert [row.doc_id for row in rows] == ["a.jsonl#0", "a.jsonl#1", "e/b.csv.gz#0"]
    assert list_inputs(["memory://inputs-test/d"]).files[0].uri == "memory:///inputs-test/d/a.jsonl"

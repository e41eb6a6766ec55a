"""Recordings as documents: audio files of folders, and rows of manifests that name one. Nothing is opened here."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from lcm_data.documents import Columns, Document, ReadOptions, Reject, Slice, list_inputs, pieces, read, scan
from lcm_data.documents import recordings as recordings_module
from lcm_data.documents.detect import resolve_language
from lcm_data.documents.recordings import named_recordings
from lcm_data.documents.rows import RowError, usable_audio
from lcm_data.errors import InputError, StorageError

MANIFEST = Columns(audio="path")
ROWS: list[dict[str, Any]] = [
    {"path": "a.wav", "id": "a", "lang": "en", "text": "What is said."},
    {"path": "sub/b.mp3", "id": "b", "lang": "deu_Latn"},
    {"path": "/far/c.flac", "id": "c", "lang": "fr", "text": None},
    {"path": "s3://bucket/d.opus", "id": "d", "lang": "fr", "text": ""},
    {"path": None, "id": "e", "lang": "en", "text": "A text among recordings."},
]


def slices(path: Path, columns: Columns = MANIFEST, **options: int) -> list[Slice]:
    given = ReadOptions(**options)
    files = list_inputs([str(path)]).files
    found = [each.slice for piece in pieces(files) for each in scan(piece, columns, options=given)]
    return [Slice.from_json(json.loads(json.dumps(part.to_json()))) for part in found]


def rows(path: Path, columns: Columns = MANIFEST, **options: int) -> list[Document | Reject]:
    return [item for part in slices(path, columns, **options) for item in read(part, columns, ReadOptions(**options))]


def jsonl(path: Path) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))


def csv(path: Path) -> None:
    lines = [",".join(row.get(name) or "" for name in ("path", "id", "lang", "text")) for row in ROWS]
    path.write_text("\n".join(["path,id,lang,text", *lines]) + "\n")


def parquet(path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([{"text": None, **row} for row in ROWS]), path)


@pytest.mark.parametrize(("name", "write"), [("m.jsonl", jsonl), ("m.csv", csv), ("m.parquet", parquet)])
def test_manifests(tmp_path: Path, name: str, write: Callable[[Path], None]) -> None:
    write(tmp_path / name)
    found = rows(tmp_path / name)
    assert all(isinstance(item, Document) for item in found)
    assert [(item.doc_id, item.uri, item.lang, item.text) for item in found if isinstance(item, Document)] == [
        ("a", f"{tmp_path}/a.wav", "eng_Latn", "What is said."),
        ("b", f"{tmp_path}/sub/b.mp3", "deu_Latn", ""),
        ("c", "/far/c.flac", "fra_Latn", ""),
        ("d", "s3://bucket/d.opus", "fra_Latn", ""),
        ("e", None, "eng_Latn", "A text among recordings."),
    ]
    # Without the option they are rows of texts.
    plain = rows(tmp_path / name, Columns())
    assert [item.uri for item in plain if isinstance(item, Document)] == [None, None]


@pytest.mark.parametrize(("name", "write"), [("m.jsonl", jsonl), ("m.csv", csv), ("m.parquet", parquet)])
def test_units_of_a_manifest_are_small(tmp_path: Path, name: str, write: Callable[[Path], None]) -> None:
    write(tmp_path / name)
    parts = slices(tmp_path / name, manifest_rows=2)
    assert [part.num_rows for part in parts] in ([2, 2, 1], [1, 2, 2])
    assert rows(tmp_path / name, manifest_rows=2) == [
        Document(**{**_fields(item), "row": number})
        for part in parts
        for number, item in enumerate(read(part, MANIFEST, ReadOptions(manifest_rows=2)))
    ]
    assert len(slices(tmp_path / name, Columns(), manifest_rows=2)) == 1


def _fields(item: Document | Reject) -> dict[str, Any]:
    assert isinstance(item, Document)
    return {name: getattr(item, name) for name in Document.__dataclass_fields__}


def test_transcripts_are_not_needed(tmp_path: Path) -> None:
    bare = [{"path": row["path"] or "e.wav", "lang": "en"} for row in ROWS]
    pq.write_table(pa.Table.from_pylist(bare), tmp_path / "m.parquet")
    (tmp_path / "m.csv").write_text("path\n" + "".join(f"{row['path']}\n" for row in bare))
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in bare * 4))
    for name, times in (("m.parquet", 1), ("m.csv", 1), ("m.jsonl", 4)):
        found = rows(tmp_path / name)
        assert len(found) == len(bare) * times
        assert [item.doc_id for item in found[:2]] == [f"{name}#0", f"{name}#1"]
        assert all(isinstance(item, Document) and item.uri and not item.text for item in found)


def test_rows_that_name_nothing(tmp_path: Path) -> None:
    odd = [{"path": ""}, {"path": 7}, {"path": "a\0b"}, {"path": "x.wav", "lang": "xx"}, {"other": 1}]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in odd))
    found = rows(tmp_path / "m.jsonl")
    assert [item.reason for item in found if isinstance(item, Reject)] == [
        *("missing_text", "wrong_type", "missing_audio", "unknown_language", "missing_text"),
    ]  # fmt: skip
    assert found[0].error == "the row has no field 'path' or 'text'"  # type: ignore[union-attr]


def test_a_column_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text('{"file": "a.wav"}\n' * 20)
    (tmp_path / "m.csv").write_text("file\na.wav\n")
    pq.write_table(pa.table({"file": ["a.wav"]}), tmp_path / "m.parquet")
    with pytest.raises(InputError, match=r"has a field 'path' or 'text'. They have: file. .* --audio-column"):
        rows(tmp_path / "m.jsonl")
    for name in ("m.csv", "m.parquet"):
        with pytest.raises(InputError, match=r"no column '(text|path)'.*--(text|audio)-column"):
            rows(tmp_path / name)


def test_files_of_folders(tmp_path: Path) -> None:
    for name in ("a.wav", "sub/b.MP3", "sub/c.opus", "d.flac", ".hidden.wav", "e.wav.gz", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * 100)
    found = rows(tmp_path, Columns(), audio_slice_bytes=250)
    named = [(item.doc_id, item.uri) for item in found if isinstance(item, Document) and item.uri]
    assert named == [(name, f"{tmp_path}/{name}") for name in ("a.wav", "d.flac", "sub/b.MP3", "sub/c.opus")]
    assert [item.doc_id for item in found if isinstance(item, Document) and not item.uri] == ["notes.txt"]
    sizes = [part.num_rows for part in slices(tmp_path, Columns(), audio_slice_bytes=250) if part.format == "audio"]
    assert sizes == [2, 2]
    assert list_inputs([str(tmp_path / "*.wav"), str(tmp_path / "sub")]).skipped == (f"{tmp_path}/.hidden.wav",)


def test_a_recording_does_not_tell_its_language() -> None:
    document = Document("a", "", None, None, 0, "a.wav", "/a.wav")
    found = resolve_language(document, None, None)
    assert isinstance(found, Reject)
    from lcm_data.documents.detect import LanguageDetector

    detector = LanguageDetector()
    found = resolve_language(document, None, detector)
    assert isinstance(found, Reject)
    assert "Give --lang" in found.error
    spoken = Document("a", "So the transcript tells what language it is in.", None, None, 0, "a.wav", "/a.wav")
    assert resolve_language(spoken, None, detector).lang == "eng_Latn"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("place", "manifest", "expected"),
    [
        ("a.wav", "/data/m.jsonl", "/data/a.wav"),
        ("../a.wav", "/data/x/m.jsonl", "/data/a.wav"),
        ("/a.wav", "/data/m.jsonl", "/a.wav"),
        ("file:///a.wav", "/data/m.jsonl", "/a.wav"),
        ("x/a.wav", "s3://b/m.jsonl", "s3://b/x/a.wav"),
        ("https://h/a.wav", "s3://b/m.jsonl", "https://h/a.wav"),
        (b"caf\xc3\xa9.wav", "/m.csv", "/café.wav"),
        (" ", "/m.csv", None),
    ],
)
def test_paths_are_relative_to_the_manifest(place: Any, manifest: str, expected: str | None) -> None:
    assert usable_audio(place, manifest) == expected


def test_paths_that_are_no_strings() -> None:
    with pytest.raises(RowError, match="the path of the recording is of type list"):
        usable_audio(["a.wav"], "/m.jsonl")


def named(path: Path, **options: Any) -> dict[str, str]:
    return named_recordings(list_inputs([str(path)]).files, MANIFEST, ReadOptions(**options))


def test_versions_of_named_recordings(tmp_path: Path) -> None:
    """One entry a recording, of any size or number of slices; what is changed, gone or new shows, and nothing else."""
    for place in ("in/a.wav", "in/sub/b.mp3", "far.flac"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_bytes(b"x" * 10)
    paths = ["a.wav", "sub/b.mp3", str(tmp_path / "far.flac"), "gone.wav", "nosuch://x/y.wav", "a.wav"] * 3
    rows = [{"path": path, "lang": "en"} for path in paths] + [{"text": "A text.", "lang": "en"}]
    manifest = tmp_path / "in" / "m.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = named(manifest)
    far = f"m.jsonl: {tmp_path}/far.flac"
    assert list(found) == [
        "m.jsonl: a.wav",
        "m.jsonl: sub/b.mp3",
        far,
        "m.jsonl: gone.wav",
        "m.jsonl: nosuch://x/y.wav",
    ]
    assert found["m.jsonl: gone.wav"] == found["m.jsonl: nosuch://x/y.wav"] == "missing"
    assert found[far].startswith("10 bytes, modified 20")
    assert named(manifest, manifest_rows=1) == found
    assert named_recordings(list_inputs([str(manifest)]).files, Columns(), ReadOptions()) == {}
    (tmp_path / "in" / "sub" / "b.mp3").write_bytes(b"y" * 11)
    os.utime(tmp_path / "far.flac", ns=(1, 1))
    (tmp_path / "in" / "gone.wav").write_bytes(b"z")
    now = named(manifest)
    assert {name for name in found if now[name] != found[name]} == {"m.jsonl: sub/b.mp3", far, "m.jsonl: gone.wav"}
    assert now[far].split(",")[0] == "10 bytes"


def test_versions_of_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A remote folder of many recordings is listed; those alone are asked for, again if the storage does not answer."""
    fs = fsspec.filesystem("memory")
    fs.pipe({f"/many/{number}.wav": b"x" * number for number in range(1, 121)})
    fs.pipe("/few/a.wav", b"abc")
    paths = [f"memory://many/{number}.wav" for number in range(121)] + ["memory://few/a.wav"]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps({"path": path, "lang": "en"}) + "\n" for path in paths))
    listed, asked = [], Counter[str]()
    info, ls = MemoryFileSystem.info, MemoryFileSystem.ls

    def slow_info(self: Any, path: str, **options: Any) -> Any:
        asked[path] += 1
        if asked[path] == 1 and path.endswith("a.wav"):
            raise OSError("not now")
        return info(self, path, **options)

    def noted_ls(self: Any, path: str, **options: Any) -> Any:
        listed.append(path)
        return ls(self, path, **options)

    monkeypatch.setattr(MemoryFileSystem, "info", slow_info)
    monkeypatch.setattr(MemoryFileSystem, "ls", noted_ls)
    monkeypatch.setattr(recordings_module, "_WAIT_SECONDS", 0.0)
    found = named(tmp_path / "m.jsonl")
    assert listed == ["/many"]
    assert found["m.jsonl: memory://many/7.wav"].startswith("7 bytes, created ")
    assert found["m.jsonl: memory://many/0.wav"] == "missing"
    assert found["m.jsonl: memory://few/a.wav"].startswith("3 bytes, ")
    monkeypatch.setattr(MemoryFileSystem, "info", lambda *args, **options: _fail())
    with pytest.raises(StorageError, match="not ever"):
        named(tmp_path / "m.jsonl")


def _fail() -> None:
    raise OSError("not ever")

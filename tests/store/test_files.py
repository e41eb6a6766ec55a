"""The operations commits are made of: the same on a local folder and on an object store, and clear when they fail."""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import subprocess
import sys
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lcm_data.errors import MissingExtraError, StorageError, UsageError
from lcm_data.store.files import Files, LocalFiles, RemoteFiles, open_files, storage_errors


@pytest.fixture(params=["local", "memory", "s3"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    if request.param == "local":
        return open_files(tmp_path / "tree")
    if request.param == "memory":
        return open_files(f"memory://{uuid.uuid4().hex}/tree")
    return open_files(request.getfixturevalue("bucket") + "/tree")


def test_reading_back_what_was_written(files: Files) -> None:
    assert files.size("a/b.json") is None
    with pytest.raises(FileNotFoundError):
        files.read("a/b.json")
    files.write("a/b.json", b"one")
    files.write("a/b.json", b"three")
    assert files.read("a/b.json") == b"three"
    assert files.size("a/b.json") == 5
    files.write("a/empty", b"")
    assert files.read("a/empty") == b""
    assert files.size("a/empty") == 0


def test_create_is_for_the_first_only(files: Files) -> None:
    assert files.create("commits/1.json", b"first")
    assert not files.create("commits/1.json", b"second")
    assert files.read("commits/1.json") == b"first"
    files.write("commits/1.json", b"third")
    assert files.read("commits/1.json") == b"third"


def test_of_many_creators_one_wins(files: Files) -> None:
    barrier = threading.Barrier(8)

    def create(number: int) -> bool:
        barrier.wait()
        return files.create("x", str(number).encode())

    with ThreadPoolExecutor(8) as pool:
        created = list(pool.map(create, range(8)))
    assert files.read("x") in [str(number).encode() for number in range(8)]
    # Memory has no exclusive create of its own: there it is a check and a write, as on servers without conditions.
    assert sum(created) == 1 or "memory" in files.root
    if "memory" not in files.root:
        assert files.read("x") == str(created.index(True)).encode()


def test_publish_gives_a_finished_file_its_name(files: Files) -> None:
    with files.scratch() as folder:
        (folder / "0.parquet").write_bytes(b"x" * 1000)
        files.publish(folder / "0.parquet", "data/split=train/part.parquet")
    assert not folder.exists()
    assert files.read("data/split=train/part.parquet") == b"x" * 1000
    with files.scratch() as folder:
        (folder / "0.parquet").write_bytes(b"y")
        files.publish(folder / "0.parquet", "data/split=train/part.parquet")
    assert files.list("data") == {"data/split=train/part.parquet": 1}


def test_scratch_is_gone_after_an_error(files: Files) -> None:
    with contextlib.suppress(ZeroDivisionError), files.scratch() as folder:
        (folder / "half").write_bytes(b"x")
        raise ZeroDivisionError
    assert not folder.exists()
    assert files.list() == {}


def test_lists_are_relative_and_empty_where_there_is_nothing(files: Files) -> None:
    assert files.list() == {}
    assert files.list("data") == {}
    for name in ("data/a", "data/deep/b", "_lcm/c"):
        files.write(name, b"123")
    assert files.list() == {"data/a": 3, "data/deep/b": 3, "_lcm/c": 3}
    assert files.list("data") == {"data/a": 3, "data/deep/b": 3}
    assert files.child("data").list("deep") == {"deep/b": 3}
    assert files.child("data").read("deep/b") == b"123"


def test_removing(files: Files) -> None:
    files.remove("nothing")
    files.remove_tree("nothing")
    for name in ("data/a", "data/deep/b", "_lcm/c"):
        files.write(name, b"123")
    files.remove("data/a")
    assert set(files.list()) == {"data/deep/b", "_lcm/c"}
    files.remove_tree("data")
    assert set(files.list()) == {"_lcm/c"}
    files.remove_tree()
    assert files.list() == {}


def test_a_tree_travels_to_another_process(files: Files) -> None:
    files.write("a", b"1")
    again = pickle.loads(pickle.dumps(files))
    assert again.root == files.root
    assert again.read("a") == b"1"


def test_sweep_takes_only_what_killed_writers_left(files: Files) -> None:
    files.write("_lcm/tmp/probe-000001.json", b"{}")
    files.write("_lcm/commits/000001.json", b"{}")
    files.sweep()
    assert set(files.list()) == {"_lcm/commits/000001.json"}


def test_a_local_writer_killed_half_way_leaves_nothing_to_see(tmp_path: Path) -> None:
    script = """
import os, sys
from lcm_data.store.files import open_files
os.fsync = lambda descriptor: os._exit(9)
open_files(sys.argv[1]).write("commits/1.json", b"half")
"""
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False).returncode == 9
    files = open_files(tmp_path)
    left = list(tmp_path.rglob("*.tmp"))
    assert len(left) == 1
    assert files.list() == {}
    assert files.size("commits/1.json") is None
    files.sweep()
    assert list(tmp_path.rglob("*.tmp")) == []


# --- places ---


def test_places_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_files("corpus").root == str(tmp_path / "corpus")
    assert open_files(f"file://{tmp_path}/corpus").root == str(tmp_path / "corpus")
    assert open_files("~/corpus").root == str(Path.home() / "corpus")
    assert isinstance(open_files(tmp_path), LocalFiles)
    assert open_files("s3://bucket/corpus/").root == "s3://bucket/corpus"
    with pytest.raises(UsageError, match=r"cannot open 'nonsense://x'.*Use a local path or an fsspec URL"):
        open_files("nonsense://x").read("y")


def test_a_missing_driver_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(MissingExtraError, match=r"gs:// URLs needs the package.*lcm-data\[gcs\]"):
        RemoteFiles("gs://bucket").read("x")


# --- trouble ---


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "the disk is full. Free some space, then run the same command again to resume."),
        (errno.EDQUOT, "the disk quota is used up"),
        (errno.EROFS, "the file system is read-only"),
        (errno.EACCES, "permission denied"),
        (errno.EIO, "Input/output error. Check the storage, then run"),
    ],
)
def test_errors_become_one_line_with_advice(number: int, advice: str) -> None:
    with pytest.raises(StorageError) as caught, storage_errors("write", "/data/x"):
        raise OSError(number, os.strerror(number))
    assert str(caught.value).startswith(f"cannot write /data/x: {advice}")
    assert "\n" not in str(caught.value)


def test_what_is_no_trouble_of_the_storage_passes() -> None:
    with pytest.raises(ZeroDivisionError), storage_errors("write", "x"):
        raise ZeroDivisionError
    with pytest.raises(FileNotFoundError), storage_errors("read", "x"):
        raise FileNotFoundError
    with pytest.raises(StorageError), storage_errors("write", "x"):  # a bucket or folder that vanished
        raise FileNotFoundError(errno.ENOENT, "no such bucket")


def test_a_folder_that_cannot_be_listed_does_not_look_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unreadable folder taken for an empty one would make every unit look undone."""
    files = open_files(tmp_path)
    files.write("data/a", b"1")
    real = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("data"):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(StorageError, match=r"cannot list .*data: Input/output error"):
        files.list("data")


def test_a_file_where_a_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("I am a file")
    with pytest.raises(StorageError, match="cannot write"):
        open_files(tmp_path).write("data/x", b"1")
    assert open_files(tmp_path).size("data/x") is None


def test_file_systems_without_hard_links_still_create_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", no_links)
    files = open_files(tmp_path)
    assert files.create("a", b"1")
    assert not files.create("a", b"2")
    assert files.read("a") == b"1"
    assert list(tmp_path.rglob("*.tmp")) == []


def test_missing_buckets_and_dead_servers_are_storage_errors(s3_server: str) -> None:
    files = open_files(f"s3://no-such-bucket-{uuid.uuid4().hex}/x")
    for action in (lambda: files.write("a", b"1"), lambda: files.create("a", b"1")):
        with pytest.raises(StorageError, match=r"cannot write s3://no-such-bucket.*bucket does not exist"):
            action()
    assert files.list() == {}
    assert files.size("a") is None

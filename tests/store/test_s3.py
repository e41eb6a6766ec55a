"""A real S3 server: the same corpus as on disk, and uploads that die half way stay invisible."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from drivers import check_whole, kill, make, num_commits, pids, start_driver, wait_for
from toystage import Toy

from lcm_data.corpus import open_corpus
from lcm_data.errors import StorageError
from lcm_data.store.commits import digest, read_commits
from lcm_data.store.files import RemoteFiles, open_files


def test_the_corpus_is_the_same_as_on_disk(bucket: str, tmp_path: Path) -> None:
    toy = Toy(units=6, kind="embeddings", special={"2:3": "raise", "4:1": "kill"})
    report = make(f"{bucket}/corpus/embeddings", toy, workers=2)
    make(tmp_path / "embeddings", toy)
    assert check_whole(f"{bucket}/corpus/embeddings") == check_whole(tmp_path / "embeddings")
    assert report.manifest.rejects == {"bad_row": 1, "crashed_worker": 1}
    assert make(f"{bucket}/corpus/embeddings", toy).units_done == 0
    corpus = open_corpus(f"{bucket}/corpus")
    assert corpus.stages == ["embeddings"]
    ids = [document.doc_id for document in corpus.embeddings.documents()]
    assert ids == [document.doc_id for document in open_corpus(tmp_path).embeddings.documents()]
    assert corpus.embeddings.table().equals(open_corpus(tmp_path).embeddings.table())


def uploads(bucket: str) -> list[Any]:
    files = open_files(bucket)
    assert isinstance(files, RemoteFiles)
    listing: dict[str, Any] = files.fs.call_s3("list_multipart_uploads", Bucket=bucket.removeprefix("s3://"))
    return listing.get("Uploads", [])


@pytest.mark.slow
def test_a_death_in_the_middle_of_an_upload(bucket: str, toy_env: Path, tmp_path: Path) -> None:
    """Shards of 115 MB go up in parts; driver and worker are killed while parts are on their way."""
    toy, root = Toy(units=1, rows=14_000, kind="embeddings", dim=4096), f"{bucket}/embeddings"
    driver = start_driver(root, toy)
    wait_for(lambda: uploads(bucket), 60)
    (worker,) = pids(toy_env / "pids")
    kill(worker)
    driver.kill()
    driver.communicate()
    assert len(uploads(bucket)) == 1  # parts without a name: no reader sees them
    files = open_files(root)
    assert files.list("data") == files.list("_lcm/commits") == {}
    make(root, toy)
    make(tmp_path / "calm", toy)
    assert digest(read_commits(files)) == digest(read_commits(open_files(tmp_path / "calm")))
    assert [info.bytes for info in read_commits(files)[0].shards] == list(files.list("data").values())


@pytest.mark.slow
def test_kills_on_s3(bucket: str, toy_env: Path, tmp_path: Path) -> None:
    toy, root = Toy(units=25, pause=0.05, special={"3:3": "raise"}), f"{bucket}/codes"
    driver = start_driver(root, toy, {"TOY_PAUSE": "0.005"}, workers=2)
    wait_for(lambda: num_commits(root) > 2)
    kill(pids(toy_env / "pids")[0])
    time.sleep(0.2)
    driver.kill()
    driver.communicate()
    assert num_commits(root) < toy.units
    make(root, toy, workers=1)
    make(tmp_path / "calm", toy)
    assert check_whole(root) == check_whole(tmp_path / "calm")


def test_a_server_that_ignores_conditions_still_keeps_the_first(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    files = open_files(f"{bucket}/x")
    assert isinstance(files, RemoteFiles)
    real = files.fs.pipe_file
    monkeypatch.setattr(files.fs, "pipe_file", lambda path, data, mode="overwrite": real(path, data))
    assert files.create("a", b"first")
    assert not files.create("a", b"second")
    assert files.read("a") == b"first"


def test_a_missing_bucket_is_one_line(s3_server: str) -> None:
    with pytest.raises(StorageError, match=r"cannot write s3://no-such-bucket/codes/_lcm/lock\.json: .*bucket"):
        make("s3://no-such-bucket/codes", Toy())


def test_one_connection_serves_all_trees_of_a_thread(bucket: str) -> None:
    """Opening one takes 150 ms and a pool of sockets; workers ask for their files again and again."""
    first, second = open_files(f"{bucket}/a"), open_files(f"{bucket}/b").child("c")
    assert isinstance(first, RemoteFiles)
    assert isinstance(second, RemoteFiles)
    assert first.fs is second.fs

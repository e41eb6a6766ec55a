"""Storage that fails in the middle of a run: one clear message, nothing lost, and a rerun gives the same corpus."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

import pytest
from drivers import check_whole, digest_of, drive, make, num_commits, pids, start_driver, wait_for
from toystage import Toy

from lcm_data.errors import StorageError
from lcm_data.store.commits import read_commits
from lcm_data.store.files import open_files
from lcm_data.store.lock import stage_lock
from lcm_data.store.manifest import MANIFEST_PATH, load_manifest

BIG = Toy(units=8, rows=300, kind="embeddings", dim=1024)  # 0.6 MB a shard


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("undisturbed")
    make(root, BIG)
    return check_whole(root)


def test_a_full_disk(small_disk: Path, undisturbed: str) -> None:
    root = small_disk / "embeddings"
    code, out, err = drive(root, BIG, workers=2)
    assert (code, out) == (3, "")
    (line,) = [line for line in err.splitlines() if line.startswith("StorageError")]
    assert "the disk is full. Free some space, then run the same command again to resume." in line
    assert "Traceback" not in err
    done = read_commits(open_files(root))
    assert 0 < len(done) < BIG.units
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    report = make(root, BIG)
    assert report.units_done == BIG.units - len(done)
    assert check_whole(root) == undisturbed


def test_a_disk_that_is_full_from_the_start(small_disk: Path) -> None:
    fill(small_disk)
    with pytest.raises(StorageError, match=r"cannot write .*: the disk is full"):
        make(small_disk / "codes", Toy())


def fill(disk: Path) -> None:
    with contextlib.suppress(OSError), open(disk / "filler", "wb", buffering=0) as file:
        while file.write(b"x" * 4096):
            pass


def test_a_folder_that_becomes_read_only(small_disk: Path, toy_env: Path) -> None:
    toy, root = Toy(units=12, pause=0.1), small_disk / "codes"
    driver = start_driver(root, toy)
    wait_for(lambda: num_commits(root) > 1)
    subprocess.run(["mount", "--bind", str(root), str(root)], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", str(root)], check=True)
    _, err = driver.communicate(timeout=30)
    assert driver.returncode == 3, err
    assert "StorageError: cannot write" in err
    assert "the file system is read-only. Make it writable, then run the same command again to resume." in err
    done = num_commits(root)
    assert 1 < done < 12
    with pytest.raises(StorageError, match=r"cannot write .*lock\.json: the file system is read-only"):
        make(root, toy)
    subprocess.run(["umount", str(root)], check=True)
    assert make(root, Toy(units=12)).units_done == 12 - done
    make(toy_env / "calm", Toy(units=12))
    assert check_whole(root) == check_whole(toy_env / "calm")


def test_storage_that_fails_for_a_moment_is_tried_again(small_disk: Path, toy_env: Path) -> None:
    root = small_disk / "embeddings"
    toy = Toy(units=2, rows=300, kind="embeddings", dim=1024)
    fill(small_disk)
    filler = small_disk / "filler"
    os.truncate(filler, filler.stat().st_size - 300_000)  # room for the plan, not for a shard
    driver = start_driver(root, toy)
    wait_for(lambda: pids(toy_env / "pids"))
    assert "is tried again: cannot write" in driver.stderr.readline()
    filler.unlink()
    out, err = driver.communicate(timeout=30)
    assert driver.returncode == 0, err
    assert check_whole(root) == out.strip()


# --- what is lost later ---


def test_readers_never_see_a_manifest_of_lost_shards(tmp_path: Path, toy_env: Path) -> None:
    toy, root = Toy(units=3), tmp_path / "codes"
    before = make(root, toy).manifest.digest
    files = open_files(root)
    files.remove(read_commits(files)[1].shards[0].path)
    broken = Toy(units=3, special={})
    # The rerun is killed before it has made the shard again ...
    driver = start_driver(root, broken, {"TOY_PAUSE": "30"})
    wait_for(lambda: pids(toy_env / "pids"))
    assert files.size(MANIFEST_PATH) is None
    driver.kill()
    driver.communicate()
    assert load_manifest(files, allow_partial=True).rows == 80
    # ... and the next finishes.
    assert make(root, toy).manifest.digest == before
    check_whole(root)


def test_a_removed_commit_is_made_again(tmp_path: Path) -> None:
    before = make(tmp_path, Toy(units=3)).manifest.digest
    open_files(tmp_path).remove("_lcm/commits/000000.json")
    report = make(tmp_path, Toy(units=3))
    assert report.units_done == 1
    assert report.manifest.digest == before == digest_of(tmp_path)


def test_leftovers_of_dead_writers_are_swept(tmp_path: Path) -> None:
    make(tmp_path, Toy(units=2))
    left = [
        tmp_path / "_lcm/tmp/0123/0.parquet",
        tmp_path / "_lcm/commits/.000001.json.abc.tmp",
        tmp_path / "data/split=train/lang=eng_Latn/.part.abc.tmp",
    ]
    for file in left:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x")
    make(tmp_path, Toy(units=2))
    assert [file for file in left if file.exists()] == []
    check_whole(tmp_path)


def test_nothing_is_swept_from_a_busy_stage(tmp_path: Path) -> None:
    make(tmp_path, Toy(units=2))
    (tmp_path / "_lcm/tmp").mkdir()
    (tmp_path / "_lcm/tmp/busy").write_text("x")
    with stage_lock(open_files(tmp_path)), pytest.raises(Exception, match="is being written"):
        make(tmp_path, Toy(units=2))
    assert (tmp_path / "_lcm/tmp/busy").exists()


def test_a_lost_rejects_file_is_made_again(toy_env: Path) -> None:
    root = toy_env / "stage"
    toy = Toy(units=2, rows=5, special={"0:3": "raise"})
    before = make(root, toy).manifest
    files = open_files(root)
    (path,) = files.list("_lcm/rejects")
    content = files.read(path)
    files.remove(path)
    after = make(root, toy)
    assert (files.read(path), after.manifest.digest, after.units_done) == (content, before.digest, 1)

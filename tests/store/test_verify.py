"""Tampering is found at the level that promises to find it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from drivers import check_whole, make
from toystage import Toy, toy_table

from lcm_data.store.commits import read_commits
from lcm_data.store.files import open_files
from lcm_data.store.shard import write_shard
from lcm_data.store.verify import LEVELS, verify_stage

TOY = Toy(units=3, special={"1:2": "raise"})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made")
    make(root, TOY)
    return root


@pytest.fixture
def stage(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "stage")


def shard_of(stage: Path, unit: int = 1) -> Path:
    return stage / read_commits(open_files(stage))[unit].shards[0].path


def problems(stage: Path) -> dict[str, list[str]]:
    files = open_files(stage)
    return {level: [problem.what for problem in verify_stage(files, read_commits(files), level)] for level in LEVELS}


def missing(stage: Path) -> None:
    shard_of(stage).unlink()


def truncated(stage: Path) -> None:
    content = shard_of(stage).read_bytes()
    shard_of(stage).write_bytes(content[:-1])


def footer_overwritten(stage: Path) -> None:
    content = shard_of(stage).read_bytes()
    shard_of(stage).write_bytes(content[:-200] + b"x" * 200)


def thrift_overwritten(stage: Path) -> None:
    content = shard_of(stage).read_bytes()
    shard_of(stage).write_bytes(content[:-100] + b"\xff" * 80 + content[-20:])


def one_bit(stage: Path) -> None:
    content = bytearray(shard_of(stage).read_bytes())
    content[100] ^= 1
    shard_of(stage).write_bytes(content)


def fewer_rows(stage: Path) -> None:
    """The file was replaced, and the record made to agree with its size."""
    file, record = shard_of(stage), stage / "_lcm/commits/000001.json"
    commit = json.loads(record.read_text())
    write_shard(file, toy_table(1, 5, list(range(5)), "codes", 8, 7, commit["shards"][0]["path"]), {})
    commit["shards"][0]["bytes"] = file.stat().st_size
    record.write_text(json.dumps(commit))


def stray(stage: Path) -> None:
    (stage / "data/split=train/lang=eng_Latn/part-000099.parquet").write_bytes(b"")


def rejects_edited(stage: Path) -> None:
    file = stage / "_lcm/rejects/000001.jsonl"
    file.write_text(file.read_text().replace("bad_row", "odd_row"))


def rejects_gone(stage: Path) -> None:
    (stage / "_lcm/rejects/000001.jsonl").unlink()


CASES: list[tuple[Callable[[Path], None], str, str]] = [
    (missing, "size", "the file is missing"),
    (truncated, "size", "recorded are"),
    (stray, "size", "no commit names this file"),
    (footer_overwritten, "footer", "cannot be opened as Parquet"),
    (thrift_overwritten, "footer", "cannot be opened as Parquet"),
    (fewer_rows, "footer", "it has 5 rows, recorded are 39"),
    (one_bit, "hash", "its content changed (SHA-256 differs)"),
    (rejects_edited, "hash", "the reject rows changed (SHA-256 differs)"),
    (rejects_gone, "hash", "the file is missing"),
]


@pytest.mark.parametrize(("tamper", "level", "what"), CASES)
def test_tampering_is_found(stage: Path, tamper: Callable[[Path], None], level: str, what: str) -> None:
    tamper(stage)
    found = problems(stage)
    for number, name in enumerate(LEVELS):
        if number < LEVELS.index(level):  # type: ignore[arg-type]
            assert found[name] == []
        else:
            assert len(found[name]) == 1
            assert what in found[name][0]


def test_an_untouched_stage_has_no_problems(stage: Path) -> None:
    assert problems(stage) == {"size": [], "footer": [], "hash": []}


def test_a_problem_names_its_file_and_unit(stage: Path) -> None:
    path = read_commits(open_files(stage))[1].shards[0].path
    missing(stage)
    files = open_files(stage)
    (problem,) = verify_stage(files, read_commits(files), "hash")
    assert (problem.path, problem.unit) == (path, 1)


@pytest.mark.parametrize("tamper", [missing, truncated])
def test_a_rerun_makes_a_lost_shard_again(
    stage: Path, tamper: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    before = check_whole(stage)
    tamper(stage)
    report = make(stage, TOY)
    assert report.units_done == 1
    assert "unit 000001 is done again: a file of it is missing or has another size" in caplog.text
    assert check_whole(stage) == before == report.manifest.digest

"""The commit protocol: one record per unit, created once, and a death between any two of its steps."""

from __future__ import annotations

import dataclasses
import json
import threading
from pathlib import Path

import pyarrow as pa
import pytest
from drivers import check_whole, drive, make
from hypothesis import given
from hypothesis import strategies as st
from toystage import Toy, toy_table

from lcm_data.errors import VerificationError
from lcm_data.store.commits import (
    Commit,
    RejectRow,
    commit_path,
    digest,
    publish_unit,
    read_commit,
    read_commits,
    read_rejects,
    rejects_path,
)
from lcm_data.store.files import Files, LocalFiles, open_files
from lcm_data.store.shard import ShardInfo, shard_path, write_shard

PATH = shard_path("train", "eng_Latn", 0)


def publish(files: Files, rows: list[int], rejects: list[RejectRow] | None = None, plan: str = "plan") -> Commit:
    """Publish unit 0 with some of its ten rows; the others are rejected."""
    given = [RejectRow(row, "bad") for row in range(10) if row not in rows] if rejects is None else rejects
    commit = Commit(0, plan, 10, len(rows), {"bad": len(given)} if given else {})
    with files.scratch() as folder:
        write_shard(folder / "0", toy_table(0, 10, rows, "codes", 4, 5, PATH), {})
        return publish_unit(files, commit, [(folder / "0", PATH, len(rows))], given)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return open_files(tmp_path)


def test_a_commit_names_what_is_on_disk(files: Files) -> None:
    commit = publish(files, [0, 1, 2, 4, 5, 6, 7, 8, 9])
    assert read_commit(files, 0) == commit
    assert read_commits(files) == {0: commit}
    assert commit.rows_out == 9
    assert files.list("data") == {PATH: commit.shards[0].bytes}
    assert [reject["row"] for reject in read_rejects(files, 0)] == [3]
    assert commit.host
    assert commit.rejects_sha256


def test_units_without_rejects_have_no_file(files: Files) -> None:
    assert publish(files, list(range(10))).rejects_sha256 == ""
    assert read_rejects(files, 0) == []
    assert set(files.list("_lcm")) == {commit_path(0)}


def test_lost_rows_are_a_defect(files: Files) -> None:
    with pytest.raises(AssertionError, match="lost rows"):
        publish(files, [1, 2, 3], rejects=[])
    assert files.list() == {}


def test_the_first_commit_stays(files: Files) -> None:
    first = publish(files, list(range(10)))
    assert publish(files, [1, 2]) == first
    assert files.list("data") == {PATH: first.shards[0].bytes}
    assert read_rejects(files, 0) == []


def test_rejects_of_an_attempt_that_was_killed_do_not_stay(files: Files) -> None:
    files.write(rejects_path(0), b'{"row": 1}\n')
    publish(files, list(range(10)))
    assert read_rejects(files, 0) == []


def test_a_commit_of_another_plan_does_not_count(files: Files) -> None:
    """A worker that outlived its driver may commit after the stage was started anew with other settings."""
    publish(files, [1, 2], plan="older")
    ours = publish(files, list(range(10)), plan="newer")
    assert read_commit(files, 0) == ours
    assert ours.plan_hash == "newer"


class RacingFiles(LocalFiles):
    """Just before the commit record is created, another worker does the whole unit."""

    def __init__(self, root: str, other: list[int]) -> None:
        super().__init__(root)
        self.other: list[int] | None = other

    def create(self, path: str, data: bytes) -> bool:
        if self.other is not None:
            rows, self.other = self.other, None
            publish(open_files(self.root), rows)
        return super().create(path, data)


def test_a_race_of_equal_results_keeps_the_first(tmp_path: Path) -> None:
    rows = [0, 1, 2, 3]
    ours = publish(RacingFiles(str(tmp_path), rows), rows)
    assert ours == read_commit(open_files(tmp_path), 0)
    assert files_agree(tmp_path)


def test_a_race_of_unequal_results_keeps_the_one_on_disk(tmp_path: Path) -> None:
    """Results of different GPUs differ in their last bits: the record must describe the file that is there."""
    commit = publish(RacingFiles(str(tmp_path), [0, 1, 2, 3]), [5, 6])
    assert commit == read_commit(open_files(tmp_path), 0)
    assert files_agree(tmp_path)


def files_agree(root: Path) -> bool:
    files = open_files(root)
    commit = read_commit(files, 0)
    assert commit
    with files.scratch() as folder:
        (folder / "x").write_bytes(files.read(PATH))
        from lcm_data.store.shard import describe_file

        return describe_file(folder / "x", PATH, commit.rows_done) == commit.shards[0]


def test_many_workers_on_one_unit(tmp_path: Path) -> None:
    barrier, commits = threading.Barrier(6), []

    def work(number: int) -> None:
        barrier.wait()
        commits.append(publish(open_files(tmp_path), list(range(number % 2, 10))))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(commits) == 6
    assert files_agree(tmp_path)


# --- records ---


@given(st.binary(max_size=60))
def test_damaged_records_say_which_and_what_to_do(content: bytes) -> None:
    from lcm_data.store.commits import parse_commit

    with pytest.raises(
        VerificationError, match=r"commit record /x/_lcm/commits/000000\.json is damaged .* Delete this"
    ):
        parse_commit(content, "/x/_lcm/commits/000000.json")


@pytest.mark.parametrize("damage", ["truncated", "extra", "missing", "list"])
def test_a_damaged_record_stops_a_run(tmp_path: Path, damage: str) -> None:
    make(tmp_path, Toy(units=3))
    file = tmp_path / commit_path(1)
    content = json.loads(file.read_text())
    if damage == "truncated":
        file.write_text(file.read_text()[:80])
    elif damage == "extra":
        file.write_text(json.dumps({**content, "surprise": 1}))
    elif damage == "missing":
        del content["plan_hash"]
        file.write_text(json.dumps(content))
    else:
        file.write_text("[]")
    with pytest.raises(VerificationError, match=r"commits/000001\.json is damaged"):
        make(tmp_path, Toy(units=3))
    before = digest_of_others(tmp_path)
    file.unlink()  # as the message says
    assert make(tmp_path, Toy(units=3)).units_done == 1
    assert digest_of_others(tmp_path) == before
    check_whole(tmp_path)


def digest_of_others(root: Path) -> str:
    files = open_files(root)
    commits = [commit for unit in (0, 2) if (commit := read_commit(files, unit))]
    return digest({commit.unit: commit for commit in commits})


def test_digests_tell_content_only() -> None:
    info = ShardInfo("data/x", 3, 100, "abc")
    commit = Commit(4, "plan", 5, 3, {"bad": 2}, (info,), "def", {"tokens": 1.0}, {"work": 2.0}, "host-1", 1.0)
    other = dataclasses.replace(commit, timings={"work": 9.0}, host="host-2", finished=7.0)
    assert digest({4: commit, 7: other}) == digest({7: commit, 4: other})
    for change in (
        {"shards": (dataclasses.replace(info, sha256="abd"),)},
        {"shards": (dataclasses.replace(info, path="data/y"),)},
        {"shards": (info, info)},
        {"rejects_sha256": "deg"},
    ):
        assert digest({4: dataclasses.replace(commit, **change)}) != digest({4: commit})
    assert digest({4: commit}) != digest({5: commit})


# --- a worker that dies between two steps ---

STEPS = [
    *(pytest.param(step, marks=pytest.mark.slow) for step in ("before write 000002", "after write 000002")),
    *(pytest.param("before publish part-000002", marks=pytest.mark.slow), "after publish part-000002"),
    *("before create 000002", "after create 000002"),
]

DYING = Toy(units=4, special={"2:1": "raise"})


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make(tmp_path_factory.mktemp("calm"), DYING).manifest.digest


@pytest.mark.parametrize("step", STEPS)
def test_a_death_between_two_steps_of_a_commit(toy_env: Path, calm: str, step: str) -> None:
    toy, root = DYING, toy_env / "codes"
    # The driver sees its worker die and goes on by itself ...
    code, out, err = drive(root, toy, {"TOY_EXIT": step})
    assert (toy_env / "flags/exit").exists(), "the step was never reached"
    assert code == 0, err
    assert "ended with signal 9" in err
    assert check_whole(root) == out.strip() == calm
    # ... and so does a later one on what a dead driver left.
    open_files(root).remove(commit_path(2))
    assert make(root, toy).units_done == 1
    assert check_whole(root) == calm


def test_empty_shards_are_shards(tmp_path: Path) -> None:
    files = open_files(tmp_path)
    commit = publish(files, [])
    assert commit.rows_out == 0
    assert commit.rejects == {"bad": 10}
    assert files.list("data") == {PATH: commit.shards[0].bytes}
    assert isinstance(toy_table(0, 10, [], "codes", 4, 5, PATH), pa.Table)

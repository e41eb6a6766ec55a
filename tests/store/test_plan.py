"""Plans: what decides the output is written down once, and never mixed with something else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from drivers import check_whole, make
from hypothesis import given
from hypothesis import strategies as st
from toystage import Toy

from lcm_data.errors import InputError, PlanMismatchError, UsageError, VerificationError
from lcm_data.schema import SCHEMA_VERSION
from lcm_data.store.files import open_files
from lcm_data.store.manifest import load_manifest
from lcm_data.store.plan import PLAN_PATH, Plan, Unit, check_same, load_plan, save_plan

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), JSON, max_size=4), st.dictionaries(st.text(), st.text(), max_size=4))
def test_plans_make_the_round_trip(config: dict[str, object], inputs: dict[str, str]) -> None:
    import tempfile

    plan = Plan("codes", config, inputs, (Unit(0, 5, {"a": [1, 2.5, None]}), Unit(1, 7)), {"provenance": {"x": "y"}})
    with tempfile.TemporaryDirectory() as folder:
        files = open_files(folder)
        assert load_plan(files) is None
        save_plan(files, plan)
        assert load_plan(files) == plan
        assert plan.rows == 12


def test_the_hash_is_of_what_decides_the_output() -> None:
    plan = Plan("codes", {"a": 1, "b": 2}, {"x": "1"}, (Unit(0, 5),))
    assert plan.hash == Plan("codes", {"b": 2, "a": 1}, {"x": "1"}, (), {"note": 1}).hash
    assert plan.hash != Plan("codes", {"a": 1, "b": 3}, {"x": "1"}, ()).hash
    assert plan.hash != Plan("codes", {"a": 1, "b": 2}, {"x": "2"}, ()).hash
    assert plan.hash != Plan("segments", {"a": 1, "b": 2}, {"x": "1"}, ()).hash


def test_differences_are_listed() -> None:
    plan = Plan("codes", {"model": {"name": "a", "dim": 8}, "old": 1}, {"same": "1", "changed": "1", "gone": "1"}, ())
    with pytest.raises(PlanMismatchError) as caught:
        check_same(
            plan, {"model": {"name": "b", "dim": 8}, "new": True}, {"same": "1", "changed": "2", "came": "1"}, "X"
        )
    assert str(caught.value).splitlines() == [
        "X was made with other settings or inputs:",
        "  config model.name: 'a' -> 'b'",
        "  config removed: old",
        "  config added: new",
        "  input  changed: '1' -> '2'",
        "  input  removed: gone",
        "  input  added: came",
        "Run with the settings on the left, write to a new folder, or add --overwrite to start this stage anew.",
    ]


def test_of_many_differences_some_are_shown() -> None:
    plan = Plan("codes", {}, {str(number): "1" for number in range(100)}, ())
    with pytest.raises(PlanMismatchError) as caught:
        check_same(plan, {}, {}, "X")
    assert len(str(caught.value).splitlines()) == 11
    assert "… and 92 more" in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        (Toy(units=3, config={"level": 2}), "config level: 1 -> 2"),
        (Toy(units=3, config={"level": 1}, inputs={"toy.jsonl": "v2"}), "input  toy.jsonl: 'v1' -> 'v2'"),
        (Toy(units=3, config={"level": 1}, inputs={"toy.jsonl": "v1", "b": "v1"}), "input  added: b"),
        (Toy(units=3, config={"level": 1}, inputs={}), "input  removed: toy.jsonl"),
    ],
)
def test_a_changed_stage_is_refused_and_nothing_touched(tmp_path: Path, changed: Toy, line: str) -> None:
    toy = Toy(units=3, config={"level": 1})
    make(tmp_path, toy)
    before = check_whole(tmp_path)
    with pytest.raises(PlanMismatchError, match=line) as caught:
        make(tmp_path, changed)
    assert caught.value.exit_code == 4
    assert check_whole(tmp_path) == before
    assert make(tmp_path, toy).units_done == 0


def test_overwrite_starts_anew(tmp_path: Path) -> None:
    make(tmp_path, Toy(units=5, special={"4:0": "raise"}))
    (tmp_path / "_lcm/logs").mkdir()
    (tmp_path / "_lcm/logs/old.log").write_text("x")
    report = make(tmp_path, Toy(units=2, config={"level": 2}), overwrite=True)
    assert report.units_done == 2
    files = open_files(tmp_path)
    assert len(files.list("data")) == len(files.list("_lcm/commits")) == 2
    assert files.list("_lcm/rejects") == files.list("_lcm/logs") == {}
    check_whole(tmp_path)


def test_overwrite_takes_away_what_nobody_can_read(tmp_path: Path) -> None:
    make(tmp_path, Toy(units=2))
    (tmp_path / PLAN_PATH).write_text("{")
    assert make(tmp_path, Toy(units=2), overwrite=True).units_done == 2
    check_whole(tmp_path)


def test_a_stage_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="codes: the input holds no rows"):
        make(tmp_path, Toy(units=0))
    assert load_plan(open_files(tmp_path)) is None


# --- plans that somebody else wrote ---


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "null", f'{{"schema": {SCHEMA_VERSION}}}', '{"hash": "x"}'])
def test_a_damaged_plan_says_so(tmp_path: Path, content: str) -> None:
    open_files(tmp_path).write(PLAN_PATH, content.encode())
    with pytest.raises(VerificationError, match=r"_lcm/plan\.json .*Restore it, or use --overwrite"):
        load_plan(open_files(tmp_path))


def test_every_edit_of_a_plan_is_noticed(tmp_path: Path) -> None:
    files = open_files(tmp_path)
    save_plan(files, Plan("codes", {"a": 1}, {"x": "1"}, (Unit(0, 5, {"shard": "s"}),)))
    original = json.loads(files.read(PLAN_PATH))
    edits = [
        {"config": {"a": 2}},
        {"inputs": {"x": "2"}},
        {"units": [{"id": 0, "rows": 6, "spec": {"shard": "s"}}]},
        {"units": []},
        {"hash": "0" * 64},
        {"notes": {"provenance": {"encoder": "another"}}},
    ]
    for edit in edits:
        files.write(PLAN_PATH, json.dumps({**original, **edit}).encode())
        with pytest.raises(VerificationError, match=r"plan\.json was edited or damaged"):
            load_plan(files)
    files.write(PLAN_PATH, json.dumps(original, indent=2).encode())  # only reformatted
    assert load_plan(files) is not None


def test_a_newer_layout_version_is_refused(tmp_path: Path) -> None:
    files = open_files(tmp_path)
    save_plan(files, Plan("codes", {}, {}, (Unit(0, 5),)))
    files.write(PLAN_PATH, json.dumps({**json.loads(files.read(PLAN_PATH)), "schema": 99}).encode())
    with pytest.raises(
        PlanMismatchError, match=f"has layout version 99, this version of lcm-data reads 1 to {SCHEMA_VERSION}"
    ):
        load_plan(files)


def test_an_older_layout_version_is_read_and_not_continued(tmp_path: Path) -> None:
    files, old = open_files(tmp_path), Plan("codes", {}, {}, (Unit(0, 5),), schema=1)
    save_plan(files, old)
    assert load_plan(files) == old
    with pytest.raises(
        PlanMismatchError, match=r"layout version 1, .* --overwrite .* finish it with the lcm-data that"
    ):
        check_same(old, {}, {}, "here")


# --- manifests ---


def test_a_manifest_sums_up(tmp_path: Path) -> None:
    report = make(tmp_path, Toy(units=5, rows=10, special={"1:3": "raise", "4:0": "raise"}))
    manifest = load_manifest(open_files(tmp_path))
    assert manifest == report.manifest
    assert manifest.complete
    assert (manifest.rows_in, manifest.rows_done, manifest.rows) == (50, 48, 48)
    assert manifest.rejects == {"bad_row": 2}
    assert manifest.partitions == {
        "train/deu_Latn": 9,
        "train/eng_Latn": 20,
        "train/fra_Latn": 10,
        "validation/deu_Latn": 9,
    }
    assert sum(manifest.partitions.values()) == 48
    assert manifest.stats == {"sentences": 48.0}
    assert manifest.bytes == sum(file.stat().st_size for file in tmp_path.rglob("*.parquet"))
    assert [shard.path for shard in manifest.shards] == sorted(shard.path for shard in manifest.shards)


def test_no_manifest_while_units_are_missing(tmp_path: Path) -> None:
    make(tmp_path, Toy(units=3))
    files = open_files(tmp_path)
    files.remove("_lcm/manifest.json")
    files.remove("_lcm/commits/000001.json")
    with pytest.raises(InputError, match=r"is not finished.*Run the same command again"):
        load_manifest(files)
    partial = load_manifest(files, allow_partial=True)
    assert not partial.complete
    assert partial.rows == 80
    with pytest.raises(InputError, match=r"holds no finished stage.*Run that stage first"):
        load_manifest(open_files(tmp_path / "nothing"), allow_partial=True)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '"x"', '{"schema": 1, "shards": []}'])
def test_a_damaged_manifest_is_rebuilt_by_a_rerun(tmp_path: Path, content: str) -> None:
    made = make(tmp_path, Toy(units=2)).manifest
    (tmp_path / "_lcm/manifest.json").write_text(content)
    with pytest.raises(VerificationError, match=r"manifest\.json is damaged .*Run the stage again to rebuild it"):
        load_manifest(open_files(tmp_path))
    assert make(tmp_path, Toy(units=2)).units_done == 0
    assert load_manifest(open_files(tmp_path)) == made

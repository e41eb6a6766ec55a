"""What every stage does around its own work: lock, plan or resume, run the open units, write the manifest."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from lcm_data.errors import PlanMismatchError, RejectRateError, UsageError
from lcm_data.progress import Show, silent
from lcm_data.runner import Runner, RunOptions, busy_share
from lcm_data.space import check_same_space
from lcm_data.store.commits import Commit, commit_path, read_commits
from lcm_data.store.files import Files
from lcm_data.store.lock import LOCK_PATH, stage_lock
from lcm_data.store.manifest import MANIFEST_PATH, Manifest, build_manifest, save_manifest
from lcm_data.store.plan import CONFIG_PATH, PLAN_PATH, Plan, Unit, check_same, load_plan, save_plan
from lcm_data.store.runs import record_run
from lcm_data.store.shard import ShardInfo
from lcm_data.store.verify import intact
from lcm_data.workers.base import StageWorker, Task

log = logging.getLogger("lcm_data.stage")


@dataclass(frozen=True)
class Stage:
    """A stage to bring to completion.

    ``config`` and ``inputs`` are what its output depends on; ``make_plan`` is called only if there is no plan yet,
    ``make_worker`` with the plan that counts. Where making a worker leaves something behind (a fitted codebook),
    ``try_worker`` gives one that does not, or None. ``begin`` is called when the first worker is ready, with the plan
    stored and before any unit starts. A dry run tries ``calibration_rows``.
    """

    name: str
    files: Files
    config: dict[str, Any]
    inputs: dict[str, str]
    make_plan: Callable[[], Plan]
    make_worker: Callable[[Plan], StageWorker]
    try_worker: Callable[[Plan], StageWorker | None] | None = None
    begin: Callable[[], None] = lambda: None
    calibration_rows: int = 256


@dataclass(frozen=True)
class Report:
    """What a command did. The manifest is of the whole stage, everything else of this run.

    ``busy_share`` is the share of the workers' time spent computing, ``peak_rss`` the largest worker in bytes.
    """

    stage: str
    root: str
    manifest: Manifest
    units: int
    units_done: int
    seconds: float
    rows_per_second: float
    busy_share: float
    peak_rss: int
    extra: dict[str, Any] = field(default_factory=dict)


def run_stage(stage: Stage, options: RunOptions, *, overwrite: bool = False, show: Show = silent) -> Report:
    """Bring ``stage`` to completion, resuming whatever is committed already.

    Raises:
        CorpusBusyError: another run holds the stage.
        PlanMismatchError: the existing output was made from other inputs or settings.
        UsageError: settings that do not fit the input, or data without a plan; what is there is as it was.
        InterruptedRunError, StorageError, UnitsFailedError, RejectRateError: from the run; committed units stay.
    """
    begun, started = time.monotonic(), time.time()
    with stage_lock(stage.files):
        stored = None if overwrite else load_plan(stage.files)
        if stored is None and not overwrite:
            _refuse_strangers(stage.files)
        plan = stored or _new_plan(stage)
        check_same(plan, stage.config, stage.inputs, stage.files.root)
        commits = {} if overwrite else _resumable(stage.files, plan)
        before = set(commits)

        def begin() -> None:
            # Only now that a worker is ready: a device, cluster or setting that does not work must neither cost a
            # finished stage nor leave a plan behind that refuses better settings.
            if overwrite:
                clear_stage(stage.files)
            if stored is None:
                _store_plan(stage, plan)
            stage.begin()

        state = Runner(plan, stage.make_worker(plan), commits, options).run(show, begin)
        stage.files.sweep()
        manifest = build_manifest(plan, state.commits)
        if not manifest.rows_done:
            raise RejectRateError(_nothing_left(manifest, stage.files.root))
        _remove_orphans(stage.files, manifest)
        done = [commit for unit, commit in state.commits.items() if unit not in before]
        if done:
            record_run(stage.files, started, len(done), options.workers)
        save_manifest(stage.files, manifest)
    seconds = time.monotonic() - begun
    return Report(
        stage=stage.name,
        root=stage.files.root,
        manifest=manifest,
        units=len(plan.units),
        units_done=len(done),
        seconds=seconds,
        rows_per_second=sum(commit.rows_in for commit in done) / seconds,
        busy_share=busy_share(done, options.workers, seconds),
        peak_rss=max((commit.peak_rss for commit in done), default=0),
    )


def _refuse_strangers(files: Files) -> None:
    """A stage begins with its plan: shards without one were put there by someone, and would be removed as orphans."""
    if found := files.list("data"):
        raise UsageError(
            f"{files.root} holds {len(found):,} files such as {min(found)}, but no _lcm/plan.json that says what they "
            "are. Write to another folder, or add --overwrite to delete them."
        )


def _new_plan(stage: Stage) -> Plan:
    plan = stage.make_plan()
    if not plan.units:
        raise UsageError(f"{stage.name}: the input holds no rows.")
    return plan


def _store_plan(stage: Stage, plan: Plan) -> None:
    stage.files.write(CONFIG_PATH, yaml.safe_dump(stage.config, sort_keys=True, allow_unicode=True).encode())
    save_plan(stage.files, plan)


def _remove_orphans(files: Files, manifest: Manifest) -> None:
    """Delete shards no commit names: of a unit that was killed before its commit and then made fewer shards."""
    for path in files.list("data").keys() - {shard.path for shard in manifest.shards}:
        log.warning("%s/%s is removed: no commit names it", files.root, path)
        files.remove(path)


def _nothing_left(manifest: Manifest, root: str) -> str:
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in manifest.rejects.items())
    return (
        f"{root}: all {manifest.rows_in:,} rows were rejected ({reasons}). See _lcm/rejects/ for each, correct the "
        "input or the settings, and add --overwrite."
    )


def clear_stage(files: Files) -> None:
    """Delete everything of a stage but its lock: manifest and commits first, so that no step shows half a stage."""
    files.remove(MANIFEST_PATH)
    files.remove_tree("_lcm/commits")
    files.remove_tree("data")
    files.remove(PLAN_PATH)
    for path in files.list():
        if path != LOCK_PATH:
            files.remove(path)


def _resumable(files: Files, plan: Plan) -> dict[int, Commit]:
    """Commits whose shards are still there; the records of others are removed so that their units are done again."""
    files.sweep()
    commits = read_commits(files)
    whole = intact(commits, files.list("data") | files.list("_lcm/rejects"), plan.hash) if commits else {}
    if len(whole) < len(plan.units):  # first of all: readers trust a manifest
        files.remove(MANIFEST_PATH)
    for unit in sorted(commits.keys() - whole.keys()):
        log.warning("unit %06d is done again: a file of it is missing or has another size", unit)
        files.remove(commit_path(unit))
    return whole


def is_outdated(corpus: Files, stage: str) -> bool:
    """Whether a stage before ``stage`` was made anew, with other settings or inputs, since it was made from it."""
    before = {"embeddings": "segments", "codes": "embeddings"}.get(stage)
    if before is None:
        return False
    plan, now = load_plan(corpus.child(stage)), load_plan(corpus.child(before))
    changed = plan is not None and now is not None and plan.notes.get("upstream", now.hash) != now.hash
    return changed or is_outdated(corpus, before)


def refuse_outdated(corpus: Files, stage: str) -> None:
    """Refuse to build on a stage that its own source has left behind.

    Raises:
        PlanMismatchError: it is outdated.
    """
    if is_outdated(corpus, stage):
        raise PlanMismatchError(
            f"{corpus.root}/{stage} is outdated: a stage before it was made anew. Run the stages after that again with "
            "--overwrite, in order ('lcm-data status' shows which)."
        )


def refuse_other_space(files: Files, provenance: Mapping[str, Any]) -> None:
    """Refuse to go on with a stage that was begun on vectors of another embedding space than ``provenance`` is of.

    Raises:
        SpaceError: it was.
    """
    plan = load_plan(files)
    if plan is not None:
        advice = "Write to a new corpus, or add --overwrite to start this stage anew."
        check_same_space(plan.notes.get("provenance", {}), provenance, files.root, "what would be added", advice)


def shard_inputs(shards: Iterable[ShardInfo]) -> dict[str, str]:
    """Shards of an upstream stage as inputs of the next: path to content hash."""
    return {shard.path: f"{shard.rows} rows, sha256 {shard.sha256}" for shard in shards}


def provenance_metadata(provenance: Mapping[str, Any]) -> dict[str, str]:
    """Provenance as file metadata: strings only."""
    return {key: str(value) for key, value in provenance.items()}


@dataclass(frozen=True)
class DryRun:
    """What a command would do; bytes and seconds are extrapolated from the first rows of one unit, None if unknown."""

    stage: str
    root: str
    units: int
    units_open: int
    rows_open: int
    bytes_out: int | None
    seconds: float | None


def dry_run(stage: Stage, options: RunOptions, overwrite: bool = False) -> DryRun:
    """Plan a stage and try its work on a few hundred rows, without creating or deleting anything.

    Raises:
        PlanMismatchError: the existing output was made from other inputs or settings.
    """
    plan = None if overwrite else load_plan(stage.files)
    committed = {} if plan is None else read_commits(stage.files)
    if plan is None:
        plan = stage.make_plan()
    else:
        check_same(plan, stage.config, stage.inputs, stage.files.root)
    left = [unit for unit in plan.units if unit.id not in committed]
    rows = sum(unit.rows for unit in left)
    worker = (stage.try_worker or stage.make_worker)(plan)
    seconds_a_row, bytes_a_row = _calibrate(worker, left, stage.calibration_rows) if rows and worker else (0.0, 0.0)
    known = worker is not None or not rows
    return DryRun(
        stage=stage.name,
        root=stage.files.root,
        units=len(plan.units),
        units_open=len(left),
        rows_open=rows,
        bytes_out=int(rows * bytes_a_row) if known else None,
        seconds=rows * seconds_a_row / options.workers if known else None,
    )


def _calibrate(worker: StageWorker, units: list[Unit], most_rows: int) -> tuple[float, float]:
    """Seconds and output bytes for one input row, measured twice so that warming up does not count."""
    worker.setup()
    unit = max(units, key=lambda unit: unit.rows)
    rows = min(unit.rows, most_rows)
    for _ in range(2):
        begun = time.perf_counter()
        output = worker.work(worker.read(Task(unit, rows=(0, rows))))
        seconds = time.perf_counter() - begun
    return seconds / rows, sum(table.nbytes for table in output.tables.values()) / rows

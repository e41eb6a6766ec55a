"""Running toy drivers as real processes, killing them, and looking at what they left on disk."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from toystage import Toy, toy_stage

from lcm_data.runner import RunOptions
from lcm_data.store.commits import digest, read_commits
from lcm_data.store.files import open_files
from lcm_data.store.plan import load_plan
from lcm_data.store.verify import verify_stage
from pipelines.stage import Report, run_stage

SCRIPT = str(Path(__file__).with_name("toydriver.py"))


def make(root: Path | str, toy: Toy, *, overwrite: bool = False, **options: Any) -> Report:
    """Run a toy stage in this process, on local workers."""
    given = RunOptions(**{"executor": "local", "threads": 1, **options})
    return run_stage(toy_stage(str(root), toy), given, overwrite=overwrite)


def start_driver(root: Path | str, toy: Toy, environment: dict[str, str] | None = None, **options: Any) -> Any:
    """Start a driver process of its own."""
    given = {"executor": "local", "threads": 1, **options}
    return subprocess.Popen(
        [sys.executable, SCRIPT, str(root), json.dumps(asdict(toy)), json.dumps(given)],
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def drive(root: Path | str, toy: Toy, environment: dict[str, str] | None = None, **given: Any) -> tuple[int, str, str]:
    """Run a driver process to its end: exit code, stdout, stderr."""
    process = start_driver(root, toy, environment, **given)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def kill(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def wait_for(condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    """Wait until ``condition`` gives something true, and return it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.01)
    raise AssertionError("the condition did not come true in time")


def pids(folder: Path) -> list[int]:
    """Processes of workers that became ready and still run."""
    found = []
    for name in folder.iterdir():
        try:
            state = Path("/proc", name.name, "stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state not in "ZX":
            found.append(int(name.name))
    return found


def num_commits(root: Path | str) -> int:
    return len(open_files(root).list("_lcm/commits"))


def digest_of(root: Path | str) -> str:
    return digest(read_commits(open_files(root)))


def check_whole(root: Path | str) -> str:
    """Assert that the stage is complete and clean, and return its digest."""
    files = open_files(root)
    commits, plan = read_commits(files), load_plan(files)
    assert plan is not None
    assert sorted(commits) == sorted(unit.id for unit in plan.units)
    assert list(verify_stage(files, commits, "hash")) == []
    for unit in plan.units:
        commit = commits[unit.id]
        assert commit.rows_in == unit.rows == commit.rows_done + sum(commit.rejects.values())
    assert files.list("_lcm/tmp") == {}
    if "://" not in str(root):
        assert list(Path(root).rglob(".*.tmp")) == []
    return digest(commits)

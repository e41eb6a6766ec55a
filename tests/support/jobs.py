"""The main job for tests: real inputs, the command line as a child process, and checks of a whole corpus on disk."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import pyarrow as pa
from drivers import kill as kill
from drivers import wait_for as wait_for

from lcm_data.store.commits import Commit, digest, read_commits, read_rejects
from lcm_data.store.files import open_files
from lcm_data.store.plan import load_plan
from lcm_data.store.shard import read_shard
from lcm_data.store.verify import verify_stage

LANGS = ("deu_Latn", "eng_Latn", "fra_Latn", "jpn_Jpan")
STAGES = ("segments", "embeddings", "codes")
ODD = ("--backend", "oddencoder:OddEncoder", "--model", "one")
SMALL_BOOK = ("--levels", "2", "--units", "8")
COMMAND = [sys.executable, "-c", "from lcm_data.cli import main; main()"]
"""What the console script ``lcm-data`` runs."""


def embedded(langs: Sequence[str] = LANGS) -> list[dict[str, Any]]:
    """Documents that ship with the package."""
    folder = files("lcm_data") / "assets" / "demo"
    return [json.loads(line) for lang in langs for line in (folder / f"{lang}.jsonl").read_text("utf-8").splitlines()]


def write_jsonl(path: Path, rows: Iterable[Any]) -> Path:
    """Rows as JSON Lines; a row of type ``bytes`` is written as it is."""
    lines = [row if isinstance(row, bytes) else json.dumps(row, ensure_ascii=False).encode() for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def write_inputs(folder: Path, langs: Sequence[str] = LANGS) -> Path:
    """One file a language, and one in two languages whose rows give neither id nor language."""
    for lang in langs:
        write_jsonl(folder / f"{lang}.jsonl", embedded([lang]))
    bare = [{"text": doc["text"][:600]} for doc in embedded(["eng_Latn", "fra_Latn"])]
    write_jsonl(folder / "more" / "bare.jsonl", bare)
    return folder


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def start(*args: object, env: dict[str, str] | None = None, command: Sequence[str] = COMMAND) -> subprocess.Popen[str]:
    """Start the command line as a process of its own."""
    return subprocess.Popen(
        [*command, *map(str, args)],
        env={**os.environ, "COLUMNS": "120", **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def cli(*args: object, env: dict[str, str] | None = None, code: int = 0) -> Ran:
    """Run the command line to its end and check its exit code, and that it shows no traceback."""
    process = start(*args, env=env)
    out, err = process.communicate(timeout=120)
    assert process.returncode == code, f"exit code {process.returncode}\n{out}\n{err}"
    assert "Traceback" not in err, err
    return Ran(process.returncode, out, err)


def error_line(*args: object, env: dict[str, str] | None = None, code: int = 2) -> str:
    """Run a command that fails: nothing on stdout, one message of ours on stderr; gives the message."""
    ran = cli(*args, env=env, code=code)
    assert ran.out == ""
    first, *rest = [line for line in ran.err.splitlines() if not _is_progress(line)]
    assert first.startswith("lcm-data: "), ran.err
    return "\n".join([first.removeprefix("lcm-data: "), *rest])


def _is_progress(line: str) -> bool:
    return line.startswith(("segment: ", "encode: ", "quantize: ", "decode: "))


def children(pid: int) -> list[int]:
    """Living child processes."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(parent) == pid and state not in "ZX":
                found.append(int(folder.name))
    return found


def commits_of(corpus: object, stage: str) -> dict[int, Commit]:
    return read_commits(open_files(str(corpus)).child(stage))


def digests(corpus: object) -> dict[str, str]:
    """Digest of each stage, from its commits."""
    return {stage: digest(commits) for stage in STAGES if (commits := commits_of(corpus, stage))}


def rejects_of(corpus: object, stage: str) -> list[dict[str, Any]]:
    files = open_files(str(corpus)).child(stage)
    return [row for unit in sorted(read_commits(files)) for row in read_rejects(files, unit)]


def check_whole(corpus: object, stages: Sequence[str] = STAGES) -> dict[str, str]:
    """Assert that every stage is complete, verified and clean; gives the digests."""
    for stage in stages:
        stage_files = open_files(str(corpus)).child(stage)
        plan, commits = load_plan(stage_files), read_commits(stage_files)
        assert plan is not None
        assert sorted(commits) == sorted(unit.id for unit in plan.units)
        for unit in plan.units:
            commit = commits[unit.id]
            assert commit.rows_in == unit.rows == commit.rows_done + sum(commit.rejects.values())
            assert len(read_rejects(stage_files, unit.id)) == sum(commit.rejects.values())
        assert list(verify_stage(stage_files, commits, "hash")) == []
        assert stage_files.list("_lcm/tmp") == {}
        assert stage_files.size("_lcm/manifest.json")
    if "://" not in str(corpus):
        assert [path for path in Path(str(corpus)).rglob("*.tmp*") if path.is_file()] == []
    return digests(corpus)


def tables(corpus: object, stage: str) -> dict[str, pa.Table]:
    """All shards of a stage by path."""
    stage_files = open_files(str(corpus)).child(stage)
    return {path: read_shard(stage_files, path) for path in sorted(stage_files.list("data"))}


def copy(corpus: Path, target: Path) -> Path:
    """A copy of a corpus to change."""
    shutil.copytree(corpus, target)
    return target


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file but the lock, which every run touches."""
    found = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "lock.json")
    return {str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns) for path in found}

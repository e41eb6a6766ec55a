"""Commits: the record that makes the shards of a unit exist, and the order of steps that keeps a crash harmless.

A unit's files are built in a scratch folder, published under their final names, and then named by one commit record
that is created only if nobody has created it. A shard exists if and only if a commit record names it and its size
agrees; everything else is invisible to readers and is overwritten when the unit is done again.
"""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

from lcm_data.errors import VerificationError
from lcm_data.store.files import Files
from lcm_data.store.shard import ShardInfo, describe_file

STATE = "_lcm"


@dataclass(frozen=True)
class RejectRow:
    """One input row that could not be processed, kept with its reason."""

    row: int
    reason: str
    error: str = ""
    doc_id: str | None = None
    sid: int | None = None
    text: str = ""


@dataclass(frozen=True)
class Commit:
    """What a finished unit left behind. ``rows_in`` equals ``rows_done`` plus all rejects, always.

    ``rows_in`` and ``rows_done`` count the rows of the unit's input: documents for ``segment``, sentences for
    ``encode`` and ``quantize``. ``stats`` holds sums (tokens, characters, ...), ``timings`` seconds per step,
    ``peak_rss`` the most bytes of memory the worker process had used up to then.
    """

    unit: int
    plan_hash: str
    rows_in: int
    rows_done: int
    rejects: dict[str, int] = field(default_factory=dict)
    shards: tuple[ShardInfo, ...] = ()
    rejects_sha256: str = ""
    stats: dict[str, float] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    peak_rss: int = 0
    host: str = ""
    finished: float = 0.0

    @property
    def rows_out(self) -> int:
        """Rows of all shards of this unit."""
        return sum(shard.rows for shard in self.shards)

    @property
    def content(self) -> list[str]:
        """What the unit produced, free of times and hosts: the basis of digests."""
        files = [f"{shard.path} {shard.rows} {shard.sha256}" for shard in self.shards]
        return [*files, f"rejects {self.rejects_sha256}"] if self.rejects_sha256 else files


def commit_path(unit: int) -> str:
    """Path of a unit's commit record inside its stage."""
    return f"{STATE}/commits/{unit:06d}.json"


def rejects_path(unit: int) -> str:
    """Path of a unit's reject rows inside its stage; there is no such file when there are none."""
    return f"{STATE}/rejects/{unit:06d}.jsonl"


def publish_unit(
    files: Files, commit: Commit, shards: Sequence[tuple[Path, str, int]], rejects: Iterable[RejectRow]
) -> Commit:
    """Publish the finished local ``shards`` (file, final path, rows) and ``rejects``, then create the commit record.

    Returns the record that counts: the given one completed with hashes, or the one another worker committed first.

    Raises:
        StorageError: a write failed; nothing of the unit is visible.
    """
    lines = b"".join(orjson.dumps(asdict(reject)) + b"\n" for reject in rejects)
    infos = tuple(describe_file(file, path, rows) for file, path, rows in shards)
    digest = hashlib.sha256(lines).hexdigest() if lines else ""
    known = {**commit.__dict__, "shards": infos, "rejects_sha256": digest, "host": socket.gethostname()}
    commit = Commit(**known)
    assert commit.rows_in == commit.rows_done + sum(commit.rejects.values()), "a unit lost rows"
    earlier = read_commit(files, commit.unit)
    if earlier is not None and earlier.plan_hash == commit.plan_hash:
        return earlier
    if lines:
        files.write(rejects_path(commit.unit), lines)
    else:  # an attempt that was killed before its commit may have had some
        files.remove(rejects_path(commit.unit))
    for file, path, _ in shards:
        files.publish(file, path)
    if files.create(commit_path(commit.unit), _to_json(commit)):
        return commit
    return _settle_race(files, commit)


def _settle_race(files: Files, ours: Commit) -> Commit:
    """Two workers published the same unit at the same moment: keep the record that describes what is on disk."""
    theirs = read_commit(files, ours.unit)
    same_plan = theirs is not None and theirs.plan_hash == ours.plan_hash
    if theirs and same_plan and (theirs.content == ours.content or not _are_on_disk(files, ours.shards)):
        return theirs
    files.write(commit_path(ours.unit), _to_json(ours))
    return ours


def _are_on_disk(files: Files, shards: Iterable[ShardInfo]) -> bool:
    return all(hashlib.sha256(files.read(shard.path)).hexdigest() == shard.sha256 for shard in shards)


def read_commit(files: Files, unit: int) -> Commit | None:
    """The commit of ``unit``, None if it has none."""
    return _load(files, commit_path(unit))


def read_commits(files: Files) -> dict[int, Commit]:
    """All commits of a stage by unit number."""
    paths = sorted(path for path in files.list(f"{STATE}/commits") if path.endswith(".json"))
    with ThreadPoolExecutor(16) as pool:  # an object store answers each in tens of milliseconds
        found = pool.map(lambda path: _load(files, path), paths)
        return {commit.unit: commit for commit in found if commit is not None}


def _load(files: Files, path: str) -> Commit | None:
    """A commit record; None if there is none, or none any more: stages are looked at while they are made anew."""
    try:
        return parse_commit(files.read(path), f"{files.root}/{path}")
    except FileNotFoundError:
        return None


def parse_commit(data: bytes, where: str) -> Commit:
    """Read a commit record; ``where`` names it in the message.

    Raises:
        VerificationError: the record is damaged.
    """
    try:
        fields: dict[str, Any] = json.loads(data)
        fields["shards"] = tuple(ShardInfo(**shard) for shard in fields["shards"])
        return Commit(**fields)
    except (ValueError, TypeError, KeyError) as error:
        raise VerificationError(
            f"the commit record {where} is damaged ({error}). Delete this file and run the same command again: only "
            "its unit is done anew."
        ) from error


def read_rejects(files: Files, unit: int) -> list[dict[str, Any]]:
    """The reject rows of a unit."""
    try:
        return [orjson.loads(line) for line in files.read(rejects_path(unit)).splitlines()]
    except FileNotFoundError:
        return []


def digest(commits: Mapping[int, Commit]) -> str:
    """SHA-256 over everything the units produced, independent of who produced it, when, and in which order."""
    lines = [f"{unit} {line}" for unit in sorted(commits) for line in commits[unit].content]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _to_json(commit: Commit) -> bytes:
    return json.dumps(asdict(commit), indent=1).encode()

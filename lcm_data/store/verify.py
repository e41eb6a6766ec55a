"""Checking a stage against its commit records: every shard there, of the right size, readable, unchanged."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from lcm_data.errors import StorageError, VerificationError
from lcm_data.store.commits import Commit, rejects_path
from lcm_data.store.files import Files
from lcm_data.store.shard import ShardInfo, open_shard, sha256_of

Level = Literal["size", "footer", "hash"]
LEVELS: tuple[Level, ...] = ("size", "footer", "hash")


@dataclass(frozen=True)
class Problem:
    """One thing that is not as recorded."""

    path: str
    unit: int | None
    what: str


def verify_stage(files: Files, commits: Mapping[int, Commit], level: Level = "hash") -> Iterator[Problem]:
    """Yield what is wrong with the shards of ``commits``; each level includes the ones before it.

    ``size`` lists the folder only; ``footer`` opens every shard and compares its rows; ``hash`` reads all bytes.
    Files that no commit names are reported too: readers that go by the folder would see them.
    """
    present = files.list("data")
    known: set[str] = set()
    for unit, commit in sorted(commits.items()):
        for shard in commit.shards:
            known.add(shard.path)
            what = _size_problem(shard, present.get(shard.path))
            if not what and level != "size":
                what = _footer_problem(files, shard)
            if not what and level == "hash" and _sha256(files, shard.path) != shard.sha256:
                what = "its content changed (SHA-256 differs)"
            if what:
                yield Problem(shard.path, unit, what)
        if level == "hash" and (what := _rejects_problem(files, commit)):
            yield Problem(rejects_path(unit), unit, what)
    for path in sorted(set(present) - known):
        yield Problem(path, None, "no commit names this file")


def intact(commits: Mapping[int, Commit], present: Mapping[str, int], plan_hash: str) -> dict[int, Commit]:
    """The commits of this plan whose shards are all in the listing ``present`` with their recorded size."""
    return {
        unit: commit
        for unit, commit in commits.items()
        if commit.plan_hash == plan_hash
        and all(present.get(shard.path) == shard.bytes for shard in commit.shards)
        and (not commit.rejects or rejects_path(unit) in present)
    }


def _rejects_problem(files: Files, commit: Commit) -> str:
    try:
        content = files.read(rejects_path(commit.unit))
    except FileNotFoundError:
        content = b""
    if (hashlib.sha256(content).hexdigest() if content else "") == commit.rejects_sha256:
        return ""
    return "the reject rows changed (SHA-256 differs)" if content else "the file is missing"


def _size_problem(shard: ShardInfo, size: int | None) -> str:
    if size is None:
        return "the file is missing"
    return "" if size == shard.bytes else f"it has {size} bytes, recorded are {shard.bytes}"


def _footer_problem(files: Files, shard: ShardInfo) -> str:
    try:
        with open_shard(files, shard.path) as opened:
            rows = opened.metadata.num_rows
    except (StorageError, VerificationError) as error:
        return f"it cannot be opened as Parquet: {error.__cause__ or error}"
    return "" if rows == shard.rows else f"it has {rows} rows, recorded are {shard.rows}"


def _sha256(files: Files, path: str) -> str:
    source = files.open(path)
    with open(source, "rb") if isinstance(source, str) else source as stream:
        return sha256_of(stream)

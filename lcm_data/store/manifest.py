"""The manifest of a finished stage: its shards, totals and provenance. Readers trust it; it is written last."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from lcm_data.errors import InputError, VerificationError
from lcm_data.schema import SCHEMA_VERSION
from lcm_data.store.commits import Commit, digest, read_commits
from lcm_data.store.files import Files
from lcm_data.store.plan import Plan, load_plan, refuse_newer
from lcm_data.store.shard import ShardInfo, parse_shard_path

MANIFEST_PATH = "_lcm/manifest.json"
_VERBS = {"segments": "segment", "embeddings": "encode", "codes": "quantize"}


@dataclass(frozen=True)
class Manifest:
    """What a stage holds. ``rows_in`` equals ``rows_done`` plus ``rejects``; ``rows`` counts sentences in shards."""

    stage: str
    plan_hash: str
    digest: str
    rows_in: int
    rows_done: int
    rows: int
    rejects: dict[str, int]
    partitions: dict[str, int]
    stats: dict[str, float]
    provenance: dict[str, str]
    shards: tuple[ShardInfo, ...]
    complete: bool = True

    @property
    def bytes(self) -> int:
        """Bytes of all shards."""
        return sum(shard.bytes for shard in self.shards)


def build_manifest(plan: Plan, commits: Mapping[int, Commit]) -> Manifest:
    """Sum up the commits of a plan; ``complete`` says whether every unit has one."""
    rejects: Counter[str] = Counter()
    stats: Counter[str] = Counter()
    partitions: Counter[str] = Counter()
    shards = sorted((shard for commit in commits.values() for shard in commit.shards), key=lambda shard: shard.path)
    for commit in commits.values():
        rejects.update(commit.rejects)
        stats.update({name: value for name, value in commit.stats.items() if not name.endswith("_seconds")})
    for shard in shards:
        split, lang, _ = parse_shard_path(shard.path)
        partitions[f"{split}/{lang}"] += shard.rows
    return Manifest(
        stage=plan.stage,
        plan_hash=plan.hash,
        digest=digest(commits),
        rows_in=sum(commit.rows_in for commit in commits.values()),
        rows_done=sum(commit.rows_done for commit in commits.values()),
        rows=sum(shard.rows for shard in shards),
        rejects=dict(sorted(rejects.items())),
        partitions=dict(sorted(partitions.items())),
        stats=dict(sorted(stats.items())),
        provenance=dict(sorted(plan.notes.get("provenance", {}).items())),
        shards=tuple(shards),
        complete=len(commits) == len(plan.units),
    )


def save_manifest(files: Files, manifest: Manifest) -> None:
    """Write the manifest of a finished stage."""
    files.write(MANIFEST_PATH, orjson.dumps({"schema": SCHEMA_VERSION, **asdict(manifest)}, option=orjson.OPT_INDENT_2))


def load_manifest(files: Files, allow_partial: bool = False) -> Manifest:
    """The manifest of a stage; with ``allow_partial`` what is committed so far counts.

    Raises:
        InputError: there is no such stage, or it is unfinished.
        VerificationError: the file is damaged.
        PlanMismatchError: the stage was written by a newer version of lcm-data.
    """
    try:
        fields: dict[str, Any] = orjson.loads(files.read(MANIFEST_PATH))
        refuse_newer(fields.pop("schema"), files.root)
        fields["shards"] = tuple(ShardInfo(**shard) for shard in fields["shards"])
        return Manifest(**fields)
    except FileNotFoundError:
        pass
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise VerificationError(
            f"{files.root}/{MANIFEST_PATH} is damaged ({error}). Run the stage again to rebuild it."
        ) from error
    plan = load_plan(files)
    if plan is None:
        verb = _VERBS.get(files.root.rstrip("/").rpartition("/")[2])
        advice = f"Run 'lcm-data {verb}' first." if verb else "Run that stage first."
        raise InputError(f"{files.root} holds no finished stage: there is no {MANIFEST_PATH}. {advice}")
    manifest = build_manifest(plan, read_commits(files))
    if not allow_partial:
        done = sum(1 for _ in manifest.shards)
        raise InputError(
            f"{files.root} is not finished ({done} shards of an open run). Run the same command again to finish it, "
            "or read what is there with allow_partial=True (--allow-partial)."
        )
    return manifest

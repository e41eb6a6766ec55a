"""A corpus as version 0.1.0 of the package left it: made by editing one of today."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from lcm_data.store.commits import digest, read_commits
from lcm_data.store.files import open_files
from lcm_data.store.plan import Plan, Unit, load_plan, save_plan
from lcm_data.store.shard import sha256_of, shard_metadata, write_shard

ADDED = (
    *("n_unk", "audio_uri", "channel", "t_start", "t_end", "sample_rate", "speech_ratio"),
    "loudness_db",
)
"""Columns that layout 1 did not have."""


def make_version_1(corpus: Path) -> Path:
    """Turn a finished corpus into one of layout 1: without what was ``ADDED``, and other hashes of all that follows."""
    swap: dict[str, str] = {}
    for stage in ("segments", "embeddings", "codes"):
        if (corpus / stage).is_dir():
            _make_stage_old(corpus / stage, swap)
    return corpus


def _make_stage_old(stage: Path, swap: dict[str, str]) -> None:
    sizes = {}
    for path in stage.glob("data/*/*/*.parquet"):
        with pq.ParquetFile(path) as shard:
            table, metadata = shard.read(), shard_metadata(shard)
        added = [name for name in ADDED if name in table.column_names]
        if added:
            before = _sha256(path)
            write_shard(path, table.drop_columns(added), metadata)
            swap[before] = _sha256(path)
            sizes[str(path.relative_to(stage))] = path.stat().st_size

    def swapped(text: str) -> Any:
        for old, new in swap.items():
            text = text.replace(old, new)
        return json.loads(text)

    files = open_files(stage)
    plan = load_plan(files)
    assert plan is not None
    facts = swapped(json.dumps(asdict(plan)))
    units = tuple(Unit(**unit) for unit in facts["units"])
    old = Plan(plan.stage, facts["config"], facts["inputs"], units, facts["notes"], schema=1)
    swap[plan.hash] = old.hash
    save_plan(files, old)
    for path in sorted(stage.glob("_lcm/commits/*.json")):
        content = swapped(path.read_text())
        path.write_text(json.dumps({**content, "shards": [_resized(shard, sizes) for shard in content["shards"]]}))
    path = stage / "_lcm/manifest.json"
    content = swapped(path.read_text())
    content |= {"schema": 1, "shards": [_resized(shard, sizes) for shard in content["shards"]]}
    path.write_text(json.dumps({**content, "digest": digest(read_commits(files))}))
    assert replace(old, schema=3).hash != old.hash == content["plan_hash"]


def _resized(shard: dict[str, Any], sizes: dict[str, int]) -> dict[str, Any]:
    return {**shard, "bytes": sizes.get(shard["path"], shard["bytes"])}


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return sha256_of(stream)

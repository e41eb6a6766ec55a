"""What a corpus holds, counted: documents, sentences, lengths, norms and hours, for every stage by language and split.

Reads the small columns of every shard once, several shards at a time, and keeps distributions that can be added up, so
the same pass serves ``inspect``, ``stats`` and ``report``. Vectors are not read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lcm_data.corpus import StageData, open_corpus
from lcm_data.errors import UnknownNameError
from lcm_data.quality.distribution import Distribution
from lcm_data.schema import SPEECH_COLUMNS, STAGES
from lcm_data.store.commits import read_commits
from lcm_data.store.plan import load_plan
from lcm_data.store.shard import open_shard, parse_shard_path, read_shard

RESIDUAL = "resid_norm"

MEASURES = {
    "n_chars": "chars",
    "n_tokens": "tokens",
    "n_unk": "unk",
    "score": "score",
    "norm": "norm",
    RESIDUAL: RESIDUAL,
}
"""Columns whose numbers are described, and what they are called."""
SECONDS = "seconds"
_FLAG = "truncated"
_THREADS = 4


@dataclass
class Count:
    """What some rows hold, ``measures`` by name; None for what the stage does not know."""

    documents: int = 0
    sentences: int = 0
    truncated: int | None = None
    unknown: int | None = None
    speech: int = 0
    measures: dict[str, Distribution] = field(default_factory=dict)

    def merge(self, other: Count) -> None:
        """Add what other rows hold."""
        for name in ("documents", "sentences", "speech"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("truncated", "unknown"):
            if getattr(other, name) is not None:
                setattr(self, name, (getattr(self, name) or 0) + getattr(other, name))
        for name, distribution in other.measures.items():
            self.measures.setdefault(name, Distribution(distribution.whole)).merge(distribution)

    @property
    def hours(self) -> float:
        """Of speech."""
        return self.measures[SECONDS].total / 3600 if SECONDS in self.measures else 0.0

    def facts(self) -> dict[str, Any]:
        """Plain values; nothing that the stage does not know."""
        found: dict[str, Any] = {"documents": self.documents, "sentences": self.sentences}
        for name in ("truncated", "unknown"):
            if getattr(self, name) is not None:
                found[name] = getattr(self, name)
        if self.speech:
            found |= {"speech": self.speech, "hours": round(self.hours, 4)}
        return {**found, "measures": {name: each.facts() for name, each in self.measures.items()}}


@dataclass(frozen=True)
class StageCount:
    """One stage: counts by (split, language), rejects by reason, and by (split, language) where that is known."""

    stage: str
    complete: bool
    parts: dict[tuple[str, str], Count]
    rejects: dict[str, int]
    rejects_by_part: dict[tuple[str, str], Counter[str]]
    digest: str
    bytes: int

    def total(self, lang: str | None = None, split: str | None = None) -> Count:
        """Of a language, of a split, of both, or of all."""
        result = Count()
        for (own_split, own_lang), count in self.parts.items():
            if lang in (None, own_lang) and split in (None, own_split):
                result.merge(count)
        return result

    @property
    def langs(self) -> list[str]:
        return sorted({lang for _, lang in self.parts})

    @property
    def splits(self) -> list[str]:
        return sorted({split for split, _ in self.parts})


def count_stage(data: StageData, langs: Sequence[str] | None = None, splits: Sequence[str] | None = None) -> StageCount:
    """Count one stage, or some languages and splits of it.

    Raises:
        UsageError: a language or split that the stage does not have.
    """
    paths = data.shards(langs, splits)
    parts: dict[tuple[str, str], Count] = {}
    with ThreadPoolExecutor(_THREADS) as pool:
        for path, count in zip(paths, pool.map(lambda path: count_shard(data, path), paths), strict=True):
            split, lang, _ = parse_shard_path(path)
            parts.setdefault((split, lang), Count()).merge(count)
    return StageCount(
        data.manifest.stage, data.manifest.complete, parts, data.manifest.rejects, _rejects_by_part(data),
        data.manifest.digest, data.manifest.bytes,
    )  # fmt: skip


def count_shard(data: StageData, path: str) -> Count:
    """What one shard holds."""
    with open_shard(data.files, path) as shard:
        names = shard.schema_arrow.names
    _, _, start, end, *_ = SPEECH_COLUMNS
    wanted = ["doc_id", *(name for name in (*MEASURES, _FLAG, start, end) if name in names)]
    table = read_shard(data.files, path, wanted)
    count = Count(len(pc.run_end_encode(table["doc_id"].combine_chunks()).values) if len(table) else 0, len(table))
    for name, label in MEASURES.items():
        if name in names:
            whole = pa.types.is_integer(table.schema.field(name).type)
            _add(count, label, table[name], whole)
    if unknown := count.measures.get("unk"):
        count.unknown = unknown.num - unknown.counts.get(0, 0)
    if _FLAG in names:
        count.truncated = int(pc.sum(table[_FLAG].cast(pa.int64())).as_py() or 0)
    if start in names:
        seconds = pc.subtract(table[end], table[start]).drop_null()
        if count_of := len(seconds):
            count.speech = count_of
            _add(count, SECONDS, seconds, whole=False)
    return count


def _add(count: Count, label: str, column: pa.ChunkedArray, whole: bool) -> None:
    values = column.drop_null().combine_chunks().to_numpy(zero_copy_only=False)
    distribution = count.measures.setdefault(label, Distribution(whole))
    distribution.add(values[np.isfinite(values)])


def _rejects_by_part(data: StageData) -> dict[tuple[str, str], Counter[str]]:
    """Rejects of units that are a shard, and so of one language and split."""
    plan = load_plan(data.files)
    found: dict[tuple[str, str], Counter[str]] = {}
    if plan is None or not data.manifest.rejects:
        return found
    shards = {unit.id: unit.spec["shard"] for unit in plan.units if "shard" in unit.spec}
    for unit, commit in read_commits(data.files).items():
        if commit.rejects and unit in shards:
            split, lang, _ = parse_shard_path(shards[unit])
            found.setdefault((split, lang), Counter()).update(commit.rejects)
    return found


def corpus_statistics(
    root: str,
    stage: str | None = None,
    langs: Sequence[str] | None = None,
    splits: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Every stage (or one) as plain values: its totals, its ``languages``, ``splits`` and ``parts`` of both.

    Raises:
        InputError: no corpus.
        UnknownNameError: no such stage.
        UsageError: a language or split that no stage has.
    """
    corpus = open_corpus(root, allow_partial=True)
    if stage is not None and stage not in STAGES:
        raise UnknownNameError("stage", stage, STAGES)
    names = [name for name in corpus.stages if stage in (None, name)]
    stages = [StageData(corpus.files.child(name), allow_partial=True) for name in names]
    if not stages:
        StageData(corpus.files.child(str(stage)))  # says how to make it
    counted = [
        count_stage(data, langs, splits)
        for number, data in enumerate(stages)
        if number == 0 or _has_all(data, langs, splits)
    ]
    return {"corpus": root, "stages": [stage_facts(each) for each in counted]}


def _has_all(data: StageData, langs: Sequence[str] | None, splits: Sequence[str] | None) -> bool:
    """Whether a later stage has what the first one has: an encoder does not know every language."""
    return {*(langs or ())} <= {*data.langs} and {*(splits or ())} <= {*data.splits}


def stage_facts(counted: StageCount) -> dict[str, Any]:
    """A stage as plain values."""
    parts = [
        {"split": split, "lang": lang, **count.facts(), "rejects": dict(counted.rejects_by_part.get((split, lang), {}))}
        for (split, lang), count in sorted(counted.parts.items())
    ]
    return {
        "stage": counted.stage,
        "complete": counted.complete,
        "digest": counted.digest,
        "bytes": counted.bytes,
        "rejects": counted.rejects,
        "total": counted.total().facts(),
        "languages": [{"lang": lang, **counted.total(lang=lang).facts()} for lang in counted.langs],
        "splits": [{"split": split, **counted.total(split=split).facts()} for split in counted.splits],
        "parts": parts,
    }

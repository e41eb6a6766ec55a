"""What the verbs share that make a new corpus of the embeddings of another: which rows, where to, in which units."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import yaml

from lcm_data.corpus import StageData
from lcm_data.errors import UsageError
from lcm_data.store.files import Files, LocalFiles
from lcm_data.store.plan import CONFIG_PATH, PLAN_PATH, Unit
from lcm_data.store.shard import ShardInfo

Run = tuple[range, int]
"""Row groups that begin and end with a document, and how much they count."""


def chosen_shards(data: StageData, langs: Sequence[str] | None, splits: Sequence[str] | None) -> list[ShardInfo]:
    """The shards of these languages and splits that have rows.

    Raises:
        UsageError: a language or split that the stage does not have.
    """
    paths = set(data.shards(langs, splits))
    return [shard for shard in data.manifest.shards if shard.path in paths and shard.rows]


def check_place(origin: Files, corpus: Files, stage: str, setting: str, made: str) -> None:
    """Refuse to write where it would harm: in the corpus that is read, around it, or over what another verb made.

    Args:
        stage: that is written; ``setting`` is one that only this verb gives to it.
        made: what this verb makes, for messages: "decoded sentences".

    Raises:
        UsageError: the place is taken.
    """
    source, out = _location(origin), _location(corpus)
    if source == out:
        raise UsageError(f"the {made} would take the place of those of {origin.root}. Give another folder for them.")
    if overlaps(origin, corpus):
        raise UsageError(
            f"one of {origin.root} and {corpus.root} lies inside the other. Give a folder for the {made} "
            "that is neither in the corpus nor around it."
        )
    target = corpus.child(stage)
    if target.size(PLAN_PATH) is not None and setting not in _settings(target):
        raise UsageError(f"{target.root} holds other {stage} than {made}. Give another folder for them.")


def document_units(
    shards: Sequence[ShardInfo], size: int, count: Callable[[ShardInfo], Sequence[Run] | None]
) -> tuple[Unit, ...]:
    """Units of whole documents, numbered in the order of the rows, largest first to keep the tail short.

    A shard is cut between its runs into units that count at most ``size``, or of one run if that is larger; ``count``
    gives the runs, or None for a shard that is one unit by its rows.
    """
    with ThreadPoolExecutor(16) as pool:  # an object store answers each in tens of milliseconds
        counted = list(pool.map(count, shards))
    specs: list[tuple[int, dict[str, Any]]] = []
    for shard, runs in zip(shards, counted, strict=True):
        if runs is None:
            specs.append((shard.rows, {"shard": shard.path}))
            continue
        start = stop = total = 0
        for groups, num in runs:
            if total and total + num > size:
                specs.append((total, {"shard": shard.path, "groups": [start, stop]}))
                start, total = stop, 0
            stop, total = groups.stop, total + num
        specs.append((total, {"shard": shard.path, "groups": [start, stop]}))
    units = [Unit(number, total, spec) for number, (total, spec) in enumerate(specs)]
    return tuple(sorted(units, key=lambda unit: (-unit.rows, unit.id)))


def overlaps(first: Files, second: Files) -> bool:
    """Whether two places are the same, or one lies in the other."""
    one, two = f"{_location(first)}/", f"{_location(second)}/"
    return one.startswith(two) or two.startswith(one)


def _location(files: Files) -> str:
    return (os.path.realpath(files.root) if isinstance(files, LocalFiles) else files.root).rstrip("/")


def _settings(stage: Files) -> Mapping[str, Any]:
    """What a stage was made with, for a first look: its plan may be damaged or of an older layout."""
    try:
        settings = yaml.safe_load(stage.read(CONFIG_PATH))
    except (FileNotFoundError, yaml.YAMLError):
        return {}
    return settings if isinstance(settings, dict) else {}

"""A Hugging Face dataset folder: Parquet by stage, language and split, and a card that ``datasets`` opens it by.

Files have the columns of the stage and ``lang``. A corpus needs no export for this: see ``lcm_data.exchange.card``.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from lcm_data.exchange.card import CARD, write_card
from lcm_data.exchange.layouts import Export, OutFile, file_facts, rows_of, write_rows
from lcm_data.schema import STAGES
from lcm_data.store.shard import parse_shard_path


class HfLayout:
    """``data/STAGE/LANG/SPLIT-PART.parquet`` and ``README.md``."""

    stages = STAGES
    default = STAGES

    def files(self, export: Export) -> Iterator[OutFile]:
        for stage in export.stages:
            for path, rows in export.shards(stage):
                split, lang, part = parse_shard_path(path)
                yield OutFile(
                    f"data/{stage}/{lang}/{split}-{part:06d}.parquet", rows, partial(_write, export, stage, path)
                )

    def extras(self, export: Export, files: Sequence[OutFile]) -> Mapping[str, bytes]:
        return {CARD: write_card(export, pattern).encode()}


def pattern(stage: str, lang: str | None, split: str) -> str:
    """The files of a stage, split and language (or all languages)."""
    return f"data/{stage}/{lang or '*'}/{split}-*.parquet"


def _write(export: Export, stage: str, path: str, file: Path) -> None:
    data = export.data(stage)
    groups = rows_of(data, path, ("lang",))
    first = next(groups)
    write_rows(file, itertools.chain([first], groups), first.schema, file_facts(data, path))

"""The card of a corpus: what it holds and how it was made, with the ``configs`` by which ``datasets`` opens it.

``load_dataset(folder)`` gives the embeddings, ``load_dataset(folder, "segments")`` another stage,
``load_dataset(folder, "embeddings-fra_Latn")`` one language; ``split=`` as usual. It works on a corpus as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa

from lcm_data.corpus import StageData
from lcm_data.exchange.layouts import Export
from lcm_data.languages import LANGUAGE_NAMES
from lcm_data.splits import SPLITS
from lcm_data.store.shard import parse_shard_path
from lcm_data.version import __version__

CARD = "README.md"
MARK = "<!-- written by lcm-data -->"

Pattern = Callable[[str, str | None, str], str]
"""Of stage, language (None for all) and split: the pattern of their files."""

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_LARGER = (
    (10**7, "1M<n<10M"),
    (10**8, "10M<n<100M"),
    (10**9, "100M<n<1B"),
    (10**10, "1B<n<10B"),
    (10**11, "10B<n<100B"),
)
_MADE_BY = (
    *("segmenter", "encoder", "encoder_revision", "space", "dim", "store_dtype", "pooling", "normalized", "trained"),
    *("decoder", "generator"),
)


def corpus_pattern(stage: str, lang: str | None, split: str) -> str:
    """Files of a corpus as it is."""
    return f"{stage}/data/split={split}/lang={lang or '*'}/*.parquet"


def write_card(export: Export, pattern: Pattern) -> str:
    """The text of the card."""
    import yaml

    counts = {stage: _counts(export, stage) for stage in export.stages}
    first = _main_stage(counts)
    langs = sorted({lang for split_counts in counts.values() for _, lang in split_counts})
    head = {
        "license": export.licence,
        "language": sorted({lang[:3] for lang in langs}),
        "size_categories": [_size(sum(counts[first].values()))],
        "tags": ["sentence-embeddings", "large-concept-models", *_spaces(export)],
        "configs": list(_configs(counts, first, pattern)),
    }
    name = export.options.get("name") or export.place.rstrip("/").rpartition("/")[2]
    front = yaml.safe_dump(head, sort_keys=False, allow_unicode=True)
    body = [_intro(export, name, counts, first), _table_of_counts(counts[first]), _columns(export), _made_by(export)]
    return f"---\n{front}---\n{MARK}\n\n# {name}\n\n" + "\n\n".join(body) + "\n"


def _main_stage(counts: Mapping[str, Any]) -> str:
    """The stage that opens by default."""
    return "embeddings" if "embeddings" in counts else next(iter(counts))


def _counts(export: Export, stage: str) -> dict[tuple[str, str], int]:
    """Rows by split and language."""
    found: dict[tuple[str, str], int] = {}
    for path, rows in export.shards(stage):
        split, lang, _ = parse_shard_path(path)
        found[split, lang] = found.get((split, lang), 0) + rows
    return found


def _configs(counts: Mapping[str, Mapping[tuple[str, str], int]], first: str, pattern: Pattern) -> list[dict[str, Any]]:
    found = []
    for stage in sorted(counts, key=lambda stage: stage != first):
        langs = sorted({lang for _, lang in counts[stage]})
        for lang in (None, *langs):
            splits = [
                split for split in SPLITS if any(s == split and lang in (None, at) for s, at in counts[stage])
            ]  # fmt: skip
            files = [{"split": split, "path": pattern(stage, lang, split)} for split in splits]
            config: dict[str, Any] = {"config_name": stage if lang is None else f"{stage}-{lang}"}
            if stage == first and lang is None:
                config["default"] = True
            found.append({**config, "data_files": files})
    return found


def _size(rows: int) -> str:
    return next((name for limit, name in (*_SIZES, *_LARGER) if rows < limit), "n>1T")


def _spaces(export: Export) -> list[str]:
    names = {export.data(stage).manifest.provenance.get("space", "") for stage in export.stages}
    return sorted(name for name in names if name)


def _intro(export: Export, name: str, counts: Mapping[str, Mapping[tuple[str, str], int]], first: str) -> str:
    stages = "; ".join(f"`{stage}`: {sum(each.values()):,} rows" for stage, each in counts.items())
    lang = min(lang for _, lang in counts[first])
    split = min((split for split, _ in counts[first]), key=SPLITS.index)
    return (
        f"Sentences as concepts, one row a sentence. {stages}.\n\n"
        "```python\n"
        "from datasets import load_dataset\n\n"
        f'data = load_dataset("{name}", split="{split}")  # {first} of all languages\n'
        f'some = load_dataset("{name}", "{first}-{lang}", split="{split}")  # of one\n'
        'vectors = data.with_format("numpy")[:8]["emb"]  # an array [8, dim]; "arrow" keeps half floats\n'
        "```\n\n"
        "Licence: to be stated by whoever publishes this. Those of the texts and of the encoder apply; nothing was "
        f"checked when this card was written (`license: {export.licence}` above)."
    )


def _table_of_counts(counts: Mapping[tuple[str, str], int]) -> str:
    splits = [split for split in SPLITS if any(split == each for each, _ in counts)]
    lines = [f"| language | | {' | '.join(splits)} |", f"|---|---|{'---:|' * len(splits)}"]
    for lang in sorted({lang for _, lang in counts}):
        cells = " | ".join(f"{counts.get((split, lang), 0):,}" for split in splits)
        lines.append(f"| `{lang}` | {LANGUAGE_NAMES.get(lang, '')} | {cells} |")
    return "## Rows\n\n" + "\n".join(lines)


def _columns(export: Export) -> str:
    parts = []
    for stage in export.stages:
        columns = ", ".join(f"`{field.name}` ({_type_name(field.type)})" for field in export.data(stage).schema)
        parts.append(f"* `{stage}`: {columns}")
    return "## Columns\n\n" + "\n".join(parts) + "\n\n`sid` joins the stages; `sent_idx` is the place in the document."


def _type_name(kind: pa.DataType) -> str:
    return f"{kind.value_type}[{kind.list_size}]" if pa.types.is_fixed_size_list(kind) else str(kind)


def _made_by(export: Export) -> str:
    lines = []
    for stage in export.stages:
        lines.append(f"* `{stage}`: {_facts(export.data(stage))}")
    return f"## How it was made\n\nWith lcm-data {__version__}.\n\n" + "\n".join(lines)


def _facts(data: StageData) -> str:
    known = data.manifest.provenance
    facts = [f"{name.replace('_', ' ')} {known[name]}" for name in _MADE_BY if known.get(name)]
    rejects = sum(data.manifest.rejects.values())
    return "; ".join([*facts, f"{data.manifest.rows_in:,} rows in, {rejects:,} rejected"])

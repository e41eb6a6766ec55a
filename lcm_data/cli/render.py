"""Printing results on stdout: a table a person reads, or one JSON object."""

from __future__ import annotations

import dataclasses
import json as jsonlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.stage import DryRun, Report


def as_json(value: Any) -> None:
    """One JSON object and nothing else."""
    print(jsonlib.dumps(value, ensure_ascii=False, indent=1, default=str))


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], numbers: Sequence[str] = ()) -> None:
    """A table with right-aligned number columns."""
    from rich.console import Console
    from rich.table import Table

    shown = Table(title=title, title_justify="left", title_style="bold", header_style="", box=None, pad_edge=False)
    for column in columns:
        shown.add_column(column, justify="right" if column in numbers else "left", overflow="fold")
    for row in rows:
        shown.add_row(*(_cell(value) for value in row))
    Console(highlight=False, soft_wrap=False).print(shown)


def facts(title: str, pairs: Mapping[str, Any]) -> None:
    """Names and values, one pair a line."""
    table(title, ("", " "), list(pairs.items()))


def _cell(value: Any) -> str:
    from rich.markup import escape

    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.3g}" if abs(value) < 100 else f"{value:,.0f}"
    return escape(str(value))


def settings(values: Mapping[str, Any], json: bool) -> None:
    """The settings in force, as a file that ``--config`` takes."""
    if json:
        as_json(values)
        return
    import yaml

    print(yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True), end="")


def report(result: Report, verb: str, json: bool) -> None:
    """What a run did."""
    manifest = result.manifest
    if json:
        fields = dataclasses.asdict(result)
        fields["manifest"].pop("shards")
        as_json({**fields, "verb": verb})
        return
    noun = "documents" if verb == "segment" else "sentences"
    pairs: dict[str, Any] = {f"{noun} in": manifest.rows_in}
    if verb == "segment":
        pairs["documents kept"] = manifest.rows_done
    pairs["sentences out"] = manifest.rows
    pairs["rejected"] = _counts(manifest.rejects)
    if truncated := manifest.stats.get("truncated"):
        pairs["truncated"] = int(truncated)
    langs = {name.split("/")[1] for name in manifest.partitions}
    pairs |= {"languages": len(langs), "shards": len(manifest.shards), "size": size(manifest.bytes)}
    pairs |= result.extra
    if result.units_done:
        pairs["this run"] = (
            f"{result.units_done} of {result.units} units in {result.seconds:.1f} s, "
            f"{result.rows_per_second:,.0f} {noun}/s, workers busy {result.busy_share:.0%}, "
            f"at most {size(result.peak_rss)} of memory each"
        )
    else:
        pairs["this run"] = "nothing left to do"
    facts(f"{verb}: {result.root}", pairs)


def dry_run(result: DryRun, noun: str, json: bool) -> None:
    """What a run would do."""
    if json:
        as_json(dataclasses.asdict(result))
        return
    pairs: dict[str, Any] = {
        "units": f"{result.units_open:,} open of {result.units:,}",
        noun: result.rows_open,
        "output": f"about {size(result.bytes_out)}",
        "time": f"about {result.seconds:,.0f} s",
    }
    facts(f"dry run of {result.stage}: {result.root}", pairs)


def size(num_bytes: float) -> str:
    """Bytes as people write them."""
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} TB"


def _counts(counts: Mapping[str, int]) -> str:
    if not counts:
        return "0"
    parts = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    return f"{sum(counts.values()):,} ({parts})"

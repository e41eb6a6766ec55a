"""Printing results on stdout: a table a person reads, or one JSON object."""

from __future__ import annotations

import dataclasses
import json as jsonlib
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rich.console import Console

    from pipelines.stage import DryRun, Report

_SHOWN_ITEMS = 4
_SHORT = 12
"""Characters of a text that is not worth wrapping."""
_BARS = " ▁▂▃▄▅▆▇█"
_GAP = 2
"""Spaces between two columns."""


def as_json(value: Any) -> None:
    """One JSON object and nothing else."""
    print(jsonlib.dumps(value, ensure_ascii=False, indent=1, default=str))


def table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    numbers: Sequence[str] = (),
    one_line: Sequence[str] = (),
) -> None:
    """A table with right-aligned ``numbers``; columns of ``one_line`` are cut short instead of wrapped."""
    from rich.table import Table

    shown = Table(
        show_header=any(map(str.strip, columns)),
        header_style="",
        box=None,
        pad_edge=False,
        expand=bool(one_line),
    )
    for column in columns:
        short = column in one_line
        shown.add_column(
            column,
            justify="right" if column in numbers else "left",
            overflow="ellipsis" if short else "fold",
            no_wrap=short,
            ratio=1 if short else None,
        )
    for row in rows:
        shown.add_row(*(_cell(value) for value in row))
    heading(title)
    _console().print(shown)


def heading(title: str) -> None:
    """A line of its own: as the title of a table it would be folded to the width of the columns."""
    from rich.text import Text

    _console().print(Text(title, style="bold"), soft_wrap=True)


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False)


def records(title: str, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> None:
    """A table of records: those of ``columns`` that any of them has a value for, by default everything."""
    if not rows:
        heading(title)
        return
    present = list(dict.fromkeys(name for row in rows for name in row))
    shown = present
    if columns:
        shown = [name for name in columns if any(row.get(name) is not None for row in rows)]
    numbers = [name for name in shown if any(isinstance(row.get(name), int | float) for row in rows)]
    decimals = {name: _decimals([row.get(name) for row in rows]) for name in numbers}
    cells = {name: [_cell(_fixed(row.get(name), decimals.get(name, 0))) for row in rows] for name in shown}
    width = _console().width
    wide = {name: max(map(len, [name, *cells[name]])) for name in shown}
    short = {name for name in shown if name in numbers or max(map(len, cells[name])) <= _SHORT}
    if sum(wide.values()) + _GAP * (len(shown) - 1) <= width:
        parts, headings = [shown], {name: name for name in shown}
    else:  # words of a heading and short cells stay whole; what does not fit even so goes into another table
        whole = {name: [*name.split(), *(cells[name] if name in short else ())] for name in shown}
        parts = _parts(shown, {name: max(map(len, whole[name])) for name in shown}, width)
        headings = {name: name.replace(" ", "\n") for name in shown}
    heading(title)
    for part in parts:
        _grid({name: headings[name] for name in part}, cells, numbers, short)


def _parts(names: Sequence[str], least: Mapping[str, int], width: int) -> list[list[str]]:
    """The columns of as many tables as are needed to fit the width; each begins with the first column."""
    first = names[0]
    parts, used = [[first]], least[first]
    for name in names[1:]:
        if used + _GAP + least[name] > width and len(parts[-1]) > 1:
            parts.append([first])
            used = least[first]
        parts[-1].append(name)
        used += _GAP + least[name]
    return parts


def _grid(
    headings: Mapping[str, str], cells: Mapping[str, Sequence[str]], numbers: Sequence[str], whole: Collection[str]
) -> None:
    """One of the tables of ``records``; cells of the columns ``whole`` are not wrapped."""
    from rich.table import Table

    shown = Table(header_style="", box=None, pad_edge=False)
    for name, text in headings.items():
        justify: Literal["left", "right"] = "right" if name in numbers else "left"
        shown.add_column(text, justify=justify, overflow="fold", no_wrap=name in whole)
    for row in zip(*(cells[name] for name in headings), strict=True):
        shown.add_row(*row)
    _console().print(shown)


def _decimals(values: Iterable[Any]) -> int:
    """Decimals that give the largest of a column three significant digits, so that its points stand in line."""
    largest = max((abs(value) for value in values if isinstance(value, float)), default=0.0)
    return min(6, max(0, 2 - math.floor(math.log10(largest)))) if largest else 1


def _fixed(value: Any, decimals: int) -> Any:
    return f"{value:,.{decimals}f}" if isinstance(value, float) else value


def lengths(edges: Sequence[float], counts: Mapping[str, Sequence[int]]) -> None:
    """Segments of recordings by length, a row of bars a language; the highest of each is full."""
    from rich.text import Text

    heading(f"lengths of segments: a bar is {edges[1] - edges[0]:g} s, from 0 to {edges[-1]:g} s")
    for lang, each in counts.items():
        _console().print(Text(f"{lang}  {bars(each)}  up to {max(each):,} in a bar"), soft_wrap=True)


def bars(counts: Sequence[int]) -> str:
    """Numbers as bars of a character each; one above 0 is never empty."""
    top = max(counts, default=0)
    return "".join(_BARS[-(-count * (len(_BARS) - 1) // top)] if count else " " for count in counts)


def facts(title: str, pairs: Mapping[str, Any]) -> None:
    """Names and values, one pair a line."""
    table(title, ("", " "), [(name.replace("_", " "), value) for name, value in pairs.items()])


def _cell(value: Any) -> str:
    from rich.markup import escape

    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.3g}" if abs(value) < 100 else f"{value:,.0f}"
    if isinstance(value, list | tuple):
        start = " ".join(f"{each:.3f}" if isinstance(each, float) else str(each) for each in value[:_SHOWN_ITEMS])
        return f"\\[{start} …] ({len(value)})" if len(value) > _SHOWN_ITEMS else f"\\[{start}]"
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
    noun = "documents" if verb in ("segment", "generate") else "sentences"
    pairs: dict[str, Any] = {f"{noun} in": manifest.rows_in}
    if noun == "documents":
        pairs["documents kept"] = manifest.rows_done
    pairs["sentences out"] = manifest.rows
    pairs["rejected"] = _counts(manifest.rejects)
    if truncated := manifest.stats.get("truncated"):
        pairs["truncated"] = int(truncated)
    if unknown := manifest.stats.get("unknown"):
        pairs["with unknown characters"] = int(unknown)
    if unplaced := manifest.stats.get("transcripts_unplaced"):
        pairs["transcripts left out"] = f"{int(unplaced):,}, of recordings with several segments"
    if blank := manifest.stats.get("blank"):
        pairs["without content"] = int(blank)
    langs = {name.split("/")[1] for name in manifest.partitions}
    pairs |= {"languages": len(langs), "shards": len(manifest.shards), "size": size(manifest.bytes)}
    pairs |= {name: value for name, value in result.extra.items() if value not in ((), [], None)}
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
        "output": "known once there is a codebook" if result.bytes_out is None else f"about {size(result.bytes_out)}",
        "time": "known once there is a codebook" if result.seconds is None else f"about {_seconds(result.seconds)}",
    }
    facts(f"dry run of {result.stage}: {result.root}", pairs)


def _seconds(seconds: float) -> str:
    return (
        f"{seconds:,.1f} s"
        if seconds < 100
        else f"{seconds / 60:,.0f} min"
        if seconds < 6000
        else f"{seconds / 3600:,.1f} h"
    )


def count(number: int) -> str:
    """A count of parameters: in millions, small ones in full."""
    return f"{number / 1e6:,.1f} M" if number >= 1e6 else f"{number:,}"


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

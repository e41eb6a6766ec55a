"""The verbs ``stats`` and ``report``: a corpus in numbers, on the screen or as one page for a browser."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from lcm_data.cli.options import CorpusArgument, JsonOption, QuietOption


def register(app: typer.Typer) -> None:
    """Add the verbs to the application."""
    for verb in (stats, report):
        app.command(rich_help_panel="Look", no_args_is_help=True)(verb)


def stats(
    corpus: CorpusArgument,
    stage: Annotated[str | None, typer.Option(help="Only segments, embeddings or codes.")] = None,
    lang: Annotated[list[str] | None, typer.Option(help="Only this language; repeatable.")] = None,
    split: Annotated[list[str] | None, typer.Option(help="Only this split; repeatable.")] = None,
    json: JsonOption = False,
) -> None:
    """Count what each stage holds: documents, sentences, lengths, norms, rejects, hours; by language and split.

    Example: lcm-data stats my-corpus --lang fra_Latn
    """
    from lcm_data.cli import render
    from pipelines.statistics import corpus_statistics

    result = corpus_statistics(corpus, stage, lang, split)
    if json:
        render.as_json(result)
        return
    for number, counted in enumerate(result["stages"]):
        if number:
            print()
        _show(counted)


def _show(counted: dict[str, Any]) -> None:
    from lcm_data.cli import render

    total = counted["total"]
    done = "" if counted["complete"] else ", unfinished"
    title = f"{counted['stage']}: {total['sentences']:,} sentences of {total['documents']:,} documents"
    rows = [_row("lang", each) for each in counted["languages"]]
    rows += [{**_row("lang", total), "lang": "all"}] if len(rows) > 1 else []
    render.records(f"{title}, {render.size(counted['bytes'])}{done}", rows)
    if len(counted["splits"]) > 1:
        names = ("split", "documents", "sentences")
        render.records("by split", [{name: each[name] for name in names} for each in counted["splits"]])
    if counted["rejects"]:
        print("rejected: " + ", ".join(f"{reason} {number:,}" for reason, number in counted["rejects"].items()))


def _row(key: str, facts: dict[str, Any]) -> dict[str, Any]:
    """The facts of a language in the columns of a table: of each measure the mean and some percentiles."""
    row = {name: value for name, value in facts.items() if name not in ("measures", "rejects")}
    for name, spread in facts["measures"].items():
        if name != "unk" and spread["count"]:
            row |= {f"{name} {point}": spread[point] for point in ("mean", "p5", "p50", "p95", "max")}
    return {key: row.pop(key, ""), **row}


def report(
    corpus: CorpusArgument,
    out: Annotated[str, typer.Option("--out", "-o", help="File to write.")] = "report.html",
    title: Annotated[str | None, typer.Option(help="Heading; by default the name of the corpus.")] = None,
    points: Annotated[int, typer.Option(help="Sentences on the map.", min=100)] = 6000,
    seed: Annotated[int, typer.Option(help="Of the samples.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if there is one.")] = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write one HTML page about a corpus, which needs nothing but itself: counts, a map of the space, provenance.

    Example: lcm-data report my-corpus -o report.html
    """
    from lcm_data.cli import render
    from pipelines import report as pipeline

    def say(line: str) -> None:
        if not (quiet or json):
            print(f"report: {line}", file=sys.stderr)

    settings = pipeline.ReportConfig(corpus=corpus, out=out, title=title, points=points, seed=seed, overwrite=overwrite)
    result = pipeline.run(settings, say)
    if json:
        render.as_json(result)
    else:
        print(f"{result['out']}: {render.size(result['bytes'])}, made in {result['seconds']:.1f} s")

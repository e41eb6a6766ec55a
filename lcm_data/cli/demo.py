"""The verb ``demo``: the whole road on the embedded corpus in two minutes."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from lcm_data.cli.options import JsonOption, QuietOption

if TYPE_CHECKING:
    from pipelines.demo import DemoResult


def register(app: typer.Typer) -> None:
    """Add the verb to the application."""
    app.command(rich_help_panel="Start here")(demo)


def demo(
    corpus: Annotated[str, typer.Argument(help="Folder to make.")] = "demo-corpus",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start anew if the folder has a corpus.")] = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Go the whole road on a small corpus in 16 languages: sentences, embeddings, codes, a model, new sentences.

    Example: lcm-data demo
    """
    from lcm_data.cli import render
    from pipelines import demo as pipeline

    with contextlib.redirect_stdout(sys.stderr):
        result = pipeline.run(corpus, overwrite, None if quiet else lambda line: print(line, file=sys.stderr))
    if json:
        parts = ("languages", "example", "neighbours", "said", "page")
        render.as_json({"corpus": corpus, **{name: getattr(result, name) for name in parts}})
        return
    _show(result)
    print(_NEXT.format(corpus=corpus, levels=pipeline.LEVELS, units=pipeline.UNITS))


def _show(result: DemoResult) -> None:
    from lcm_data.cli import render
    from pipelines import demo as pipeline

    print()
    columns = list(result.languages[0])
    rows = [list(row.values()) for row in result.languages]
    render.table("What was produced", columns, rows, numbers=columns[1:5], one_line=columns[5:])
    print()
    render.table("One sentence on its way", ("", " "), list(result.example.items()))
    print()
    sizes = [
        (report.stage, report.manifest.rows, sum(report.manifest.rejects.values()), len(report.manifest.shards),
         render.size(report.manifest.bytes), f"{report.seconds:.1f} s")
        for report in result.reports
    ]  # fmt: skip
    columns = ["stage", "sentences", "rejected", "shards", "size", "time"]
    render.table("Stages", columns, sizes, columns[1:])
    print()
    columns = list(result.neighbours[0])
    rows = [list(row.values()) for row in result.neighbours]
    render.table(f"Nearest to: {pipeline.QUERY}", columns, rows, numbers=columns[1:2], one_line=columns[2:])
    print()
    columns = list(result.said[0])
    rows = [list(row.values()) for row in result.said]
    render.table(f"The vector of: {pipeline.SAID}", columns, rows)
    print()
    columns = list(result.page[0])
    title = f"A page in {pipeline.UNSEEN}, which the model never learned from: how it goes on, and what the model wrote"
    render.table(title, columns, [list(row.values()) for row in result.page])


_NEXT = """
The space is small and knows software texts and a game; the model is tiny and learned twelve documents for a minute.
What it writes shows the road, not what such models can do.

Next:
  lcm-data status   {corpus}
  lcm-data inspect  {corpus} --doc bridge --lang fra_Latn --lang jpn_Jpan
  lcm-data evaluate {corpus}-model {corpus} --split train --lang fra_Latn
  duckdb -c "SELECT lang, count(*) FROM read_parquet('{corpus}/embeddings/data/**/*.parquet') GROUP BY 1"

With real SONAR weights (3 GB, once):
  lcm-data encode    {corpus} --model text_sonar_basic_encoder --overwrite
  lcm-data normalize {corpus} --overwrite
  lcm-data quantize  {corpus} --levels {levels} --units {units} --overwrite"""
"""What to do next, for ``str.format``."""

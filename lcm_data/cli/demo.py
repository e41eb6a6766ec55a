"""The verb ``demo``: the whole road on the embedded corpus in half a minute."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from lcm_data.cli.options import JsonOption


def register(app: typer.Typer) -> None:
    """Add the verb to the application."""
    app.command(rich_help_panel="Start here")(demo)


def demo(
    corpus: Annotated[str, typer.Argument(help="Folder to make.")] = "demo-corpus",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start anew if the folder has a corpus.")] = False,
    json: JsonOption = False,
) -> None:
    """Segment, encode and quantize a small corpus in 16 languages that ships with the package.

    Example: lcm-data demo
    """
    from lcm_data.cli import render
    from pipelines import demo as pipeline

    result = pipeline.run(corpus, overwrite, lambda line: print(line, file=sys.stderr))
    if json:
        render.as_json({"corpus": corpus, "languages": result.languages, "example": result.example})
        return
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
    print(f"""
Next:
  lcm-data status  {corpus}
  lcm-data inspect {corpus} --doc bridge --lang fra_Latn --lang jpn_Jpan
  lcm-data verify  {corpus}
  duckdb -c "SELECT lang, count(*) FROM read_parquet('{corpus}/embeddings/data/**/*.parquet') GROUP BY 1"

With real SONAR weights (3 GB, once):
  lcm-data encode    {corpus} --model text_sonar_basic_encoder --overwrite
  lcm-data normalize {corpus} --overwrite
  lcm-data quantize  {corpus} --levels {pipeline.LEVELS} --units {pipeline.UNITS} --overwrite""")

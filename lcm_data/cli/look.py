"""The verbs that look at a corpus: status, verify, inspect. They change nothing."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from lcm_data.cli.options import CorpusArgument, JsonOption


def register(app: typer.Typer) -> None:
    """Add the verbs to the application."""
    for verb in (status, verify, inspect):
        app.command(rich_help_panel="Look", no_args_is_help=True)(verb)


def status(corpus: CorpusArgument, json: JsonOption = False) -> None:
    """Show how far each stage of a corpus is.

    Example: lcm-data status my-corpus
    """
    from lcm_data.cli import render
    from lcm_data.space import space_text
    from pipelines.look import corpus_status, stale_normalizer
    from pipelines.normalize import FILE

    stages, stale = corpus_status(corpus), stale_normalizer(corpus)
    if json:
        render.as_json({"corpus": corpus, "stages": stages, "beside": {FILE: stale} if stale else {}})
        return
    columns = ("stage", "state", "units", "rows in", "sentences", "rejected", "size", "left")
    rows = [
        (
            stage["stage"], stage["state"], f"{stage['units_done']:,}/{stage['units']:,}", stage["rows_in"],
            stage["rows"], stage["rejected"], render.size(stage["bytes"]), stage["left"],
        )
        for stage in stages
    ]  # fmt: skip
    render.table(f"status of {corpus}", columns, rows, numbers=columns[2:])
    for stage in stages:
        if stage.get("space"):
            print(f"{stage['stage']}: {space_text(stage)}")
    if stale:
        print(f"{FILE}: {stale}")


def verify(
    corpus: CorpusArgument,
    level: Annotated[str, typer.Option(help="size, footer or hash: how closely to look.")] = "hash",
    json: JsonOption = False,
) -> None:
    """Check shards, manifests, codebook and normaliser of a corpus; exit code 5 if something is wrong.

    Example: lcm-data verify my-corpus --level footer
    """
    from lcm_data.cli import render
    from lcm_data.errors import VerificationError
    from pipelines.look import verify_corpus

    result = verify_corpus(corpus, level)
    if json:
        render.as_json(result)
    else:
        for stage in result["stages"]:
            done, units = stage["units_done"], stage["units"]
            unfinished = "" if done == units else f", unfinished: {done:,} of {units:,} units"
            found = _problems(len(stage["problems"]))
            counts = f"{stage['shards']:,} shards, {stage['rows']:,} rows, {found}"
            print(f"{stage['stage']}: {counts}{unfinished}")
            for problem in stage["problems"]:
                print(f"  {problem['path']}: {' '.join(problem['what'].split())}")
        for problem in result["beside"]:
            print(f"{problem['path']}: {' '.join(problem['what'].split())}")
    if result["problems"]:
        raise VerificationError(
            f"{_problems(result['problems'])} found. Delete the files named above and run their stage again: only "
            "what they hold is done anew."
        )


def _problems(number: int) -> str:
    return f"{number:,} problem{'' if number == 1 else 's'}"


def inspect(
    corpus: CorpusArgument,
    stage: Annotated[
        str | None, typer.Option(help="segments, embeddings or codes; by default the last one that fits.")
    ] = None,
    doc: Annotated[str | None, typer.Option(help="Show this document, in every language it has.")] = None,
    picture: Annotated[
        str | None,
        typer.Option(help="Draw a recording with its segments (--doc, by default the first) as PNG, SVG or PDF.",
                     metavar="FILE"),
    ] = None,
    head: Annotated[int, typer.Option(help="Show so many rows instead of statistics.", min=0)] = 0,
    rejects: Annotated[bool, typer.Option("--rejects", help="Show rejected rows with their reasons.")] = False,
    lang: Annotated[list[str] | None, typer.Option(help="Only this language; repeatable.")] = None,
    split: Annotated[list[str] | None, typer.Option(help="Only this split; repeatable.")] = None,
    json: JsonOption = False,
) -> None:  # fmt: skip
    """Look inside a corpus: statistics by language, the first rows, one document, or the rejects.

    Of recordings also hours, lengths and loudness of segments, and a picture.

    Example: lcm-data inspect my-corpus --stage segments --head 5 --lang fra_Latn
    """
    from lcm_data.cli import render
    from pipelines import look

    result: dict[str, Any]
    if picture is not None:
        from pipelines import look_recordings

        result = look_recordings.picture(corpus, picture, doc, lang, split)
    elif rejects:
        result = look.reject_rows(corpus, stage, head) if stage else _all_rejects(corpus, head)
    elif doc is not None:
        result = look.document_rows(corpus, stage or _last_with_text(corpus), doc, lang, split)
    elif head:
        result = look.head_rows(corpus, stage, head, lang, split)
    else:
        result = look.statistics(corpus, stage, lang, split)
    if json:
        result.pop("columns", None)
        render.as_json(result)
        return
    render.records(result["title"], result["rows"], result.get("columns"))
    if "recordings" in result:
        render.records("recordings", result["recordings"])
        render.lengths(result["durations"]["edges"], result["durations"]["segments"])
    for name, value in result.get("facts", {}).items():
        print(f"{name}: {value}")


def _last_with_text(root: str) -> str | None:
    """The last stage whose rows can be read as sentences; None if there is none."""
    from lcm_data.corpus import StageData, open_corpus

    corpus = open_corpus(root, allow_partial=True)
    for name in reversed(corpus.stages):
        data = StageData(corpus.files.child(name), allow_partial=True)
        if data.manifest.shards and "text" in data.schema.names:
            return name
    return None


def _all_rejects(root: str, limit: int) -> dict[str, Any]:
    """The rejects of every stage in order, the first ``limit`` (100 if it is 0) of them."""
    from lcm_data.corpus import StageData, open_corpus
    from pipelines import look

    corpus = open_corpus(root, allow_partial=True)
    rows: list[dict[str, Any]] = []
    total = 0
    for name in corpus.stages:
        total += sum(StageData(corpus.files.child(name), allow_partial=True).manifest.rejects.values())
        if left := (limit or 100) - len(rows):
            rows += [{"stage": name, **row} for row in look.reject_rows(root, name, left)["rows"]]
    few = f"the first {len(rows):,} of " if len(rows) < total else ""
    title = f"{few}{total:,} rejects of {', '.join(corpus.stages)} in {root}"
    return {"title": title, "columns": ("stage", "doc_id", "reason", "error", "text"), "rows": rows}

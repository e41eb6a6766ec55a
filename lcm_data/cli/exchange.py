"""The verbs that bring vectors in and take them elsewhere: import, export, card."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from functools import partial
from typing import Annotated, Any

import typer

from lcm_data.cli.make import run_verb
from lcm_data.cli.options import (
    ConfigOption,
    CorpusArgument,
    DryRunOption,
    ExecutorOption,
    JsonOption,
    OverwriteOption,
    PrintConfigOption,
    QuietOption,
    RayAddressOption,
    RejectRateOption,
    TimeoutOption,
    WorkersOption,
    given,
    option,
)

_columns = partial(option, panel="Columns")
_vectors = partial(option, panel="Vectors")
_split = partial(option, panel="Splits")
_what = partial(option, panel="What is exported")
_card = partial(option, panel="Card")

_HOW = {"config", "dry_run", "print_config", "json", "quiet"}


def register(app: typer.Typer) -> None:
    """Add the verbs to the application."""
    app.command("import", rich_help_panel="Exchange", no_args_is_help=True)(import_vectors)
    app.command(rich_help_panel="Exchange", no_args_is_help=True)(export)
    app.command(rich_help_panel="Exchange", no_args_is_help=True)(card)


def import_vectors(
    source: Annotated[
        str, typer.Argument(help="Parquet, .npy, .arrow or Lance: file, folder, glob or URL.", show_default=False)
    ],
    corpus: Annotated[str, typer.Argument(help="Corpus to make.", show_default=False)],
    space: Annotated[str | None, _vectors("Name of the embedding space: sonar, or a name of yours.")] = None,
    encoder: Annotated[str | None, _vectors("Name of what made the vectors.")] = None,
    modality: Annotated[
        str | None, _vectors("What they are of: text, speech, sign, image, ...", default="text")
    ] = None,
    dim: Annotated[int | None, _vectors("Numbers of a vector; by default as the first has.")] = None,
    store_dtype: Annotated[str | None, _vectors("Stored vectors: float16 (usual) or float32.")] = None,
    embedding_column: Annotated[str | None, _columns("Of the vectors, or lists of them; found if one.")] = None,
    text_column: Annotated[str | None, _columns("Of the sentences: text or text_sentences, if there.")] = None,
    id_column: Annotated[str | None, _columns("Of the document: doc_id or id, if there.")] = None,
    lang_column: Annotated[str | None, _columns("Of the language: lang, if there.")] = None,
    split_column: Annotated[str | None, _columns("Of the split: split, if there.")] = None,
    position_column: Annotated[str | None, _columns("Place in the document: sent_idx, if there.")] = None,
    metadata: Annotated[str | None, _columns("Parquet or .jsonl with the rows of one .npy.")] = None,
    lang: Annotated[
        str | None, _columns("Of rows that do not say: eng_Latn, en, ...; ase_Zxxx, zxx_Zxxx: not written.")
    ] = None,
    validation: Annotated[float | None, _split("Share of documents that name none.", default="0.01")] = None,
    test: Annotated[float | None, _split("Share of documents that name none.", default="0.01")] = None,
    split_seed: Annotated[int | None, _split("Another seed holds out others.", default="0")] = None,
    unit_rows: Annotated[int | None, _vectors("Vectors of a unit, about.", default="16384")] = None,
    config: ConfigOption = None,
    executor: ExecutorOption = None,
    workers: WorkersOption = None,
    ray_address: RayAddressOption = None,
    unit_timeout: TimeoutOption = None,
    max_reject_rate: RejectRateOption = None,
    overwrite: OverwriteOption = False,
    dry_run: DryRunOption = False,
    print_config: PrintConfigOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:  # fmt: skip
    """Make a corpus of vectors that exist: of another encoder or modality, of any width.

    Reads the layout of the official LCM trainer (a document a row), any column of
    vectors (rows in a row with one id are a document), .npy files with or without rows
    beside them, Hugging Face dataset folders, Lance, and what export wrote.

    Example: lcm-data import clips.parquet signs --lang ase_Zxxx --space signs-1
    """
    run_verb(
        "import", given(**{k: v for k, v in locals().items() if k not in _HOW}),
        config=config, dry_run=dry_run, print_config=print_config, json=json, quiet=quiet,
    )  # fmt: skip


def export(
    corpus: CorpusArgument,
    out: Annotated[str, typer.Argument(help="Folder or URL to make.", show_default=False)],
    layout: Annotated[str, typer.Option(help="meta (the official LCM trainer), hf, npy or lance.", show_default=False)],
    stages: Annotated[
        list[str] | None, _what("segments, embeddings or codes; repeatable.", flags="--stage")
    ] = None,
    langs: Annotated[list[str] | None, _what("Only this language; repeatable.", flags="--lang")] = None,
    splits: Annotated[list[str] | None, _what("Only this split; repeatable.", flags="--split")] = None,
    dtype: Annotated[str | None, _what("Vectors of meta (float32 by default) and npy: float16, float32.")] = None,
    name: Annotated[str | None, _card("Name on the card; by default that of the folder.")] = None,
    licence: Annotated[str | None, _card("Licence on the card, as the Hub names it.", default="unknown")] = None,
    config: ConfigOption = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an export that is there.")] = False,
    print_config: PrintConfigOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:  # fmt: skip
    """Write a corpus in another layout, as a stream.

    The folder gets its name when all is there; run it again to continue a killed one.

    Example: lcm-data export my-corpus for-meta --layout meta --split train
    """
    values = given(**{k: v for k, v in locals().items() if k not in _HOW})
    from lcm_data.cli import render
    from pipelines import export as pipeline
    from pipelines.config import load_config

    settings = load_config(pipeline.ExportConfig, config, values)
    if print_config:
        render.settings(settings.model_dump(mode="json"), json)
        return
    with contextlib.redirect_stdout(sys.stderr):
        report = pipeline.run(settings, _say(quiet or json))
    facts = dataclasses.asdict(report)
    if json:
        render.as_json({"verb": "export", **facts})
        return
    rows = ", ".join(f"{stage} {count:,}" for stage, count in report.rows.items())
    done = f"{report.files_done} of {report.files} files in {report.seconds:.1f} s"
    shown: dict[str, Any] = {
        "layout": report.layout,
        "rows": rows,
        "size": render.size(report.bytes),
        "this run": done if report.files_done else "nothing left to do",
    }
    render.facts(f"export: {report.root}", shown)


def _say(quiet: bool) -> Any:
    """Shows on a terminal which file is written."""

    def say(path: str, done: int, total: int) -> None:
        if not quiet and sys.stderr.isatty():
            print(f"\r\x1b[Kexport: {done + 1} of {total}  {path}", end="\n" if done + 1 == total else "",
                  file=sys.stderr, flush=True)  # fmt: skip

    return say


def card(
    corpus: CorpusArgument,
    name: Annotated[str | None, _card("Name on the card; by default that of the folder.")] = None,
    licence: Annotated[str | None, _card("Licence on the card, as the Hub names it.", default="unknown")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a README.md that is not ours.")] = False,
    json: JsonOption = False,
) -> None:
    """Write a dataset card into a corpus, by which Hugging Face datasets opens it as it is.

    Afterwards: datasets.load_dataset("my-corpus", "embeddings-eng_Latn", split="train")

    Example: lcm-data card my-corpus --licence cc-by-4.0
    """
    values = given(corpus=corpus, name=name, licence=licence, overwrite=overwrite)
    from lcm_data.cli import render
    from pipelines import export as pipeline
    from pipelines.config import load_config

    where = pipeline.write_corpus_card(load_config(pipeline.CardConfig, None, values))
    if json:
        render.as_json({"card": where})
    else:
        render.facts(f"card: {corpus}", {"written": where, "opens with": f'datasets.load_dataset("{corpus}")'})

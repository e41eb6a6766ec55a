"""The verb ``generate``: a Large Concept Model writes the documents of a corpus on."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import typer

from lcm_data.cli.make import run_verb
from lcm_data.cli.options import (
    ConfigOption,
    DryRunOption,
    ExecutorOption,
    GpusOption,
    JsonOption,
    OverwriteOption,
    PrintConfigOption,
    QuietOption,
    RayAddressOption,
    RejectRateOption,
    ThreadsOption,
    TimeoutOption,
    WorkersOption,
    given,
    option,
)

_prefix = partial(option, panel="Prefixes")
_end = partial(option, panel="Ends")
_model = partial(option, panel="Model")

WithPrefixOption = Annotated[
    bool, typer.Option("--with-prefix", help="Keep the prefix in the output.", rich_help_panel="Prefixes")
]
_HOW = {"config", "dry_run", "print_config", "json", "quiet", "sampling", "repetition_cosine", "splits"}


def register(app: typer.Typer) -> None:
    """Add the verb to the application."""
    app.command(rich_help_panel="Models", no_args_is_help=True)(generate)


def generate(
    checkpoint: Annotated[
        str, typer.Argument(metavar="CHECKPOINT", help="Run or checkpoint that 'train' wrote.", show_default=False)
    ],
    prefixes: Annotated[str, typer.Argument(metavar="CORPUS", help="Its documents are continued.", show_default=False)],
    corpus: Annotated[str, typer.Argument(metavar="OUT", help="Corpus to make.", show_default=False)],
    splits: Annotated[list[str] | None, _prefix("Split to read, or 'all'; repeatable.", flags="--split",
                                                default="test")] = None,
    langs: Annotated[list[str] | None, _prefix("Only this language; repeatable.", flags="--lang")] = None,
    prefix_sentences: Annotated[int | None, _prefix("Sentences of a document given to the model.")] = None,
    prefix_share: Annotated[float | None, _prefix("Or the share of it.", default="0.5")] = None,
    context: Annotated[int | None, _prefix("Read the last so many; by default what fits training.")] = None,
    with_prefix: WithPrefixOption = False,
    max_new: Annotated[int | None, _end("New sentences of a document at most.", default="64")] = None,
    min_new: Annotated[int | None, _end("Sentences before which only length ends it.", default="0")] = None,
    end_of_text: Annotated[str | None, _end("Concept that ends it: auto, none or a file.", default="auto")] = None,
    end_of_text_cosine: Annotated[float | None, _end("Cosine with that concept.", default="0.9")] = None,
    repetition_cosine: Annotated[
        str | None, _end("Cosine with the sentence before that ends it, or none.", default="0.9")
    ] = None,
    sampling: Annotated[
        list[str] | None, _model("name=value: guidance, steps, temperature, top_k, ...; repeatable.")
    ] = None,
    seed: Annotated[int | None, _model("Of what is drawn.", default="0")] = None,
    batch_rows: Annotated[int | None, _model("Documents side by side.", default="64")] = None,
    unit_documents: Annotated[int | None, _model("Documents of a unit, about.", default="256")] = None,
    dtype: Annotated[str | None, _model("float32, bfloat16 or float16.", default="float32")] = None,
    device: Annotated[str | None, _model("auto, cpu or cuda.", default="auto")] = None,
    config: ConfigOption = None,
    executor: ExecutorOption = None,
    workers: WorkersOption = None,
    threads: ThreadsOption = None,
    gpus_per_worker: GpusOption = None,
    ray_address: RayAddressOption = None,
    unit_timeout: TimeoutOption = None,
    max_reject_rate: RejectRateOption = None,
    overwrite: OverwriteOption = False,
    dry_run: DryRunOption = False,
    print_config: PrintConfigOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:  # fmt: skip
    """Write documents on: their first sentences in, new sentence embeddings out.

    OUT is a corpus of them, under the ids of the sentences they stand for.

    As sentences: lcm-data decode OUT OUT-text --lang eng_Latn

    Example: lcm-data generate runs/two-tower my-corpus written --max-new 16
    """
    values = given(**{name: value for name, value in locals().items() if name not in _HOW})
    if sampling:
        values["sampling"] = assignments(sampling, "--sampling")
    if repetition_cosine is not None:
        values["repetition_cosine"] = None if repetition_cosine == "none" else repetition_cosine
    if splits is not None:
        values["splits"] = None if "all" in splits else splits
    run_verb("generate", values, config=config, dry_run=dry_run, print_config=print_config, json=json, quiet=quiet)


def assignments(texts: list[str], flag: str) -> dict[str, Any]:
    """``name=value`` pairs; values are numbers, true, false, null, or else text.

    Raises:
        UsageError: one is no such pair.
    """
    import yaml

    from lcm_data.errors import UsageError

    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise UsageError(f"{flag} {text!r}: give name=value, for example guidance=2.")
        found[name.strip().replace("-", "_")] = yaml.safe_load(value)
    return found

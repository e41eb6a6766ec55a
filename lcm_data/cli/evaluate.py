"""The verb ``evaluate``: Large Concept Models side by side, as a table and a report."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lcm_data.cli.generate import assignments
from lcm_data.cli.options import ConfigOption, JsonOption, PrintConfigOption, QuietOption, given, option

if TYPE_CHECKING:
    from pipelines.evaluate import EvaluateReport

_data = partial(option, panel="Documents")
_model = partial(option, panel="Models")
_text = partial(option, panel="Sentences")
_run = partial(option, panel="Running")

CheckpointsArgument = Annotated[
    list[str], typer.Argument(metavar="CHECKPOINT", help="Runs or checkpoints; or name=folder.", show_default=False)
]
ReplaceOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace an earlier report.", rich_help_panel="Output")
]
_HOW = {"config", "print_config", "json", "quiet", "sampling"}
_LINE_SECONDS = 15.0


def register(app: typer.Typer) -> None:
    """Add the verb to the application."""
    app.command(rich_help_panel="Models", no_args_is_help=True)(evaluate)


def evaluate(
    checkpoints: CheckpointsArgument,
    corpus: Annotated[str, typer.Argument(metavar="CORPUS", help="With embeddings.", show_default=False)],
    splits: Annotated[list[str] | None, _data("Split; repeatable.", flags="--split", default="test")] = None,
    langs: Annotated[list[str] | None, _data("Only this language; repeatable.", flags="--lang")] = None,
    documents: Annotated[int | None, _data("Of a language and split, 0 for all.", default="1000")] = None,
    window: Annotated[int | None, _data("Concepts a model sees at once; by default as trained.")] = None,
    pool: Annotated[int | None, _data("Candidates of contrastive accuracy.", default="1000")] = None,
    seed: Annotated[int | None, _data("Of samples, and of what models draw.", default="0")] = None,
    sampling: Annotated[list[str] | None, _model("name=value, for models that have it; repeatable.")] = None,
    batch_concepts: Annotated[int | None, _model("Concepts predicted at once.", default="2048")] = None,
    decoder: Annotated[str | None, _text("Decoder: name, hf:owner/repo or path.")] = None,
    decoder_backend: Annotated[str | None, _text("Of the decoder.", default="native")] = None,
    beam_size: Annotated[int | None, _text("Hypotheses a sentence.", default="5")] = None,
    max_tokens: Annotated[int | None, _text("Longest decoded sentence.")] = None,
    model: Annotated[str | None, _text("Encoder of the corpus, for the round trip.")] = None,
    backend: Annotated[str | None, _text("Of the encoder.", default="native")] = None,
    decode_sample: Annotated[int | None, _text("Guesses to decode, a language.", default="200")] = None,
    language_model: Annotated[str | None, _text("Causal LM in Hugging Face format, for MI.")] = None,
    coherence_model: Annotated[str | None, _text("Classifier in that format, for coherence.")] = None,
    continuations: Annotated[int | None, _text("Documents to continue; 50 with a decoder, else 0.")] = None,
    prefix_share: Annotated[float | None, _text("Share of them that is given.", default="0.5")] = None,
    max_new: Annotated[int | None, _text("New sentences at most.", default="32")] = None,
    end_of_text: Annotated[str | None, _text("Concept that ends a text: auto, none, file.", default="auto")] = None,
    dtype: Annotated[str | None, _run("Networks: float32, bfloat16, float16.", default="float32")] = None,
    device: Annotated[str | None, _run("auto, cpu or cuda.", default="auto")] = None,
    threads: Annotated[int | None, _run("CPU threads; torch's default if not given.")] = None,
    config: ConfigOption = None,
    out: Annotated[str | None, option("Folder for report.json.", panel="Output")] = None,
    overwrite: ReplaceOption = False,
    print_config: PrintConfigOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:  # fmt: skip
    """Measure models on held-out documents: next concepts, and whole continuations.

    Beside them: 'copy' (the concept before), 'mean' (of all), and 'truth'.

    Example: lcm-data evaluate runs/base runs/two-tower my-corpus --out report
    """
    values = given(**{name: value for name, value in locals().items() if name not in _HOW})
    if sampling:
        values["sampling"] = assignments(sampling, "--sampling")
    _run_and_print(values, config, print_config=print_config, json=json, quiet=quiet)


def _run_and_print(values: dict[str, Any], config: str | None, *, print_config: bool, json: bool, quiet: bool) -> None:
    from lcm_data.cli import render
    from pipelines import evaluate as pipeline
    from pipelines.config import load_config

    settings = load_config(pipeline.EvaluateConfig, config, values)
    if print_config:
        render.settings(settings.model_dump(mode="json"), json)
        return
    with _progress(quiet or json) as show, contextlib.redirect_stdout(sys.stderr):
        report = pipeline.run(settings, show)
    if json:
        render.as_json(report.to_json())
    else:
        _print(report)


NEXT = {
    "l2": ("l2", 4),
    "l2_roundtrip": ("l2-r", 4),
    "cosine": ("cosine", 3),
    "ca": ("CA %", 1),
    "par": ("PAR", 3),
    "mi": ("MI", 3),
}
WRITTEN = {
    "rouge_l": ("R-L %", 1),
    "ovl_3": ("OVL-3", 3),
    "rep_4": ("REP-4", 1),
    "coherence": ("coherent", 3),
    "local_coherence": ("local", 3),
    "length": ("length", 2),
    "words": ("words", 2),
    "ended": ("ended %", 0),
    "repeated": ("rep. %", 0),
}
"""Figures of the report: title and decimals of their columns; R-L, CA and shares of ends are shown in percent."""


def _print(report: EvaluateReport) -> None:
    where = list(report.results["truth"])
    places = sum(each["places"] for each in report.counts["truth"].values())
    documents = sum(each["documents"] for each in report.counts["truth"].values())
    title = f"evaluate: {report.corpus}, {documents:,} documents, {places:,} next concepts"
    _table(title, [((name,), figures) for name, figures in report.mean.items()], NEXT)
    if any(name in figures for figures in report.mean.values() for name in WRITTEN):
        print()
        written = [((name,), figures) for name, figures in report.mean.items() if set(figures) & set(WRITTEN)]
        _table("Continuations", written, WRITTEN)
    if len(where) > 1:
        rows = [((place, name), found[place]) for place in where for name, found in report.results.items()]
        print()
        _table("By split and language", rows, NEXT)
    print()
    for line in _notes(report):
        print(line)


def _table(
    title: str, rows: Sequence[tuple[tuple[str, ...], Mapping[str, float]]], columns: Mapping[str, tuple[str, int]]
) -> None:
    """Rows of names and figures; columns that no row has are left out, names as in the row above are not repeated."""
    from lcm_data.cli import render

    shown = {name: column for name, column in columns.items() if any(name in figures for _, figures in rows)}
    titles = [" " * (number + 1) for number in range(len(rows[0][0]))]
    cells, above = [], ""
    for (first, *rest), figures in rows:
        cells.append(("" if rest and first == above else first, *rest, *_cells(figures, shown)))
        above = first
    numbers = [name for name, _ in shown.values()]
    render.table(title, [*titles, *numbers], cells, numbers=numbers)


def _cells(found: Mapping[str, float], columns: Mapping[str, tuple[str, int]]) -> list[str]:
    values = [(found.get(name), title, decimals) for name, (title, decimals) in columns.items()]
    return [
        "-" if value is None else f"{value * (100 if title.endswith('%') else 1):,.{decimals}f}"
        for value, title, decimals in values
    ]


def _notes(report: EvaluateReport) -> Iterator[str]:
    """What the columns mean, what is missing, how long it took, where it is."""
    yield "l2, cosine: guess and truth; CA: candidates further from the guess than the truth; PAR: likeness to"
    yield "a concept before, of guess over truth (1: as the documents); figures are means over the languages"
    if "mi" in report.mean["truth"]:
        yield "l2-r: l2 after decoding and encoding; MI: nats a token that the context adds (truth: the corpus's)"
    for note in report.skipped:
        yield f"not measured: {note}"
    yield "time: " + ", ".join(f"{job} {spent:,.1f} s" for job, spent in report.seconds.items() if spent >= 0.05)
    if report.out:
        yield f"report: {report.out}"


@contextlib.contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """A plain line now and then, nothing when quiet."""
    following = time.monotonic() + _LINE_SECONDS

    def show(job: str, done: int, total: int) -> None:
        nonlocal following
        if not quiet and time.monotonic() >= following:
            following = time.monotonic() + _LINE_SECONDS
            print(f"evaluate: {job}, {done:,} of {total:,}", file=sys.stderr, flush=True)

    yield show

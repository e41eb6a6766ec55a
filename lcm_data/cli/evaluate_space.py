"""The verb ``evaluate-space``: how good an embedding space is, as a table, a report and plots."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from lcm_data.cli.options import ConfigOption, JsonOption, PrintConfigOption, QuietOption, given, option

if TYPE_CHECKING:
    from lcm_data.quality.report import Report

_data = partial(option, panel="Sentences")
_model = partial(option, panel="Models")
_decode = partial(option, panel="Decoding")
_run = partial(option, panel="Running")

AllPairsOption = Annotated[
    bool,
    typer.Option("--all-pairs", help="Search between all pairs of languages.", rich_help_panel="Sentences"),
]
ReplaceOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace an earlier report.", rich_help_panel="Running")
]

_HOW = {"config", "print_config", "json", "quiet", "plots"}
_LINE_SECONDS = 15.0


def register(app: typer.Typer) -> None:
    """Add the verb to the application."""
    app.command("evaluate-space", rich_help_panel="Look", no_args_is_help=True)(evaluate_space)


def evaluate_space(
    source: Annotated[str, typer.Argument(help="Translations (table, folder) or a corpus.", show_default=False)],
    out: Annotated[str, typer.Argument(help="Folder for report.json and the plots.", show_default=False)],
    lang: Annotated[list[str] | None, _data("Only this language; repeatable.")] = None,
    pivot: Annotated[str | None, _data("Language all others are compared with.", default="eng_Latn")] = None,
    all_pairs: AllPairsOption = False,
    sample: Annotated[int | None, _data("Sentences of a language, 0 for all.", default="1000")] = None,
    min_sentences: Annotated[int | None, _data("Leave out languages with fewer.", default="20")] = None,
    seed: Annotated[int | None, _data("Of the sample and the noise.", default="0")] = None,
    model: Annotated[str | None, _model("Encoder; for text by default as in encode.")] = None,
    backend: Annotated[str | None, _model("Of the encoder.", default="native")] = None,
    prompt: Annotated[str | None, _model("Put before every sentence, for models that want it.")] = None,
    decoder: Annotated[str | None, _model("Decoder: name, hf:owner/repo or path.")] = None,
    decoder_backend: Annotated[str | None, _model("Of the decoder.", default="native")] = None,
    judge_model: Annotated[str | None, _model("Unrelated encoder that compares decoded text.")] = None,
    judge_backend: Annotated[str | None, _model("Of the judge.", default="native")] = None,
    to: Annotated[str | None, _decode("Also translate into this language.")] = None,
    decode_sample: Annotated[int | None, _decode("Sentences a language to decode, 0 for all.", default="500")] = None,
    beam_size: Annotated[int | None, _decode("Hypotheses a sentence.", default="5")] = None,
    max_tokens: Annotated[int | None, _decode("Longest decoded text.")] = None,
    noise_levels: Annotated[int | None, _decode("Levels of noise for fragility, 0 for none.", default="9")] = None,
    fragility_sample: Annotated[int | None, _decode("Sentences to disturb, 0 for all.", default="100")] = None,
    normalizer: Annotated[str | None, _decode("Normaliser file; fitted on the sample by default.")] = None,
    dtype: Annotated[str | None, _run("Networks: float32, bfloat16, float16.", default="float32")] = None,
    device: Annotated[str | None, _run("auto, cpu or cuda.", default="auto")] = None,
    threads: Annotated[int | None, _run("CPU threads; torch's default if not given.")] = None,
    config: ConfigOption = None,
    plots: Annotated[bool | None, _run("Draw plots.", flags="--plots/--no-plots")] = None,
    overwrite: ReplaceOption = False,
    print_config: PrintConfigOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:  # fmt: skip
    """Measure a space: search across languages, decoding, norms, fragility.

    SOURCE is a table with a column a language (eng_Latn, fra_Latn, ...), a

    table of pairs (lang, text, en), a folder or glob of files such as

    eng_Latn.dev whose lines correspond, or a corpus with embeddings.

    Example: lcm-data evaluate-space dev report --model ./sonar --decoder ./sonar
    """
    values = given(**{name: value for name, value in locals().items() if name not in _HOW})
    if plots is not None:
        values["plots"] = plots
    from lcm_data.cli import render
    from pipelines import evaluate_space as pipeline
    from pipelines.config import load_config

    settings = load_config(pipeline.EvaluateSpaceConfig, config, values)
    if print_config:
        render.settings(settings.model_dump(mode="json"), json)
        return
    with progress(quiet or json) as show, contextlib.redirect_stdout(sys.stderr):
        report = pipeline.run(settings, show)
    if json:
        render.as_json(report.to_json())
    else:
        _print(report)


_SPACE = {
    "tokens": ("tokens", 1),
    "truncated": ("cut %", 2),
    "unknown": ("unk %", 2),
    "norm": ("norm", 3),
    "mean_cosine": ("cosine", 3),
    "xsim_cosine": ("xsim %", 1),
    "xsim_margin": ("margin %", 1),
}
_TEXT = {
    "autoencoding_chrf": ("chrF", 1),
    "autoencoding_bleu": ("BLEU", 1),
    "autoencoding_exact": ("same %", 1),
    "translation_chrf": ("to\nchrF", 1),
    "translation_bleu": ("to\nBLEU", 1),
    "fragility_chrf": ("fragile\nchrF", 1),
    "fragility_cosine": ("fragile\ncosine", 3),
    "fragility_judge_cosine": ("fragile\njudge", 3),
}
"""Figures of the report: title and decimals of their columns; those with % are shares."""


def _print(report: Report) -> None:
    from lcm_data.cli import render
    from lcm_data.quality.report import figures

    rows = {lang: figures(each) for lang, each in report.languages.items()}
    space = [(lang, each.sentences, *_cells(rows[lang], _SPACE)) for lang, each in report.languages.items()]
    columns = ["language", "sentences", *(title for title, _ in _SPACE.values())]
    space.append(("all", sum(each.sentences for each in report.languages.values()), *_cells(report.mean, _SPACE)))
    render.table(f"evaluate-space: {report.source}", columns, space, numbers=columns[1:])
    decoded = {lang: each.autoencoding for lang, each in report.languages.items() if each.autoencoding}
    if decoded:
        measured = {name: shown for name, shown in _TEXT.items() if name in report.mean}
        text = [(lang, each.scores.num_sentences, *_cells(rows[lang], measured)) for lang, each in decoded.items()]
        columns = ["language", "decoded", *(title for title, _ in measured.values())]
        text.append(
            ("all", sum(each.scores.num_sentences for each in decoded.values()), *_cells(report.mean, measured))
        )
        print()
        render.table("Back to text", columns, text, numbers=columns[1:])
    print()
    for line in _notes(report):
        print(line)


def _cells(found: Mapping[str, float], columns: Mapping[str, tuple[str, int]]) -> list[str]:
    values = [(found.get(name), title, decimals) for name, (title, decimals) in columns.items()]
    return [
        "-" if value is None else f"{value * (100 if title.endswith('%') else 1):,.{decimals}f}"
        for value, title, decimals in values
    ]


def _notes(report: Report) -> Iterator[str]:
    """What the columns mean, what is missing, how long it took, where it is."""
    yield "cut: sentences longer than the encoder takes; unk: tokens that stand for unknown characters;"
    yield "cosine: mean between two sentences of the language, 0 is best spread; all: mean over the languages"
    if "xsim_cosine" in report.mean:
        yield f"xsim: sentences whose nearest one in {report.settings['pivot']} is no translation, by cosine and margin"
    if "autoencoding_chrf" in report.mean:
        yield "chrF, BLEU, same: decoded text against the original"
    if "translation_chrf" in report.mean:
        yield f"to: the same, decoded into {report.settings['to']}"
    if "fragility_chrf" in report.mean:
        yield f"fragile: minus the mean score over {report.settings['noise_levels']} levels of noise"
    for note in report.skipped:
        yield f"not measured: {note}"
    yield "time: " + ", ".join(f"{job} {spent:,.1f} s" for job, spent in report.seconds.items() if spent >= 0.05)
    yield f"report and plots: {report.out}"


@contextlib.contextmanager
def progress(quiet: bool, verb: str = "evaluate-space") -> Iterator[Callable[[str, int, int], None]]:
    """A live bar on a terminal, a plain line now and then elsewhere, nothing when quiet."""
    if quiet:
        yield lambda job, done, total: None
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("[bold]{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
            task = bars.add_task("starting", total=None)
            yield lambda job, done, total: bars.update(task, description=job, completed=done, total=total)
    else:
        yield _lines(verb)


def _lines(verb: str) -> Callable[[str, int, int], None]:
    following = time.monotonic() + _LINE_SECONDS

    def show(job: str, done: int, total: int) -> None:
        nonlocal following
        if time.monotonic() >= following:
            following = time.monotonic() + _LINE_SECONDS
            print(f"{verb}: {job}, {done:,} of {total:,}", file=sys.stderr, flush=True)

    return show

"""The verb ``evaluate-codes``: how good the codes of a corpus are, as a table, a report and plots."""

from __future__ import annotations

import contextlib
import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lcm_data.cli.options import ConfigOption, JsonOption, PrintConfigOption, QuietOption, given, option

if TYPE_CHECKING:
    from lcm_data.quality.codes import CodesReport

_data = partial(option, panel="Sentences")
_decode = partial(option, panel="Decoding")
_limit = partial(option, panel="Limits")
_run = partial(option, panel="Running")

ReplaceOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace an earlier report.", rich_help_panel="Running")
]

_HOW = {"config", "print_config", "json", "quiet", "plots"}
_MOST_LEVELS = 16


def register(app: typer.Typer) -> None:
    """Add the verb to the application."""
    app.command("evaluate-codes", rich_help_panel="Look", no_args_is_help=True)(evaluate_codes)


def evaluate_codes(
    corpus: Annotated[str, typer.Argument(help="Corpus with embeddings and codes.", show_default=False)],
    out: Annotated[str, typer.Argument(help="Folder for report.json and the plots.", show_default=False)],
    splits: Annotated[list[str] | None, _data("Only this split; repeatable.", flags="--split")] = None,
    lang: Annotated[list[str] | None, _data("Only this language; repeatable.")] = None,
    sample: Annotated[int | None, _data("Sentences of a language to measure, 0 for all.", default="1000")] = None,
    seed: Annotated[int | None, _data("Of the sample.", default="0")] = None,
    codebook: Annotated[str | None, _data("Of the codes; by default the one beside them.")] = None,
    decoder: Annotated[str | None, _decode("Decoder: name, hf:owner/repo or path.")] = None,
    decoder_backend: Annotated[str | None, _decode("Of the decoder.", default="native")] = None,
    decode_sample: Annotated[int | None, _decode("Sentences a language to decode.", default="50")] = None,
    beam_size: Annotated[int | None, _decode("Hypotheses a sentence.", default="5")] = None,
    max_tokens: Annotated[int | None, _decode("Longest decoded text.")] = None,
    min_usage: Annotated[float | None, _limit("Least perplexity, share of the units.", default="0.5")] = None,
    min_gain: Annotated[float | None, _limit("Least share of error a level removes.", default="0.001")] = None,
    gate: Annotated[str | None, _limit("fail (exit code 5) or warn.", default="fail")] = None,
    dtype: Annotated[str | None, _run("Decoder: float32, bfloat16, float16.", default="float32")] = None,
    device: Annotated[str | None, _run("auto, cpu or cuda.", default="auto")] = None,
    threads: Annotated[int | None, _run("CPU threads; torch's default if not given.")] = None,
    config: ConfigOption = None,
    plots: Annotated[bool | None, _run("Draw plots.", flags="--plots/--no-plots")] = None,
    overwrite: ReplaceOption = False,
    print_config: PrintConfigOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:  # fmt: skip
    """Measure codes: error, use of the units, and decoded text by levels.

    Example: lcm-data evaluate-codes my-corpus report --decoder ./sonar
    """
    values = given(**{name: value for name, value in locals().items() if name not in _HOW})
    if plots is not None:
        values["plots"] = plots
    _run_verb(values, config, print_config, json, quiet)


def _run_verb(values: dict[str, Any], config: str | None, print_config: bool, json: bool, quiet: bool) -> None:
    from lcm_data.cli import render
    from lcm_data.cli.evaluate_space import progress
    from pipelines import evaluate_codes as pipeline
    from pipelines.config import load_config

    settings = load_config(pipeline.EvaluateCodesConfig, config, values)
    if print_config:
        render.settings(settings.model_dump(mode="json"), json)
        return
    with progress(quiet or json, "evaluate-codes") as show, contextlib.redirect_stdout(sys.stderr):
        report = pipeline.run(settings, show)
    if json:
        render.as_json(report.to_json())
    else:
        _print(report)
    if settings.gate == "fail":
        _fail(report)


def _fail(report: CodesReport) -> None:
    """Raise if a gate failed."""
    from lcm_data.errors import QualityError

    if report.failed:
        first = report.failed[0]
        raise QualityError(
            f"{len(report.failed)} of {len(report.gates)} gates failed, first {first.name} of level {first.level}: "
            f"{first.value:.4f}, allowed: {first.limit:g} or more. Fit the codebook on more rows, or with another "
            "--trainer; --gate warn only says so."
        )


def _print(report: CodesReport) -> None:
    from lcm_data.cli import render

    every = report.levels
    step = -(-len(every) // _MOST_LEVELS)
    shown = [each for each in every if each.level % step == 0 or each.level in (1, len(every))]
    columns = ["levels", "bits", "error %", "possible %", "cosine", "perplexity", "unused", "largest %"]
    rows = [
        (
            each.level, f"{each.bits:.0f}", f"{100 * each.nmse:.2f}", f"{100 * each.yardstick:.2f}",
            f"{each.cosine:.4f}", f"{each.perplexity:,.0f}", each.dead, f"{100 * each.max_share:.2f}",
        )
        for each in shown
    ]  # fmt: skip
    render.table(f"evaluate-codes: {report.corpus}", columns, rows, numbers=columns)
    print()
    columns = ["language", "sentences", "error %", "cosine", *(["chrF", "of the vector"] if report.text else [])]
    lines = []
    for lang, errors in report.languages.items():
        line = [lang, errors.sentences, f"{100 * errors.nmse[-1]:.2f}", f"{errors.cosine[-1]:.4f}"]
        if trips := report.text.get(lang):
            line += [f"{trips[levels].scores.chrf:.1f}" for levels in (len(every), 0)]
        lines.append(line + ["-"] * (len(columns) - len(line)))
    render.table("All levels", columns, lines, numbers=columns[1:])
    print()
    print(f"error: squared, over the variance of {report.sentences:,} sentences ({', '.join(report.splits)});")
    print("possible: least error of any code of so many bits for Gaussian vectors of this covariance")
    print(f"distinct vectors with the whole code of another: {report.duplicates:,}")
    for gate in report.failed:
        print(f"below the limit: {gate.name} of level {gate.level} is {gate.value:.4f}, limit {gate.limit:g}")
    for note in report.skipped:
        print(f"not measured: {note}")
    print(f"report and plots: {report.out}")

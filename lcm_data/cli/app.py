"""The Typer application: the verbs, the version, and logging."""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer

from lcm_data.cli import (
    codebook,
    demo,
    evaluate,
    evaluate_codes,
    evaluate_space,
    exchange,
    generate,
    look,
    make,
    models,
    report,
    search,
    train,
)
from lcm_data.version import __version__

app = typer.Typer(
    name="lcm-data",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Multilingual text to corpora of sentence embeddings: segment -> encode -> quantize. "
    "Every verb resumes where it stopped; run it again after any interruption.",
    epilog="Exit codes: 0 done, 1 unexpected error, 2 wrong usage, 3 units failed or storage trouble (rerun resumes), "
    "4 input or settings differ from the existing output, 5 too many rejects or verification failed, "
    "130/143 stopped by a signal.",
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"lcm-data {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
    verbose: Annotated[int, typer.Option("-v", "--verbose", count=True, help="Log more; twice for debugging.")] = 0,
) -> None:
    levels = (logging.WARNING, logging.INFO, logging.DEBUG)
    logging.basicConfig(
        stream=sys.stderr, level=levels[min(verbose, 2)], format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )


demo.register(app)
make.register(app)
exchange.register(app)
look.register(app)
search.register(app)
report.register(app)
models.register(app)
codebook.register(app)
evaluate_space.register(app)
evaluate_codes.register(app)
train.register(app)
generate.register(app)
evaluate.register(app)

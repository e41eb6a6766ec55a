"""The verb ``train``: a concept model or a SONAR space, on this machine, under torchrun, or on a Ray cluster."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any

import typer

from lcm_data.cli.options import DryRunOption, JsonOption, PrintConfigOption, QuietOption, RayAddressOption, option

_model = partial(option, panel="Model and data")
_sonar = partial(option, panel="train sonar")
_speech = partial(option, panel="train speech")
_run = partial(option, panel="Running")

OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Delete the run in the folder and start anew.", rich_help_panel="Running")
]
WorkersOption = Annotated[
    int, typer.Option("--workers", "--nproc", min=1, help="Processes that train together.", rich_help_panel="Running")
]


def register(app: typer.Typer) -> None:
    """Add the verb to the application."""
    app.command("train", rich_help_panel="Models", no_args_is_help=True)(train)


def train(
    variant: Annotated[
        str, typer.Argument(help="base, one-tower, two-tower, quant-d, quant-c, sonar, or speech.", show_default=False)
    ],
    data: Annotated[list[str] | None, _model("Corpus to train on; repeatable.", flags="--data")] = None,
    preset: Annotated[
        str | None, _model("tiny, 30m, 300m, 1.6b, 7b; sonar, speech: tiny, mini, base, sonar.", default="1.6b; mini")
    ] = None,
    config: Annotated[
        str | None, _model("TOML file of model, data, optim and train settings.", flags="--config")
    ] = None,
    pairs: Annotated[list[str] | None, _sonar("Table of translations; repeatable.", flags="--pairs")] = None,
    text: Annotated[list[str] | None, _sonar("Corpus with segments: plain text; repeatable.", flags="--text")] = None,
    speech: Annotated[
        list[str] | None, _speech("Table of clips, or corpus with speech; repeatable.", flags="--speech")
    ] = None,
    teacher: Annotated[str | None, _speech("Text encoder of the space.", default="sonar-mini")] = None,
    langs: Annotated[list[str] | None, _sonar("(Spoken) language; repeatable, by default all.", flags="--lang")] = None,
    assignments: Annotated[list[str] | None, _model("section.name=value; repeatable.", flags="--set")] = None,
    out: Annotated[str | None, _run("Folder of the run.", default="runs/VARIANT")] = None,
    workers: WorkersOption = 1,
    executor: Annotated[str, _run("local (also under torchrun) or ray.")] = "local",
    threads: Annotated[int, _run("CPU threads of a process; 0 shares the cores out.")] = 0,
    cpus_per_worker: Annotated[float, _run("Ray: CPUs of a worker.")] = 1.0,
    gpus_per_worker: Annotated[float, _run("Ray: GPUs of a worker.")] = 0.0,
    max_restarts: Annotated[int, _run("Ray: go on so often from the last checkpoint after a loss.")] = 0,
    ray_address: RayAddressOption = None,
    overwrite: OverwriteOption = False,
    dry_run: DryRunOption = False,
    print_config: PrintConfigOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train a Large Concept Model, a SONAR space or a speech encoder; run it again to go on where it stopped.

    Example: lcm-data train two-tower --data my-corpus --preset tiny --set train.max_steps=500
    """
    _need_torch()
    from pipelines import train as pipeline

    launch = pipeline.make_launch(
        executor=executor, workers=workers, threads=threads, gpus_per_worker=gpus_per_worker,
        cpus_per_worker=cpus_per_worker, ray_address=ray_address, max_restarts=max_restarts,
    )  # fmt: skip
    given = {"pairs": pairs, "text": text, "speech": speech, "teacher": teacher, "langs": langs}
    make, sections = _job(variant, data, given)
    settings = pipeline.settings_of(sections, config, assignments or [])
    how = {"preset": preset, "launch": launch, "overwrite": overwrite, "quiet": quiet or json}
    job = make(variant=variant, out=out or f"runs/{variant}", settings=settings, **how)
    _carry_out(job, print_config, dry_run, json)


def _carry_out(job: Any, print_config: bool, dry_run: bool, json: bool) -> None:
    """Train, or only say what would be trained."""
    from lcm_data.cli import render
    from pipelines import train as pipeline

    if print_config:
        render.settings(pipeline.resolved(job), json)
    elif dry_run:
        _show_estimate(asdict(pipeline.estimate(job)), json)
    else:
        with contextlib.redirect_stdout(sys.stderr):
            report = pipeline.run(job)
        _show_report(asdict(report), json)


_INPUTS = {
    "sonar": ("pairs", "text", "langs"),
    "speech": ("speech", "teacher", "langs"),
}
"""What ``train`` learns from, if not from --data."""


def _job(variant: str, data: list[str] | None, given: dict[str, Any]) -> tuple[Any, tuple[str, ...]]:
    """What makes the job, with what it learns from, and the sections of its settings; the others' are refused."""
    from lcm_data.errors import UsageError
    from pipelines.train import TrainJob

    flags = {name: "--lang" if name == "langs" else f"--{name}" for name in given}
    own = _INPUTS.get(variant, ())
    if wrong := [flags[name] for name, value in given.items() if value and name not in own]:
        others = [f"'train {kind}'" for kind, names in _INPUTS.items() if any(flags[n] in wrong for n in names)]
        takes = " and ".join(flags[name] for name in own) or "--data CORPUS"
        raise UsageError(f"{', '.join(wrong)}: for {' and '.join(others)}; {variant} takes {takes}.")
    if not own:
        return partial(TrainJob, corpora=tuple(data or ())), TrainJob.sections
    if data:
        raise UsageError(f"'train {variant}' takes {' and '.join(flags[name] for name in own)} instead of --data.")
    values: dict[str, Any] = {name: tuple(given[name] or ()) for name in own if name != "teacher"}
    if variant == "sonar":
        from pipelines.train_sonar import SonarJob

        return partial(SonarJob, **values), SonarJob.sections
    from pipelines.train_speech import SpeechJob

    return partial(SpeechJob, **values, teacher=given["teacher"]), SpeechJob.sections


def _need_torch() -> None:
    from lcm_data.errors import MissingExtraError

    if importlib.util.find_spec("torch") is None:
        raise MissingExtraError("train", "torch", "torch")


def _is_first() -> bool:
    """Whether this is the process that speaks, of those torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def _show_estimate(found: dict[str, Any], json: bool) -> None:
    from lcm_data.cli import render

    if json:
        render.as_json(found)
        return
    counts = ("parameters", "learning", "concepts_per_step", "steps", "steps_done", "concepts")
    facts = {name: f"{value:,}" if name in counts else value for name, value in found.items()}
    for name in ("bytes_per_device", "checkpoint_bytes"):
        facts[name] = render.size(found[name])
    facts["bytes_per_device"] += " and activations"
    render.facts("train: dry run", facts)


def _show_report(found: dict[str, Any], json: bool) -> None:
    from lcm_data.cli import render

    if not _is_first():
        return
    if json:
        render.as_json(found)
        return
    facts = {name: value for name, value in found.items() if value is not None and (name != "bad_steps" or value)}
    for name in ("concepts", "parameters", "step", "resumed_at"):
        facts[name] = f"{found[name]:,}"
    facts["seconds"] = f"{found['seconds']:.1f}"
    facts["concepts_per_second"] = f"{found['concepts_per_second']:,.0f}"
    for name in ("loss", "valid_loss"):
        if name in facts:
            facts[name] = f"{found[name]:.5g}"
    render.facts(f"train: {found['folder']}", facts)

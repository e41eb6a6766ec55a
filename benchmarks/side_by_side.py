"""All variants on one corpus with equal budgets, measured side by side: parameters, CPU time, loss curves, figures.

    OMP_NUM_THREADS=1 python -m benchmarks.side_by_side --corpus CORPUS --out FOLDER --steps 1000 --preset tiny \
        [--langs eng_Latn fra_Latn] [--decoder DECODER --model ENCODER] [--set section.name=value ...]

The corpus has embeddings, a normaliser and, for Quant-LCM, codes (``lcm-data segment``, ``encode``, ``normalize``,
``quantize``), and documents held out. Every variant takes as many steps with the same settings on the same batches of
concepts. Then ``pipelines.evaluate`` measures them on the same places. ``--set`` takes what ``lcm-data train --set``
takes, the same for one variant alone (``two_tower.model.dropout=0``), and the settings of ``lcm-data evaluate``
(``evaluate.documents=50``). ``--also`` measures some of them again with other settings of the sampler.

Run it again to go on where it stopped, or to evaluate in other ways: what is trained is not trained again. The tables
are printed and left in FOLDER, the curves of all runs in the picture of ``--plot``. Traps: an equal preset is an equal
depth and width, not equal parameters or CPU time; both are in the table. Losses of Quant-LCM-d are nats of a code.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.side_by_side_report import Measured, Trained, plot, plot_places, tables
from lcm_data.errors import LcmDataError, UnknownNameError, UsageError
from lcm_models import LCMS
from lcm_models.config import merge_settings
from lcm_models.generate.trained import read_trained
from lcm_models.train.checkpoint import step_of
from lcm_models.train.config import Settings, read_settings
from pipelines import evaluate
from pipelines.evaluate_models import BASELINES
from pipelines.train import SECTIONS, TrainJob, estimate
from pipelines.train import run as train_run

TIMES = "cpu_seconds.jsonl"
"""In the folder of a run: what each of its parts took."""


def main() -> None:
    given = parse()
    try:
        trained = [train(job) for job in jobs(given)]
        if len({each.concepts for each in trained}) > 1:
            raise UsageError(f"unequal budgets: { ({each.variant: each.concepts for each in trained}) }.")
        measured = measure(given)
    except LcmDataError as error:
        sys.exit(f"side_by_side: {error}")
    text = tables(trained, measured)
    print(text, end="")
    Path(given.out, "tables.md").write_text(text, "utf-8")
    if given.plot:
        plot(trained, given.plot)
    if given.plot_languages:
        plot_places(measured, given.plot_languages)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", required=True, help="to learn from, and to evaluate on")
    parser.add_argument("--out", type=Path, required=True, help="folder of runs, reports and tables")
    parser.add_argument("--steps", type=int, default=1000, help="of every variant")
    parser.add_argument("--preset", default="tiny", help="sizes of every variant")
    parser.add_argument("--variants", nargs="+", default=list(LCMS), help="by default all")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.NAME=VALUE", help="see above")
    parser.add_argument("--train-langs", nargs="+", help="languages to learn from, by default all")
    parser.add_argument("--langs", nargs="+", help="languages to evaluate on, by default all")
    parser.add_argument("--evaluate-on", metavar="CORPUS", help="another corpus of the same space")
    parser.add_argument("--decoder", help="for l2-r and texts, as in lcm-data evaluate")
    parser.add_argument("--model", help="encoder of the corpus, for l2-r")
    parser.add_argument(
        "--also", action="append", default=[], metavar="VARIANT[,VARIANT]:NAME=VALUE[,NAME=VALUE]",
        help="rows with other settings of the sampler",
    )  # fmt: skip
    parser.add_argument("--plot", type=Path, help="write the picture of the curves there")
    parser.add_argument("--plot-languages", type=Path, help="write a picture of the figures by language there")
    return parser.parse_args(arguments)


# -- training --------------------------------------------------------------------------------------------------------


def settings(given: argparse.Namespace) -> Settings:
    """What ``--set`` says, by section."""
    own = [variant.replace("-", "_") for variant in LCMS]
    return read_settings(None, given.set, (*SECTIONS, *own, "evaluate"))


def jobs(given: argparse.Namespace) -> Iterator[TrainJob]:
    """A run a variant, with the same settings but for those that were given for it alone."""
    found, steps = settings(given), given.steps
    defaults: dict[str, Any] = {
        "data": {"sources": [{"path": given.corpus, "langs": given.train_langs}]},
        "train": {
            "max_steps": steps,
            "log_every": max(1, steps // 50),
            "valid_every": max(1, steps // 20),
            "checkpoint_every": max(1, steps // 5),
            "metrics": ["jsonl"],
        },
    }
    common = merge_settings(defaults, {name: found[name] for name in SECTIONS if name in found})
    for variant in given.variants:
        if variant not in LCMS:
            raise UnknownNameError("variant", variant, LCMS)
        own = merge_settings(common, found.get(variant.replace("-", "_"), {}))
        yield TrainJob(variant=variant, out=str(given.out / variant), settings=own, preset=given.preset)


def train(job: TrainJob) -> Trained:
    """Train to the last step, from where an earlier run stopped."""
    sizes, folder = estimate(job), Path(job.out)
    if sizes.steps_done < sizes.steps:
        print(f"{job.variant}: step {sizes.steps_done} to {sizes.steps}", file=sys.stderr, flush=True)
        with timed(job, sizes.steps_done):
            train_run(job)
    checkpoint = job.make_run().last_checkpoint()
    assert checkpoint is not None
    progress = json.loads((checkpoint / "progress.json").read_text("utf-8"))
    lines = [json.loads(line) for line in read(folder / "metrics.jsonl")]
    parts = [json.loads(line) for line in read(folder / TIMES)]
    steps = sum(part["steps"] for part in parts)  # fewer than all if a part was killed and could not write its line
    return Trained(
        variant=job.variant,
        parameters=sizes.parameters,
        steps=sizes.steps,
        concepts=progress["concepts"],
        cpu_seconds=sizes.steps * sum(part["cpu_seconds"] for part in parts) / steps if steps else math.nan,
        train=[(line["step"], line["loss"]) for line in lines if "loss" in line],
        valid=[(line["step"], line["valid_loss"]) for line in lines if "valid_loss" in line],
    )


def read(file: Path) -> list[str]:
    """Lines of a file; none if it is not there."""
    return file.read_text("utf-8").splitlines() if file.is_file() else []


@contextmanager
def timed(job: TrainJob, first: int) -> Iterator[None]:
    """Note the CPU seconds of this process, all threads, and the steps that they made and that were kept."""
    begun = time.process_time()
    try:
        yield
    finally:
        last = job.make_run().last_checkpoint()
        done = 0 if last is None else step_of(last) - first
        if done:
            with Path(job.out, TIMES).open("a" if first else "w", encoding="utf-8") as file:
                file.write(json.dumps({"steps": done, "cpu_seconds": time.process_time() - begun}) + "\n")


# -- evaluation ------------------------------------------------------------------------------------------------------


def measure(given: argparse.Namespace) -> Measured:
    """All variants with the sampler's default settings, then those of ``--also``; baselines last."""
    models = {variant: str(given.out / variant) for variant in given.variants}
    reports = [report(given, "defaults", models, {})]
    for number, text in enumerate(given.also, 1):
        names, colon, assignments = text.partition(":")
        if not colon or not set(names.split(",")) <= set(models):
            raise UsageError(f"--also {text!r}: give variants, a colon and settings, as in one-tower:guidance=1.")
        sampling = read_settings(None, [f"sampling.{each}" for each in assignments.split(",")], ("sampling",))
        said = assignments.replace("=", " ").replace("_", " ").replace(",", ", ")
        chosen = {f"{name}, {said}": models[name] for name in names.split(",")}
        reports.append(report(given, f"also-{number}", chosen, sampling["sampling"]))
    results: dict[str, dict[str, dict[str, float]]] = {}
    for variant in given.variants:
        for each in reports:
            results |= {name: each["results"][name] for name in each["results"] if name.split(",")[0] == variant}
    results |= {name: each for name, each in reports[0]["results"].items() if name in BASELINES}
    return Measured(results, reports[0]["counts"]["truth"], reports[0]["skipped"])


def report(given: argparse.Namespace, name: str, models: Mapping[str, str], sampling: dict[str, Any]) -> dict[str, Any]:
    """What ``lcm-data evaluate`` reports; read again if models and settings are those of last time."""
    folder = given.out / "evaluation" / name
    found: dict[str, Any] = settings(given).get("evaluate", {})
    found = merge_settings(found, {"sampling": sampling, "langs": given.langs or found.get("langs")})
    named = {"decoder": given.decoder, "model": given.model}
    found |= {key: value for key, value in named.items() if value is not None}
    config = evaluate.EvaluateConfig(
        checkpoints=[f"{name}={path}" for name, path in models.items()],
        corpus=given.evaluate_on or given.corpus,
        out=str(folder),
        overwrite=True,
        **found,
    )
    revisions = {name: read_trained(path).revision() for name, path in models.items()}
    request = json.dumps({**config.model_dump(mode="json"), "revisions": revisions}, sort_keys=True)
    file = folder / "request.json"
    if not file.is_file() or file.read_text("utf-8") != request:
        print(f"evaluation: {', '.join(models)}", file=sys.stderr, flush=True)
        evaluate.run(config)
        file.write_text(request, "utf-8")
    content: dict[str, Any] = json.loads((folder / evaluate.REPORT).read_text("utf-8"))
    return content


if __name__ == "__main__":
    main()

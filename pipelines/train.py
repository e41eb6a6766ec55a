"""``lcm-data train``: collects the settings of a run, refuses what does not fit before anything starts, and starts it.

What the settings mean, and the training itself, are ``lcm_models``' business.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from lcm_data.errors import InterruptedRunError, UnknownNameError, UsageError
from lcm_models.data import DataConfig
from lcm_models.train.checkpoint import step_of
from lcm_models.train.concepts import ConceptTask, make_task
from lcm_models.train.config import OptimConfig, Settings, TrainConfig, checked, read_settings
from lcm_models.train.distributed import Place
from lcm_models.train.errors import DivergedError
from lcm_models.train.launch import LAUNCHERS, Launch, folder_of, start
from lcm_models.train.run import Run, TrainReport
from lcm_models.train.task import Task

SECTIONS = ("model", "data", "optim", "train")
_PARTS = ("variant", "preset", "normalizer", "codebook")
_BATCH_CONCEPTS = 2048

log = logging.getLogger("lcm_data.train")


@dataclass(frozen=True, kw_only=True)
class Job(ABC):
    """What the command line says of any training; ``settings`` holds the sections of the file with --set on top."""

    sections: ClassVar[tuple[str, ...]]

    variant: str
    out: str
    settings: Settings
    preset: str | None = None
    launch: Launch = field(default_factory=Launch)
    overwrite: bool = False
    quiet: bool = False

    def make_run(self) -> Run:
        """The run, with everything checked that can be checked before it starts.

        Raises:
            UnknownNameError, UsageError, InputError, SpaceError, CheckpointError: something does not fit.
        """
        if self.launch.executor not in LAUNCHERS:
            raise UnknownNameError("executor", self.launch.executor, LAUNCHERS)
        if self.launch.executor == "local" and self.launch.gpus_per_worker:
            raise UsageError("--gpus-per-worker is for --executor ray: local processes take one GPU each.")
        optim = checked(OptimConfig, "optim", {**self.optim_defaults(), **self.settings.get("optim", {})})
        train = checked(TrainConfig, "train", self.settings.get("train", {}))
        run = Run(self._task(train), optim, train, folder_of(self.out), self.quiet, self.overwrite)
        if train.init_from and (self.overwrite or run.last_checkpoint() is None):
            self._check_beginning(train.init_from, run)
        return run

    def make_ready(self, run: Run) -> None:  # noqa: B027  (nothing, for most)
        """What takes longer than checking, done once before training starts."""

    def optim_defaults(self) -> dict[str, Any]:
        """Where optimisation begins, if not with the defaults of the concept models."""
        return {}

    @abstractmethod
    def _task(self, train: TrainConfig) -> Task:
        """What is trained."""

    @abstractmethod
    def _check_beginning(self, folder: str, run: Run) -> None:
        """Refuse first weights that do not fit."""

    @abstractmethod
    def task_settings(self, run: Run) -> Settings:
        """The sections besides optim and train as they are in force."""


@dataclass(frozen=True, kw_only=True)
class TrainJob(Job):
    """A Large Concept Model from corpora."""

    sections: ClassVar[tuple[str, ...]] = SECTIONS

    corpora: tuple[str, ...] = ()

    def _task(self, train: TrainConfig) -> ConceptTask:
        model: dict[str, Any] = dict(self.settings.get("model", {}))
        parts = {name: model.pop(name, None) for name in _PARTS}
        if parts["variant"] not in (None, self.variant):
            raise UsageError(f"model.variant is {parts['variant']!r}, the command says {self.variant!r}: drop one.")
        data = dict(self.settings.get("data", {}))
        if self.corpora:
            if "sources" in data:
                raise UsageError("--data and data.sources in the settings: give one of them.")
            data["sources"] = [{"path": path} for path in self.corpora]
        if not data.get("sources"):
            raise UsageError("nothing to train on: give --data CORPUS, or [[data.sources]] in the settings file.")
        if "batch_concepts" not in data and "batch_rows" not in data:
            data["batch_concepts"] = max(_BATCH_CONCEPTS, int(data.get("max_len", 0)))
        return make_task(
            self.variant,
            self.preset or parts["preset"],
            model,
            checked(DataConfig, "data", data),
            normalizer=parts["normalizer"],
            codebook=parts["codebook"],
            validates=train.valid_every > 0,
        )

    def _check_beginning(self, folder: str, run: Run) -> None:
        _check_beginning(folder, run)

    def task_settings(self, run: Run) -> Settings:
        """See ``Job.task_settings``."""
        task = run.task
        assert isinstance(task, ConceptTask)
        given = {name: getattr(task, name) for name in ("variant", "normalizer", "codebook")}
        return {"model": {**given, **task.config.model_dump(mode="json")}, "data": task.data.model_dump(mode="json")}


def _check_beginning(folder: str, run: Run) -> None:
    """Refuse to begin with weights of other concepts or codes; what they were normalised with stays theirs."""
    from lcm_models.generate.trained import read_trained

    task = run.task
    assert isinstance(task, ConceptTask)
    facts = read_trained(folder)
    corpus = task.data.sources[0].path
    if facts.folder.resolve().is_relative_to(Path(run.folder).resolve()):
        raise UsageError(f"train.init_from is in {run.folder}, which --overwrite empties: give another --out.")
    facts.check_corpus(task.config.concept_dim, task.facts["provenance"], corpus)
    if facts.notes.get("codebook", "") != task.facts["codebook"]:
        raise UsageError(
            f"the codes of {corpus} are of another codebook than those that {facts.folder} learned. Make them with "
            f"its own: 'lcm-data quantize {corpus} --codebook {facts.folder}/codebook --overwrite'."
        )
    if facts.notes.get("normalizer", "") != task.facts["normalizer"]:
        log.warning("the normaliser stays that of %s, not that of %s", folder, corpus)


def resolved(job: Job) -> Settings:
    """All settings in force, by section."""
    run = job.make_run()
    own = {"optim": run.optim.model_dump(mode="json"), "train": run.train.model_dump(mode="json")}
    return {**job.task_settings(run), **own}


@dataclass(frozen=True)
class TrainEstimate:
    """What a run would be: sizes, and what it needs on each device besides activations."""

    folder: str
    variant: str
    parameters: int
    learning: int
    processes: int
    concepts_per_step: int
    steps: int
    steps_done: int
    concepts: int
    bytes_per_device: int
    checkpoint_bytes: int


def estimate(job: Job) -> TrainEstimate:
    """Sizes of a run, found without making the model."""
    run = job.make_run()
    sizes = run.task.describe()
    processes = max(job.launch.workers, Place.from_environment().size)
    columns = sizes["batch_concepts"] * processes * run.train.accumulate
    average = 0 if run.optim.ema is None else 4
    # float32: weights; for those that learn also gradients, and AdamW's two averages.
    state = 4 * sizes["parameters"] + (4 + 8 + average) * sizes["learning"]
    shares = processes if run.train.strategy == "fsdp" else 1
    last = run.last_checkpoint()
    return TrainEstimate(
        folder=run.folder,
        variant=job.variant,
        parameters=sizes["parameters"],
        learning=sizes["learning"],
        processes=processes,
        concepts_per_step=columns,
        steps=run.train.max_steps,
        steps_done=0 if last is None else step_of(last),
        concepts=columns * run.train.max_steps,
        bytes_per_device=state // shares,
        checkpoint_bytes=(4 + average) * sizes["parameters"] + 8 * sizes["learning"],
    )


def run(job: Job) -> TrainReport:
    """Train, or go on training.

    Raises:
        LcmDataError: see ``make_run`` and ``lcm_models.train.process.train_here``.
    """
    made = job.make_run()
    job.make_ready(made)
    try:
        return start(made, job.launch)
    except (InterruptedRunError, DivergedError) as error:
        if Place.from_environment().rank:  # all of torchrun's processes found it out; the first one says it
            raise SystemExit(error.exit_code) from error
        raise


def make_launch(**values: Any) -> Launch:
    """Where to run, by the names of the command's options."""
    return Launch(**values)


def settings_of(sections: tuple[str, ...], config: str | None, assignments: list[str]) -> Settings:
    """The settings of a file with assignments on top."""
    return read_settings(config, assignments, sections)

"""A run and its folder: everything a process needs to know to take part in it; ``process`` takes part."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from signal import SIGINT, SIGTERM
from typing import Any

from lcm_data.errors import CheckpointError, UsageError
from lcm_data.signals import StopSignal
from lcm_models.train.checkpoint import complete_ones, link_tree
from lcm_models.train.config import OptimConfig, TrainConfig
from lcm_models.train.state import NOTES, WEIGHTS
from lcm_models.train.task import Task

SETTINGS, REPORT = "settings.json", "report.json"


@dataclass(frozen=True)
class TrainReport:
    """What a run did: ``step`` of the whole run, seconds and rate of this part of it."""

    folder: str
    checkpoint: str
    step: int
    resumed_at: int
    loss: float | None
    valid_loss: float | None
    bad_steps: int
    concepts: int
    seconds: float
    concepts_per_second: float
    parameters: int


@dataclass(frozen=True)
class Run:
    """What to train, how, and where to write; pickles small.

    ``folder`` is on a disk that all processes see. ``overwrite`` deletes what an earlier run left there.
    """

    task: Task
    optim: OptimConfig
    train: TrainConfig
    folder: str
    quiet: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        warmup, steps = self.optim.warmup_steps or 0, self.optim.schedule_steps or self.train.max_steps
        if warmup > steps:
            raise UsageError(
                f"optim.warmup_steps is {warmup:,}, and the schedule has {steps:,} steps: lower it, or raise "
                "train.max_steps or optim.schedule_steps."
            )

    @property
    def checkpoints(self) -> Path:
        """Where they are."""
        return Path(self.folder, "checkpoints")

    @property
    def assets(self) -> Path:
        """Files that are part of every checkpoint."""
        return Path(self.folder, "assets")

    @property
    def stop_file(self) -> Path:
        """Holds the number of a signal, where none can be sent to the processes that train."""
        return Path(self.folder, "_lcm", "stop")

    def last_checkpoint(self) -> Path | None:
        """The newest that is whole."""
        found = complete_ones(self.checkpoints)
        return found[-1] if found else None

    def how_to_go_on(self) -> str:
        """What to tell someone whose run ended."""
        last = self.last_checkpoint()
        return f"The last checkpoint is {last}: run the same command again." if last else "There is no checkpoint yet."

    def settings(self) -> dict[str, Any]:
        """All that decides the result, by section; plain values."""
        own = {"optim": self.optim.model_dump(mode="json"), "train": self.train.model_dump(mode="json")}
        return {**self.task.identity(), **own}

    def write_notes(self, folder: Path, world_size: int) -> None:
        """What a checkpoint says about itself."""
        settings = {"settings": self.settings(), "processes": world_size}
        (folder / SETTINGS).write_text(json.dumps(settings, indent=1), "utf-8")
        (folder / NOTES).write_text(json.dumps(self.task.notes(), indent=1), "utf-8")
        link_tree(self.assets, folder)

    def write_report(self, report: TrainReport) -> None:
        """Leave ``report.json``: for the starter of a run whose processes are elsewhere."""
        Path(self.folder, REPORT).write_text(json.dumps(asdict(report), indent=1), "utf-8")

    def read_report(self) -> TrainReport:
        """What ``write_report`` wrote."""
        return TrainReport(**json.loads(Path(self.folder, REPORT).read_text("utf-8")))

    def clear(self) -> None:
        """Delete everything an earlier run wrote here, checkpoints first."""
        for name in ("checkpoints", "assets", "tensorboard"):
            shutil.rmtree(Path(self.folder, name), ignore_errors=True)
        for name in ("metrics.jsonl", "wandb-id", REPORT):
            Path(self.folder, name).unlink(missing_ok=True)


def find_checkpoint(path: str) -> Path:
    """A checkpoint given as itself or as the folder of its run (the newest).

    Raises:
        UsageError: there is none.
    """
    folder = Path(path).expanduser()
    if (folder / WEIGHTS).is_file():
        return folder
    found = complete_ones(folder / "checkpoints") or complete_ones(folder)
    if not found:
        raise UsageError(f"{path!r} holds no checkpoint: give the folder of a run, or one of its checkpoints.")
    return found[-1]


def read_notes(path: str, kinds: Mapping[str, str]) -> dict[str, Any]:
    """What a checkpoint (or the newest of a run) says of its model.

    Args:
        kinds: those that are wanted, and what they are called in a sentence.

    Raises:
        UsageError: there is no checkpoint.
        CheckpointError: it is of another kind, or damaged.
    """
    checkpoint = find_checkpoint(path)
    try:
        notes: dict[str, Any] = json.loads((checkpoint / NOTES).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"cannot read {checkpoint / NOTES}: {error}. Give a folder that 'train' wrote."
        ) from error
    if notes.get("kind") not in kinds:
        wanted = " or ".join(f"{name} ({kind!r})" for kind, name in kinds.items())
        raise CheckpointError(f"{checkpoint} holds a model of kind {notes.get('kind')!r}, not {wanted}.")
    return notes


class StopRequest:
    """Whether to stop: signals of this process, and the file that stands for one."""

    def __init__(self, signals: StopSignal, file: Path | None = None) -> None:
        self._signals, self._file = signals, file

    @property
    def number(self) -> int | None:
        """The signal that came; SIGTERM for the file, and for SIGUSR1 as in the other verbs."""
        if self._signals.number is not None:
            return SIGINT if self._signals.number == SIGINT else SIGTERM
        try:
            asked = self._file.read_text("utf-8") if self._file is not None else None
        except FileNotFoundError:
            return None
        return None if asked is None else SIGINT if asked == str(int(SIGINT)) else SIGTERM

    @property
    def hurry(self) -> bool:
        """Whether a second signal came."""
        return self._signals.count > 1

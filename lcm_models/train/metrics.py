"""Where the figures of a run go: JSON lines, TensorBoard, Weights & Biases, or a class of the user's."""

from __future__ import annotations

import importlib.util
import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from lcm_data.errors import MissingExtraError
from lcm_data.store.files import storage_errors
from lcm_data.tables import resolve

log = logging.getLogger("lcm_data.train")

METRICS = {
    "jsonl": "lcm_models.train.metrics:JsonLines",
    "tensorboard": "lcm_models.train.metrics:TensorBoard",
    "wandb": "lcm_models.train.metrics:WeightsAndBiases",
}


class Metrics(Protocol):
    """Made in one process with the run's folder, the step it resumes after (0: it begins) and its settings."""

    def __init__(self, folder: Path, step: int, settings: Mapping[str, Any]) -> None: ...
    def write(self, step: int, values: Mapping[str, float]) -> None: ...
    def close(self) -> None: ...


def open_metrics(names: Iterable[str] | None, folder: Path, step: int, settings: Mapping[str, Any]) -> list[Metrics]:
    """All that are wanted; by default JSON lines, and TensorBoard if it is installed.

    Raises:
        MissingExtraError: one that was named is not installed.
    """
    if names is None:
        names = ["jsonl"]
        if importlib.util.find_spec("tensorboard") is not None:
            names.append("tensorboard")
        else:
            log.info("no TensorBoard files are written: tensorboard is not installed")
    return [resolve(METRICS, name, "metrics")(folder, step, settings) for name in names]


class JsonLines:
    """``metrics.jsonl``, an object a line; what an interrupted run wrote after its checkpoint is cut off."""

    def __init__(self, folder: Path, step: int, settings: Mapping[str, Any]) -> None:
        self._path = folder / "metrics.jsonl"
        with storage_errors("write", str(self._path)):
            kept = []
            for line in self._path.read_text("utf-8").splitlines() if self._path.exists() else ():
                try:
                    if json.loads(line)["step"] <= step:
                        kept.append(line)
                except (ValueError, KeyError):  # the last line of a killed run may be cut
                    continue
            self._path.write_text("".join(f"{line}\n" for line in kept), "utf-8")
            self._file = self._path.open("a", encoding="utf-8")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Append a line."""
        with storage_errors("write", str(self._path)):
            self._file.write(json.dumps({"step": step, **values}) + "\n")
            self._file.flush()

    def close(self) -> None:
        """No more lines."""
        self._file.close()


class TensorBoard:
    """Event files in ``tensorboard/``."""

    def __init__(self, folder: Path, step: int, settings: Mapping[str, Any]) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtraError("train.metrics = tensorboard", "tensorboard", "train") from error
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """A scalar for each."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is buffered."""
        self._writer.close()


class WeightsAndBiases:
    """A wandb run with its default project and mode, set by wandb's own environment variables."""

    def __init__(self, folder: Path, step: int, settings: Mapping[str, Any]) -> None:
        try:
            wandb = importlib.import_module("wandb")
        except ImportError as error:
            raise MissingExtraError("train.metrics = wandb", "wandb", "wandb") from error
        place = folder / "wandb-id"
        if not (step and place.exists()):
            place.write_text(wandb.util.generate_id(), "utf-8")
        self._run = wandb.init(dir=str(folder), id=place.read_text("utf-8"), resume="allow", config=dict(settings))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """All values of a step."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """Send what is buffered."""
        self._run.finish()

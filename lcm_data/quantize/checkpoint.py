"""What a fit has reached, on disk: finished levels, and the last step of the level in the making.

Files are written whole or not at all. Each holds the facts its content depends on, and is refused by a fit with others.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from lcm_data.errors import PlanMismatchError
from lcm_data.quantize.tensorfile import map_tensors, write_tensors
from lcm_data.quantize.vectors import Array

STEP_SECONDS = 20.0
"""A step of a level is saved if the last one was so long ago: small fits are not slowed down by their disk."""


class Checkpoint:
    """Levels in a folder: the table and the units of the sample, so a resume need not search again."""

    def __init__(self, folder: Path, facts: dict[str, Any], step_seconds: float = STEP_SECONDS) -> None:
        self._folder, self._facts, self._step_seconds = folder, facts, step_seconds

    def save(self, level: int, table_KD: Array, ids_N: Array) -> None:
        """Keep a finished level."""
        write_tensors(self._path(level), {"table": table_KD, "ids": ids_N}, self._facts)
        self._step_path(level).unlink(missing_ok=True)

    def load(self, level: int) -> tuple[Array, Array] | None:
        """Table and units of a finished level, if it is one.

        Raises:
            PlanMismatchError: it is of another fit.
        """
        tensors = self._read(self._path(level))
        return None if tensors is None else (tensors["table"], tensors["ids"])

    def steps(self, level: int) -> LevelSteps:
        """Where the trainer of a level keeps its state."""
        return LevelSteps(self, level)

    def _path(self, level: int) -> Path:
        return self._folder / f"level-{level:04d}.safetensors"

    def _step_path(self, level: int) -> Path:
        return self._folder / f"level-{level:04d}.step.safetensors"

    def _read(self, path: Path) -> dict[str, Array] | None:
        if not path.exists():
            return None
        tensors, facts = map_tensors(path)
        different = sorted(name for name in self._facts if facts.get(name) != self._facts[name])
        if different:
            raise PlanMismatchError(
                f"{path} was made with another {', '.join(different)}. "
                "Delete the checkpoint directory to start over, or give the fit another one."
            )
        return tensors


class LevelSteps:
    """``kmeans.Steps`` in a checkpoint."""

    def __init__(self, checkpoint: Checkpoint, level: int) -> None:
        self._checkpoint, self._level = checkpoint, level
        self._path = checkpoint._step_path(level)
        self._saved = time.monotonic()

    def load(self) -> tuple[int, Array] | None:
        tensors = self._checkpoint._read(self._path)
        return None if tensors is None else (int(tensors["step"][0]), np.array(tensors["centroids"]))

    def save(self, step: int, centroids: Array) -> None:
        if time.monotonic() - self._saved >= self._checkpoint._step_seconds:
            tensors = {"step": np.array([step], dtype=np.int64), "centroids": centroids}
            write_tensors(self._path, tensors, self._checkpoint._facts)
            self._saved = time.monotonic()


class NoSteps:
    """``kmeans.Steps`` without a checkpoint."""

    def load(self) -> tuple[int, Array] | None:
        return None

    def save(self, step: int, centroids: Array) -> None:
        pass

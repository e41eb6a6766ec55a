"""The task of training a speech encoder: gives network, data and notes to the trainer of ``lcm_models.train``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lcm_data.version import __version__
from lcm_models.speech.batches import SpeechBatch, SpeechBatches, SpeechLoader
from lcm_models.speech.config import SpeechBatchConfig, SpeechConfig
from lcm_models.speech.model import SpeechModel
from lcm_models.speech.prepared import ABOUT, PreparedClips, open_clips
from lcm_models.train import run

KIND = "speech"


def read_notes(path: str) -> dict[str, Any]:
    """What a checkpoint (or the newest of a run) says of its speech encoder.

    Raises:
        UsageError: there is no checkpoint.
        CheckpointError: it is no speech encoder, or damaged.
    """
    return run.read_notes(path, {KIND: "a speech encoder"})


@dataclass(frozen=True)
class SpeechTask:
    """Train ``config`` on the prepared clips that ``batches`` names."""

    config: SpeechConfig
    batches: SpeechBatchConfig

    def build(self) -> SpeechModel:
        """The network with random weights."""
        data = self._data()
        targets_ND = np.asarray(data.targets_ND[~np.asarray(data.held_out_N)], np.float64)
        variance = float(targets_ND.var(axis=0).mean())
        return SpeechModel(self.config, data.dim, variance or 1.0, len(data.characters))

    def loader(self, rank: int, world_size: int) -> SpeechLoader:
        """Endless batches of one process."""
        return SpeechLoader(self._data(), self.batches, rank, world_size)

    def validation(self) -> Iterator[SpeechBatch]:
        """One pass over the held-out clips."""
        return SpeechBatches(self._data(), self.batches).held_out()

    def size(self, batch: SpeechBatch) -> int:
        """Positions, 50 a second, without padding."""
        return sum(batch.lengths)

    def identity(self) -> dict[str, dict[str, Any]]:
        """Sizes and losses, and what decides the batches."""
        data = {"prepared": self._data().fingerprint, **self.batches.identity()}
        return {"model": self.config.model_dump(mode="json"), "data": data}

    def notes(self) -> dict[str, Any]:
        """What ``lcm_models.speech.export`` needs, and where the network comes from."""
        data = self._data()
        return {
            "kind": KIND,
            "config": self.config.model_dump(mode="json"),
            "dim": data.dim,
            "characters": data.characters,
            "data": self.batches.identity(),
            "prepared": {name: value for name, value in data.about.items() if name != "characters"},
            "lcm_data": __version__,
        }

    def write_assets(self, folder: Path) -> None:
        """None: a speech encoder is its weights."""

    def describe(self) -> dict[str, int]:
        """Parameters, those that learn, and positions of a batch."""
        is_prepared = Path(self.batches.path, ABOUT).is_file()
        dim, letters = (self._data().dim, len(self._data().characters)) if is_prepared else (1024, 100)
        with torch.device("meta"):
            model = SpeechModel(self.config, dim, 1.0, letters)
        return {
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "learning": sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
            "batch_concepts": round(self.batches.batch_seconds * 50),
        }

    def _data(self) -> PreparedClips:
        return open_clips(self.batches.path)

"""All that a run must find again to go on as if it had never stopped: weights, average, optimiser, data, counters.

Random generators are not part of it: they are set anew for every batch (``task.reseed``).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel

from lcm_data.errors import CheckpointError, StorageError
from lcm_models.train.optimizer import EMA
from lcm_models.train.task import Loader
from lcm_models.train.weights import load_tensors, save_tensors, sync_file

WEIGHTS, AVERAGES, NOTES, PROGRESS = "model.safetensors", "ema.safetensors", "model.json", "progress.json"
_OPTIMIZER = "optimizer.pt"
_SHARDED_OPTIMIZER = "optimizer"


@dataclass
class Progress:
    """Counters of a run, all of them over all processes; ``unwritten`` are the steps since the last line of metrics."""

    step: int = 0
    bad_steps: int = 0
    concepts: int = 0
    targets: int = 0
    unwritten: list[dict[str, Any]] = field(default_factory=list)


def plain(model: nn.Module) -> nn.Module:
    """The model inside ``DistributedDataParallel``."""
    return model.module if isinstance(model, DistributedDataParallel) else model


@dataclass
class TrainState:
    """The parts of a running training; ``model`` as ``distributed.spread`` returned it."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    ema: EMA | None
    loader: Loader
    progress: Progress

    def save(self, folder: Path, rank: int) -> None:
        """Write it; every process calls this."""
        save_tensors(plain(self.model).state_dict(), folder / WEIGHTS, rank)
        if self.ema is not None:
            save_tensors({**self._buffers(), **self.ema.averages}, folder / AVERAGES, rank)
        if isinstance(self.model, FSDPModule):
            # Each process writes its share, so that none needs room for the whole.
            state_dict_saver.save(self._sharded_optimizer(), checkpoint_id=folder / _SHARDED_OPTIMIZER)
        elif rank == 0:
            _save(self.optimizer.state_dict(), folder / _OPTIMIZER)
        _save(self.loader.state_dict(), folder / _loader_file(rank))
        if rank == 0:
            (folder / PROGRESS).write_text(json.dumps(asdict(self.progress)), "utf-8")

    def load(self, folder: Path, rank: int) -> None:
        """Take it over from a checkpoint of as many processes.

        Raises:
            CheckpointError: it is damaged or of another model.
        """
        load_tensors(plain(self.model).state_dict(), folder / WEIGHTS)
        if self.ema is not None:
            load_tensors({**self._buffers(), **self.ema.averages}, folder / AVERAGES)
        if isinstance(self.model, FSDPModule):
            state = self._sharded_optimizer()
            state_dict_loader.load(state, checkpoint_id=folder / _SHARDED_OPTIMIZER)
            set_optimizer_state_dict(self.model, self.optimizer, state)
        else:
            self.optimizer.load_state_dict(_load(folder / _OPTIMIZER))
        self.loader.load_state_dict(_load(folder / _loader_file(rank)))
        self.progress = Progress(**json.loads((folder / PROGRESS).read_text("utf-8")))

    def _buffers(self) -> dict[str, torch.Tensor]:
        """What else a file of averaged weights needs to be a whole model."""
        averaged = set() if self.ema is None else self.ema.averages.keys()
        return {name: value for name, value in plain(self.model).state_dict().items() if name not in averaged}

    def _sharded_optimizer(self) -> dict[str, Any]:
        return get_optimizer_state_dict(self.model, self.optimizer)


def _loader_file(rank: int) -> str:
    return f"loader-{rank:05d}.pt"


def _save(value: Any, path: Path) -> None:
    try:
        torch.save(value, path)
    except RuntimeError as error:  # how PyTorch says that the disk is full
        raise StorageError(f"cannot write {path}: {error}. Make room, then run the same command again.") from error
    sync_file(path)


def _load(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path} is missing: the checkpoint was written by another number of processes or another strategy."
        ) from error
    except (OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"cannot read {path}: {error}. Remove that checkpoint to use the one before.") from error

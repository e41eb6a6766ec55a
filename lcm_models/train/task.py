"""What the trainer is told to train: a task makes the model, its data and the notes that a checkpoint holds."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn


class Loader(Protocol):
    """Batches of one process without end.

    The state is of plain values, lists, dicts and tensors; loaded into a new loader, the batch that would have come
    next comes first. It is asked for between batches.
    """

    def __iter__(self) -> Iterator[Any]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Task(Protocol):
    """Pickles small: it is sent to every process, which makes its own model and data.

    A batch has ``to(device)``; ``model(batch)`` gives a ``lcm_models.model.Loss``: sums, and how many targets they are
    over. Random numbers come from PyTorch's global generators.
    """

    def build(self) -> nn.Module:
        """A new model on the CPU, float32, with all it needs to train. The same in every process: it was seeded."""
        ...

    def loader(self, rank: int, world_size: int) -> Loader:
        """The batches of one of ``world_size`` processes."""
        ...

    def validation(self) -> Iterable[Any]:
        """Held-out batches, the same in every process and every time; none if there is nothing held out.

        Passed over in every validation; an iterator is asked for anew each time.
        """
        ...

    def size(self, batch: Any) -> int:
        """Concepts (or tokens) of a batch, for the rate."""
        ...

    def identity(self) -> dict[str, dict[str, Any]]:
        """Section -> settings of what decides the result; a run with others is not resumed. Plain values."""
        ...

    def notes(self) -> dict[str, Any]:
        """What a checkpoint says about its model, as JSON: kind, sizes, provenance."""
        ...

    def describe(self) -> dict[str, int]:
        """``parameters``, those that are ``learning``, and ``batch_concepts``: concepts (or tokens) of a batch."""
        ...

    def write_assets(self, folder: Path) -> None:
        """Files every checkpoint needs besides its weights and that never change; called once, in one process."""
        ...


def reseed(*place: int) -> None:
    """Set the global random generators from a seed and a place in the run.

    Done before every batch, so that nothing random depends on what went before: no generator state has to be saved,
    and several processes draw for each batch what one process would.
    """
    low, high = (int(word) for word in np.random.SeedSequence(place).generate_state(2, np.uint32))
    torch.manual_seed(low << 32 | high)  # of the GPU, too
    np.random.seed(low)
    random.seed(low)

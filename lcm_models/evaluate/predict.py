"""Guesses of the next concept at all places of many windows: of models, and of baselines that need none."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from lcm_models.config import Frozen
from lcm_models.evaluate.documents import Window
from lcm_models.model import PADDING, Batch, ConceptModel

_COLUMNS = 16

BASELINES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "copy": lambda x_SD, mean_D: torch.roll(x_SD, 1, dims=0),
    "mean": lambda x_SD, mean_D: mean_D.expand_as(x_SD),
    "truth": lambda x_SD, mean_D: x_SD,
}
"""The concept before, the mean of the candidates, the true concept: from a window and that mean to guesses [S, D]."""

Guess = tuple[int, Tensor]
"""Number of a window and the guesses for its places, raw float32 [S, D] on the CPU; the first means nothing."""


def baseline_guesses(name: str, windows: list[Window], mean_D: Tensor) -> Iterator[Guess]:
    """Guesses of a baseline."""
    for number, window in enumerate(windows):
        yield number, BASELINES[name](torch.from_numpy(window.x_SD), mean_D.float())


def model_guesses(
    model: ConceptModel, windows: list[Window], seeds: list[int], sampling: Frozen, batch_concepts: int
) -> Iterator[Guess]:
    """Guesses of a model, many windows in a batch, all places at once; a window has a seed of its own.

    ``batch_concepts``: most columns of a batch, padding included (one window at least). It changes no guess, up to
    rounding: what is drawn for a window depends on its columns, and their number on its own length alone.
    """
    for numbers, num_columns in _batches([len(window.x_SD) for window in windows], batch_concepts):
        batch = Batch.of([torch.from_numpy(windows[number].x_SD) for number in numbers])
        missing = num_columns - batch.doc_BS.shape[1]
        x_BSD, doc_BS = F.pad(batch.x_BSD, (0, 0, 0, missing)), F.pad(batch.doc_BS, (0, missing), value=PADDING)
        padded = Batch(x_BSD, doc_BS).to(model.device)
        guess_BSD = model.predict(padded, sampling, [seeds[number] for number in numbers]).float().cpu()
        for row, number in enumerate(numbers):
            yield number, guess_BSD[row, : len(windows[number].x_SD)]


def _batches(lengths: list[int], batch_concepts: int) -> Iterator[tuple[list[int], int]]:
    """Numbers of windows and the columns they get: their length, rounded up to a multiple of ``_COLUMNS``."""
    columns = [-(-length // _COLUMNS) * _COLUMNS for length in lengths]
    for num_columns in sorted(set(columns), reverse=True):
        some = [number for number, its in enumerate(columns) if its == num_columns]
        size = max(1, batch_concepts // num_columns)
        for start in range(0, len(some), size):
            yield some[start : start + size], num_columns

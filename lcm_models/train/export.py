"""What exports of trained networks share: the weights of a run under their own names, and a folder of files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lcm_data.errors import CheckpointError, UnknownNameError, UsageError
from lcm_data.sonar.weights import read_tensors
from lcm_models.train.run import find_checkpoint
from lcm_models.train.state import AVERAGES, WEIGHTS

DTYPES = {"float32": torch.float32, "float16": torch.float16}


def trained_state(run: str, ema: bool | None = None) -> dict[str, Tensor]:
    """The weights of a run (its newest checkpoint) or of a checkpoint.

    Args:
        ema: averaged, as far as they learn, or not; by default if there are averages.

    Raises:
        UsageError: there is no checkpoint.
        CheckpointError: it has no averages.
    """
    checkpoint = find_checkpoint(run)
    has_averages = (checkpoint / AVERAGES).is_file()
    if ema and not has_averages:
        raise CheckpointError(f"{checkpoint} has no averaged weights: it was trained without optim.ema.")
    state = read_tensors(checkpoint / WEIGHTS)
    return state | read_tensors(checkpoint / AVERAGES) if has_averages and ema is not False else state


def check_export(folder: str | Path, dtype: str) -> Path:
    """The folder to make.

    Raises:
        UsageError: it is not empty.
        UnknownNameError: no such dtype.
    """
    if dtype not in DTYPES:
        raise UnknownNameError("dtype", dtype, DTYPES)
    target = Path(folder)
    if target.is_dir() and any(target.iterdir()):
        raise UsageError(f"{target} is not empty: give another folder.")
    return target


def write_export(target: Path, file: str, tensors: Mapping[str, Tensor], dtype: str, about: Mapping[str, Any]) -> None:
    """Write a safetensors file of half or full floats, and ``config.json``."""
    from safetensors.torch import save

    target.mkdir(parents=True, exist_ok=True)
    whole = {name: value.to(DTYPES[dtype]).contiguous() for name, value in tensors.items()}
    (target / file).write_bytes(save(whole, metadata={"format": "pt"}))
    (target / "config.json").write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n", "utf-8")

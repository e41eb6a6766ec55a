"""A trained speech encoder as the folder that ``lcm_data.sonar`` loads: weights under fairseq2's names, and config."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lcm_data.errors import CheckpointError, UnknownNameError, UsageError
from lcm_data.sonar.speech_layout import speech_shapes
from lcm_data.sonar.weights import read_tensors
from lcm_models.sonar.export import DTYPES, save_tensors
from lcm_models.speech.config import SpeechConfig
from lcm_models.train.run import find_checkpoint
from lcm_models.train.state import AVERAGES, WEIGHTS

FILE = "speech_encoder.safetensors"


def export(
    run: str, folder: str | Path, notes: dict[str, Any], *, dtype: str = "float16", ema: bool | None = None
) -> Path:
    """Write the encoder of a run (its newest checkpoint) or of a checkpoint; returns the folder.

    Args:
        notes: of the checkpoint (``lcm_models.train.run.read_notes``).
        ema: the averaged weights, or not; by default if there are any.

    Raises:
        UsageError: there is no checkpoint, or the folder is not empty.
        UnknownNameError: no such dtype.
        CheckpointError: no averaged weights are there to take.
    """
    if dtype not in DTYPES:
        raise UnknownNameError("dtype", dtype, DTYPES)
    checkpoint, target = find_checkpoint(run), Path(folder)
    if target.is_dir() and any(target.iterdir()):
        raise UsageError(f"{target} is not empty: give another folder.")
    has_averages = (checkpoint / AVERAGES).is_file()
    if ema and not has_averages:
        raise CheckpointError(f"{checkpoint} has no averaged weights: it was trained without optim.ema.")
    state = read_tensors(checkpoint / WEIGHTS)
    if has_averages and ema is not False:
        state |= read_tensors(checkpoint / AVERAGES)
    config = SpeechConfig(**notes["config"]).encoder(notes["dim"])
    target.mkdir(parents=True, exist_ok=True)
    save_tensors(
        {name: _of(state, name, shape, DTYPES[dtype]) for name, shape in speech_shapes(config).items()}, target / FILE
    )
    prepared = notes["prepared"]
    about = {
        "space": prepared["teacher"]["space"],
        "trained": True,
        "teacher": prepared["settings"]["teacher"],
        "teacher_revision": prepared["teacher"]["encoder_revision"],
        "languages": prepared["languages"],
        "pooler_heads": config.pooler_heads,
        "max_positions": config.max_positions,
        "dtype": dtype,
    }
    (target / "config.json").write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return target


def _of(state: dict[str, Tensor], name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    value = state[f"encoder.{name}"]
    assert tuple(value.shape) == shape, name
    return value.to(dtype)

"""Models from the folders that training writes: ``load_model`` is the way to a trained model for everything else.

What else is in a checkpoint (optimiser, place in the data) is the trainer's.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lcm_data.errors import CheckpointError
from lcm_models import build_model
from lcm_models.model import ConceptModel
from lcm_models.quant_lcm import QuantLCM

KIND = "lcm"
CODEBOOK = "codebook"


@dataclass(frozen=True)
class Trained:
    """A model from a checkpoint, in evaluation mode with normaliser and codebook; its settings are ``model.config``.

    ``notes`` is what the checkpoint says: ``variant``, ``config``, ``provenance`` of the concepts (encoder, space,
    dim), ``sources``.
    """

    model: ConceptModel
    variant: str
    notes: dict[str, Any]
    folder: Path


def load_model(path: str | Path, *, ema: bool | None = None, device: str | torch.device = "cpu") -> Trained:
    """The model of a run (its newest checkpoint) or of one checkpoint.

    Args:
        path: folder of the run, or of a checkpoint in it.
        ema: the averaged weights, or not; by default if there are any.

    Raises:
        UsageError: there is no checkpoint.
        CheckpointError: it is damaged, no concept model, or has no averaged weights.
    """
    from lcm_data.quantize.storage import load_codebook
    from lcm_models.train.run import find_checkpoint
    from lcm_models.train.state import AVERAGES, NOTES, WEIGHTS
    from lcm_models.train.weights import load_tensors

    folder = find_checkpoint(str(path))
    try:
        notes = json.loads((folder / NOTES).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {folder / NOTES}: {error}. Give a folder that 'train' wrote.") from error
    if notes.get("kind") != KIND:
        raise CheckpointError(f"{folder} holds a model of kind {notes.get('kind')!r}, not a concept model ({KIND!r}).")
    has_averages = (folder / AVERAGES).is_file()
    if ema and not has_averages:
        raise CheckpointError(f"{folder} has no averaged weights: it was trained without optim.ema.")
    model = build_model(notes["variant"], None, notes["config"])
    load_tensors(model.state_dict(), folder / (AVERAGES if has_averages and ema is not False else WEIGHTS))
    if isinstance(model, QuantLCM):
        model.set_codebook(load_codebook(str(folder / CODEBOOK)))
    return Trained(model.to(device).eval(), notes["variant"], notes, folder)

"""Checkpoints as the trainer writes them, of small models with random weights: no training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from lcm_models.data import DataConfig
from lcm_models.train.concepts import make_task
from lcm_models.train.state import NOTES, WEIGHTS
from lcm_models.train.weights import save_tensors

SMALL: dict[str, Any] = {"width": 16, "num_heads": 2, "max_len": 64}


def write_checkpoint(folder: Path, variant: str, corpus: Path, seed: int = 0, **model: Any) -> Path:
    """A model for the concepts of ``corpus``, which has a normaliser; its end of text if there is one."""
    has_end = (corpus / "end_of_text.safetensors").exists()
    data = DataConfig.model_validate(
        {
            "sources": [{"path": str(corpus)}],
            "max_len": 32,
            "batch_rows": 1,
            "end_of_text": "auto" if has_end else None,
        }
    )
    torch.manual_seed(seed)
    task = make_task(variant, "tiny", {**SMALL, **model}, data, validates=False)
    made = task.build()
    for parameter in made.parameters():  # a fresh denoiser says the same whatever it sees
        torch.nn.init.normal_(parameter, std=0.1)
    folder.mkdir(parents=True)
    save_tensors(made.state_dict(), folder / WEIGHTS)
    (folder / NOTES).write_text(json.dumps(task.notes()), "utf-8")
    task.write_assets(folder)
    return folder

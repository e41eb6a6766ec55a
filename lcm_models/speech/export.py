"""A trained speech encoder as the folder that ``lcm_data.sonar`` loads: weights under fairseq2's names, and config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lcm_data.sonar.speech_layout import speech_shapes
from lcm_models.speech.config import SpeechConfig
from lcm_models.train.export import check_export, trained_state, write_export

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
    target, state = check_export(folder, dtype), trained_state(run, ema)
    config, prepared = SpeechConfig(**notes["config"]).encoder(notes["dim"]), notes["prepared"]
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
    write_export(target, FILE, {name: state[f"encoder.{name}"] for name in speech_shapes(config)}, dtype, about)
    return target

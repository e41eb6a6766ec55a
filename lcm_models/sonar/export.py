"""A trained SONAR space as the folder that ``lcm_data.sonar`` loads: weights, tokenizer, config and model card.

Weights carry Hugging Face's names for encoder and decoder in one file (M2M100), so that the embedding they share is
stored once, and transformers reads it, too.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lcm_data.sonar.decoder_layout import TEXT_DECODER
from lcm_data.sonar.encoder_layout import TEXT_ENCODER
from lcm_data.sonar.layout import HF_TO_OURS_ROWS, hf_part
from lcm_models.sonar.config import SonarConfig
from lcm_models.sonar.prepared import TOKENIZER
from lcm_models.sonar.task import read_notes
from lcm_models.train.export import check_export, trained_state, write_export
from lcm_models.train.run import find_checkpoint


def export(run: str, folder: str | Path, *, space: str, dtype: str = "float16", ema: bool | None = None) -> Path:
    """Write the model of a run (its newest checkpoint) or of a checkpoint; returns the folder.

    Args:
        space: name of the embedding space. Vectors of different trainings never belong together: name each anew.
        ema: the averaged weights, or not; by default if there are any.

    Raises:
        UsageError: there is no checkpoint, the folder is not empty, or an unknown dtype.
        CheckpointError: it is no SONAR space.
    """
    notes, target = read_notes(run), check_export(folder, dtype)
    state = trained_state(run, ema)
    about = _about(SonarConfig(**notes["config"]), notes, space, dtype)
    write_export(target, "model.safetensors", dict(_renamed(state)), dtype, about)
    shutil.copyfile(find_checkpoint(run) / TOKENIZER, target / TOKENIZER)
    return target


def _renamed(state: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Hugging Face's names; the embedding once, in Hugging Face's order of the first rows."""
    rows = torch.tensor(HF_TO_OURS_ROWS).argsort()
    embed = state[f"encoder.{TEXT_ENCODER.embed}"].clone()
    embed[:4] = embed[rows]
    yield "model.shared.weight", embed
    for side, network in (("encoder", TEXT_ENCODER), ("decoder", TEXT_DECODER)):
        start, norm = f"{side}.{network.stack}layers.", f"{side}.{network.norm}."
        for name, value in state.items():
            if name.startswith(start):
                number, _, part = name[len(start) :].partition(".")
                part, _, kind = part.rpartition(".")
                yield f"model.{side}.layers.{number}.{hf_part(part)}.{kind}", value
            elif name.startswith(norm):
                yield f"model.{side}.layer_norm.{name[len(norm) :]}", value


def _about(config: SonarConfig, notes: dict[str, Any], space: str, dtype: str) -> dict[str, Any]:
    """``config.json``: what our loader needs, and what transformers does."""
    heads = config.width // 64
    return {
        "model_type": "m2m_100",
        "architectures": ["M2M100ForConditionalGeneration"],
        "space": space,
        "trained": True,
        "languages": notes["languages"],
        "tokenizer": TOKENIZER,
        "num_heads": heads,
        "max_tokens": 514,
        "max_target_tokens": 512,
        "vocab_size": notes["vocab_size"],
        "d_model": config.width,
        "encoder_layers": config.encoder_layers,
        "decoder_layers": config.decoder_layers,
        "encoder_attention_heads": heads,
        "decoder_attention_heads": heads,
        "encoder_ffn_dim": config.encoder_ffn,
        "decoder_ffn_dim": config.decoder_ffn,
        "activation_function": "relu",
        "scale_embedding": True,
        "max_position_embeddings": 1024,
        "bos_token_id": 0,
        "pad_token_id": 1,
        "eos_token_id": 2,
        "decoder_start_token_id": 2,
        "dtype": dtype,
    }

"""Writes a small speech encoder with random weights, for tests and for machines without the real ones.

Its vectors tell clips apart but mean nothing, so ``config.json`` says ``"trained": false``. The text networks of that
kind are ``lcm_data.sonar.random_model``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from lcm_data.sonar.random_model import CONFIG_NAME, WEIGHTS_NAME
from lcm_data.sonar.speech_config import SpeechEncoderConfig
from lcm_data.sonar.speech_layout import speech_shapes

if TYPE_CHECKING:
    from torch import Tensor


def write_random_speech(
    directory: str | Path, config: SpeechEncoderConfig, *, space: str | None = None, seed: int = 0
) -> Path:
    """Write ``model.safetensors`` (fairseq2's names) and ``config.json`` into a folder and return it.

    Args:
        directory: made if missing.
        config: the sizes.
        space: the embedding space to belong to, that of a text encoder, say; one of its own if None.
        seed: the same one gives the same weights with the same version of torch.
    """
    from safetensors.torch import save

    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / WEIGHTS_NAME).write_bytes(save(random_speech_state(config, seed), metadata={"format": "pt"}))
    about = {
        "model_type": "sonar_speech_encoder",
        "trained": False,
        "seed": seed,
        "pooler_heads": config.pooler_heads,
        "max_positions": config.max_positions,
    }
    if space is not None:
        about["space"] = space
    (directory / CONFIG_NAME).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return directory


def random_speech_state(config: SpeechEncoderConfig, seed: int) -> dict[str, Tensor]:
    """Random tensors of all parameters; norms differ from doing nothing, so that a wrong one shows."""
    import torch

    generator = torch.Generator().manual_seed(seed)

    def number(shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=generator)

    state = {}
    for name, shape in speech_shapes(config).items():
        if name.endswith("running_var"):
            state[name] = number(shape).abs() + 0.5
        elif "norm" in name and name.endswith("weight"):
            state[name] = 1.0 + 0.1 * number(shape)
        elif name.endswith(("sdpa.u_bias", "sdpa.v_bias")):
            state[name] = 0.5 * number(shape)
        elif name.endswith(("bias", "running_mean")):
            state[name] = 0.1 * number(shape)
        else:
            fan_in = shape[1] if len(shape) == 2 else shape[1] * shape[2]
            state[name] = number(shape) * fan_in**-0.5
    # The published models' vectors have a norm of about 0.2.
    state["encoder_pooler.projection_out.weight"] *= 0.2 * config.embedding_dim**-0.5
    return state

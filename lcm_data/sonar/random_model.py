"""Writes a small text encoder (and decoder) with random weights, for tests, demos and machines without the real ones.

Its vectors tell sentences apart but know nothing of meaning, so ``config.json`` says ``"trained": false`` and that
travels into the metadata of everything made with it. The format is the one real models are read from.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from lcm_data.languages import FLORES_200
from lcm_data.sonar.config import NUM_DATA_TAGS, TextDecoderConfig, TextEncoderConfig
from lcm_data.sonar.decoder_layout import EMBED, OUTPUT, decoder_shapes
from lcm_data.sonar.encoder_layout import encoder_shapes
from lcm_data.sonar.train_tokenizer import num_pieces, train_tokenizer

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS_NAME = "model.safetensors"
TOKENIZER_NAME = "sentencepiece.model"
CONFIG_NAME = "config.json"

_MAX_TRAINING_TEXTS = 20_000


def write_random_checkpoint(
    directory: str | Path,
    texts: Iterable[str],
    *,
    model_dim: int = 64,
    num_layers: int = 2,
    num_heads: int = 4,
    ffn_dim: int | None = None,
    vocab_size: int = 1000,
    max_tokens: int = 514,
    languages: Sequence[str] = FLORES_200,
    decoder_layers: int = 0,
    max_target_tokens: int = 512,
    seed: int = 0,
) -> Path:
    """Train a tokenizer on ``texts`` and write a random network of the SONAR architecture around it.

    The same arguments give the same files with the same versions of SentencePiece and torch.

    Args:
        directory: made if missing; gets ``model.safetensors``, ``sentencepiece.model`` and ``config.json``.
        texts: sentences to train the tokenizer on; any script, unseen characters fall back to bytes.
        vocab_size: SentencePiece pieces; fewer when the texts do not give so many, more when their characters need it.
        ffn_dim: 4 x ``model_dim`` unless given.
        decoder_layers: above 0, ``model.safetensors`` also holds a decoder of so many layers and the other sizes equal.
        max_target_tokens: longest sequence of the decoder, prompt and ``</s>`` included.

    Returns the directory, for ``load_text_encoder`` and ``load_text_decoder``.

    Raises:
        UsageError: no text, or sizes that do not fit together.
    """
    directory = Path(directory)
    usable = (text for text in texts if text.strip())
    model = train_tokenizer(list(itertools.islice(usable, _MAX_TRAINING_TEXTS)), vocab_size)
    config = TextEncoderConfig(
        model_dim=model_dim,
        num_layers=num_layers,
        num_heads=num_heads,
        ffn_dim=4 * model_dim if ffn_dim is None else ffn_dim,
        vocab_size=1 + num_pieces(model) + len(languages) + NUM_DATA_TAGS,
        max_tokens=max_tokens,
    )
    decoder = None
    if decoder_layers:
        sizes = {**asdict(config), "num_layers": decoder_layers, "max_tokens": max_target_tokens}
        decoder = TextDecoderConfig(**sizes)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / TOKENIZER_NAME).write_bytes(model)
    write_random_weights(directory / WEIGHTS_NAME, config, decoder, seed=seed)
    about = {
        "model_type": "sonar_text_encoder",
        "trained": False,
        "seed": seed,
        "num_heads": num_heads,
        "max_tokens": max_tokens,
        "tokenizer": TOKENIZER_NAME,
        "languages": list(languages),
    }
    if decoder is not None:
        about |= {"model_type": "sonar_text_encoder_decoder", "max_target_tokens": max_target_tokens}
    (directory / CONFIG_NAME).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return directory


def write_random_weights(
    path: Path, encoder: TextEncoderConfig | None, decoder: TextDecoderConfig | None = None, *, seed: int = 0
) -> None:
    """Write random parameters of an encoder, a decoder or both in fairseq2's names as safetensors.

    Layers are scaled so that signals neither die nor explode, and the embedding so that after its factor
    sqrt(model_dim) it outweighs the positions: sentences with other words then get clearly other vectors. The output
    projection of a decoder is its embedding and not written twice.
    """
    from safetensors.torch import save

    state: dict[str, Tensor] = {}
    if encoder is not None:
        state = random_state(encoder_shapes(encoder), seed)
        # A final gain like that of the published model: its vectors have a norm of about 0.2.
        state["layer_norm.weight"] *= 0.5 * encoder.model_dim**-0.5
    if decoder is not None:
        state |= random_decoder_state(decoder, seed)
    path.write_bytes(save(state, metadata={"format": "pt"}))  # save_file would make it readable by its owner only


def random_decoder_state(config: TextDecoderConfig, seed: int) -> dict[str, Tensor]:
    """A decoder that says something else for each vector; with plain scales it would repeat its last token for ever."""
    state = random_state({name: shape for name, shape in decoder_shapes(config).items() if name != OUTPUT}, seed + 1)
    # Each token is also what the output is compared with, so the layers must outweigh it to get away from it.
    state[EMBED] *= 0.1
    gains = {
        "decoder.layer_norm.weight": 10.0,
        "self_attn.q_proj.weight": 3.0,
        "self_attn.output_proj.weight": 2.0,
        "ffn.output_proj.weight": 2.0,
        "encoder_decoder_attn.v_proj.weight": 3.0 * config.model_dim**0.5,  # sentence vectors are short
    }
    for name in state:
        state[name] *= next((gain for end, gain in gains.items() if name.endswith(end)), 1.0)
    return state


def random_state(shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, Tensor]:
    """Random tensors of these shapes, scaled as ``write_random_weights`` says."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        if "layer_norm" in name:
            state[name] = torch.ones(shape) if name.endswith("weight") else torch.zeros(shape)
            continue
        scale = 0.02 if name.endswith("bias") else shape[-1] ** -0.5
        if "embed" in name:
            scale *= 3.0
        state[name] = torch.randn(shape, generator=generator) * scale
    return state

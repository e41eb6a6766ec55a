"""The names and shapes of a SONAR text encoder; recognising it in a file is ``lcm_data.sonar.layout``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lcm_data.sonar.config import TextEncoderConfig
from lcm_data.sonar.layout import Layout, Network, Shapes, parameter_shapes, read_layout

EMBED = "encoder_frontend.embed.weight"

EncoderLayout = Layout[TextEncoderConfig]

TEXT_ENCODER = Network(
    kind="text encoder",
    config=TextEncoderConfig,
    embed=EMBED,
    norm="layer_norm",
    stack="encoder.",
    parts=(
        *(f"self_attn.{p}_proj" for p in ("q", "k", "v", "output")),
        *("self_attn_layer_norm", "ffn.inner_proj", "ffn.output_proj", "ffn_layer_norm"),
    ),
    idle=(),
    has_output=False,
    heads_hints=("num_heads", "encoder_attention_heads"),
    max_tokens_hint="max_tokens",
    settings={"scale_embedding": True, "activation_function": "relu", "pooling": "mean"},
)


def text_encoder_layout(shapes: Shapes, hints: Mapping[str, Any], where: str) -> EncoderLayout:
    """Recognise a text encoder; see ``lcm_data.sonar.layout.read_layout``."""
    return read_layout(TEXT_ENCODER, shapes, hints, where)


def encoder_shapes(config: TextEncoderConfig) -> dict[str, tuple[int, ...]]:
    """Every parameter of ``lcm_data.sonar.text_encoder.TextEncoder`` and its shape."""
    return parameter_shapes(TEXT_ENCODER, config)

"""The names and shapes of a SONAR text decoder; recognising it in a file is ``lcm_data.sonar.layout``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lcm_data.sonar.config import TextDecoderConfig
from lcm_data.sonar.layout import Layout, Network, Shapes, parameter_shapes, read_layout

EMBED = "decoder_frontend.embed.weight"
OUTPUT = "final_proj.weight"

DecoderLayout = Layout[TextDecoderConfig]

TEXT_DECODER = Network(
    kind="text decoder",
    config=TextDecoderConfig,
    embed=EMBED,
    norm="decoder.layer_norm",
    stack="decoder.",
    parts=(
        *(f"self_attn.{p}_proj" for p in ("q", "k", "v", "output")),
        *("self_attn_layer_norm", "encoder_decoder_attn.v_proj", "encoder_decoder_attn.output_proj"),
        *("ffn.inner_proj", "ffn.output_proj", "ffn_layer_norm"),
    ),
    # Attention to one vector gives that vector whatever the query and the key are.
    idle=("encoder_decoder_attn.q_proj", "encoder_decoder_attn.k_proj", "encoder_decoder_attn_layer_norm"),
    has_output=True,
    heads_hints=("decoder_attention_heads", "num_heads"),
    max_tokens_hint="max_target_tokens",
    settings={"scale_embedding": True, "activation_function": "relu"},
)


def text_decoder_layout(shapes: Shapes, hints: Mapping[str, Any], where: str) -> DecoderLayout:
    """Recognise a text decoder; see ``lcm_data.sonar.layout.read_layout``."""
    return read_layout(TEXT_DECODER, shapes, hints, where)


def decoder_shapes(config: TextDecoderConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor of a decoder as fairseq2 stores it and its shape, those without influence included."""
    shapes = parameter_shapes(TEXT_DECODER, config, (*TEXT_DECODER.parts, *TEXT_DECODER.idle))
    return {**shapes, OUTPUT: shapes[EMBED]}

"""How a weights file names the tensors of a SONAR speech encoder, and the sizes they tell; needs no torch.

Two ways of naming are in public use, told apart by content:

    fairseq     encoder.w2v_model.encoder.layers.0.ffn1.w_1.weight, decoder.layers.0.fc1.weight   (the official files)
    fairseq2    encoder.layers.0.ffn1.inner_proj.weight, encoder_pooler.decoder.layers.0.ffn.inner_proj.weight

fairseq2's names are those of ``lcm_data.sonar.speech_encoder``. Text networks are ``lcm_data.sonar.layout``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lcm_data.errors import CheckpointError, UsageError
from lcm_data.sonar.layout import Shapes, find_networks, hf_part
from lcm_data.sonar.speech_config import SpeechEncoderConfig

_LAYERS = "encoder.layers."
_POOLER = "encoder_pooler.decoder.layers."
_EMBED = "encoder_pooler.decoder_frontend.embed.weight"
_OUTPUT = "encoder_pooler.projection_out.weight"

_ATTENTION = tuple(f"self_attn.{p}_proj" for p in ("q", "k", "v", "output"))
_POOLER_PARTS = (
    *("self_attn.v_proj", "self_attn.output_proj", "self_attn_layer_norm"),
    *(f"encoder_decoder_attn.{p}_proj" for p in ("q", "k", "v", "output")),
    *("encoder_decoder_attn_layer_norm", "ffn.inner_proj", "ffn.output_proj", "ffn_layer_norm"),
)
_IDLE = tuple(f".self_attn.{p}_proj.{kind}" for p in ("q", "k") for kind in ("weight", "bias"))
"""Ends of names in the pooler: attention of one vector to itself gives its value whatever query and key are."""

_IGNORED = ("version", "_float_tensor", ".num_batches_tracked")
_PRETRAINING = ("encoder.w2v_model.mask_emb", "encoder.w2v_model.encoder.pos_conv.")

_OUTER_NAMES = {
    "encoder_frontend.post_extract_layer_norm.": "encoder.w2v_model.layer_norm.",
    "encoder_frontend.model_dim_proj.": "encoder.w2v_model.post_extract_proj.",
    "layer_norm.": "encoder.w2v_model.encoder.layer_norm.",
    _EMBED: "decoder.embed_tokens.weight",
    _OUTPUT: "decoder.embed_out",
}
_LAYER_NAMES = {
    **{f"ffn{n}_layer_norm": f"ffn{n}.layer_norm" for n in (1, 2)},
    **{f"ffn{n}.inner_proj": f"ffn{n}.w_1" for n in (1, 2)},
    **{f"ffn{n}.output_proj": f"ffn{n}.w_2" for n in (1, 2)},
    **{f"self_attn.{p}_proj": f"self_attn.linear_{p[:3]}" for p in ("q", "k", "v", "output")},
    "self_attn.sdpa.r_proj": "self_attn.linear_pos",
    "self_attn.sdpa.u_bias": "self_attn.pos_bias_u",
    "self_attn.sdpa.v_bias": "self_attn.pos_bias_v",
    "conv_layer_norm": "conv_module.layer_norm",
    "layer_norm": "final_layer_norm",
}
_LAYER = re.compile(r"(?P<stack>.*layers\.)(?P<number>\d+)\.(?P<part>.*?)(?P<kind>\.weight|\.bias|)")


@dataclass(frozen=True)
class SpeechLayout:
    """How to read a file as a speech encoder.

    Attributes:
        config: the sizes.
        sources: our parameter name -> name of the tensor in the file.
        fairseq2: whether the names are fairseq2's.
    """

    config: SpeechEncoderConfig
    sources: dict[str, str]
    fairseq2: bool


def speech_shapes(config: SpeechEncoderConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor of ``lcm_data.sonar.speech_encoder.SpeechEncoder`` and its shape."""
    d = config.model_dim
    shapes: dict[str, tuple[int, ...]] = {}

    def affine(name: str, out: int, *inner: int) -> None:
        shapes[f"{name}.weight"] = (out, *inner)
        shapes[f"{name}.bias"] = (out,)

    affine("encoder_frontend.post_extract_layer_norm", config.num_features)
    affine("encoder_frontend.model_dim_proj", d, config.num_features)
    for i in range(config.num_layers):
        layer = f"{_LAYERS}{i}."
        for part in ("ffn1", "ffn2"):
            affine(f"{layer}{part}.inner_proj", config.ffn_dim, d)
            affine(f"{layer}{part}.output_proj", d, config.ffn_dim)
        for part in _ATTENTION:
            affine(f"{layer}{part}", d, d)
        for part in ("ffn1_layer_norm", "self_attn_layer_norm", "conv_layer_norm", "ffn2_layer_norm", "layer_norm"):
            affine(f"{layer}{part}", d)
        affine(f"{layer}conv.batch_norm", d)
        shapes |= {f"{layer}conv.batch_norm.running_{name}": (d,) for name in ("mean", "var")}
        shapes |= {f"{layer}self_attn.sdpa.{p}_bias": (config.num_heads, d // config.num_heads) for p in ("u", "v")}
        shapes[f"{layer}self_attn.sdpa.r_proj.weight"] = (d, d)
        shapes[f"{layer}conv.pointwise_conv1.weight"] = (2 * d, d, 1)
        shapes[f"{layer}conv.depthwise_conv.weight"] = (d, 1, config.kernel_size)
        shapes[f"{layer}conv.pointwise_conv2.weight"] = (d, d, 1)
    affine("layer_norm", d)
    shapes[_EMBED] = (config.pooler_vocab, d)
    for i in range(config.pooler_layers):
        for part in _POOLER_PARTS:
            out = config.pooler_ffn_dim if part == "ffn.inner_proj" else d
            inner = config.pooler_ffn_dim if part == "ffn.output_proj" else d
            affine(f"{_POOLER}{i}.{part}", out, *(() if part.endswith("norm") else (inner,)))
    shapes[_OUTPUT] = (config.embedding_dim, d)
    return shapes


def fairseq_name(name: str) -> str:
    """What the official files call one of our parameters."""
    for ours, theirs in _OUTER_NAMES.items():
        if name.startswith(ours):
            return name.replace(ours, theirs, 1)
    match = _LAYER.fullmatch(name)
    assert match is not None, name
    part, place = match["part"], f"{match['number']}."
    if match["stack"] == _POOLER:
        return f"decoder.layers.{place}{hf_part(part)}{match['kind']}"
    theirs = _LAYER_NAMES.get(part) or re.sub(r"^conv\.", "conv_module.", part)
    return f"encoder.w2v_model.encoder.layers.{place}{theirs}{match['kind']}"


def speech_encoder_layout(shapes: Shapes, hints: Mapping[str, Any], where: str) -> SpeechLayout:
    """Recognise a speech encoder.

    Args:
        shapes: name -> shape of every tensor of the file.
        hints: the model's ``config.json``, or nothing; used for what shapes do not say: ``pooler_heads`` (default: as
            many as the encoder has) and ``max_positions``.
        where: the file, for messages.

    Raises:
        CheckpointError: another kind of network, missing or unexpected tensors, shapes that do not fit together.
    """
    found = find_networks(shapes)
    if not found or found[0].kind != "speech encoder":
        what = f"holds a {found[0].kind}" if found else f"holds {len(shapes)} tensors that are none"
        raise CheckpointError(f"{where} {what}, not a SONAR speech encoder. Give one such as sonar_speech_encoder_eng.")
    fairseq2 = not any(".w2v_model." in name for name in shapes)
    config = _config(shapes, hints, fairseq2, where)
    wanted = speech_shapes(config)
    sources = {name: name if fairseq2 else fairseq_name(name) for name in wanted}
    if missing := [name for name in sources.values() if name not in shapes]:
        raise CheckpointError(
            f"{where}: {len(missing)} tensors of a speech encoder are missing, such as {missing[0]!r}."
        )
    if unknown := sorted(set(shapes) - set(sources.values()) - set(_spare(shapes, fairseq2))):
        raise CheckpointError(
            f"{where} has {len(unknown)} tensors that a SONAR speech encoder lacks, such as {unknown[0]!r}."
        )
    for ours, theirs in sources.items():
        if shapes[theirs] != wanted[ours]:
            raise CheckpointError(f"{where}: tensor {theirs!r} has shape {shapes[theirs]}, expected {wanted[ours]}.")
    return SpeechLayout(config, sources, fairseq2)


def _spare(names: Iterable[str], fairseq2: bool) -> list[str]:
    """Tensors of a file that change nothing: leftovers of pretraining, counters, and what the pooler does not use."""
    pooler = _POOLER if fairseq2 else "decoder.layers."
    return [
        name for name in names
        if name.endswith(_IGNORED) or name.startswith(_PRETRAINING)
        or (name.startswith(pooler) and name.endswith(_IDLE))
    ]  # fmt: skip


def _config(shapes: Shapes, hints: Mapping[str, Any], fairseq2: bool, where: str) -> SpeechEncoderConfig:
    """Sizes from the shapes; the heads of the pooler and the longest clip from the hints."""

    def size(name: str, dimension: int) -> int:
        theirs = name if fairseq2 else fairseq_name(name)
        if len(shapes.get(theirs, ())) <= dimension:
            raise CheckpointError(
                f"{where}: the tensor {theirs!r} of a speech encoder is missing, or has no such shape."
            )
        return shapes[theirs][dimension]

    def num_layers(stack: str) -> int:
        probe = f"{stack}0.self_attn.v_proj.bias"
        start = (probe if fairseq2 else fairseq_name(probe)).split("0.", 1)[0]
        return len({name[len(start) :].split(".")[0] for name in shapes if name.startswith(start)})

    num_heads = size(f"{_LAYERS}0.self_attn.sdpa.u_bias", 0)
    try:
        return SpeechEncoderConfig(
            model_dim=size("layer_norm.weight", 0),
            num_layers=num_layers(_LAYERS),
            num_heads=num_heads,
            ffn_dim=size(f"{_LAYERS}0.ffn1.inner_proj.weight", 0),
            kernel_size=size(f"{_LAYERS}0.conv.depthwise_conv.weight", 2),
            num_features=size("encoder_frontend.model_dim_proj.weight", 1),
            pooler_layers=num_layers(_POOLER),
            pooler_heads=hints.get("pooler_heads", num_heads),
            pooler_ffn_dim=size(f"{_POOLER}0.ffn.inner_proj.weight", 0),
            pooler_vocab=size(_EMBED, 0),
            embedding_dim=size(_OUTPUT, 0),
            max_positions=hints.get("max_positions", SpeechEncoderConfig.max_positions),
        )
    except UsageError as error:
        raise CheckpointError(f"{where}: {error}") from error

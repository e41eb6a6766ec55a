"""Which text decoder a weights file holds, from the names and shapes of its tensors; reads no tensor, needs no torch.

The same namings are in use as for encoders (``lcm_data.sonar.layout``):

    fairseq2       decoder_frontend.embed.weight, decoder.layers.0.ffn.inner_proj.weight       (the official files)
    Hugging Face   <prefix>embed_tokens.weight or [model.]shared.weight, <prefix>layers.0.fc1.weight    (any prefix)
    fairseq        the Hugging Face names under a "state_dict" level

A file may hold an encoder too, under the names of its own kind; it is left alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lcm_data.errors import CheckpointError, UsageError
from lcm_data.sonar.config import TextDecoderConfig
from lcm_data.sonar.layout import _HEAD_DIM, _HF_NAMES, _IGNORED, Shapes

EMBED = "decoder_frontend.embed.weight"
OUTPUT = "final_proj.weight"

_NAMES = {**_HF_NAMES, "encoder_decoder_attn.output_proj": "encoder_attn.out_proj"}
_USED = (
    *(f"self_attn.{p}_proj" for p in ("q", "k", "v", "output")),
    *("self_attn_layer_norm", "encoder_decoder_attn.v_proj", "encoder_decoder_attn.output_proj"),
    *("ffn.inner_proj", "ffn.output_proj", "ffn_layer_norm"),
)
_WITHOUT_INFLUENCE = (
    "encoder_decoder_attn.q_proj",
    "encoder_decoder_attn.k_proj",
    "encoder_decoder_attn_layer_norm",
)
"""Attention to one vector gives that vector whatever the query and the key are."""

_SHARED = ("shared.weight", "model.shared.weight")
_OUTPUTS = (OUTPUT, "lm_head.weight", "output_projection.weight")
_HEADS_HINTS = ("decoder_attention_heads", "num_heads")


@dataclass(frozen=True)
class DecoderLayout:
    """How to read a file as a text decoder.

    Attributes:
        config: the sizes.
        sources: our parameter name -> name of the tensor in the file.
        hf_rows: whether the first four embedding rows must be permuted.
        tied: tensors of the file that must equal the embedding.
    """

    config: TextDecoderConfig
    sources: dict[str, str]
    hf_rows: bool
    tied: tuple[str, ...]


def text_decoder_layout(shapes: Shapes, hints: Mapping[str, Any], where: str) -> DecoderLayout:
    """Recognise a text decoder.

    Args:
        shapes: name -> shape of every tensor of the file.
        hints: the model's ``config.json``, or nothing; used for what shapes do not say: the number of heads
            ("num_heads") and the longest sequence ("max_target_tokens", 512 unless given).
        where: the file, for messages.

    Raises:
        CheckpointError: another kind of network, missing or unexpected tensors, shapes that do not fit together.
    """
    _refuse_other_kinds(shapes, where)
    fairseq2 = EMBED in shapes
    prefix = "decoder." if fairseq2 else _hf_prefix(shapes, where)
    sources = _sources(shapes, prefix, fairseq2)
    missing = [name for name in sources.values() if name not in shapes]
    if missing:
        raise CheckpointError(f"{where}: {len(missing)} tensors of a text decoder are missing, such as {missing[0]!r}.")
    config = _config(shapes, sources, hints, where)
    tied = _tied(shapes, sources[EMBED], prefix)
    _refuse_unknown(shapes, {*sources.values(), *tied}, prefix, fairseq2, where)
    wanted = {sources[name]: shape for name, shape in decoder_shapes(config).items() if name in sources}
    wanted |= dict.fromkeys(tied, wanted[sources[EMBED]])
    for name, shape in wanted.items():
        if shapes[name] != shape:
            raise CheckpointError(f"{where}: tensor {name!r} has shape {shapes[name]}, expected {shape}.")
    return DecoderLayout(config=config, sources=sources, hf_rows=not fairseq2, tied=tied)


def decoder_shapes(config: TextDecoderConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor of a decoder as fairseq2 stores it and its shape, those without influence included."""
    d, f = config.model_dim, config.ffn_dim
    shapes: dict[str, tuple[int, ...]] = {EMBED: (config.vocab_size, d)}
    for i in range(config.num_layers):
        for part in (*_USED, *_WITHOUT_INFLUENCE):
            out = f if part == "ffn.inner_proj" else d
            weight = (d,) if part.endswith("norm") else (out, f if part == "ffn.output_proj" else d)
            shapes[f"decoder.layers.{i}.{part}.weight"] = weight
            shapes[f"decoder.layers.{i}.{part}.bias"] = (out,)
    shapes["decoder.layer_norm.weight"] = shapes["decoder.layer_norm.bias"] = (d,)
    return {**shapes, OUTPUT: (config.vocab_size, d)}


def _refuse_other_kinds(shapes: Shapes, where: str) -> None:
    """Say what the file is when it is a known network but not this one."""
    kind = None
    if any(".w2v_model." in name or name.startswith("encoder_pooler.") for name in shapes):
        kind = "a SONAR speech encoder"
    elif EMBED not in shapes and not any(".encoder_attn." in name for name in shapes):
        if "encoder_frontend.embed.weight" in shapes:
            kind = "a SONAR text encoder"
        elif any(name.endswith("layers.0.fc1.weight") for name in shapes):
            kind = "a text encoder"
    if kind is not None:
        raise CheckpointError(
            f"{where} holds {kind}, not a text decoder. Give text_sonar_basic_decoder or a port of it."
        )


def _hf_prefix(shapes: Shapes, where: str) -> str:
    """What stands before ``layers.0`` of the decoder: "decoder.", "model.decoder." or anything else."""
    tail = "layers.0.encoder_attn.v_proj.weight"
    found = [name.removesuffix(tail) for name in shapes if name.endswith(tail)]
    if len(found) != 1:
        some = ", ".join(sorted(shapes)[:4]) or "no tensors"
        raise CheckpointError(
            f"{where} is no SONAR text decoder: expected {EMBED!r} (fairseq2) or '...{tail}' once (Hugging Face), "
            f"found {len(shapes)} tensors such as {some}."
        )
    return found[0]


def _their_part(part: str, fairseq2: bool) -> str:
    if fairseq2:
        return part
    return _NAMES.get(part, part.replace("encoder_decoder_attn", "encoder_attn"))


def _sources(shapes: Shapes, prefix: str, fairseq2: bool) -> dict[str, str]:
    """Our parameter name -> the name in the file, for as many layers as the file has."""
    start = f"{prefix}layers."
    numbers = {name[len(start) :].split(".")[0] for name in shapes if name.startswith(start)}
    embed = EMBED if fairseq2 else f"{prefix}embed_tokens.weight"
    # Safetensors keeps one of several names of the same storage, and not always the same one.
    if embed not in shapes:
        embed = next((name for name in (*_SHARED, *_OUTPUTS) if name in shapes), embed)
    sources = {EMBED: embed}
    for kind in ("weight", "bias"):
        sources[f"decoder.layer_norm.{kind}"] = f"{prefix}layer_norm.{kind}"
        for i in range(len(numbers)):
            for part in _USED:
                sources[f"decoder.layers.{i}.{part}.{kind}"] = f"{start}{i}.{_their_part(part, fairseq2)}.{kind}"
    return sources


def _tied(shapes: Shapes, embed: str, prefix: str) -> tuple[str, ...]:
    """Output projections beside the embedding."""
    names = {*_OUTPUTS, f"{prefix}output_projection.weight"} - {embed}
    return tuple(sorted(name for name in names if name in shapes))


def _refuse_unknown(shapes: Shapes, used: set[str], prefix: str, fairseq2: bool, where: str) -> None:
    """A tensor of the decoder that we would not use means another architecture."""
    idle = tuple(f".{_their_part(part, fairseq2)}.{kind}" for part in _WITHOUT_INFLUENCE for kind in ("weight", "bias"))
    # The norm of a fairseq2 encoder is at the top level.
    others = ("layer_norm.", "encoder_frontend.", "encoder.", "model.encoder.")
    unknown = [
        name
        for name in shapes
        if name not in used
        and name not in _SHARED
        and not name.endswith((*_IGNORED, *idle))
        and (name.startswith(prefix) or not name.startswith(others))
    ]
    if unknown:
        raise CheckpointError(
            f"{where} has {len(unknown)} tensors that a SONAR text decoder lacks, such as {sorted(unknown)[0]!r}."
        )


def _config(shapes: Shapes, sources: Mapping[str, str], hints: Mapping[str, Any], where: str) -> TextDecoderConfig:
    """Sizes from the shapes; heads from the hints, else of 64 numbers each."""
    for name, value in {"scale_embedding": True, "activation_function": "relu"}.items():
        if hints.get(name, value) != value:
            raise CheckpointError(f"{where}: config.json says {name}={hints[name]!r}; only {value!r} is SONAR.")
    embed = shapes[sources[EMBED]]
    inner = sources.get("decoder.layers.0.ffn.inner_proj.weight")
    if len(embed) != 2 or inner is None or len(shapes[inner]) != 2:
        raise CheckpointError(f"{where}: the embedding has shape {embed}; expected two dimensions and a first layer.")
    num_heads = next((hints[name] for name in _HEADS_HINTS if name in hints), None)
    if num_heads is None:
        if embed[1] % _HEAD_DIM:
            raise CheckpointError(
                f"{where}: width {embed[1]} is no multiple of {_HEAD_DIM}, so the number of heads is unknown. "
                'Write it into config.json beside the weights: {"num_heads": ...}.'
            )
        num_heads = embed[1] // _HEAD_DIM
    try:
        return TextDecoderConfig(
            model_dim=embed[1],
            num_layers=sum(name.endswith(".ffn.inner_proj.weight") for name in sources),
            num_heads=num_heads,
            ffn_dim=shapes[inner][0],
            vocab_size=embed[0],
            max_tokens=hints.get("max_target_tokens", TextDecoderConfig.max_tokens),
        )
    except UsageError as error:
        raise CheckpointError(f"{where}: {error}") from error

"""Which network a weights file holds, from the names and shapes of its tensors; reads no tensor and needs no torch.

Three ways of naming the SONAR text encoder are in public use, told apart by content and never by file name:

    fairseq2       encoder_frontend.embed.weight, encoder.layers.0.ffn.inner_proj.weight   (the official file)
    Hugging Face   [shared.weight] <prefix>embed_tokens.weight, <prefix>layers.0.fc1.weight    (any prefix)
    fairseq        the Hugging Face names under a "state_dict" level

The last two keep ``<s> <pad> </s> <unk>`` as the first four rows of the embedding; fairseq2 and this package keep
``<pad> <unk> <s> </s>``. Everything else is the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lcm_data.errors import CheckpointError, UsageError
from lcm_data.sonar.config import TextEncoderConfig

HF_TO_OURS_ROWS = (1, 3, 0, 2)
"""Row i of our embedding is row ``HF_TO_OURS_ROWS[i]`` of a Hugging Face one, for the first four rows."""

_HF_NAMES = {
    "self_attn.output_proj": "self_attn.out_proj",
    "ffn.inner_proj": "fc1",
    "ffn.output_proj": "fc2",
    "ffn_layer_norm": "final_layer_norm",
}
_LAYER_PARTS = (
    *(f"self_attn.{p}_proj" for p in ("q", "k", "v", "output")),
    *("self_attn_layer_norm", "ffn.inner_proj", "ffn.output_proj", "ffn_layer_norm"),
)
_IGNORED = ("version", "_float_tensor", "embed_positions.weights", "embed_positions.weight", "final_logits_bias")
_TIED = ("shared.weight", "model.shared.weight", "lm_head.weight", "final_proj.weight")
_NUM_HEADS_HINTS = ("num_heads", "encoder_attention_heads")
_HEAD_DIM = 64

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Layout:
    """How to read a file as a text encoder.

    Attributes:
        config: the sizes.
        sources: our parameter name -> name of the tensor in the file.
        hf_rows: whether the first four embedding rows must be permuted.
        has_decoder: whether the file holds a decoder too (ignored; the caller may warn).
    """

    config: TextEncoderConfig
    sources: dict[str, str]
    hf_rows: bool
    has_decoder: bool


def text_encoder_layout(shapes: Shapes, hints: Mapping[str, Any], where: str) -> Layout:
    """Recognise a text encoder.

    Args:
        shapes: name -> shape of every tensor of the file.
        hints: the model's ``config.json``, or nothing; used for what shapes do not say (the number of heads).
        where: the file, for messages.

    Raises:
        CheckpointError: another kind of network, missing or unexpected tensors, shapes that do not fit together.
    """
    _refuse_other_kinds(shapes, where)
    fairseq2 = "encoder_frontend.embed.weight" in shapes
    prefix = "encoder." if fairseq2 else _hf_prefix(shapes, where)
    sources = _sources(shapes, prefix, fairseq2)
    missing = [name for name in sources.values() if name not in shapes]
    if missing:
        raise CheckpointError(f"{where}: {len(missing)} tensors of a text encoder are missing, such as {missing[0]!r}.")
    has_decoder = any(name.startswith(("decoder.", "model.decoder.")) for name in shapes)
    _refuse_unknown(shapes, set(sources.values()), prefix, where)
    config = _config(shapes, sources, hints, where)
    _check_shapes(config, shapes, sources, where)
    return Layout(config=config, sources=sources, hf_rows=not fairseq2, has_decoder=has_decoder)


def parameter_shapes(config: TextEncoderConfig) -> dict[str, tuple[int, ...]]:
    """Every parameter of ``lcm_data.sonar.text_encoder.TextEncoder`` and its shape."""
    d, f = config.model_dim, config.ffn_dim
    shapes: dict[str, tuple[int, ...]] = {"encoder_frontend.embed.weight": (config.vocab_size, d)}
    for i in range(config.num_layers):
        for part in _LAYER_PARTS:
            out = f if part == "ffn.inner_proj" else d
            weight = (d,) if part.endswith("norm") else (out, f if part == "ffn.output_proj" else d)
            shapes[f"encoder.layers.{i}.{part}.weight"] = weight
            shapes[f"encoder.layers.{i}.{part}.bias"] = (out,)
    shapes["layer_norm.weight"] = shapes["layer_norm.bias"] = (d,)
    return shapes


def _refuse_other_kinds(shapes: Shapes, where: str) -> None:
    """Say what the file is when it is a known network but not this one."""
    kind = None
    if any(".w2v_model." in name or name.startswith("encoder_pooler.") for name in shapes):
        kind = "a SONAR speech encoder"
    elif "decoder_frontend.embed.weight" in shapes and "encoder_frontend.embed.weight" not in shapes:
        kind = "a SONAR text decoder"
    elif any(".encoder_attn." in name for name in shapes) and not any(
        name.endswith("layers.0.fc1.weight") and "decoder." not in name for name in shapes
    ):
        kind = "a text decoder"
    if kind is not None:
        raise CheckpointError(
            f"{where} holds {kind}, not a text encoder. Give text_sonar_basic_encoder or a port of it."
        )


def _hf_prefix(shapes: Shapes, where: str) -> str:
    """What stands before ``layers.0`` of the encoder: "", "encoder.", "model.encoder." or anything else."""
    tail = "layers.0.fc1.weight"
    found = [name.removesuffix(tail) for name in shapes if name.endswith(tail) and "decoder." not in name]
    if len(found) != 1:
        some = ", ".join(sorted(shapes)[:4]) or "no tensors"
        raise CheckpointError(
            f"{where} is no SONAR text encoder: expected 'encoder_frontend.embed.weight' (fairseq2) or "
            f"'...layers.0.fc1.weight' once (Hugging Face), found {len(shapes)} tensors such as {some}."
        )
    return found[0]


def _sources(shapes: Shapes, prefix: str, fairseq2: bool) -> dict[str, str]:
    """Our parameter name -> the name in the file, for as many layers as the file has."""
    start = f"{prefix}layers."
    numbers = {name[len(start) :].split(".")[0] for name in shapes if name.startswith(start)}
    sources: dict[str, str] = {}
    norm = "layer_norm" if fairseq2 else f"{prefix}layer_norm"
    for i in range(len(numbers)):
        for part in _LAYER_PARTS:
            theirs = part if fairseq2 else _HF_NAMES.get(part, part)
            for kind in ("weight", "bias"):
                sources[f"encoder.layers.{i}.{part}.{kind}"] = f"{start}{i}.{theirs}.{kind}"
    for kind in ("weight", "bias"):
        sources[f"layer_norm.{kind}"] = f"{norm}.{kind}"
    embed = "encoder_frontend.embed.weight" if fairseq2 else f"{prefix}embed_tokens.weight"
    # Safetensors drops one of two names of the same storage, so a port may keep only the shared table.
    if embed not in shapes:
        embed = next((name for name in ("shared.weight", "model.shared.weight") if name in shapes), embed)
    return {"encoder_frontend.embed.weight": embed, **sources}


def _refuse_unknown(shapes: Shapes, used: set[str], prefix: str, where: str) -> None:
    """A tensor of the encoder that we would not use means another architecture."""
    spare = (*_TIED, f"{prefix}embed_tokens.weight")
    unknown = [
        name
        for name in shapes
        if name not in used
        and name not in spare
        and not name.endswith(_IGNORED)
        and not name.startswith(("decoder.", "model.decoder.", "decoder_frontend."))
    ]
    if unknown:
        raise CheckpointError(
            f"{where} has {len(unknown)} tensors that a SONAR text encoder lacks, such as {sorted(unknown)[0]!r}."
        )


def _config(shapes: Shapes, sources: Mapping[str, str], hints: Mapping[str, Any], where: str) -> TextEncoderConfig:
    """Sizes from the shapes; heads from the hints, else of 64 numbers each."""
    expected = {"scale_embedding": True, "activation_function": "relu", "pooling": "mean"}
    for name, value in expected.items():
        if hints.get(name, value) != value:
            raise CheckpointError(f"{where}: config.json says {name}={hints[name]!r}; only {value!r} is SONAR.")
    embed = shapes[sources["encoder_frontend.embed.weight"]]
    inner = sources.get("encoder.layers.0.ffn.inner_proj.weight")
    if len(embed) != 2 or inner is None or len(shapes[inner]) != 2:
        raise CheckpointError(f"{where}: the embedding has shape {embed}; expected two dimensions and a first layer.")
    num_heads = next((hints[name] for name in _NUM_HEADS_HINTS if name in hints), None)
    if num_heads is None:
        if embed[1] % _HEAD_DIM:
            raise CheckpointError(
                f"{where}: width {embed[1]} is no multiple of {_HEAD_DIM}, so the number of heads is unknown. "
                'Write it into config.json beside the weights: {"num_heads": ...}.'
            )
        num_heads = embed[1] // _HEAD_DIM
    try:
        return TextEncoderConfig(
            model_dim=embed[1],
            num_layers=sum(name.endswith(".ffn.inner_proj.weight") for name in sources),
            num_heads=num_heads,
            ffn_dim=shapes[inner][0],
            vocab_size=embed[0],
            max_tokens=hints.get("max_tokens", TextEncoderConfig.max_tokens),
        )
    except UsageError as error:
        raise CheckpointError(f"{where}: {error}") from error


def _check_shapes(config: TextEncoderConfig, shapes: Shapes, sources: Mapping[str, str], where: str) -> None:
    for ours, expected in parameter_shapes(config).items():
        if shapes[sources[ours]] != expected:
            raise CheckpointError(
                f"{where}: tensor {sources[ours]!r} has shape {shapes[sources[ours]]}, expected {expected}."
            )

"""Which networks a weights file holds and how it names their tensors; looks at names and shapes, and needs no torch.

Three ways of naming the SONAR text networks are in public use, told apart by content and never by file name:

    fairseq2       encoder_frontend.embed.weight, encoder.layers.0.ffn.inner_proj.weight   (the official files)
    Hugging Face   <prefix>embed_tokens.weight or [model.]shared.weight, <prefix>layers.0.fc1.weight   (any prefix)
    fairseq        the Hugging Face names under a "state_dict" level

The last two keep ``<s> <pad> </s> <unk>`` as the first four rows of the embedding; fairseq2 and this package keep
``<pad> <unk> <s> </s>``. Everything else is the same. The tables of each network are in
``lcm_data.sonar.encoder_layout`` and ``lcm_data.sonar.decoder_layout``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from lcm_data.errors import CheckpointError, UsageError
from lcm_data.sonar.config import TextDecoderConfig, TextEncoderConfig

HF_TO_OURS_ROWS = (1, 3, 0, 2)
"""Row i of our embedding is row ``HF_TO_OURS_ROWS[i]`` of a Hugging Face one, for the first four rows."""

Shapes = Mapping[str, tuple[int, ...]]
Kind = Literal["text encoder", "text decoder", "speech encoder"]
Config = TypeVar("Config", bound=TextEncoderConfig | TextDecoderConfig)

_HF_NAMES = {
    "self_attn.output_proj": "self_attn.out_proj",
    "encoder_decoder_attn.output_proj": "encoder_attn.out_proj",
    "ffn.inner_proj": "fc1",
    "ffn.output_proj": "fc2",
    "ffn_layer_norm": "final_layer_norm",
}
_FAIRSEQ2_PREFIXES: dict[Kind, tuple[str, ...]] = {
    "text encoder": ("encoder.", "encoder_frontend.", "layer_norm."),
    "text decoder": ("decoder.", "decoder_frontend.", "final_proj."),
}
_HF_LAYER = re.compile(r"(?P<prefix>.*?)layers\.0\.(?P<part>fc1|encoder_attn)\.")
_OUTPUTS = ("final_proj.weight", "lm_head.weight", "output_projection.weight")
_TABLES = ("shared.weight", "model.shared.weight", *_OUTPUTS)
_IGNORED = ("version", "_float_tensor", "embed_positions.weights", "embed_positions.weight", "final_logits_bias")
_HEAD_DIM = 64


@dataclass(frozen=True)
class Network(Generic[Config]):
    """One kind of network, under fairseq2's names, which are ours.

    Attributes:
        kind: what messages call it.
        config: the class of its sizes.
        embed: the embedding.
        norm: the last layer norm.
        stack: what stands before ``layers.0``.
        parts: of a layer.
        idle: parts of a layer that change nothing; a file may have them, and they are not read.
        has_output: whether it ends with a projection that is the embedding again.
        heads_hints: keys of ``config.json`` that give the number of heads, the first found counts.
        max_tokens_hint: the key of ``config.json`` that gives the longest sequence.
        settings: what ``config.json`` may say only so, since the code computes nothing else.
    """

    kind: Kind
    config: type[Config]
    embed: str
    norm: str
    stack: str
    parts: tuple[str, ...]
    idle: tuple[str, ...]
    has_output: bool
    heads_hints: tuple[str, ...]
    max_tokens_hint: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Layout(Generic[Config]):
    """How to read a file as one network.

    Attributes:
        config: the sizes.
        sources: our parameter name -> name of the tensor in the file.
        hf_rows: whether the first four embedding rows must be permuted.
        tied: tensors of the file that must equal the embedding.
        others: kinds of the other networks in the file, which are left alone.
    """

    config: Config
    sources: dict[str, str]
    hf_rows: bool
    tied: tuple[str, ...]
    others: tuple[Kind, ...]


@dataclass(frozen=True)
class Found:
    """One network in a file: its kind, what stands before its ``layers.0``, and whether the names are fairseq2's."""

    kind: Kind
    prefix: str
    fairseq2: bool

    @property
    def prefixes(self) -> tuple[str, ...]:
        """What the names of its tensors begin with."""
        return _FAIRSEQ2_PREFIXES[self.kind] if self.fairseq2 else (self.prefix,)


def find_networks(shapes: Iterable[str]) -> list[Found]:
    """The networks of a file, from the names of its tensors; none if there is nothing we know."""
    names = set(shapes)
    if any(".w2v_model." in name or name.startswith("encoder_pooler.") for name in names):
        return [Found("speech encoder", "", fairseq2=False)]
    kinds = [kind for kind, (_, frontend, _) in _FAIRSEQ2_PREFIXES.items() if f"{frontend}embed.weight" in names]
    if kinds:
        return [Found(kind, _FAIRSEQ2_PREFIXES[kind][0], fairseq2=True) for kind in kinds]
    is_decoder: dict[str, bool] = {}
    for name in sorted(names):
        if match := _HF_LAYER.match(name):
            known = is_decoder.get(match["prefix"], match["prefix"].endswith("decoder."))
            is_decoder[match["prefix"]] = known or match["part"] == "encoder_attn"
    return [Found("text decoder" if is_decoder[p] else "text encoder", p, fairseq2=False) for p in is_decoder]


def read_layout(network: Network[Config], shapes: Shapes, hints: Mapping[str, Any], where: str) -> Layout[Config]:
    """Recognise one kind of network in a file.

    Args:
        shapes: name -> shape of every tensor of the file.
        hints: the model's ``config.json``, or nothing; used for what shapes do not say.
        where: the file, for messages.

    Raises:
        CheckpointError: another kind of network, missing or unexpected tensors, shapes that do not fit together.
    """
    networks = find_networks(shapes)
    found = _only(network, networks, shapes, where)
    others = [each for each in networks if each is not found]
    sources = _sources(network, found, others, shapes)
    missing = [name for name in sources.values() if name not in shapes]
    if missing:
        raise CheckpointError(
            f"{where}: {len(missing)} tensors of a {network.kind} are missing, such as {missing[0]!r}."
        )
    config = _config(network, shapes, sources, hints, where)
    outputs = {*_OUTPUTS, f"{found.prefix}output_projection.weight"} - {sources[network.embed]}
    tied = tuple(sorted(outputs & set(shapes))) if network.has_output else ()
    _refuse_unknown(network, found, others, {*sources.values(), *tied}, shapes, where)
    wanted = {sources[name]: shape for name, shape in parameter_shapes(network, config).items()}
    wanted |= dict.fromkeys(tied, wanted[sources[network.embed]])
    for name, shape in wanted.items():
        if shapes[name] != shape:
            raise CheckpointError(f"{where}: tensor {name!r} has shape {shapes[name]}, expected {shape}.")
    return Layout(config, sources, not found.fairseq2, tied, tuple(each.kind for each in others))


def parameter_shapes(
    network: Network[Config], config: Config, parts: Sequence[str] | None = None
) -> dict[str, tuple[int, ...]]:
    """Our name -> shape of the embedding, of ``parts`` of every layer (by default those that count) and of the norm."""
    d, f = config.model_dim, config.ffn_dim
    shapes: dict[str, tuple[int, ...]] = {network.embed: (config.vocab_size, d)}
    for i in range(config.num_layers):
        for part in parts or network.parts:
            out = f if part == "ffn.inner_proj" else d
            weight = (d,) if part.endswith("norm") else (out, f if part == "ffn.output_proj" else d)
            shapes[f"{network.stack}layers.{i}.{part}.weight"] = weight
            shapes[f"{network.stack}layers.{i}.{part}.bias"] = (out,)
    return {**shapes, f"{network.norm}.weight": (d,), f"{network.norm}.bias": (d,)}


def _only(network: Network[Config], networks: Sequence[Found], shapes: Shapes, where: str) -> Found:
    """The one network of this kind; else an error that says what the file is, if it is something known."""
    ours = [each for each in networks if each.kind == network.kind]
    if len(ours) == 1:
        return ours[0]
    if networks and not ours:
        kind = networks[0].kind
        by_sonar = networks[0].fairseq2 or kind == "speech encoder"
        raise CheckpointError(
            f"{where} holds a {'SONAR ' if by_sonar else ''}{kind}, not a {network.kind}. "
            f"Give text_sonar_basic_{network.kind.split()[-1]} or a port of it."
        )
    if ours:
        prefixes = ", ".join(repr(each.prefix) for each in ours)
        raise CheckpointError(f"{where} holds {len(ours)} {network.kind}s, under {prefixes}; expected one.")
    some = ", ".join(sorted(shapes)[:4]) or "no tensors"
    raise CheckpointError(
        f"{where} is no SONAR {network.kind}: expected {network.embed!r} (fairseq2) or '...layers.0.fc1.weight' "
        f"(Hugging Face), found {len(shapes)} tensors such as {some}."
    )


def hf_part(part: str) -> str:
    """Hugging Face's name for a part of a layer."""
    return _HF_NAMES.get(part, part.replace("encoder_decoder_attn", "encoder_attn"))


def _their_part(part: str, found: Found) -> str:
    return part if found.fairseq2 else hf_part(part)


def _sources(network: Network[Config], found: Found, others: Sequence[Found], shapes: Shapes) -> dict[str, str]:
    """Our parameter name -> the name in the file, for as many layers as the file has."""
    start = f"{found.prefix}layers."
    numbers = {name[len(start) :].split(".")[0] for name in shapes if name.startswith(start)}
    sources = {network.embed: _embedding(network, found, others, shapes)}
    for kind in ("weight", "bias"):
        for i in range(len(numbers)):
            for part in network.parts:
                theirs = f"{start}{i}.{_their_part(part, found)}.{kind}"
                sources[f"{network.stack}layers.{i}.{part}.{kind}"] = theirs
        norm = network.norm if found.fairseq2 else f"{found.prefix}layer_norm"
        sources[f"{network.norm}.{kind}"] = f"{norm}.{kind}"
    return sources


def _embedding(network: Network[Config], found: Found, others: Sequence[Found], shapes: Shapes) -> str:
    """Safetensors keeps one of several names of the same storage, and not always the same one."""
    if found.fairseq2:
        return network.embed
    own = f"{found.prefix}embed_tokens.weight"
    names = (own, *_TABLES, *(f"{other.prefix}embed_tokens.weight" for other in others))
    return next((name for name in names if name in shapes), own)


def _refuse_unknown(
    network: Network[Config], found: Found, others: Sequence[Found], used: set[str], shapes: Shapes, where: str
) -> None:
    """A tensor of the network that we would not use means another architecture."""
    idle = tuple(f".{_their_part(part, found)}.{kind}" for part in network.idle for kind in ("weight", "bias"))

    def is_theirs(name: str) -> bool:
        """The longest prefix decides: one network may stand at the top level, beside ``decoder.``, say."""
        lengths = {len(p): each for each in (found, *others) for p in each.prefixes if name.startswith(p)}
        return bool(lengths) and lengths[max(lengths)] is not found

    spare = {*used, *_TABLES}
    unknown = [
        name for name in shapes
        if name not in spare and not name.endswith((*_IGNORED, *idle)) and not is_theirs(name)
    ]  # fmt: skip
    if unknown:
        raise CheckpointError(
            f"{where} has {len(unknown)} tensors that a SONAR {network.kind} lacks, such as {sorted(unknown)[0]!r}."
        )


def _config(
    network: Network[Config], shapes: Shapes, sources: Mapping[str, str], hints: Mapping[str, Any], where: str
) -> Config:
    """Sizes from the shapes; heads from the hints, else of 64 numbers each."""
    for name, value in network.settings.items():
        if hints.get(name, value) != value:
            raise CheckpointError(f"{where}: config.json says {name}={hints[name]!r}; only {value!r} is SONAR.")
    embed = shapes[sources[network.embed]]
    inner = sources.get(f"{network.stack}layers.0.ffn.inner_proj.weight")
    if len(embed) != 2 or inner is None or len(shapes[inner]) != 2:
        raise CheckpointError(f"{where}: the embedding has shape {embed}; expected two dimensions and a first layer.")
    num_heads = next((hints[name] for name in network.heads_hints if name in hints), None)
    if num_heads is None:
        if embed[1] % _HEAD_DIM:
            raise CheckpointError(
                f"{where}: width {embed[1]} is no multiple of {_HEAD_DIM}, so the number of heads is unknown. "
                'Write it into config.json beside the weights: {"num_heads": ...}.'
            )
        num_heads = embed[1] // _HEAD_DIM
    try:
        return network.config(
            model_dim=embed[1],
            num_layers=sum(name.endswith(".ffn.inner_proj.weight") for name in sources),
            num_heads=num_heads,
            ffn_dim=shapes[inner][0],
            vocab_size=embed[0],
            max_tokens=hints.get(network.max_tokens_hint, network.config.max_tokens),
        )
    except UsageError as error:
        raise CheckpointError(f"{where}: {error}") from error

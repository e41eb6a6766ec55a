"""Turns a model name or a path into a loaded text encoder or decoder with its tokenizer, or a cheap description of it.

A model is a folder (weights, a SentencePiece ``*.model``, optionally ``config.json``) or a single weights file with the
tokenizer beside it. A folder may hold an encoder and a decoder, in one file or in two. Names that are no path are
downloaded by ``lcm_data.sonar.hub``; formats are recognised by ``lcm_data.sonar.layout`` and
``lcm_data.sonar.decoder_layout``, and read by ``lcm_data.sonar.weights``.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lcm_data.errors import CheckpointError, UnknownNameError, UsageError
from lcm_data.languages import FLORES_200
from lcm_data.sonar.decoder_layout import EMBED as DECODER_EMBED
from lcm_data.sonar.decoder_layout import OUTPUT as DECODER_OUTPUT
from lcm_data.sonar.decoder_layout import DecoderLayout, text_decoder_layout
from lcm_data.sonar.fingerprint import file_sha256
from lcm_data.sonar.layout import HF_TO_OURS_ROWS, Layout, text_encoder_layout
from lcm_data.sonar.tokenizer import SonarTokenizer
from lcm_data.sonar.weights import read_shapes, read_tensors

if TYPE_CHECKING:
    import torch

    from lcm_data.sonar.text_decoder import TextDecoder
    from lcm_data.sonar.text_encoder import TextEncoder

logger = logging.getLogger(__name__)

DTYPES = ("float32", "bfloat16", "float16")

Kind = Literal["encoder", "decoder"]

_WEIGHTS_NAMES: dict[Kind, tuple[str, ...]] = {
    "encoder": ("encoder.safetensors", "model.safetensors", "sonar_text_encoder.pt", "pytorch_model.bin"),
    "decoder": (
        *("decoder.safetensors", "model.safetensors", "sonar_text_decoder.pt", "finetuned_decoder.pt"),
        "pytorch_model.bin",
    ),
}
_WEIGHTS_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")


@dataclass(frozen=True)
class ModelFiles:
    """The files of one model: weights, tokenizer and what ``config.json`` says."""

    name: str
    weights: Path
    tokenizer: Path
    hints: dict[str, Any]

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages in the order of their ids; the 202 of NLLB unless ``config.json`` lists others."""
        return tuple(self.hints.get("languages", FLORES_200))

    def layout(self) -> Layout:
        """Sizes and tensor names of a text encoder, without reading the tensors."""
        return text_encoder_layout(read_shapes(self.weights), self.hints, str(self.weights))

    def decoder_layout(self) -> DecoderLayout:
        """Sizes and tensor names of a text decoder, without reading the tensors."""
        return text_decoder_layout(read_shapes(self.weights), self.hints, str(self.weights))

    def identity(self) -> dict[str, str]:
        """What makes two runs comparable: model, weights, tokenizer, sizes. All values are text.

        The file contents are hashed (remembered afterwards); ``encoder_revision`` is the sha256 of the weights.
        """
        config = self.layout().config
        return {
            "encoder": self.name,
            "encoder_revision": file_sha256(self.weights),
            "tokenizer_revision": file_sha256(self.tokenizer),
            "dim": str(config.model_dim),
            "max_seq_len": str(config.max_tokens),
            "pooling": "mean",
            "normalized": "false",
            "trained": self._trained,
        }

    def decoder_identity(self) -> dict[str, str]:
        """As ``identity``, of a text decoder; ``decoder_revision`` is the sha256 of the weights."""
        config = self.decoder_layout().config
        return {
            "decoder": self.name,
            "decoder_revision": file_sha256(self.weights),
            "tokenizer_revision": file_sha256(self.tokenizer),
            "dim": str(config.model_dim),
            "max_seq_len": str(config.max_tokens),
            "trained": self._trained,
        }

    @property
    def _trained(self) -> str:
        return "false" if self.hints.get("trained") is False else "true"


@dataclass(frozen=True)
class SonarTextModel:
    """A text encoder ready to run, with its tokenizer.

    Attributes:
        encoder: the network, in eval mode on its device, without gradients.
        tokenizer: text to ids, cutting at the network's maximum.
        files: where it was read from.
        name: the name or path it was asked for.
        fingerprint: sha256 of the weights file.
        dim: width of the vectors.
    """

    encoder: TextEncoder
    tokenizer: SonarTokenizer
    files: ModelFiles
    name: str
    fingerprint: str
    dim: int


@dataclass(frozen=True)
class SonarTextDecoder:
    """A text decoder ready to run, with its tokenizer; the attributes are those of ``SonarTextModel``."""

    decoder: TextDecoder
    tokenizer: SonarTokenizer
    files: ModelFiles
    name: str
    fingerprint: str
    dim: int


def find_model(name_or_path: str | Path, kind: Kind = "encoder") -> ModelFiles:
    """The files of a model given as a folder, a weights file or a name (which may download).

    In a folder, ``encoder.safetensors`` or ``decoder.safetensors`` come before ``model.safetensors`` (which may hold
    both) and before the file names of the published models.

    Raises:
        CheckpointError: nothing there, several candidates, no tokenizer, or the download failed.
    """
    import lcm_data.sonar.hub as hub

    name = str(name_or_path)
    path = Path(name).expanduser()
    # Where a model lies is no part of its identity: shards are the same wherever it was mounted.
    if path.is_dir():
        return _files(path.resolve().name, _only_weights(path, kind))
    if path.is_file():
        return _files(path.name, path)
    return _files(name, hub.model_weights(name))


def load_text_encoder(
    name_or_path: str | Path, *, device: str = "auto", dtype: str = "float32", threads: int = 1
) -> SonarTextModel:
    """Load a SONAR text encoder.

    Args:
        name_or_path: a folder, a weights file, ``text_sonar_basic_encoder`` or ``hf:owner/repo``.
        device: "auto" (a GPU when there is one), "cpu", "cuda", "cuda:1", ...
        dtype: of the weights and the computation: float32, bfloat16 or float16.
        threads: of the tokenizer.

    Raises:
        CheckpointError: the files are missing, truncated or of another kind of network.
        UsageError: unknown device or dtype.
    """
    import torch

    if dtype not in DTYPES:
        raise UnknownNameError("dtype", dtype, DTYPES)
    target = resolve_device(device)
    files = find_model(name_or_path)
    layout = files.layout()
    tokenizer = open_tokenizer(files, layout, threads=threads)
    if layout.has_decoder and layout.hf_rows:
        logger.warning("%s holds a decoder too. In ports of the decoder alone the encoder means nothing", files.weights)
    return SonarTextModel(
        encoder=_build(files.weights, layout, target, getattr(torch, dtype)),
        tokenizer=tokenizer,
        files=files,
        name=files.name,
        fingerprint=file_sha256(files.weights),
        dim=layout.config.model_dim,
    )


def load_text_decoder(
    name_or_path: str | Path, *, device: str = "auto", dtype: str = "float32", threads: int = 1
) -> SonarTextDecoder:
    """Load a SONAR text decoder.

    Args:
        name_or_path: a folder, a weights file, ``text_sonar_basic_decoder``, ``text_sonar_finetuned_decoder`` or
            ``hf:owner/repo``.
        device: "auto" (a GPU when there is one), "cpu", "cuda", "cuda:1", ...
        dtype: of the weights and the computation: float32, bfloat16 or float16.
        threads: of the tokenizer.

    Raises:
        CheckpointError: the files are missing, truncated or of another kind of network.
        UsageError: unknown device or dtype.
    """
    import torch

    if dtype not in DTYPES:
        raise UnknownNameError("dtype", dtype, DTYPES)
    target = resolve_device(device)
    files = find_model(name_or_path, "decoder")
    layout = files.decoder_layout()
    tokenizer = open_tokenizer(files, layout, threads=threads)
    return SonarTextDecoder(
        decoder=_build_decoder(files.weights, layout, target, getattr(torch, dtype)),
        tokenizer=tokenizer,
        files=files,
        name=files.name,
        fingerprint=file_sha256(files.weights),
        dim=layout.config.model_dim,
    )


def open_tokenizer(files: ModelFiles, layout: Layout | DecoderLayout, *, threads: int = 1) -> SonarTokenizer:
    """The tokenizer of a model, checked against the rows of its embedding.

    Raises:
        CheckpointError: the tokenizer belongs to another model.
    """
    tokenizer = SonarTokenizer(
        files.tokenizer, languages=files.languages, max_tokens=layout.config.max_tokens, threads=threads
    )
    # A port may pad its table to a round number of rows, so more rows than ids are fine. Fewer can never be.
    needed = 1 + tokenizer.num_pieces + len(tokenizer.languages)
    if needed > layout.config.vocab_size:
        raise CheckpointError(
            f"{files.tokenizer} with {len(tokenizer.languages)} languages needs {needed} embedding rows, but "
            f"{files.weights} has {layout.config.vocab_size}. They belong to different models."
        )
    return tokenizer


def resolve_device(device: str) -> torch.device:
    """``device`` as torch understands it; "auto" is the GPU when there is one.

    Raises:
        UsageError: not a device, or one this machine lacks.
    """
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        target = torch.device(device)
    except RuntimeError as error:
        raise UsageError(f"unknown device {device!r}; use auto, cpu, cuda or cuda:<number>.") from error
    if target.type == "cuda" and (not torch.cuda.is_available() or (target.index or 0) >= torch.cuda.device_count()):
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        raise UsageError(f"device {device!r} asked for, but this machine shows {count} GPUs. Use auto or cpu.")
    return target


def read_encoder_state(weights: Path, layout: Layout) -> dict[str, torch.Tensor]:
    """The tensors of a text encoder under our (fairseq2's) names and in our row order, on the CPU as stored."""
    tensors = read_tensors(weights)
    state = {ours: tensors[theirs] for ours, theirs in layout.sources.items()}
    if layout.hf_rows:
        state["encoder_frontend.embed.weight"] = _our_rows(state["encoder_frontend.embed.weight"])
    return state


def read_decoder_state(weights: Path, layout: DecoderLayout) -> dict[str, torch.Tensor]:
    """The tensors of a text decoder that matter, under our (fairseq2's) names and in our row order, as stored.

    Raises:
        CheckpointError: the output projection is not the embedding.
    """
    import torch

    tensors = read_tensors(weights)
    state = {ours: tensors[theirs] for ours, theirs in layout.sources.items()}
    embed = state[DECODER_EMBED]
    for name in layout.tied:
        if tensors[name].data_ptr() != embed.data_ptr() and not torch.equal(tensors[name], embed):
            raise CheckpointError(f"{weights}: {name!r} differs from the embedding; the two are one in SONAR.")
    state[DECODER_EMBED] = state[DECODER_OUTPUT] = _our_rows(embed) if layout.hf_rows else embed
    return state


def _our_rows(embed: torch.Tensor) -> torch.Tensor:
    """An embedding of Hugging Face or fairseq with its first four rows in our order."""
    import torch

    rows = torch.arange(embed.shape[0])
    rows[:4] = torch.tensor(HF_TO_OURS_ROWS)
    return embed[rows]


def _build_decoder(path: Path, layout: DecoderLayout, device: torch.device, dtype: torch.dtype) -> TextDecoder:
    """The network with the weights of the file; float32 weights on a CPU stay mapped."""
    import torch

    from lcm_data.sonar.text_decoder import TextDecoder

    with torch.device("meta"):
        decoder = TextDecoder(layout.config)
    state = read_decoder_state(path, layout)
    del state[DECODER_OUTPUT]
    state = {name: tensor.to(device=device, dtype=dtype).contiguous() for name, tensor in state.items()}
    decoder.load_state_dict({**state, DECODER_OUTPUT: state[DECODER_EMBED]}, assign=True)
    decoder.tie()
    decoder.reset_positions()
    return decoder.requires_grad_(False).eval()


def _build(path: Path, layout: Layout, device: torch.device, dtype: torch.dtype) -> TextEncoder:
    """The network with the weights of the file; float32 weights on a CPU stay mapped."""
    import torch

    from lcm_data.sonar.text_encoder import TextEncoder

    with torch.device("meta"):
        encoder = TextEncoder(layout.config)
    state = read_encoder_state(path, layout)
    state = {name: tensor.to(device=device, dtype=dtype).contiguous() for name, tensor in state.items()}
    encoder.load_state_dict(state, assign=True)
    encoder.reset_positions()
    return encoder.requires_grad_(False).eval()


def _files(name: str, weights: Path) -> ModelFiles:
    hints: dict[str, Any] = {}
    config = weights.parent / "config.json"
    if config.is_file():
        try:
            hints = json.loads(config.read_text(encoding="utf-8"))
        except ValueError as error:
            raise CheckpointError(f"{config} is not valid JSON: {error}.") from error
        if not isinstance(hints, dict):
            raise CheckpointError(f"{config} must hold a JSON object, got {type(hints).__name__}.")
    return ModelFiles(name=name, weights=weights, tokenizer=_tokenizer_file(weights, hints), hints=hints)


def _only_weights(folder: Path, kind: Kind) -> Path:
    """The weights file of a folder: a usual name, else the only file with a usual ending."""
    for name in _WEIGHTS_NAMES[kind]:
        if (folder / name).is_file():
            return folder / name
    found = sorted(p for p in folder.iterdir() if p.suffix in _WEIGHTS_SUFFIXES and p.is_file())
    if len(found) == 1:
        return found[0]
    if found:
        listed = ", ".join(p.name for p in found)
        raise CheckpointError(f"{folder} holds several weights files ({listed}). Give the path of one of them.")
    raise CheckpointError(
        f"{folder} holds no weights. Expected one of {', '.join(_WEIGHTS_NAMES[kind])} or a single "
        f"*{', *'.join(_WEIGHTS_SUFFIXES)} file."
    )


def _tokenizer_file(weights: Path, hints: dict[str, Any]) -> Path:
    """The "tokenizer" of ``config.json``, else the only ``*.model`` beside the weights, else NLLB's."""
    import lcm_data.sonar.hub as hub

    if "tokenizer" in hints and isinstance(hints["tokenizer"], str):
        return weights.parent / hints["tokenizer"]
    found = sorted(weights.parent.glob("*.model"))
    if len(found) > 1:
        listed = ", ".join(p.name for p in found)
        raise CheckpointError(
            f'{weights.parent} holds several tokenizers ({listed}). Name one in config.json: {{"tokenizer": ...}}.'
        )
    return found[0] if found else hub.nllb_tokenizer(beside=weights)

"""Builds a text encoder or decoder, with its tokenizer, from a model name or a path.

Which files those are is ``lcm_data.sonar.files``, which tensors count ``lcm_data.sonar.layout``, and reading them
``lcm_data.sonar.weights``.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lcm_data.errors import CheckpointError, UnknownNameError, UsageError
from lcm_data.sonar import decoder_layout, encoder_layout
from lcm_data.sonar.decoder_layout import DecoderLayout
from lcm_data.sonar.encoder_layout import EncoderLayout
from lcm_data.sonar.files import ModelFiles, find_model
from lcm_data.sonar.layout import HF_TO_OURS_ROWS
from lcm_data.sonar.tokenizer import SonarTokenizer
from lcm_data.sonar.weights import read_tensors

if TYPE_CHECKING:
    import torch

    from lcm_data.sonar.text_decoder import TextDecoder
    from lcm_data.sonar.text_encoder import TextEncoder

logger = logging.getLogger(__name__)

DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, kw_only=True)
class _Loaded:
    """What encoder and decoder have in common.

    Attributes:
        tokenizer: text to ids, cutting at the network's maximum.
        files: where it was read from.
    """

    tokenizer: SonarTokenizer
    files: ModelFiles

    @property
    def name(self) -> str:
        """The name or path it was asked for."""
        return self.files.name

    @property
    def fingerprint(self) -> str:
        """The sha256 of the weights."""
        return self.files.fingerprint


@dataclass(frozen=True, kw_only=True)
class SonarTextModel(_Loaded):
    """A text encoder ready to run: in eval mode on its device, without gradients."""

    encoder: TextEncoder

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return self.encoder.config.model_dim


@dataclass(frozen=True, kw_only=True)
class SonarTextDecoder(_Loaded):
    """A text decoder ready to run: in eval mode on its device, without gradients."""

    decoder: TextDecoder

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return self.decoder.config.model_dim


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

    from lcm_data.sonar.text_encoder import TextEncoder

    where, how = _target(device, dtype)
    files = find_model(name_or_path)
    layout = files.layout()
    tokenizer = open_tokenizer(files, layout, threads=threads)
    if "text decoder" in layout.others and layout.hf_rows and "space" not in files.hints:
        logger.warning("%s holds a decoder too. In ports of the decoder alone the encoder means nothing", files.weights)
    with torch.device("meta"):
        encoder = TextEncoder(layout.config)
    encoder.load_state_dict(_moved(read_encoder_state(files.weights, layout), where, how), assign=True)
    encoder.reset_positions()
    return SonarTextModel(encoder=encoder.requires_grad_(False).eval(), tokenizer=tokenizer, files=files)


def load_text_decoder(
    name_or_path: str | Path, *, device: str = "auto", dtype: str = "float32", threads: int = 1
) -> SonarTextDecoder:
    """Load a SONAR text decoder: ``text_sonar_basic_decoder``, say. As ``load_text_encoder`` otherwise."""
    import torch

    from lcm_data.sonar.text_decoder import TextDecoder

    where, how = _target(device, dtype)
    files = find_model(name_or_path, "decoder")
    layout = files.layout("decoder")
    tokenizer = open_tokenizer(files, layout, threads=threads)
    with torch.device("meta"):
        decoder = TextDecoder(layout.config)
    decoder.load_state_dict(_moved(read_decoder_state(files.weights, layout), where, how), assign=True)
    decoder.tie()
    decoder.reset_positions()
    return SonarTextDecoder(decoder=decoder.requires_grad_(False).eval(), tokenizer=tokenizer, files=files)


def open_tokenizer(files: ModelFiles, layout: EncoderLayout | DecoderLayout, *, threads: int = 1) -> SonarTokenizer:
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


def read_encoder_state(weights: Path, layout: EncoderLayout) -> dict[str, torch.Tensor]:
    """The tensors of a text encoder under our (fairseq2's) names and in our row order, on the CPU as stored."""
    tensors = read_tensors(weights)
    state = {ours: tensors[theirs] for ours, theirs in layout.sources.items()}
    if layout.hf_rows:
        state[encoder_layout.EMBED] = _our_rows(state[encoder_layout.EMBED])
    return state


def read_decoder_state(weights: Path, layout: DecoderLayout) -> dict[str, torch.Tensor]:
    """The tensors of a text decoder that matter, under our (fairseq2's) names and in our row order, as stored.

    Raises:
        CheckpointError: the output projection is not the embedding.
    """
    import torch

    tensors = read_tensors(weights)
    state = {ours: tensors[theirs] for ours, theirs in layout.sources.items()}
    embed = state[decoder_layout.EMBED]
    for name in layout.tied:
        if tensors[name].data_ptr() != embed.data_ptr() and not torch.equal(tensors[name], embed):
            raise CheckpointError(f"{weights}: {name!r} differs from the embedding; the two are one in SONAR.")
    state[decoder_layout.EMBED] = state[decoder_layout.OUTPUT] = _our_rows(embed) if layout.hf_rows else embed
    return state


def _our_rows(embed: torch.Tensor) -> torch.Tensor:
    """An embedding of Hugging Face or fairseq with its first four rows in our order."""
    import torch

    rows = torch.arange(embed.shape[0])
    rows[:4] = torch.tensor(HF_TO_OURS_ROWS)
    return embed[rows]


def _target(device: str, dtype: str) -> tuple[torch.device, torch.dtype]:
    import torch

    if dtype not in DTYPES:
        raise UnknownNameError("dtype", dtype, DTYPES)
    return resolve_device(device), getattr(torch, dtype)


def _moved(state: dict[str, torch.Tensor], device: torch.device, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The tensors on their device, tied ones still one. Float32 weights on a CPU stay mapped."""
    once = {id(tensor): tensor for tensor in state.values()}
    moved = {key: tensor.to(device=device, dtype=dtype).contiguous() for key, tensor in once.items()}
    return {name: moved[id(tensor)] for name, tensor in state.items()}

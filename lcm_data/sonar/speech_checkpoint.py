"""Finds, describes and loads a SONAR speech encoder given by a name or a path.

Which tensors count is ``lcm_data.sonar.speech_layout``; reading them ``lcm_data.sonar.weights``; downloads
``lcm_data.sonar.hub``. Text networks are ``lcm_data.sonar.files`` and ``lcm_data.sonar.checkpoint``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcm_data.errors import UnknownNameError
from lcm_data.sonar.checkpoint import DTYPES, resolve_device
from lcm_data.sonar.files import SONAR_SPACE, is_trained, only_weights, read_hints
from lcm_data.sonar.layout import find_networks
from lcm_data.sonar.speech_config import SpeechEncoderConfig
from lcm_data.sonar.speech_layout import SpeechLayout, speech_encoder_layout
from lcm_data.sonar.weights import check_floats, read_header, read_tensors, shapes_of, weights_sha256

if TYPE_CHECKING:
    import torch

    from lcm_data.sonar.speech_encoder import SpeechEncoder

_USUAL_NAMES = ("speech_encoder.safetensors", "model.safetensors", "model.safetensors.index.json")
_PUBLISHED_SIZES = (SpeechEncoderConfig.model_dim, SpeechEncoderConfig.num_layers, SpeechEncoderConfig.embedding_dim)


@dataclass(frozen=True)
class SpeechFiles:
    """The files of one speech encoder: weights (or the index of several files) and what ``config.json`` says."""

    name: str
    weights: Path
    hints: dict[str, Any]

    def layout(self) -> SpeechLayout:
        """Sizes and tensor names, without reading the tensors.

        Raises:
            CheckpointError: truncated, damaged, or no speech encoder.
        """
        header, where = read_header(self.weights), str(self.weights)
        layout = speech_encoder_layout(shapes_of(header), self.hints, where)
        check_floats(header, layout.sources.values(), where)
        return layout

    def identity(self) -> dict[str, str]:
        """What makes two runs comparable: model, weights, sizes, space. All values are text.

        The file contents are hashed (remembered afterwards). ``max_seq_len`` counts positions, 50 a second.
        """
        config = self.layout().config
        revision = weights_sha256(self.weights)
        return {
            "encoder": self.name,
            "encoder_revision": revision,
            "dim": str(config.embedding_dim),
            "num_heads": str(config.num_heads),
            "max_seq_len": str(config.max_positions),
            "trained": "true" if is_trained(self.hints) else "false",
            "space": speech_space(config, self.hints, revision),
            "pooling": "attention",
            "normalized": "false",
        }


@dataclass(frozen=True, kw_only=True)
class SonarSpeechModel:
    """A speech encoder ready to run: in eval mode on its device, without gradients."""

    encoder: SpeechEncoder
    files: SpeechFiles

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return self.encoder.config.embedding_dim


def speech_space(config: SpeechEncoderConfig, hints: Mapping[str, Any], revision: str) -> str:
    """The name of the embedding space of a speech encoder.

    What ``config.json`` says; else "sonar" for the sizes of the published models; else one of its own, named after the
    weights. An encoder that was made for another space of text must name that space.
    """
    named = hints.get("space")
    if isinstance(named, str) and named:
        return named
    sizes = (config.model_dim, config.num_layers, config.embedding_dim)
    return SONAR_SPACE if sizes == _PUBLISHED_SIZES and is_trained(hints) else f"sonar-speech-{revision[:12]}"


def find_speech_model(name_or_path: str | Path) -> SpeechFiles:
    """The files of a speech encoder given as a folder, a weights file or a name (which may download).

    In a folder, ``speech_encoder.safetensors`` comes before ``model.safetensors`` and before the only weights file.

    Raises:
        CheckpointError: nothing there, several candidates, or the download failed.
        UnknownNameError: neither a path, nor a known name, nor of the form owner/repo.
    """
    from lcm_data.sonar import hub

    name = str(name_or_path)
    path = Path(name).expanduser()
    if path.is_dir():
        weights, name = only_weights(path, _USUAL_NAMES), path.resolve().name
    elif path.is_file():
        weights, name = path, path.name
    else:
        weights = hub.model_weights(name)
    return SpeechFiles(name=name, weights=weights, hints=read_hints(weights))


def is_speech_encoder(weights: Path) -> bool:
    """Whether a weights file holds a speech encoder, by the names of its tensors.

    Raises:
        CheckpointError: truncated, damaged, or no weights.
    """
    return any(found.kind == "speech encoder" for found in find_networks(read_header(weights)))


def load_speech_encoder(name_or_path: str | Path, *, device: str = "auto", dtype: str = "float32") -> SonarSpeechModel:
    """Load a SONAR speech encoder.

    Args:
        name_or_path: a name such as ``sonar_speech_encoder_eng``, ``hf:owner/repo``, a folder or a weights file.
        device: "auto" (a GPU when there is one), "cpu", "cuda" or "cuda:1".
        dtype: of the weights: float32, bfloat16 or float16.

    Raises:
        CheckpointError: files missing, truncated or of another kind.
        UnknownNameError: no such model or dtype.
        UsageError: no such device.
    """
    import torch

    from lcm_data.sonar.speech_encoder import SpeechEncoder

    if dtype not in DTYPES:
        raise UnknownNameError("dtype", dtype, DTYPES)
    where, how = resolve_device(device), getattr(torch, dtype)
    files = find_speech_model(name_or_path)
    layout = files.layout()
    with torch.device("meta"):
        encoder = SpeechEncoder(layout.config)
    state = read_speech_state(files.weights, layout)
    moved = {name: tensor.to(device=where, dtype=how).contiguous() for name, tensor in state.items()}
    encoder.load_state_dict(moved, assign=True)
    return SonarSpeechModel(encoder=encoder.requires_grad_(False).eval(), files=files)


def read_speech_state(weights: Path, layout: SpeechLayout) -> dict[str, torch.Tensor]:
    """The tensors of a speech encoder that matter, under our (fairseq2's) names, on the CPU as stored."""
    tensors = read_tensors(weights)
    return {ours: tensors[theirs] for ours, theirs in layout.sources.items()}

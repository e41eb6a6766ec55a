"""Turns a model name or a path into the files of a model, and describes them without loading a network.

A model is a folder (weights, a SentencePiece ``*.model``, optionally ``config.json``) or a single weights file with the
tokenizer beside it. A folder may hold an encoder and a decoder, in one file or in two. Names that are no path are
downloaded by ``lcm_data.sonar.hub``; building networks from the files is ``lcm_data.sonar.checkpoint``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, overload

from lcm_data.errors import CheckpointError
from lcm_data.languages import FLORES_200
from lcm_data.sonar.config import TextDecoderConfig, TextEncoderConfig
from lcm_data.sonar.decoder_layout import DecoderLayout, text_decoder_layout
from lcm_data.sonar.encoder_layout import EncoderLayout, text_encoder_layout
from lcm_data.sonar.fingerprint import file_sha256
from lcm_data.sonar.weights import check_floats, read_header, shapes_of, weights_sha256

SONAR_SPACE = "sonar"
"""The space of all published SONAR models, text and speech."""

Kind = Literal["encoder", "decoder"]
"""Of text networks; a speech encoder is ``lcm_data.sonar.speech_checkpoint.SpeechFiles``."""

WEIGHTS_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
INDEX_SUFFIX = ".index.json"

_PUBLISHED_SIZES = (TextEncoderConfig.vocab_size, TextEncoderConfig.model_dim)
_PORTS = ("model.safetensors", "model.safetensors.index.json")
_OLD_PORTS = ("pytorch_model.bin", "pytorch_model.bin.index.json")
_WEIGHTS_NAMES: dict[Kind, tuple[str, ...]] = {
    "encoder": ("encoder.safetensors", *_PORTS, "sonar_text_encoder.pt", *_OLD_PORTS),
    "decoder": ("decoder.safetensors", *_PORTS, "sonar_text_decoder.pt", "finetuned_decoder.pt", *_OLD_PORTS),
}


@dataclass(frozen=True)
class ModelFiles:
    """The files of one model: weights (or the index of several files), tokenizer and what ``config.json`` says."""

    name: str
    weights: Path
    tokenizer: Path
    hints: dict[str, Any]

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages in the order of their ids; the 202 of NLLB unless ``config.json`` lists others."""
        return tuple(self.hints.get("languages", FLORES_200))

    @property
    def fingerprint(self) -> str:
        """The sha256 of the weights; read once and remembered."""
        return weights_sha256(self.weights)

    @overload
    def layout(self, kind: Literal["encoder"] = ...) -> EncoderLayout: ...
    @overload
    def layout(self, kind: Literal["decoder"]) -> DecoderLayout: ...
    def layout(self, kind: Kind = "encoder") -> EncoderLayout | DecoderLayout:
        """Sizes and tensor names of the text encoder or decoder, without reading the tensors."""
        header, where = read_header(self.weights), str(self.weights)
        recognise = text_encoder_layout if kind == "encoder" else text_decoder_layout
        layout = recognise(shapes_of(header), self.hints, where)
        check_floats(header, layout.sources.values(), where)
        return layout

    def identity(self, kind: Kind = "encoder") -> dict[str, str]:
        """What makes two runs comparable: model, weights, tokenizer, sizes, space. All values are text.

        The file contents are hashed (remembered afterwards); ``encoder_revision`` (or ``decoder_revision``) is the
        fingerprint of the weights. What ``config.json`` decides, they do not tell: heads and languages are named, too.
        """
        config = self.layout(kind).config
        facts = {
            kind: self.name,
            f"{kind}_revision": self.fingerprint,
            "tokenizer_revision": self.tokenizer_revision,
            "dim": str(config.model_dim),
            "num_heads": str(config.num_heads),
            "max_seq_len": str(config.max_tokens),
            "trained": "true" if is_trained(self.hints) else "false",
            "space": self._space(config),
        }
        return {**facts, "pooling": "mean", "normalized": "false"} if kind == "encoder" else facts

    @property
    def tokenizer_revision(self) -> str:
        """The sha256 of the tokenizer's file; with other languages than usual, of it and their names in their order."""
        digest = file_sha256(self.tokenizer)
        if self.languages == FLORES_200:
            return digest
        return hashlib.sha256("\n".join([digest, *self.languages]).encode()).hexdigest()

    @property
    def space(self) -> str:
        """The name of the embedding space; see ``name_of_space``."""
        try:
            return self._space(self.layout("encoder").config)
        except CheckpointError:
            return self._space(self.layout("decoder").config)

    def _space(self, config: TextEncoderConfig | TextDecoderConfig) -> str:
        return name_of_space(config, self.hints, self.tokenizer)


def is_trained(hints: Mapping[str, Any]) -> bool:
    """Whether the weights mean something; random ones say that they do not."""
    return hints.get("trained") is not False


def name_of_space(
    config: TextEncoderConfig | TextDecoderConfig, hints: Mapping[str, Any], tokenizer: Path | None
) -> str:
    """The name of an embedding space: vectors, encoders and decoders of one space belong together.

    What ``config.json`` says; else "sonar" for the sizes of the published models; else made of the tokenizer's content
    and the width, which an encoder shares with its decoder ("unknown" without a tokenizer).
    """
    named = hints.get("space")
    if isinstance(named, str) and named:
        return named
    if (config.vocab_size, config.model_dim) == _PUBLISHED_SIZES and is_trained(hints):
        return SONAR_SPACE
    if tokenizer is None:
        return "unknown"
    return f"sonar-{file_sha256(tokenizer)[:12]}-{config.model_dim}"


def find_model(name_or_path: str | Path, kind: Kind = "encoder") -> ModelFiles:
    """The files of a model given as a folder, a weights file or a name (which may download).

    In a folder, ``encoder.safetensors`` or ``decoder.safetensors`` come before ``model.safetensors`` (which may hold
    both) and before the file names of the published models.

    Raises:
        CheckpointError: nothing there, several candidates, no tokenizer, or the download failed.
    """
    from lcm_data.sonar import hub

    name = str(name_or_path)
    path = Path(name).expanduser()
    # Where a model lies is no part of its identity: shards are the same wherever it was mounted.
    if path.is_dir():
        return _files(path.resolve().name, only_weights(path, _WEIGHTS_NAMES[kind]))
    if path.is_file():
        return _files(path.name, path)
    return _files(name, hub.model_weights(name))


def read_hints(weights: Path) -> dict[str, Any]:
    """What ``config.json`` beside the weights says; nothing if there is none.

    Raises:
        CheckpointError: it is no JSON object, or its "languages" are no list of names.
    """
    config = weights.parent / "config.json"
    if not config.is_file():
        return {}
    try:
        hints = json.loads(config.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{config} is not valid JSON: {error}.") from error
    if not isinstance(hints, dict):
        raise CheckpointError(f"{config} must hold a JSON object, got {type(hints).__name__}.")
    languages = hints.get("languages", [])
    if not isinstance(languages, list) or not all(isinstance(name, str) for name in languages):
        raise CheckpointError(f'{config}: "languages" must be a list of names such as "eng_Latn", in their order.')
    return hints


def local_tokenizer(weights: Path, hints: dict[str, Any]) -> Path | None:
    """The "tokenizer" of ``config.json``, else the only ``*.model`` beside the weights.

    Raises:
        CheckpointError: there are several, or the named one is not there.
    """
    if isinstance(named := hints.get("tokenizer"), str):
        if not (weights.parent / named).is_file():
            raise CheckpointError(f"{weights.parent / named} is missing; config.json beside it names it as tokenizer.")
        return weights.parent / named
    found = sorted(weights.parent.glob("*.model"))
    if len(found) > 1:
        listed = ", ".join(p.name for p in found)
        raise CheckpointError(
            f'{weights.parent} holds several tokenizers ({listed}). Name one in config.json: {{"tokenizer": ...}}.'
        )
    return found[0] if found else None


def _files(name: str, weights: Path) -> ModelFiles:
    from lcm_data.sonar import hub

    hints = read_hints(weights)
    tokenizer = local_tokenizer(weights, hints) or hub.nllb_tokenizer(beside=weights)
    return ModelFiles(name=name, weights=weights, tokenizer=tokenizer, hints=hints)


def only_weights(folder: Path, usual: Sequence[str]) -> Path:
    """The weights file of a folder: the first of the usual names, else the only file with a usual ending.

    Raises:
        CheckpointError: none, or several.
    """
    for name in usual:
        if (folder / name).is_file():
            return folder / name
    found = weights_in(folder)
    if len(found) == 1:
        return found[0]
    if found:
        listed = ", ".join(p.name for p in found)
        raise CheckpointError(f"{folder} holds several weights files ({listed}). Give the path of one of them.")
    raise CheckpointError(
        f"{folder} holds no weights. Expected one of {', '.join(usual)} or a single "
        f"*{', *'.join(WEIGHTS_SUFFIXES)} file."
    )


def weights_in(folder: Path) -> list[Path]:
    """The files of a folder that look like weights, by their endings."""
    return sorted(p for p in folder.iterdir() if p.suffix in WEIGHTS_SUFFIXES and p.is_file())

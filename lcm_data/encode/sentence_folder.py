"""What a sentence-transformers folder holds, read from its small files: sizes, fingerprints, prompt. No weights here.

Such a folder has a ``modules.json`` that lists the parts of the model in order, each with a configuration of its own.
Running them is ``lcm_data.encode.sentence_transformers``.
"""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lcm_data.errors import CheckpointError
from lcm_data.sonar.fingerprint import file_sha256

MODULES = "modules.json"
SETTINGS = "config_sentence_transformers.json"

_KNOWN = ("Transformer", "Pooling", "Dense", "LayerNorm", "Normalize")
_CONFIGS = ("config.json", "sentence_*_config.json", "adapter_config.json")
_TOKENIZER = ("*token*.json", "vocab.*", "merges.txt", "*.model")
_ENDLESS = 10**6
"""Tokenizers without a maximum say 10**30."""


@dataclass(frozen=True)
class SentenceFolder:
    """A model folder, and the name it was asked for by.

    Raises:
        CheckpointError: from every property, if the files do not say it or say something we do not run.
    """

    path: Path
    name: str

    def describe(self, prompt: str | None) -> dict[str, str]:
        """The identity of the vectors it makes with ``prompt`` (None: its own default), see ``describe_encoder``."""
        prompt = self.default_prompt if prompt is None else prompt
        described = {
            "encoder": self.name,
            "encoder_revision": self.revision(prompt),
            "tokenizer_revision": _digest(self._tokenizer_files(), self.path),
            "dim": str(self.dim),
            "max_seq_len": str(self.max_tokens),
            "pooling": "+".join(self._poolings),
            "normalized": "true" if "Normalize" in self._kinds else "false",
            "trained": "false" if self._part("Transformer", "config.json").get("trained") is False else "true",
        }
        return described | ({"prompt": prompt} if prompt else {})

    @property
    def dim(self) -> int:
        """Width of the vectors: of the last part that sets one."""
        width = 0
        for kind, folder in self._modules:
            file = folder / "config.json"
            if kind == "Pooling":
                name = "embedding_dimension" if "embedding_dimension" in _read(file) else "word_embedding_dimension"
                width = _size(file, name) * len(self._poolings)
            elif kind == "Dense":
                width = _size(file, "out_features")
        return min(width, _size(self.path / SETTINGS, "truncate_dim") if self._settings.get("truncate_dim") else width)

    @property
    def max_tokens(self) -> int:
        """Most tokens of a sentence, special ones included; what is longer is cut."""
        for file in sorted(self._folder("Transformer").glob("sentence_*_config.json")):
            if _read(file).get("max_seq_length"):
                return _size(file, "max_seq_length")
        says = self._part("Transformer", "tokenizer_config.json").get("model_max_length")
        most = self._part("Transformer", "config.json").get("max_position_embeddings")
        lengths = [int(each) for each in (says, most) if isinstance(each, int | float) and 0 < each < _ENDLESS]
        if not lengths:
            raise CheckpointError(
                f'{self.path} says nowhere how many tokens it takes: put {{"max_seq_length": ...}} into '
                "sentence_bert_config.json."
            )
        return min(lengths)

    @property
    def default_prompt(self) -> str:
        """What the model itself puts before every sentence, usually nothing."""
        prompts = self._settings.get("prompts") or {}
        return str(prompts.get(self._settings.get("default_prompt_name")) or "")

    def revision(self, prompt: str) -> str:
        """SHA-256 over the weights and settings of all parts, and the prompt."""
        files = [self.path / MODULES]
        for _, folder in self._modules:
            weights = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))
            files += [*weights, *(file for pattern in _CONFIGS for file in sorted(folder.glob(pattern)))]
        if not any(file.suffix in (".safetensors", ".bin") for file in files):
            raise CheckpointError(f"{self.path} holds no weights (*.safetensors or *.bin).")
        more = [f"prompt {prompt}"] if prompt else []
        more += [f"dim {self.dim}"] if self._settings.get("truncate_dim") else []
        return _digest(files, self.path, more)

    @functools.cached_property
    def _modules(self) -> list[tuple[str, Path]]:
        """Kind and folder of each part."""
        if not (self.path / MODULES).is_file():
            raise CheckpointError(
                f"{self.path} is no sentence-transformers model: it has no {MODULES}. A plain transformer does not say "
                "how its tokens become one vector; save it once with sentence_transformers.SentenceTransformer(...)."
            )
        try:
            listed = json.loads((self.path / MODULES).read_text("utf-8"))
            modules = [(str(entry["type"]), self.path / entry["path"]) for entry in listed]
        except (ValueError, OSError, KeyError, TypeError) as error:
            raise CheckpointError(f"{self.path}/{MODULES} is damaged: {error!r}.") from error
        if outside := [folder for _, folder in modules if ".." in folder.parts or not folder.is_relative_to(self.path)]:
            raise CheckpointError(f"{self.path}/{MODULES} names {outside[0]}; expected folders inside the model.")
        for kind, _ in modules:
            if not kind.startswith("sentence_transformers.") or kind.rpartition(".")[2] not in _KNOWN:
                raise CheckpointError(
                    f"{self.path} needs the part {kind}; known are {', '.join(_KNOWN)} of sentence_transformers. For "
                    "other models write an encoder of your own (docs/extending.md)."
                )
        found = [(kind.rpartition(".")[2], folder) for kind, folder in modules]
        kinds = [kind for kind, _ in found]
        if kinds[:1] != ["Transformer"] or kinds.count("Transformer") != 1 or kinds.count("Pooling") != 1:
            raise CheckpointError(
                f"{self.path}/{MODULES} lists {', '.join(kinds) or 'nothing'}; expected a Transformer and a Pooling."
            )
        return found

    @property
    def _kinds(self) -> list[str]:
        return [kind for kind, _ in self._modules]

    @property
    def _poolings(self) -> list[str]:
        """Names of the ways tokens are pooled; their results are put side by side."""
        config = self._part("Pooling", "config.json")
        if mode := config.get("pooling_mode"):
            return [mode] if isinstance(mode, str) else [*mode]
        old = [key for key, value in config.items() if key.startswith("pooling_mode_") and value]
        if not old:
            raise CheckpointError(f"{self._folder('Pooling') / 'config.json'} does not say how tokens are pooled.")
        return [key.removeprefix("pooling_mode_").removesuffix("_tokens").removesuffix("_token") for key in old]

    @functools.cached_property
    def _settings(self) -> dict[str, Any]:
        return _read(self.path / SETTINGS)

    def _folder(self, kind: str) -> Path:
        return next(folder for each, folder in self._modules if each == kind)

    def _part(self, kind: str, file: str) -> dict[str, Any]:
        return _read(self._folder(kind) / file)

    def _tokenizer_files(self) -> list[Path]:
        files = {file for pattern in _TOKENIZER for file in self._folder("Transformer").glob(pattern)}
        if not files:
            raise CheckpointError(f"{self.path} holds no tokenizer (tokenizer.json or the like).")
        return sorted(files)


def _read(file: Path) -> dict[str, Any]:
    """A JSON object, empty if there is no such file."""
    try:
        value = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, OSError) as error:
        raise CheckpointError(f"cannot read {file}: {error}.") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{file} must hold a JSON object, got {type(value).__name__}.")
    return value


def _size(file: Path, name: str) -> int:
    """A number of a JSON file that says how large something is."""
    value = _read(file).get(name)
    if not isinstance(value, int) or value < 1:
        raise CheckpointError(f"{file}: {name} must be a positive whole number, got {value!r}.")
    return value


def _digest(files: list[Path], root: Path, more: list[str] | None = None) -> str:
    lines = [f"{file.relative_to(root).as_posix()} {file_sha256(file)}" for file in files] + (more or [])
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()

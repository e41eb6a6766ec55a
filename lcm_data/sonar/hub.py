"""Model names to files: the official SONAR networks, and ports on the Hugging Face Hub, kept in a cache.

Fetching is ``lcm_data.sonar.fetch``; repositories of the Hub are ``lcm_data.sonar.repository``. Each file can be put
into place by hand instead; messages say where.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from lcm_data.errors import CheckpointError, UnknownNameError
from lcm_data.sonar import speech_models
from lcm_data.sonar.config import TextDecoderConfig, TextEncoderConfig
from lcm_data.sonar.fetch import Progress, fetch
from lcm_data.sonar.fingerprint import cache_dir
from lcm_data.sonar.repository import Repository
from lcm_data.sonar.speech_config import SpeechEncoderConfig
from lcm_data.sonar.weights import weight_files

logger = logging.getLogger(__name__)

LICENCE_NOTE = (
    "the code of SONAR is MIT licensed, but some of its weights are for non-commercial use only: "
    "check the terms of this model (https://github.com/facebookresearch/SONAR#license) before using or sharing vectors"
)


@dataclass(frozen=True)
class RemoteFile:
    """One file on the web; ``sha256`` is None where the publisher names none (then the first download is noted)."""

    url: str
    sha256: str | None = None

    @property
    def file_name(self) -> str:
        """Last part of the address."""
        return self.url.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class RemoteModel:
    """A published model: weights, tokenizer (none for speech) and sizes, whose class says what it is."""

    weights: RemoteFile
    tokenizer: RemoteFile | None
    config: TextEncoderConfig | TextDecoderConfig | SpeechEncoderConfig

    @property
    def kind(self) -> str:
        """What it is."""
        if isinstance(self.config, SpeechEncoderConfig):
            return "speech encoder"
        return "text encoder" if isinstance(self.config, TextEncoderConfig) else "text decoder"

    @property
    def num_bytes(self) -> int:
        """About how large the weights are: float32 and little else."""
        return 4 * self.config.num_parameters


_SITE = "https://dl.fbaipublicfiles.com/SONAR"
NLLB_TOKENIZER = RemoteFile(f"{_SITE}/sentencepiece.source.256000.model")

MODELS: dict[str, RemoteModel] = {
    "text_sonar_basic_encoder": RemoteModel(
        RemoteFile(f"{_SITE}/sonar_text_encoder.pt"), NLLB_TOKENIZER, TextEncoderConfig()
    ),
    "text_sonar_basic_decoder": RemoteModel(
        RemoteFile(f"{_SITE}/sonar_text_decoder.pt"), NLLB_TOKENIZER, TextDecoderConfig()
    ),
    "text_sonar_finetuned_decoder": RemoteModel(
        RemoteFile(f"{_SITE}/finetuned_decoder.pt"), NLLB_TOKENIZER, TextDecoderConfig()
    ),
    **{
        f"{speech_models.PREFIX}{language}": RemoteModel(
            RemoteFile(f"{_SITE}/{file_name}"),
            None,
            SpeechEncoderConfig(pooler_layers=speech_models.pooler_layers(language)),
        )
        for language, file_name in speech_models.FILES.items()
    },
}
"""Names that need no owner; a new one is one entry."""

MINI = "sonar-mini"
"""The small space that comes with the package: encoder and decoder in one file."""

MINI_SPEECH = "sonar-mini-speech"
"""The small speech encoder of that space that comes with the package."""

_SHIPPED = {MINI: "model.safetensors", MINI_SPEECH: "speech_encoder.safetensors"}

_told: set[str] = set()

_REPOSITORY = re.compile(r"(?:hf:)?(?P<repo>[\w.-]+/[\w.-]+?)(?:@(?P<revision>[\w./-]+))?")


def default_model(kind: str = "encoder") -> str:
    """What a verb takes that is told no model: the published one if it is in the cache, else the one that ships."""
    published = f"text_sonar_basic_{kind}"
    return published if cached_weights(published) is not None else MINI


def tell_default(name: str) -> None:
    """Say once, in one line, that the model was not asked for."""
    if name == MINI and name not in _told:
        _told.add(name)
        logger.warning(
            "no --model given, and no SONAR weights in the cache: using %s, the small model that comes with the "
            "package (for the real ones: lcm-data models fetch text_sonar_basic_encoder text_sonar_basic_decoder)",
            name,
        )


def _shipped_weights(name: str) -> Path:
    """The weights of a model that comes with the package.

    Raises:
        CheckpointError: they are not there.
    """
    path = Path(str(files("lcm_data"))) / "assets" / name / _SHIPPED[name]
    if not path.is_file():
        raise CheckpointError(f"the weights of {name} are missing at {path}: install lcm-data again.")
    return path


def models_dir() -> Path:
    """Where models are kept, each in a folder of its own."""
    return cache_dir() / "models"


def model_weights(name: str, *, progress: Progress | None = None, force: bool = False) -> Path:
    """The weights file of a model by name, downloaded on first use; tokenizer and config lie beside it.

    Args:
        name: a key of ``MODELS``, ``hf:owner/repo``, ``owner/repo``, or either with ``@revision``.
        progress: told of every block that arrives.
        force: download again what is there.

    Raises:
        CheckpointError: nothing of that name, or it cannot be downloaded.
        UnknownNameError: neither a path, nor a known name, nor of the form owner/repo.
    """
    if name in _SHIPPED:
        return _shipped_weights(name)
    if name in MODELS:
        folder = models_dir() / name
        path = _published(name, folder, progress, force)
    else:
        repository = _repository(name)
        try:
            path = repository.weights(progress=progress, force=force)
        except CheckpointError as error:
            raise CheckpointError(
                f"model {name}: no such file or folder, and as a Hugging Face repository: {error}"
            ) from error
        folder = repository.folder
    _tell_licence(name, folder)
    return path


def cached_weights(name: str) -> Path | None:
    """As ``model_weights``, but None for a model that would have to be downloaded."""
    if name in _SHIPPED:
        return _shipped_weights(name)
    if name in MODELS:
        path = models_dir() / name / MODELS[name].weights.file_name
        return path if path.is_file() else None
    return _repository(name).cached()


def nllb_tokenizer(*, beside: Path) -> Path:
    """The tokenizer of all published SONAR text models, for weights that came without one.

    Raises:
        CheckpointError: it is not in the cache and cannot be downloaded.
    """
    if (known := cached_nllb_tokenizer()) is not None:
        return known
    target = models_dir() / "nllb-tokenizer" / NLLB_TOKENIZER.file_name
    try:
        return fetch(NLLB_TOKENIZER.url, target, sha256=NLLB_TOKENIZER.sha256, check=_is_tokenizer)
    except CheckpointError as error:
        raise CheckpointError(f"no tokenizer (*.model) beside {beside}, and {error}") from error


def cached_nllb_tokenizer() -> Path | None:
    """As ``nllb_tokenizer``, but None if it would have to be downloaded. Every published model brings a copy."""
    return _cached_tokenizer(NLLB_TOKENIZER)


def _cached_tokenizer(remote: RemoteFile) -> Path | None:
    """A tokenizer of the cache, in the folder of whichever model has it."""
    folders = [name for name, model in MODELS.items() if model.tokenizer == remote]
    if remote == NLLB_TOKENIZER:
        folders.append("nllb-tokenizer")
    places = (models_dir() / folder / remote.file_name for folder in folders)
    return next((path for path in places if path.is_file()), None)


def _share_tokenizer(remote: RemoteFile, target: Path) -> None:
    """Put the tokenizer of another model into place, if it is the same and known to be whole."""
    if target.is_file() or (known := _cached_tokenizer(remote)) is None:
        return
    with contextlib.suppress(CheckpointError, OSError):  # then it is downloaded
        fetch(remote.url, known, sha256=remote.sha256, check=_is_tokenizer)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(known, target)
        except OSError:  # a file system without links
            part = target.with_name(f"{target.name}.{os.getpid()}.tmp")
            shutil.copyfile(known, part)
            os.replace(part, target)


def _published(name: str, folder: Path, progress: Progress | None, force: bool) -> Path:
    """Tokenizer and weights of a published model; an error names every file that is still to be had."""
    model = MODELS[name]
    weights = folder / model.weights.file_name
    wanted: list[tuple[RemoteFile, Callable[[Path], object]]] = [(model.weights, weight_files)]
    if model.tokenizer is not None:
        wanted.insert(0, (model.tokenizer, _is_tokenizer))
        if not force:
            _share_tokenizer(model.tokenizer, folder / model.tokenizer.file_name)
    for remote, check in wanted:
        target = folder / remote.file_name
        if target == weights and progress is None and not weights.is_file():  # a word before minutes of silence
            logger.warning("downloading %s (about %.1f GB) to %s", name, model.num_bytes / 1e9, folder)
        try:
            fetch(remote.url, target, sha256=remote.sha256, check=check, progress=progress, force=force)
        except CheckpointError as error:
            also = f", and {model.weights.url} at {weights}" if target != weights and not weights.is_file() else ""
            raise CheckpointError(f"{error}{also}") from error
    return weights


def _repository(name: str) -> Repository:
    match = _REPOSITORY.fullmatch(name)
    if match is None or (name.count("/") == 1 and name.startswith((".", "~"))):
        if "/" in name or "\\" in name or Path(name).suffix:
            raise CheckpointError(f"model {name}: no such file or folder.")
        if name.startswith(speech_models.PREFIX):
            language = name.removeprefix(speech_models.PREFIX)
            raise UnknownNameError("language of a speech encoder", language, speech_models.FILES)
        text = [known for known in MODELS if not known.startswith(speech_models.PREFIX)]
        others = (f"{speech_models.PREFIX}<language>", "hf:owner/repo", "a folder or weights file")
        raise UnknownNameError("model", name, [*_SHIPPED, *text, *others])
    return Repository(match["repo"], match["revision"] or "main", models_dir())


def _is_tokenizer(path: Path) -> None:
    """A SentencePiece model begins with the field of its first piece."""
    with path.open("rb") as file:
        head = file.read(8)
    if head[:1] != b"\n":
        raise CheckpointError(f"it is no SentencePiece model, it begins with {head!r}")


def _tell_licence(name: str, folder: Path) -> None:
    """Once for each model in a cache; once a process where the cache cannot be written."""
    try:
        (folder / "licence-shown").touch(exist_ok=False)
    except FileExistsError:
        return
    except OSError:
        if name in _told:
            return
    _told.add(name)
    logger.warning("%s: %s", name, LICENCE_NOTE)

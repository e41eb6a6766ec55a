"""Model names to files: the official SONAR text networks and their ports on the Hugging Face Hub, kept in a cache.

Fetching is ``lcm_data.sonar.fetch``, or the package huggingface_hub for the Hub when it is installed. Each file can be
put into place by hand instead; messages say where.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path

from lcm_data.errors import CheckpointError, UnknownNameError
from lcm_data.sonar.fetch import NotOnServerError, fetch
from lcm_data.sonar.fingerprint import cache_dir

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
    """A published model: weights and tokenizer."""

    weights: RemoteFile
    tokenizer: RemoteFile


NLLB_TOKENIZER = RemoteFile("https://dl.fbaipublicfiles.com/SONAR/sentencepiece.source.256000.model")

MODELS: dict[str, RemoteModel] = {
    "text_sonar_basic_encoder": RemoteModel(
        weights=RemoteFile("https://dl.fbaipublicfiles.com/SONAR/sonar_text_encoder.pt"), tokenizer=NLLB_TOKENIZER
    ),
    "text_sonar_basic_decoder": RemoteModel(
        weights=RemoteFile("https://dl.fbaipublicfiles.com/SONAR/sonar_text_decoder.pt"), tokenizer=NLLB_TOKENIZER
    ),
    "text_sonar_finetuned_decoder": RemoteModel(
        weights=RemoteFile("https://dl.fbaipublicfiles.com/SONAR/finetuned_decoder.pt"), tokenizer=NLLB_TOKENIZER
    ),
}
"""Names that need no owner; a new one is one entry."""

_REPO = re.compile(r"(?:hf:)?(?P<repo>[\w.-]+/[\w.-]+?)(?:@(?P<revision>[\w./-]+))?")
_HUB_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_HUB_EXTRAS = ("config.json", "sentencepiece.bpe.model")


def model_weights(name: str) -> Path:
    """The weights file of a model by name, downloaded on first use; tokenizer and config lie beside it.

    Args:
        name: a key of ``MODELS``, ``hf:owner/repo``, ``owner/repo``, or either with ``@revision``.

    Raises:
        CheckpointError: nothing of that name, or it cannot be downloaded.
        UnknownNameError: neither a path, nor a known name, nor of the form owner/repo.
    """
    if name in MODELS:
        model = MODELS[name]
        folder = cache_dir() / "models" / name
        _get(model.tokenizer, folder)
        new = not (folder / model.weights.file_name).is_file()
        weights = _get(model.weights, folder)
        if new:
            logger.warning("downloaded %s: %s", name, LICENCE_NOTE)
        return weights
    match = _REPO.fullmatch(name)
    if match is None or (name.count("/") == 1 and name.startswith((".", "~"))):
        if "/" in name or os.sep in name or Path(name).suffix:
            raise CheckpointError(f"model {name}: no such file or folder.")
        raise UnknownNameError("model", name, [*MODELS, "hf:owner/repo", "a folder or weights file"])
    try:
        return _hub_weights(match["repo"], match["revision"] or "main")
    except CheckpointError as error:
        raise CheckpointError(
            f"model {name}: no such file or folder, and as a Hugging Face repository: {error}"
        ) from error


def nllb_tokenizer(*, beside: Path) -> Path:
    """The tokenizer of all published SONAR text models, for weights that came without one.

    Raises:
        CheckpointError: it is not in the cache and cannot be downloaded.
    """
    try:
        return _get(NLLB_TOKENIZER, cache_dir() / "models" / "nllb-tokenizer")
    except CheckpointError as error:
        raise CheckpointError(f"no tokenizer (*.model) beside {beside}, and {error}") from error


def _get(remote: RemoteFile, folder: Path) -> Path:
    return fetch(remote.url, folder / remote.file_name, sha256=remote.sha256)


def _hub_weights(repo: str, revision: str) -> Path:
    """Weights of a Hub repository with its config and tokenizer, if it has them, in the same folder.

    Once complete, the files are used as they are, without asking the Hub again: a branch that moves must not change
    the model in the middle of a corpus, and a machine that lost its network keeps working.
    """
    folder = cache_dir() / "models" / f"{repo.replace('/', '--')}@{revision.replace('/', '--')}"
    note = folder / "complete.json"
    with contextlib.suppress(OSError, ValueError, KeyError):
        known = Path(json.loads(note.read_text())["weights"])
        if known.is_file():
            return known
    for file_name in _HUB_EXTRAS:
        try:
            _hub_file(repo, revision, file_name, folder)
        except NotOnServerError:
            logger.debug("%s has no %s", repo, file_name)
    try:
        weights = _hub_file(repo, revision, _HUB_WEIGHTS[0], folder)
    except NotOnServerError:
        weights = _hub_file(repo, revision, _HUB_WEIGHTS[1], folder)
    logger.warning("downloaded %s: %s", repo, LICENCE_NOTE)
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps({"weights": str(weights)}))
    return weights


def _hub_file(repo: str, revision: str, file_name: str, folder: Path) -> Path:
    """One file of a Hub repository; huggingface_hub brings its own cache, tokens and locks."""
    if (folder / file_name).is_file():
        return fetch("", folder / file_name)  # put there by hand or by an earlier run: only checked
    try:
        import huggingface_hub
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RepositoryNotFoundError
    except ImportError:
        endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
        return fetch(f"{endpoint}/{repo}/resolve/{revision}/{file_name}", folder / file_name)
    try:
        return Path(huggingface_hub.hf_hub_download(repo, file_name, revision=revision))
    except LocalEntryNotFoundError as error:  # offline; a subclass of EntryNotFoundError, so it comes first
        raise CheckpointError(
            f"cannot reach the Hugging Face Hub for {repo}. Get {file_name} on another machine and put it into {folder}"
        ) from error
    except (EntryNotFoundError, RepositoryNotFoundError) as error:
        raise NotOnServerError(f"{repo} has no {file_name}.") from error
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise CheckpointError(f"cannot get {file_name} of {repo} ({first}). Put it into {folder} by hand.") from error

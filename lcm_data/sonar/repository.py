"""One repository of the Hugging Face Hub as a folder of files: weights, and config and tokenizer if it has them.

The package huggingface_hub fetches when it is installed (it brings tokens, locks and a cache shared with other
programs), else ``lcm_data.sonar.fetch``. Which names mean repositories is ``lcm_data.sonar.hub``.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path

from lcm_data.errors import CheckpointError
from lcm_data.sonar.fetch import NotOnServerError, Progress, fetch, reachable
from lcm_data.sonar.weights import weight_files

logger = logging.getLogger(__name__)

WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""Asked for in this order."""

_EXTRAS = ("config.json", "sentencepiece.bpe.model")


def endpoint() -> str:
    """The address of the Hub."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def is_offline() -> bool:
    """Whether the Hub is not to be asked, or does not answer: the package would try for half a minute."""
    asked_to_be = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    return asked_to_be or not reachable(endpoint())


@dataclass(frozen=True)
class Repository:
    """A repository at a revision, and the folder of the cache that knows it.

    Attributes:
        repo: owner/name.
        revision: a branch, tag or commit.
        cache: the folder of all models.
    """

    repo: str
    revision: str
    cache: Path

    @property
    def folder(self) -> Path:
        """Where its files, or a note on where they are, lie."""
        return self.cache / f"{self.repo.replace('/', '--')}@{self.revision.replace('/', '--')}"

    def cached(self) -> Path | None:
        """The weights, if they are here: fetched completely before, or put into the folder by hand."""
        places = [self.folder / name for name in WEIGHTS]
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            places.insert(0, Path(json.loads(self._note.read_text())["weights"]))
        return next((path for path in places if path.is_file() and all(map(Path.is_file, weight_files(path)))), None)

    def weights(self, *, progress: Progress | None = None, force: bool = False) -> Path:
        """The weights; config and tokenizer, if it has them, are beside them.

        Once complete, the files are used as they are, without asking the Hub again: a branch that moves must not change
        the model in the middle of a corpus, and a machine that lost its network keeps working.

        Raises:
            CheckpointError: the Hub cannot be reached, or has no such repository or no weights in it.
        """
        if not force and (known := self.cached()) is not None:
            return known
        get = _Source(self, progress, force)
        if force and get.offline:  # what is here is not what was asked for
            raise self.unreachable()
        for file_name in _EXTRAS:
            with contextlib.suppress(NotOnServerError):
                get(file_name)
        weights = self._first(get)
        for part in weight_files(weights):
            if part != weights:
                get(part.name)
        if get.offline:  # the cache of huggingface_hub had the weights, but perhaps not all that belongs to them
            return weights
        with contextlib.suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._note.write_text(json.dumps({"name": f"hf:{self.repo}@{self.revision}", "weights": str(weights)}))
        return weights

    def unreachable(self) -> CheckpointError:
        """The error of a machine without network."""
        names = f"{WEIGHTS[0]} (or {WEIGHTS[2]}), {' and '.join(_EXTRAS)}"
        return CheckpointError(
            f"cannot reach the Hugging Face Hub for {self.repo}. Get {names}, those it has, on another machine and put "
            f"them into {self.folder}"
        )

    @property
    def _note(self) -> Path:
        return self.folder / "complete.json"

    def _first(self, get: _Source) -> Path:
        for file_name in WEIGHTS:
            with contextlib.suppress(NotOnServerError):
                return get(file_name)
        if get.offline:
            raise self.unreachable()
        raise NotOnServerError(
            f"{self.repo} at {self.revision} does not exist, or has none of {', '.join(WEIGHTS)}. "
            "Private and gated repositories need HF_TOKEN and the package huggingface_hub."
        )


class _Source:
    """Fetches files of one repository; whether the Hub answers is found out once, and quickly."""

    def __init__(self, repository: Repository, progress: Progress | None, force: bool) -> None:
        self._repository = repository
        self._progress = progress  # the package shows its own
        self._force = force
        self._endpoint = endpoint()
        self.offline = is_offline()

    def __call__(self, file_name: str) -> Path:
        """One file.

        Raises:
            NotOnServerError: the repository has no such file, or there is no such repository.
            CheckpointError: it cannot be had.
        """
        if importlib.util.find_spec("huggingface_hub") is not None:
            return self._by_package(file_name)
        if self.offline:
            raise self._repository.unreachable()
        repo, folder = self._repository, self._repository.folder
        url = f"{self._endpoint}/{repo.repo}/resolve/{repo.revision}/{file_name}"
        check = weight_files if file_name in WEIGHTS else None
        return fetch(url, folder / file_name, check=check, progress=self._progress, force=self._force)

    def _by_package(self, file_name: str) -> Path:
        import huggingface_hub
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RepositoryNotFoundError

        repo = self._repository.repo
        try:
            return Path(
                huggingface_hub.hf_hub_download(
                    repo,
                    file_name,
                    revision=self._repository.revision,
                    endpoint=self._endpoint,
                    local_files_only=self.offline,
                    force_download=self._force and not self.offline,
                )
            )
        except LocalEntryNotFoundError as error:  # a subclass of EntryNotFoundError, so it comes first
            if self.offline:
                raise NotOnServerError(f"{file_name} of {repo} is not in the cache.") from error
            raise self._repository.unreachable() from error
        except (EntryNotFoundError, RepositoryNotFoundError) as error:
            raise NotOnServerError(f"{repo} has no {file_name}.") from error
        except (OSError, ValueError) as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            folder = self._repository.folder
            raise CheckpointError(
                f"cannot get {file_name} of {repo} ({first}). Put it into {folder} by hand."
            ) from error

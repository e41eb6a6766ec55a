"""Finds sentence-transformers models: a folder, or a repository of the Hugging Face Hub at the commit it was first at.

The package huggingface_hub fetches. A branch that moves must not change the model in the middle of a corpus, so the
commit is noted in the cache of models, and the Hub is not asked again while the files are there. What a folder holds is
``lcm_data.encode.sentence_folder``.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from lcm_data.encode.sentence_folder import SentenceFolder
from lcm_data.errors import CheckpointError, UsageError
from lcm_data.sonar.hub import models_dir
from lcm_data.sonar.repository import Repository, endpoint, is_offline

NOTE = "sentence-transformers.json"
"""In the folder of a repository in the cache of models: its commit, and where the files are."""

_WANTED = ["*.json", "*.txt", "*.model", "*.safetensors"]
_NOT_WANTED = ["onnx/*", "openvino/*"]


def find_sentence_model(model: str) -> SentenceFolder:
    """The folder of a model given as one, or as ``owner/repo`` (``hf:owner/repo@revision``), which may download.

    Raises:
        UsageError: it is neither.
        CheckpointError: there is none, or it cannot be downloaded.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        return SentenceFolder(path.resolve(), path.resolve().name)
    repo, _, revision = model.removeprefix("hf:").partition("@")
    if path.exists() or repo.count("/") != 1 or repo.startswith((".", "~", "/")):
        raise UsageError(
            f"model {model}: the backend sentence-transformers takes a folder that holds a modules.json, or a Hugging "
            "Face repository as owner/repo."
        )
    return SentenceFolder(_pinned(Repository(repo, revision or "main", models_dir())), repo)


def _pinned(repository: Repository) -> Path:
    """The files of a repository at the commit that was found first."""
    note = repository.folder / NOTE
    commit, folder = "", Path()
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(note.read_text())
        commit, folder = str(known["commit"]), Path(known["folder"])
    if commit and folder.is_dir():
        return folder
    folder = _download(repository, commit or repository.revision)
    weights = [*sorted(folder.rglob("*.safetensors")), *sorted(folder.rglob("*.bin"))]
    facts = {
        "name": f"hf:{repository.repo}@{repository.revision}",
        "commit": folder.name,
        "folder": str(folder),
        "weights": str(weights[0]) if weights else "",
    }
    with contextlib.suppress(OSError):  # a read-only cache is fine
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps(facts))
    return folder


def _download(repository: Repository, revision: str) -> Path:
    """The snapshot of a revision in the cache of huggingface_hub; its name is the commit."""
    from huggingface_hub import snapshot_download

    def get(patterns: list[str]) -> Path:
        folder = snapshot_download(
            repository.repo,
            revision=revision,
            endpoint=endpoint(),
            allow_patterns=patterns,
            ignore_patterns=_NOT_WANTED,
            local_files_only=offline,
        )
        return Path(folder)

    offline = is_offline()
    try:
        folder = get(_WANTED)
        if not any(folder.rglob("*.safetensors")):
            folder = get([*_WANTED, "*.bin"])
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"model {repository.repo}: no such folder, and not to be had as a Hugging Face repository "
            f"(revision {revision}: {str(error).strip().splitlines()[0]}). Give the folder of a copy."
        ) from error
    return folder

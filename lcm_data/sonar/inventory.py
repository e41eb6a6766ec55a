"""Which models the cache holds: the published ones by name, and whatever else lies there. Downloads nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lcm_data.errors import CheckpointError
from lcm_data.sonar import hub
from lcm_data.sonar.files import find_model
from lcm_data.sonar.repository import WEIGHTS
from lcm_data.sonar.speech_checkpoint import find_speech_model
from lcm_data.sonar.weights import weight_files


def known_models() -> list[dict[str, Any]]:
    """Those that ship and the published ones: name, kind, dim, parameters, bytes (about), licence, what is here."""
    models = [_shipped(), _shipped_speech()]
    for name, model in hub.MODELS.items():
        about = {
            "name": name,
            "kind": model.kind,
            "dim": model.config.embedding_dim,
            "parameters": model.config.num_parameters,
            "bytes": model.num_bytes,
            "licence": hub.LICENCE_NOTE,
        }
        models.append({**about, **_state(hub.models_dir() / name, hub.cached_weights(name))})
    return models


def _shipped() -> dict[str, Any]:
    files = find_model(hub.MINI)
    encoder, decoder = files.layout("encoder").config, files.layout("decoder").config
    return {
        "name": hub.MINI,
        "kind": "text enc/dec",
        "dim": encoder.model_dim,
        "parameters": encoder.num_parameters + decoder.num_parameters - encoder.vocab_size * encoder.model_dim,
        **_ships(files.weights),
    }


def _shipped_speech() -> dict[str, Any]:
    files = find_speech_model(hub.MINI_SPEECH)
    config = files.layout().config
    return {
        "name": hub.MINI_SPEECH,
        "kind": "speech enc",
        "dim": config.embedding_dim,
        "parameters": config.num_parameters,
        **_ships(files.weights),
    }


def _ships(weights: Path) -> dict[str, Any]:
    size = weights.stat().st_size
    about = {"bytes": size, "licence": "see its model card", "cached": "ships"}
    return {**about, "path": str(weights), "cached_bytes": size}


def other_models() -> list[dict[str, Any]]:
    """Everything else in the cache, such as repositories of the Hugging Face Hub and the tokenizer."""
    if not hub.models_dir().is_dir():
        return []
    found = []
    for folder in sorted(path for path in hub.models_dir().iterdir() if path.is_dir() and path.name not in hub.MODELS):
        note = _note(folder / "complete.json") or _note(folder / "sentence-transformers.json")
        noted = note.get("weights")
        weights = Path(noted) if isinstance(noted, str) else None
        if weights is None or not weights.is_file():
            weights = next((path for path in sorted(folder.iterdir()) if path.name in _FILES), None)
        found.append({"name": str(note.get("name") or _spelled(folder.name)), **_state(folder, weights)})
    return found


_FILES = {*WEIGHTS, hub.NLLB_TOKENIZER.file_name}


def _spelled(folder_name: str) -> str:
    """The name of a repository from that of its folder, for files put there by hand."""
    return f"hf:{folder_name.replace('--', '/', 1)}" if "--" in folder_name else folder_name


def _state(folder: Path, weights: Path | None) -> dict[str, Any]:
    """Whether weights are here ("yes", "partial" or "no"), where, and how many bytes of them."""
    files: list[Path] = []
    if weights is not None:
        try:
            files = weight_files(weights)
        except CheckpointError:  # no weights but a tokenizer
            files = [weights]
        if all(map(Path.is_file, files)):
            return {"cached": "yes", "path": str(weights), "cached_bytes": _bytes(files)}
    here = [*filter(Path.is_file, files), *(folder.glob("*.part") if folder.is_dir() else ())]
    state = "partial" if here or files else "no"
    return {"cached": state, "path": None, "cached_bytes": _bytes(here)}


def _bytes(files: list[Path]) -> int:
    return sum(file.stat().st_size for file in files)


def _note(path: Path) -> dict[str, Any]:
    try:
        note = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}

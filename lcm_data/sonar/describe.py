"""Says what a model file or folder is, by content, without loading a network or downloading anything.

Reading the files for use is ``lcm_data.sonar.files``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from lcm_data.errors import CheckpointError
from lcm_data.languages import FLORES_200
from lcm_data.sonar import hub
from lcm_data.sonar.config import TextDecoderConfig, TextEncoderConfig
from lcm_data.sonar.decoder_layout import DecoderLayout, text_decoder_layout
from lcm_data.sonar.encoder_layout import EncoderLayout, text_encoder_layout
from lcm_data.sonar.files import INDEX_SUFFIX, is_trained, local_tokenizer, name_of_space, read_hints, weights_in
from lcm_data.sonar.fingerprint import file_sha256
from lcm_data.sonar.layout import Shapes, find_networks
from lcm_data.sonar.speech_checkpoint import SpeechFiles
from lcm_data.sonar.speech_layout import SpeechLayout, speech_encoder_layout
from lcm_data.sonar.weights import (
    TensorInfo,
    check_floats,
    read_header,
    shapes_of,
    sniff,
    weight_files,
    weights_sha256,
)

_FAIRSEQ_MARKS = (".version", "_float_tensor", "output_projection.weight")
_SIZES = ("num_layers", "model_dim", "num_heads", "ffn_dim", "vocab_size", "max_tokens", "num_parameters")
_SPEECH_SIZES = ("num_layers", "model_dim", "num_heads", "ffn_dim", "pooler_layers", "embedding_dim", "num_parameters")
_LAYOUTS: dict[str, Callable[[Shapes, Mapping[str, Any], str], EncoderLayout | DecoderLayout | SpeechLayout]] = {
    "text encoder": text_encoder_layout,
    "text decoder": text_decoder_layout,
    "speech encoder": speech_encoder_layout,
}


def describe_model(name_or_path: str | Path) -> list[dict[str, Any]]:
    """What a model is: one record for each weights file.

    Records have "file", "bytes", "format", "naming", "dtype", "tensors", "kind", "networks" (kind and sizes of each, or
    why it cannot be loaded), "fingerprint", "tokenizer", "tokenizer_fingerprint", "languages", "space", "trained" and
    "licence"; one of several files that cannot be read has "problem" instead. That of a sentence-transformers folder
    has "file", "kind", "modules" and "use".

    Raises:
        CheckpointError: nothing there, a name that is not in the cache, or a file that is truncated or no weights.
    """
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        if (path / "modules.json").is_file():
            return [_sentence_transformers(path)]
        found = _weights_of(path)
        if not found:
            raise CheckpointError(f"{path} holds no weights: no *.safetensors, *.pt, *.pth or *.bin file.")
        return [_described(each, alone=len(found) == 1) for each in found]
    if path.is_file():
        return [describe_weights(path)]
    name = str(name_or_path)
    cached = hub.cached_weights(name)
    if cached is None:
        raise CheckpointError(f"model {name} is not in the cache; fetch it with: lcm-data models fetch {name}")
    return [describe_weights(cached)]


def _described(weights: Path, alone: bool) -> dict[str, Any]:
    """As ``describe_weights``, but beside others a file that is no weights (``training_args.bin``) only says so."""
    try:
        return describe_weights(weights)
    except CheckpointError as error:
        if alone:
            raise
        return {"file": str(weights), "bytes": weights.stat().st_size, "kind": "unknown", "problem": str(error)}


def describe_weights(weights: Path) -> dict[str, Any]:
    """What one weights file (or index of several) is.

    Raises:
        CheckpointError: truncated, damaged, or no weights.
    """
    header = read_header(weights)
    shapes = shapes_of(header)
    hints = read_hints(weights)
    networks = [_network(kind, header, hints, weights) for kind in _kinds(shapes)]
    files = weight_files(weights)
    about: dict[str, Any] = {
        "file": str(weights),
        "bytes": sum(file.stat().st_size for file in files),
        "format": _format(weights, files),
        "naming": _naming(shapes),
        "dtype": _dtypes(header.values()),
        "tensors": len(header),
        "kind": " and ".join(network["kind"] for network in networks) or "unknown",
        "networks": networks,
        "fingerprint": weights_sha256(weights),
    }
    loadable = [network for network in networks if "num_layers" in network]
    if loadable and loadable[0]["kind"] == "speech encoder":
        about |= _of_speech(weights, hints)
    elif loadable:
        about |= _surroundings(weights, hints, networks)
    return about


def _kinds(shapes: Shapes) -> list[str]:
    return sorted({found.kind for found in find_networks(shapes)}, reverse=True)


def _network(kind: str, header: Mapping[str, TensorInfo], hints: Mapping[str, Any], weights: Path) -> dict[str, Any]:
    """The sizes of one network, or why it cannot be loaded."""
    try:
        layout = _LAYOUTS[kind](shapes_of(header), hints, weights.name)
        check_floats(header, layout.sources.values(), weights.name)
    except CheckpointError as error:
        return {"kind": kind, "problem": str(error)}
    sizes = _SPEECH_SIZES if kind == "speech encoder" else _SIZES
    return {"kind": kind, **{name: getattr(layout.config, name) for name in sizes}}


def _of_speech(weights: Path, hints: Mapping[str, Any]) -> dict[str, Any]:
    """What a speech encoder belongs to; it has no tokenizer."""
    identity = SpeechFiles(name=weights.name, weights=weights, hints=dict(hints)).identity()
    trained = is_trained(hints)
    return {"space": identity["space"], "trained": trained, "licence": hub.LICENCE_NOTE if trained else None}


def _surroundings(weights: Path, hints: dict[str, Any], networks: list[dict[str, Any]]) -> dict[str, Any]:
    """What lies beside the weights, and what follows from it."""
    tokenizer = local_tokenizer(weights, hints) or hub.cached_nllb_tokenizer()
    about: dict[str, Any] = {
        "tokenizer": None if tokenizer is None else str(tokenizer),
        "tokenizer_fingerprint": None if tokenizer is None else file_sha256(tokenizer),
        "languages": len(hints.get("languages", FLORES_200)),
    }
    first = next(network for network in networks if "num_layers" in network)
    sizes = {name: first[name] for name in _SIZES if name != "num_parameters"}
    config = (TextEncoderConfig if first["kind"] == "text encoder" else TextDecoderConfig)(**sizes)
    about["space"] = name_of_space(config, hints, tokenizer)
    about["trained"] = is_trained(hints)
    about["licence"] = hub.LICENCE_NOTE if about["trained"] else None
    return about


def _format(weights: Path, files: list[Path]) -> str:
    if files != [weights]:
        return f"{_format(files[0], files[:1])} in {len(files)} files"
    if sniff(weights) == "safetensors":
        return "safetensors"
    with weights.open("rb") as file:
        return "torch zip" if file.read(2) == b"PK" else "torch before 1.6"


def _naming(shapes: Shapes) -> str:
    """Whose tensor names these are."""
    found = find_networks(shapes)
    if not found:
        return "unknown"
    if found[0].kind == "speech encoder":
        return "fairseq2" if any(name.startswith("encoder_pooler.") for name in shapes) else "fairseq"
    if found[0].fairseq2:
        return "fairseq2"
    return "fairseq" if any(name.endswith(_FAIRSEQ_MARKS) for name in shapes) else "Hugging Face"


def _dtypes(tensors: Iterable[TensorInfo]) -> str:
    """The types of the tensors, the most frequent first."""
    counts = Counter(tensor.dtype for tensor in tensors if tensor.shape)
    return ", ".join(dtype for dtype, _ in counts.most_common()) or "none"


def _weights_of(folder: Path) -> list[Path]:
    """The weights of a folder; files that an index names count as one."""
    indexes = sorted(folder.glob(f"*{INDEX_SUFFIX}"))
    parts = {part for index in indexes for part in weight_files(index)}
    return sorted([*indexes, *(path for path in weights_in(folder) if path not in parts)])


def _sentence_transformers(folder: Path) -> dict[str, Any]:
    try:
        modules = [
            str(module["type"]).rsplit(".", 1)[-1] for module in json.loads((folder / "modules.json").read_text())
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder / 'modules.json'} is not readable: {error}.") from error
    about = {"file": str(folder), "kind": "sentence-transformers folder", "modules": " -> ".join(modules)}
    return {**about, "use": "lcm-data encode --backend sentence-transformers"}

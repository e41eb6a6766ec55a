"""Reads tensors from safetensors files and torch pickles, memory-mapped and without running code.

The format is told by the first bytes. Weights in several files are given by their index
(``model.safetensors.index.json``). What the tensors mean is ``lcm_data.sonar.layout``.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lcm_data.errors import CheckpointError, MissingExtraError
from lcm_data.sonar.fingerprint import file_sha256

if TYPE_CHECKING:
    from torch import Tensor

Format = Literal["safetensors", "torch", "index"]

_MAX_HEADER = 100_000_000
_LEVELS = ("model", "state_dict")
_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "BOOL": "bool", "U8": "uint8"}
_DTYPES |= {f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)}
_FLOATS = ("float64", "float32", "float16", "bfloat16")


@dataclass(frozen=True)
class TensorInfo:
    """What a file says about a tensor without reading it; ``dtype`` as torch names it, such as float32."""

    shape: tuple[int, ...]
    dtype: str


def sniff(path: Path) -> Format:
    """The format of a weights file; "index" is a JSON file that names several of them.

    Raises:
        CheckpointError: missing, empty, or no such format (a web page or a Git LFS pointer saved under the name, say).
    """
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise CheckpointError(f"cannot read weights {path}: {error.strerror}.") from error
    if len(head) > 8 and head[8:9] == b"{" and 0 < int.from_bytes(head[:8], "little") <= _MAX_HEADER:
        return "safetensors"
    if head.startswith(b"PK\x03\x04") or head[:1] == b"\x80":
        return "torch"
    if head.lstrip()[:1] == b"{":
        return "index"
    if head.startswith(b"version https://git-lfs"):
        found = "a Git LFS pointer, not the file itself: run 'git lfs pull'"
    elif head.lstrip()[:1] == b"<":
        found = "a web page, so the download went wrong"
    else:
        found = "an empty file" if not head else f"a file that begins with {head[:8]!r}"
    raise CheckpointError(f"{path} is {found}. Expected safetensors or a torch checkpoint.")


def weight_files(path: Path) -> list[Path]:
    """The files that hold the tensors: ``path`` itself, or those that it names if it is an index.

    Raises:
        CheckpointError: see ``sniff``; or an index that is none, or names files elsewhere.
    """
    return sorted({path.parent / part for part in _weight_map(path).values()}) if sniff(path) == "index" else [path]


def weights_sha256(path: Path) -> str:
    """The sha256 of a weights file; of an index, that of the hashes of the files it names, in their order."""
    files = weight_files(path)
    if files == [path]:
        return file_sha256(path)
    return hashlib.sha256("".join(file_sha256(part) for part in files).encode()).hexdigest()


def read_header(path: Path) -> dict[str, TensorInfo]:
    """What is known of every tensor without reading it. Safetensors files need no torch for this.

    Raises:
        CheckpointError: see ``sniff`` and ``read_tensors``.
    """
    kind = sniff(path)
    if kind == "torch":
        tensors = read_tensors(path).items()
        return {name: TensorInfo(tuple(t.shape), str(t.dtype).removeprefix("torch.")) for name, t in tensors}
    if kind == "index":
        return _joined(path, {part: read_header(part) for part in _parts(path)})
    return _safetensors_header(path)


def shapes_of(header: Mapping[str, TensorInfo]) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor of a header."""
    return {name: info.shape for name, info in header.items()}


def check_floats(header: Mapping[str, TensorInfo], names: Iterable[str], where: str) -> None:
    """Refuse tensors that are no floating-point numbers: without its scales a quantized weight means nothing.

    Raises:
        CheckpointError: one of ``names`` is stored as something else.
    """
    for name in names:
        if header[name].dtype not in _FLOATS:
            raise CheckpointError(
                f"{where}: tensor {name!r} is stored as {header[name].dtype}; expected {', '.join(_FLOATS)}. "
                "Quantized models cannot be read: get the one it was made from."
            )


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Name -> tensor on the CPU, backed by the mapped file, so that processes of one machine share the memory.

    Levels named "model" or "state_dict" around the tensors are taken off.

    Raises:
        CheckpointError: see ``sniff``; or the file is truncated, or holds more than tensors.
    """
    kind = sniff(path)
    if kind == "index":
        return _joined(path, {part: read_tensors(part) for part in _parts(path)})
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("reading model weights", "torch", "torch") from error
    if kind == "safetensors":
        return _read_safetensors(path)
    content = _unpickle(path)
    for _ in _LEVELS:  # no deeper: a pickle may hold itself
        if isinstance(content, Mapping) and isinstance(inner := _level(content), Mapping):
            content = inner
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, expected a dict of tensors.")
    return {str(name): value for name, value in content.items() if isinstance(value, torch.Tensor)}


def _unpickle(path: Path) -> Any:
    """What a torch file holds, if that is nothing but tensors, numbers, texts, lists and dicts."""
    import torch

    try:
        try:
            return torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        except RuntimeError as error:
            if "mmap" not in str(error):
                raise
            return torch.load(path, map_location="cpu", weights_only=True)  # the format before torch 1.6
    except pickle.UnpicklingError as error:
        if found := re.search(r"GLOBAL (\S+)", str(error)):
            raise CheckpointError(
                f"{path} holds more than tensors ({found[1]}), or is damaged, and was not loaded, because that could "
                "run code. Save its state_dict alone."
            ) from error
        raise _damaged(path, error) from error
    except Exception as error:  # bytes that are no pickle make the unpickler fail in any way
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> CheckpointError:
    first = (str(error).splitlines() or [""])[0].split(". ")[0]
    return CheckpointError(f"{path} is truncated or damaged ({first or type(error).__name__}). Get it again.")


def _level(content: Mapping[Any, Any]) -> Any:
    return next((content[name] for name in _LEVELS if name in content), None)


def _weight_map(index: Path) -> dict[str, str]:
    """Tensor -> file name beside the index."""
    try:
        found = json.loads(index.read_bytes())["weight_map"]
        names = {str(tensor): str(part) for tensor, part in found.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f'{index} is no index of weights: expected JSON with "weight_map".') from error
    if not names:
        raise CheckpointError(f"{index} names no tensors. Get it again.")
    if outside := sorted(part for part in names.values() if part != Path(part).name or part.endswith(".json")):
        raise CheckpointError(f"{index} names {outside[0]!r}; expected weights files beside it.")
    return names


def _parts(index: Path) -> list[Path]:
    """The files that an index names, none of which may be an index itself."""
    parts = weight_files(index)
    if nested := [part for part in parts if sniff(part) == "index"]:
        raise CheckpointError(f"{index} names {nested[0].name!r}, which is an index again; expected weights files.")
    return parts


def _joined(index: Path, parts: Mapping[Path, Mapping[str, Any]]) -> dict[str, Any]:
    """The tensors of several files, each from the file that the index names."""
    joined = {}
    for name, part in _weight_map(index).items():
        if name not in parts[index.parent / part]:
            raise CheckpointError(f"{index} says that {part} holds {name!r}, but it does not. Get both again.")
        joined[name] = parts[index.parent / part][name]
    return joined


def _safetensors_header(path: Path) -> dict[str, TensorInfo]:
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        try:
            header: dict[str, Any] = json.loads(file.read(size))
            header.pop("__metadata__", None)
            found = {
                name: TensorInfo(
                    tuple(int(length) for length in entry["shape"]), _DTYPES.get(entry["dtype"], entry["dtype"].lower())
                )
                for name, entry in header.items()
            }
            end = 8 + size + max((int(entry["data_offsets"][1]) for entry in header.values()), default=0)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError) as error:
            raise CheckpointError(
                f"{path} is truncated or damaged: its header is not readable. Get it again."
            ) from error
    if path.stat().st_size != end:
        raise CheckpointError(
            f"{path} is truncated or damaged ({path.stat().st_size} bytes, expected {end}). Get it again."
        )
    return found


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise MissingExtraError("reading safetensors", "safetensors", "torch") from error
    try:
        return dict(load_file(str(path)))
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error

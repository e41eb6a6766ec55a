"""Reads tensors from safetensors files and torch pickles, memory-mapped and without running code.

The format is told by the first bytes. What the tensors mean is ``lcm_data.sonar.layout``.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lcm_data.errors import CheckpointError, MissingExtraError

if TYPE_CHECKING:
    from torch import Tensor

_MAX_HEADER = 100_000_000
_LEVELS = ("model", "state_dict")


def sniff(path: Path) -> Literal["safetensors", "torch"]:
    """The format of a weights file.

    Raises:
        CheckpointError: missing, empty, or neither format (a web page or a Git LFS pointer saved under the name, say).
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
    if head.startswith(b"version https://git-lfs"):
        found = "a Git LFS pointer, not the file itself: run 'git lfs pull'"
    elif head.lstrip()[:1] == b"<":
        found = "a web page, so the download went wrong"
    else:
        found = "an empty file" if not head else f"a file that begins with {head[:8]!r}"
    raise CheckpointError(f"{path} is {found}. Expected safetensors or a torch checkpoint.")


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor, without reading them. Safetensors files need no torch for this.

    Raises:
        CheckpointError: see ``sniff``; or the file is truncated.
    """
    if sniff(path) == "torch":
        return {name: tuple(tensor.shape) for name, tensor in read_tensors(path).items()}
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        try:
            header: dict[str, Any] = json.loads(file.read(size))
        except ValueError as error:
            raise CheckpointError(f"{path} is truncated or damaged: its header is not readable.") from error
    header.pop("__metadata__", None)
    end = 8 + size + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    if path.stat().st_size != end:
        raise CheckpointError(f"{path} is truncated or damaged: {path.stat().st_size} bytes, expected {end}.")
    return {name: tuple(entry["shape"]) for name, entry in header.items()}


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Name -> tensor on the CPU, backed by the mapped file, so that processes of one machine share the memory.

    Levels named "model" or "state_dict" around the tensors are taken off.

    Raises:
        CheckpointError: see ``sniff``; or the file is truncated, or holds more than tensors.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("reading model weights", "torch", "torch") from error
    if sniff(path) == "safetensors":
        return _read_safetensors(path)
    try:
        try:
            content = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        except RuntimeError as error:
            if "mmap" not in str(error):
                raise
            content = torch.load(path, map_location="cpu", weights_only=True)  # the format before torch 1.6
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds more than tensors and was not loaded, because that could run code "
            f"({str(error).splitlines()[0]}). Save its state_dict alone."
        ) from error
    except (RuntimeError, EOFError, ValueError) as error:
        raise CheckpointError(f"{path} is truncated or damaged ({str(error).splitlines()[0]}).") from error
    while isinstance(content, Mapping) and isinstance(inner := _level(content), Mapping):
        content = inner
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, expected a dict of tensors.")
    return {str(name): value for name, value in content.items() if isinstance(value, torch.Tensor)}


def _level(content: Mapping[Any, Any]) -> Any:
    return next((content[name] for name in _LEVELS if name in content), None)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise MissingExtraError("reading safetensors", "safetensors", "torch") from error
    try:
        return dict(load_file(str(path)))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is truncated or damaged ({error}).") from error

"""Files of named arrays in the safetensors format: written whole or not at all, same bytes for same content, mapped.

A small writer of our own because the library's copies every array and orders metadata by chance; any safetensors
reader opens the result. What the arrays mean is the caller's business.
"""

from __future__ import annotations

import json
import math
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lcm_data.errors import CheckpointError, StorageError

Array = np.ndarray[Any, Any]

_DTYPES = {"F32": "<f4", "F64": "<f8", "U16": "<u2", "I64": "<i8"}
_NAMES = {np.dtype(code): name for name, code in _DTYPES.items()}
_META = "lcm_data"


def canonical_json(value: Any) -> str:
    """The one spelling of ``value`` that is hashed and compared."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def write_tensors(path: Path, tensors: Mapping[str, Array], meta: Mapping[str, Any]) -> None:
    """Write ``tensors`` (float32, float64, uint16 or int64) and the JSON object ``meta`` to ``path``, atomically."""
    header: dict[str, Any] = {"__metadata__": {_META: canonical_json(meta)}}
    offset = 0
    for name, tensor in tensors.items():
        end = offset + tensor.nbytes
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    parts = [len(text).to_bytes(8, "little"), text, *(as_bytes(tensor) for tensor in tensors.values())]
    write_file(path, parts)


def as_bytes(array: Array) -> memoryview:
    """The bytes of an array in row order, without copying if it is contiguous."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def write_file(path: Path, parts: list[Any]) -> None:
    """Write the buffers ``parts`` to ``path``: under a temporary name, synced to disk, then renamed.

    Raises:
        StorageError: the file system refused (disk full, read-only, not allowed).
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}. Free the way, then run again.") from error
    finally:
        temporary.unlink(missing_ok=True)


def map_tensors(path: Path) -> tuple[dict[str, Array], dict[str, Any]]:
    """Read-only memory maps of the arrays of a file, and its metadata object (empty if it is not one of ours).

    Raises:
        CheckpointError: the file is missing, truncated, or not a safetensors file.
    """
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > size - 8:
                raise CheckpointError(f"{path} is not a safetensors file, or is cut off in its header ({size} bytes).")
            header = json.loads(file.read(length))
        meta = json.loads(header.pop("__metadata__", {}).get(_META, "{}"))
        tensors = {name: _map_one(path, entry, 8 + length, size) for name, entry in header.items()}
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist. Give the path of a saved one.") from error
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{path} is not a safetensors file this version can read: {error}.") from error
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}.") from error
    return tensors, meta


def _map_one(path: Path, entry: Mapping[str, Any], base: int, size: int) -> Array:
    start, end = entry["data_offsets"]
    dtype = np.dtype(_DTYPES[entry["dtype"]])
    shape = tuple(entry["shape"])
    if base + end > size:
        raise CheckpointError(f"{path} is truncated: {size} bytes, expected at least {base + end}. Copy it again.")
    if end - start != math.prod(shape) * dtype.itemsize:
        raise CheckpointError(f"{path} is damaged: {end - start} bytes for an array {shape} of {dtype}.")
    if start == end:
        return np.zeros(shape, dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="r", offset=base + start, shape=shape).view(np.ndarray)

"""Weights of a model, whole or shared by several processes, to and from a safetensors file.

A file does not tell how many processes wrote it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from lcm_data.errors import CheckpointError, StorageError


def save_tensors(tensors: Mapping[str, Tensor], path: Path, rank: int = 0) -> None:
    """Write tensors whole; every process calls this, number 0 writes.

    Raises:
        StorageError: the file cannot be written.
    """
    whole: dict[str, Tensor] = {}
    stored: set[int] = set()
    for name, tensor in tensors.items():
        value = tensor.detach()
        value = value.full_tensor() if isinstance(value, DTensor) else value  # one at a time: only one is on the GPU
        if rank == 0:
            value = value.cpu().contiguous()
            whole[name] = value.clone() if value.data_ptr() in stored else value  # tied weights are written twice
            stored.add(value.data_ptr())
    if rank == 0:
        try:
            save_file(whole, path)
        except (SafetensorError, OSError) as error:
            raise StorageError(f"cannot write {path}: {error}. Make room, then run the same command again.") from error
        sync_file(path)


@torch.no_grad()
def load_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Fill tensors, each with its share, from a file.

    Raises:
        CheckpointError: the file is damaged, or has other names or shapes.
    """
    try:
        with safe_open(path, framework="pt") as file:
            found = set(file.keys())
            if found != tensors.keys():
                odd = sorted(found ^ tensors.keys())
                raise CheckpointError(
                    f"{path} is of another model: {len(odd)} names differ, {', '.join(odd[:4])} among them. "
                    "Check variant and sizes."
                )
            for name, tensor in tensors.items():
                shape = tuple(file.get_slice(name).get_shape())
                if shape != tuple(tensor.shape):
                    raise CheckpointError(
                        f"{path} is of another model: {name} is {shape} there and {tuple(tensor.shape)} here."
                    )
                _fill(tensor.detach(), file.get_tensor(name))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"cannot read {path}: {error}. Remove that checkpoint to use the one before.") from error


def _fill(tensor: Tensor, value: Tensor) -> None:
    if isinstance(tensor, DTensor):
        # Every process reads the file and keeps its share: nothing is sent.
        mesh, placements = tensor.device_mesh, tensor.placements
        value = distribute_tensor(value.to(tensor.device), mesh, placements, src_data_rank=None)
        tensor.to_local().copy_(value.to_local())
    else:
        tensor.copy_(value)


def sync_file(path: Path) -> None:
    """Wait until a file is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

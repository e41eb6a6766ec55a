"""Codebooks beside a corpus: saved to and loaded from local folders and fsspec URLs alike."""

from __future__ import annotations

import tempfile
from pathlib import Path

from lcm_data.errors import CheckpointError
from lcm_data.quantize.codebook import MANIFEST, TENSORS, Codebook
from lcm_data.store.files import Files, LocalFiles, open_files


def save_codebook(files: Files, codebook: Codebook) -> None:
    """Write ``codebook`` to the folder ``files``, replacing another; the manifest goes last."""
    if isinstance(files, LocalFiles):
        codebook.save(files.root, replace=True)
        return
    with tempfile.TemporaryDirectory(prefix="lcm-data-") as folder:
        local = Path(folder, "codebook")
        codebook.save(local)
        files.remove(MANIFEST)
        for name in (TENSORS, MANIFEST):
            files.publish(local / name, name)


def load_codebook(root: str) -> Codebook:
    """Load the codebook at ``root``; a remote one is copied to this machine first.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    files = open_files(root)
    if isinstance(files, LocalFiles):
        return Codebook.load(files.root)
    with tempfile.TemporaryDirectory(prefix="lcm-data-") as folder:
        for name in (MANIFEST, TENSORS):
            try:
                Path(folder, name).write_bytes(files.read(name))
            except FileNotFoundError as error:
                raise CheckpointError(
                    f"no codebook at {root}: {name} is missing. Fit one with 'lcm-data quantize'."
                ) from error
        return Codebook.load(folder)  # the mapped file stays readable after its folder is gone

"""``lcm-data codebook``: what a codebook holds, and its way to FAISS and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lcm_data.corpus import StageData
from lcm_data.errors import UsageError
from lcm_data.quantize.codebook import Codebook, Provenance
from lcm_data.quantize.faiss_file import export_faiss, import_faiss
from lcm_data.quantize.storage import load_codebook
from lcm_data.space import space_of
from lcm_data.store.files import open_files


def find_codebook(where: str) -> Codebook:
    """The codebook in a folder, or beside the corpus in it."""
    files = open_files(where)
    beside = files.child("codebook")
    return load_codebook(beside.root if beside.size("manifest.json") is not None else files.root)


def show(where: str) -> dict[str, Any]:
    """Facts of a codebook; ``levels`` are those of its quality."""
    codebook = find_codebook(where)
    made = codebook.provenance
    return {
        "fingerprint": codebook.fingerprint,
        "size": f"{codebook.num_levels} x {codebook.num_units} units of {codebook.dim} dimensions",
        "bits": round(codebook.num_levels * (codebook.num_units - 1).bit_length()),
        "encoder": made.encoder,
        "encoder_space": made.encoder_space,
        "space": made.space,
        "fit": codebook.manifest.get("fit", {}),
        "sample": dict(made.sample),
        "levels": codebook.manifest.get("quality", []),
    }


def export(where: str, file: str, *, overwrite: bool = False) -> dict[str, Any]:
    """Write a codebook as an index of FAISS."""
    codebook = find_codebook(where)
    if Path(file).exists() and not overwrite:
        raise UsageError(f"{file} exists. Name another file, or add --overwrite to replace it.")
    export_faiss(codebook, file)
    return {"file": file, "bytes": Path(file).stat().st_size, "fingerprint": codebook.fingerprint}


def import_(file: str, folder: str, *, like: str | None = None) -> dict[str, Any]:
    """Write the codebook in an index of FAISS to a folder; ``like`` is a corpus whose vectors it is for."""
    provenance = None
    if like is not None:
        data = StageData(open_files(like).child("embeddings"))
        made = data.manifest.provenance
        provenance = Provenance(
            encoder=made.get("encoder", ""),
            encoder_fingerprint=made.get("encoder_revision", ""),
            encoder_space=space_of(made),
        )
    codebook = import_faiss(file, provenance)
    if like is not None and codebook.dim != data.dim:
        raise UsageError(f"{file} is for {codebook.dim} dimensions, the vectors of {like} have {data.dim}.")
    codebook.save(folder)
    return {"folder": folder, "fingerprint": codebook.fingerprint}

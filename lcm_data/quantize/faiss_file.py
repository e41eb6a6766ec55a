"""Codebooks to FAISS and back: files of ``faiss.IndexResidualQuantizer`` that are searched and read without our code.

Such a file knows the tables only. What the codebook is for (encoder, sample, quality) lies beside it, as ``FILE.json``,
and is taken from there when the file is read again.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from lcm_data.errors import CheckpointError, StorageError, UsageError
from lcm_data.quantize.codebook import Codebook, Provenance
from lcm_data.quantize.faiss_setup import load_faiss
from lcm_data.quantize.tensorfile import as_bytes, write_file

_SKIP_TABLES = "IO_FLAG_SKIP_PRECOMPUTE_TABLE"


def export_faiss(codebook: Codebook, path: str | Path) -> None:
    """Write the index (no vectors in it, beam 1) and its description.

    The tables of all pairs of units that FAISS would compute when it reads the file (541 GB at 64 x 8192) are
    switched off in it.

    Raises:
        UsageError: the number of units is no power of two: FAISS stores whole bits.
        StorageError: the file system refused.
    """
    bits = codebook.num_units.bit_length() - 1
    if codebook.num_units != 1 << bits:
        raise UsageError(f"units: got {codebook.num_units}, allowed for FAISS: powers of two (it stores whole bits).")
    faiss = load_faiss("exporting to FAISS")
    index = faiss.IndexResidualQuantizer(codebook.dim, codebook.num_levels, bits)
    index.rq.train_type = index.rq.Train_progressive_dim | index.rq.Skip_codebook_tables
    index.rq.max_beam_size = 1
    faiss.copy_array_to_vector(np.ascontiguousarray(codebook.tables_MKD).ravel(), index.rq.codebooks)
    index.rq.is_trained = index.is_trained = True
    write_file(Path(path), [faiss.serialize_index(index)])
    description = {**codebook.manifest, "fingerprint": codebook.fingerprint}
    write_file(_beside(path), [json.dumps(description, indent=2, sort_keys=True, ensure_ascii=False).encode()])


def import_faiss(path: str | Path, provenance: Provenance | None = None) -> Codebook:
    """The codebook in a file of FAISS, with the description beside it if that is of these tables.

    Raises:
        CheckpointError: no such file, no residual quantizer, or levels of different sizes.
        UsageError: it has no description, and no ``provenance`` was given.
    """
    faiss = load_faiss("importing from FAISS")
    try:
        index = faiss.read_index(str(path), getattr(faiss, _SKIP_TABLES, 0))
    except RuntimeError as error:
        raise CheckpointError(f"cannot read {path} as an index of FAISS: {str(error).splitlines()[0]}") from error
    quantizer = getattr(index, "rq", None)
    if not isinstance(index, faiss.IndexResidualQuantizer) or quantizer is None or not quantizer.is_trained:
        raise CheckpointError(f"{path} holds a {type(index).__name__}, expected a trained IndexResidualQuantizer.")
    bits = faiss.vector_to_array(quantizer.nbits)
    if len(set(bits.tolist())) != 1:
        raise CheckpointError(f"{path} has levels of {sorted(set(bits.tolist()))} bits; all must have the same number.")
    tables = faiss.vector_to_array(quantizer.codebooks).reshape(len(bits), 1 << int(bits[0]), quantizer.d)
    described = _described(path, hashlib.sha256(as_bytes(tables)).hexdigest())
    if described is not None:
        return Codebook(tables, described)
    if provenance is None:
        raise UsageError(
            f"{_beside(path).name} does not lie beside {path}, or is of other tables: say what the vectors are with "
            "--like CORPUS (a corpus with embeddings of the same space)."
        )
    return Codebook.build(tables, provenance, fit={"imported": "faiss.IndexResidualQuantizer"})


def _beside(path: str | Path) -> Path:
    return Path(f"{path}.json")


def _described(path: str | Path, tensor_sha256: str) -> dict[str, object] | None:
    try:
        manifest = json.loads(_beside(path).read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise StorageError(f"cannot read {_beside(path)}: {error}. Remove it to import the tables alone.") from error
    if not isinstance(manifest, dict) or manifest.get("tensor_sha256") != tensor_sha256:
        return None
    manifest.pop("fingerprint", None)
    return manifest

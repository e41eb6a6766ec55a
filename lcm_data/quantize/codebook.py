"""The codebook: tables of unit centroids that turn embeddings into codes and back, and their checked artefact.

Encoding is greedy unless asked otherwise (beam 1, as in the LCM paper §2.3.5): level by level the unit nearest to
what is still unexplained. So the first k codes of a row are its code with k levels, and prefix decoding is exact. How
a codebook is fitted is the business of ``lcm_data.quantize.fit``, how units are found that of ``encode``.

Shapes: N rows, M levels, K units a level, D dimensions.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lcm_data.errors import CheckpointError, UsageError
from lcm_data.quantize.encode import Encoder
from lcm_data.quantize.engines import choose_engine, load_engine
from lcm_data.quantize.tensorfile import as_bytes, canonical_json, map_tensors, write_file, write_tensors
from lcm_data.quantize.vectors import Array, blocks, check_finite, check_matrix, valid_rows

SCHEMA_VERSION = 1
KIND = "lcm-data RVQ codebook"
MANIFEST = "manifest.json"
TENSORS = "codebooks.safetensors"
MAX_UNITS = 65536
"""Codes are stored as uint16."""
_DECODED_ROWS = 128


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What the vectors of a codebook are; part of its fingerprint.

    ``space`` says whether the vectors are as the encoder gave them (``raw``) or went through the normaliser with the
    fingerprint ``normalizer``; ``encoder_space`` names the encoder's embedding space (``lcm_data.space``), "" if
    unknown; ``sample`` tells how the rows were chosen (seed, counts per language, source).
    """

    encoder: str
    encoder_fingerprint: str = ""
    encoder_space: str = ""
    space: Literal["raw", "normalized"] = "raw"
    normalizer: str = ""
    sample: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.space not in ("raw", "normalized"):
            raise UsageError(f"space: got {self.space!r}, allowed: 'raw', 'normalized'.")
        if (self.space == "normalized") != bool(self.normalizer):
            raise UsageError(
                f"space {self.space!r} with normalizer {self.normalizer!r}: give the fingerprint of the normaliser "
                "with space 'normalized', and none with 'raw'."
            )


@dataclass(frozen=True, kw_only=True)
class LevelQuality:
    """How good the levels up to and including ``level`` (counted from 1) are together, and how its units are used.

    NMSE is the squared error over the variance (1: nothing explained), cosine is to the original vector; both are
    means over rows. Usage is that of the training rows: ``used`` units have at least one, ``dead`` none, perplexity
    is 2 to the entropy of the usage in bits (the number of units if all are used alike).
    """

    level: int
    heldout_nmse: float
    train_nmse: float
    heldout_cosine: float
    used: int
    dead: int
    perplexity: float
    max_share: float


class Codebook:
    """An RVQ codebook: ``tables_MKD`` float32 (possibly memory-mapped, never written) and its ``manifest``."""

    def __init__(self, tables_MKD: Array, manifest: Mapping[str, Any]) -> None:
        assert tables_MKD.dtype == np.float32
        assert tables_MKD.ndim == 3
        self.tables_MKD = tables_MKD
        self.manifest: dict[str, Any] = dict(manifest)
        self.num_levels, self.num_units, self.dim = tables_MKD.shape

    @classmethod
    def build(
        cls,
        tables_MKD: Array,
        provenance: Provenance,
        *,
        fit: Mapping[str, Any] | None = None,
        quality: tuple[LevelQuality, ...] = (),
    ) -> Codebook:
        """A codebook from centroids [M, K, D] and what is known about them.

        Raises:
            UsageError: wrong dtype or shape, more than 65536 units, or values that are not finite.
        """
        if tables_MKD.dtype != np.float32 or tables_MKD.ndim != 3 or 0 in tables_MKD.shape:
            raise UsageError(
                f"tables: got {tables_MKD.dtype} {tables_MKD.shape}, expected float32 [levels, units, dim]."
            )
        if tables_MKD.shape[1] > MAX_UNITS:
            raise UsageError(f"num_units: got {tables_MKD.shape[1]}, allowed: at most {MAX_UNITS} (codes are uint16).")
        check_finite(tables_MKD.reshape(-1, tables_MKD.shape[2]), "tables")
        tables_MKD = np.ascontiguousarray(tables_MKD)
        num_levels, num_units, dim = tables_MKD.shape
        manifest = {
            "kind": KIND,
            "schema_version": SCHEMA_VERSION,
            "num_levels": num_levels,
            "num_units": num_units,
            "dim": dim,
            **asdict(provenance),
            "fit": dict(fit or {}),
            "quality": [asdict(level) for level in quality],
            "tensor_sha256": hashlib.sha256(as_bytes(tables_MKD)).hexdigest(),
        }
        # Through JSON once, so that a built and a loaded codebook are equal to the last type.
        return cls(tables_MKD, json.loads(canonical_json(manifest)))

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the canonical manifest, which holds that of the tables: the identity of the codebook."""
        return hashlib.sha256(canonical_json(self.manifest).encode()).hexdigest()

    @property
    def provenance(self) -> Provenance:
        known = [item.name for item in fields(Provenance) if item.name in self.manifest]  # older ones know less
        return Provenance(**{name: self.manifest[name] for name in known})

    @property
    def quality(self) -> tuple[LevelQuality, ...]:
        return tuple(LevelQuality(**level) for level in self.manifest["quality"])

    # -- files ---------------------------------------------------------------------------------------------------

    def save(self, directory: str | Path, *, replace: bool = False) -> None:
        """Write ``codebooks.safetensors`` and then ``manifest.json``; the same codebook gives the same bytes.

        A directory without a matching manifest is not a codebook, so a crash in between leaves none. ``replace``
        allows another codebook to be overwritten; processes that have it mapped keep the old one.

        Raises:
            UsageError: the directory holds another codebook and ``replace`` is not set.
            CheckpointError: the directory holds something else that is called ``manifest.json``.
            StorageError: the file system refused.
        """
        folder = Path(directory)
        if replace:
            (folder / MANIFEST).unlink(missing_ok=True)
        elif (folder / MANIFEST).exists():
            existing = _read_manifest(folder)["fingerprint"]
            if existing != self.fingerprint:
                raise UsageError(
                    f"{folder} already holds another codebook ({existing[:12]}, this one is {self.fingerprint[:12]}). "
                    "Codes made with it would lose their meaning: choose a new directory, or replace it on purpose."
                )
        write_tensors(folder / TENSORS, {"codebooks": self.tables_MKD}, {"kind": KIND})
        manifest = {**self.manifest, "fingerprint": self.fingerprint}
        text = json.dumps(manifest, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        write_file(folder / MANIFEST, [text.encode()])

    @classmethod
    def load(cls, directory: str | Path, *, verify: bool = False) -> Codebook:
        """Map the codebook in ``directory``: milliseconds at any size, one copy in memory for all processes.

        Shape, file size and the manifest's own hash are always checked; ``verify`` also hashes the tables (about a
        second for 2 GB).

        Raises:
            CheckpointError: missing, truncated, changed, from a newer version, or not a codebook.
        """
        folder = Path(directory)
        manifest = _read_manifest(folder)
        recorded = manifest.pop("fingerprint")
        tensors, _ = map_tensors(folder / TENSORS)
        shape = (manifest["num_levels"], manifest["num_units"], manifest["dim"])
        tables = tensors.get("codebooks")
        if tables is None or tables.shape != shape or tables.dtype != np.float32:
            found = "nothing" if tables is None else f"{tables.dtype} {tables.shape}"
            raise CheckpointError(f"{folder / TENSORS} holds {found}, but {MANIFEST} says float32 {shape}.")
        codebook = cls(tables, manifest)
        if codebook.fingerprint != recorded:
            raise CheckpointError(f"{folder / MANIFEST} was changed after it was written: its fingerprint is wrong.")
        if verify and hashlib.sha256(as_bytes(tables)).hexdigest() != manifest["tensor_sha256"]:
            raise CheckpointError(f"{folder / TENSORS} is damaged: its SHA-256 is not the recorded one. Copy it again.")
        return codebook

    # -- codes ---------------------------------------------------------------------------------------------------

    def valid_rows(self, x_ND: Array) -> Array:
        """Mask [N] of the rows ``encode`` is meant for: finite and not all zero."""
        check_matrix(x_ND, self.dim)
        return valid_rows(x_ND)

    def encoder(self, engine: str = "faiss", *, beam: int = 1, device: str = "auto") -> Encoder:
        """What ``encode`` uses; worth keeping for many calls (torch prepares the tables, half their size again).

        Raises:
            UsageError: an engine, device or beam that there is not.
            MissingExtraError: the engine is not installed.
        """
        name = choose_engine(engine, num_units=self.num_units, dim=self.dim)
        return Encoder(self.tables_MKD, load_engine(name, device), beam)

    def encode(self, x_ND: Array, encoder: Encoder | None = None) -> tuple[Array, Array]:
        """Codes uint16 [N, M] and the Euclidean norm float32 [N] of what they leave unexplained.

        ``x_ND`` (float16, float32 or float64) lies in the codebook's space: normalise it first if
        ``provenance.space`` says so. Without an ``encoder`` of this codebook FAISS searches, greedily. Memory beyond
        the result does not grow with N.

        Raises:
            UsageError: wrong type, dtype or shape, or rows with NaN or infinity (see ``valid_rows``).
            MissingExtraError: FAISS is not installed.
        """
        check_matrix(x_ND, self.dim)
        check_finite(x_ND)
        return (encoder or self.encoder()).encode(x_ND)

    def decode(self, codes_NL: Array, levels: int | None = None) -> Array:
        """Vectors float32 [N, D]: the sum of the units of the first ``levels`` columns (all by default).

        ``codes_NL`` may have fewer columns than the codebook has levels. Needs numpy only.

        Raises:
            UsageError: wrong dtype or shape, ``levels`` out of range, or a code that is no unit.
        """
        self._check_codes(codes_NL)
        levels = codes_NL.shape[1] if levels is None else levels
        if not 0 <= levels <= codes_NL.shape[1]:
            raise UsageError(f"levels: got {levels}, allowed: 0 to {codes_NL.shape[1]} (the columns of the codes).")
        if levels and "torch" in sys.modules:  # the same bits in less than half the time
            from lcm_data.quantize.torch_engine import sums_of_units

            return sums_of_units(self.tables_MKD, codes_NL[:, :levels])
        x_ND = np.zeros((len(codes_NL), self.dim), dtype=np.float32)
        units = np.empty((_DECODED_ROWS, self.dim), dtype=np.float32)
        for rows in blocks(len(codes_NL), _DECODED_ROWS):  # the sums of a block stay in the cache
            for level in range(levels):
                ids = codes_NL[rows, level].astype(np.intp)
                x_ND[rows] += np.take(self.tables_MKD[level], ids, axis=0, out=units[: len(ids)], mode="clip")
        return x_ND

    def cumulative(self, codes_NL: Array) -> Array:
        """Vectors float32 [N, L, D]: entry l is the decoding of the first l + 1 levels (the input of Quant-LCM)."""
        self._check_codes(codes_NL)
        x_NLD = np.empty((*codes_NL.shape, self.dim), dtype=np.float32)
        for level in range(codes_NL.shape[1]):
            unit_ND = self.tables_MKD[level][codes_NL[:, level]]
            x_NLD[:, level] = unit_ND if level == 0 else x_NLD[:, level - 1] + unit_ND
        return x_NLD

    def _check_codes(self, codes_NL: Array) -> None:
        if not np.issubdtype(codes_NL.dtype, np.integer) or codes_NL.ndim != 2 or codes_NL.shape[1] > self.num_levels:
            raise UsageError(
                f"codes: got {codes_NL.dtype} {codes_NL.shape}, expected integers [rows, levels] "
                f"with at most {self.num_levels} levels."
            )
        if codes_NL.size and (codes_NL.max() >= self.num_units or codes_NL.min() < 0):
            raise UsageError(
                f"codes: values from {codes_NL.min()} to {codes_NL.max()}, allowed: 0 to {self.num_units - 1}. "
                "They were made with another codebook."
            )


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CheckpointError(f"{folder} is not a codebook: it has no {MANIFEST}.") from error
    except (ValueError, OSError) as error:
        raise CheckpointError(f"cannot read {path}: {error}.") from error
    if not isinstance(manifest, dict) or manifest.get("kind") != KIND:
        raise CheckpointError(f"{path} does not describe a codebook (its kind is not {KIND!r}).")
    if manifest.get("schema_version") != SCHEMA_VERSION:
        raise CheckpointError(
            f"{path} has schema version {manifest.get('schema_version')}, this program reads {SCHEMA_VERSION}. "
            "Use the release of lcm-data that wrote it, or a newer one."
        )
    missing = {"num_levels", "num_units", "dim", "tensor_sha256", "fingerprint"} - manifest.keys()
    if missing:
        raise CheckpointError(f"{path} is incomplete: it lacks {', '.join(sorted(missing))}.")
    return manifest

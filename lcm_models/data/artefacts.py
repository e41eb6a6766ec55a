"""What belongs to a corpus besides its rows: its normaliser, its codebook, and its concept for the end of a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np

from lcm_data.end_of_text import END_OF_TEXT, Concept, local_copy
from lcm_data.errors import UsageError
from lcm_data.normalize import Normalizer
from lcm_data.quantize.codebook import Codebook
from lcm_data.quantize.storage import load_codebook
from lcm_data.space import check_same_space
from lcm_data.store.files import open_files
from lcm_data.store.manifest import MANIFEST_PATH
from lcm_models.data.documents import Array, SourceFacts
from lcm_models.data.warn import log

NORMALIZER = "normalizer.safetensors"


def find_end_of_text(setting: str | None, sources: Sequence[SourceFacts]) -> Concept | None:
    """The concept of the setting ``end_of_text``; "auto" takes that of the first source that has one.

    Raises:
        CheckpointError, UsageError, SpaceError: there is none, or it does not fit the sources.
    """
    if setting is None:
        return None
    names = [setting] if setting != "auto" else [f"{source.name}/{END_OF_TEXT}" for source in sources]
    for name in names:
        if setting == "auto" and open_files(name.removesuffix(f"/{END_OF_TEXT}")).size(END_OF_TEXT) is None:
            continue
        concept = Concept.load(name)
        for source in sources:
            check_concept(concept, name, source)
        return concept
    raise UsageError(
        f"no end-of-text concept: {names[0]} does not exist. 'lcm-data encode' writes it if the encoder knows English; "
        "set data.end_of_text to a file that lcm_data.end_of_text.Concept wrote, or to null for none."
    )


def find_normalizer(source: SourceFacts, file: str | None = None) -> Normalizer:
    """The normaliser in ``file``, or that of the corpus.

    Raises:
        UsageError: there is none, it is for another width, or that of the corpus is older than its embeddings.
        SpaceError: it was fitted in another embedding space.
    """
    name = file or f"{source.name}/{NORMALIZER}"
    try:
        with local_copy(name) as path:
            normalizer = Normalizer.load(path)
    except FileNotFoundError as error:
        is_corpus = open_files(source.name).size(f"embeddings/{MANIFEST_PATH}") is not None
        advice = f"Run 'lcm-data normalize {source.name}', or" if is_corpus else "Fit one (lcm_data.normalize), and"
        raise UsageError(f"no normaliser: {name} does not exist. {advice} set model.normalizer to its file.") from error
    advice = f"Fit one on this corpus with 'lcm-data normalize {source.name}'."
    if normalizer.dim != source.dim:
        raise UsageError(
            f"the normaliser {name} is for {normalizer.dim} dimensions, {source.name} has {source.dim}. {advice}"
        )
    fitted_in: Mapping[str, object] = {**asdict(normalizer.info), "dim": normalizer.dim}
    check_same_space(fitted_in, source.provenance, f"the normaliser {name}", source.name, advice)
    if not normalizer.info.is_of(source.provenance):
        said = f"the normaliser {name} was fitted on vectors of other weights than those of {source.name}"
        if file is None:
            raise UsageError(
                f"{said} now. Run 'lcm-data normalize {source.name} --overwrite', or set model.normalizer to another "
                "file."
            )
        log.warning("%s, in the same space", said)
    return normalizer


def find_codebook(source: SourceFacts, folder: str | None = None) -> Codebook:
    """The codebook that the codes of a source were made with: in ``folder``, or beside the corpus.

    Raises:
        CheckpointError: there is none.
        UsageError: the codes were made with another one.
    """
    name = folder or f"{source.name}/codebook"
    codebook = load_codebook(name)
    if source.codebook and codebook.fingerprint != source.codebook:
        raise UsageError(
            f"the codes of {source.name} were made with the codebook {source.codebook[:12]}, {name} is "
            f"{codebook.fingerprint[:12]}. Give that codebook, or run 'lcm-data quantize --overwrite'."
        )
    return codebook


def codes_of(concept: Concept, codebook: Codebook) -> Array:
    """Codes uint16 [L] of a special concept; one vector needs no FAISS.

    Raises:
        UsageError: the codebook is for normalised vectors.
    """
    if codebook.provenance.space != "raw":
        raise UsageError("special concepts have no codes in a codebook of normalised vectors: set end_of_text to null.")
    rest = concept.vector.astype(np.float32)
    codes = np.empty(codebook.num_levels, np.uint16)
    for level, table_KD in enumerate(codebook.tables_MKD):
        codes[level] = np.square(table_KD - rest).sum(axis=1).argmin()
        rest = rest - table_KD[codes[level]]
    return codes


def check_concept(concept: Concept, name: str, source: SourceFacts) -> None:
    """Refuse a concept of another width or space than the source, or that is not finite."""
    if concept.vector.shape != (source.dim,):
        raise UsageError(
            f"{name} has shape {concept.vector.shape}, {source.name} has concepts of {source.dim} dimensions: "
            "encode it with the encoder of the corpus."
        )
    if not np.isfinite(concept.vector).all():
        raise UsageError(f"{name} is not finite: encode it again.")
    provenance = {**asdict(concept.info), "dim": len(concept.vector)}
    check_same_space(provenance, source.provenance, name, source.name, "Encode it with the encoder of the corpus.")

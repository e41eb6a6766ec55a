"""What is known of a trained model before its weights are loaded, and whether it fits a corpus."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lcm_data.end_of_text import END_OF_TEXT, Concept
from lcm_data.errors import CheckpointError, UsageError
from lcm_data.space import check_same_space, has_other_weights
from lcm_data.store.files import open_files
from lcm_data.store.shard import sha256_of
from lcm_data.tables import resolve
from lcm_models import LCMS
from lcm_models.config import Frozen, make_config
from lcm_models.data.artefacts import check_concept
from lcm_models.data.documents import SourceFacts
from lcm_models.diffusion.sampler import DiffusionSampling, sampling_levels
from lcm_models.model import ConceptModel
from lcm_models.train.config import checked

log = logging.getLogger("lcm_models.generate")


@dataclass(frozen=True)
class TrainedFacts:
    """A checkpoint without its weights; ``notes`` is what it says of itself."""

    folder: Path
    kind: type[ConceptModel]
    notes: dict[str, Any]

    @property
    def variant(self) -> str:
        """Its name in ``LCMS``."""
        return str(self.notes["variant"])

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Of the concepts it was trained on: encoder, space, dim."""
        found: Mapping[str, Any] = self.notes.get("provenance", {})
        return found

    @property
    def dim(self) -> int:
        """Width of its concepts."""
        return int(self.notes["config"]["concept_dim"])

    @property
    def window(self) -> int:
        """The longest documents it has seen in training, or takes if that is not known."""
        return min(self.max_len, int(self.notes.get("data", {}).get("max_len", self.max_len)))

    @property
    def max_len(self) -> int:
        """The longest documents it takes."""
        return int(self.notes["config"]["max_len"])

    def warn_of_length(self, read: int, new: int, advice: str) -> None:
        """Say so if documents of so many concepts, as far as the model takes them, are longer than in training."""
        length = min(read + new, self.max_len)
        if length > self.window:
            grows = f"grow to {length} concepts ({read} read, {length - read} new)" if new else f"have {read} concepts"
            log.warning(
                "documents may %s, and %s was trained on %d at most: what comes after is extrapolated. %s",
                grows, self.folder, self.window, advice,
            )  # fmt: skip

    @property
    def step(self) -> int:
        """Steps it was trained for."""
        name = self.folder.name
        return int(name.rpartition("-")[2]) if name.startswith("step-") else 0

    def revision(self) -> str:
        """SHA-256 of its weights and settings."""
        from lcm_models.train.state import AVERAGES, WEIGHTS

        name = AVERAGES if (self.folder / AVERAGES).is_file() else WEIGHTS  # as ``load_model`` chooses
        with open(self.folder / name, "rb") as stream:
            weights = sha256_of(stream)
        said = json.dumps([self.variant, self.notes["config"], self.notes.get("codebook", ""), weights], sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()

    def check_corpus(self, dim: int, provenance: Mapping[str, Any], root: str) -> None:
        """Refuse to read concepts that the model has not learned.

        Raises:
            UsageError: they have another width.
            SpaceError: they are of another embedding space.
        """
        if dim != self.dim:
            raise UsageError(
                f"the model {self.folder} takes concepts of {self.dim} dimensions, those of {root} have {dim}. "
                "Give a corpus of the encoder it was trained with."
            )
        advice = "Give a corpus of the encoder it was trained with."
        check_same_space(self.provenance, provenance, f"the model {self.folder}", root, advice)
        if has_other_weights(self.provenance, provenance):
            log.warning(
                "%s was encoded with other weights than what the model %s learned, under the name of one space: unless "
                "one encoder was made for the space of the other, the model does not know its concepts",
                root, self.folder,
            )  # fmt: skip

    def sampling(self, given: Mapping[str, Any]) -> Frozen:
        """Settings of sampling.

        Raises:
            UnknownNameError: no such setting for this variant; names the nearest.
            UsageError: a value does not fit.
        """
        settings = checked(self.kind.sampling_type, f"sampling of {self.variant}", given)
        if isinstance(settings, DiffusionSampling):  # said here, not document by document
            sampling_levels(self.notes["config"]["diffusion"]["schedule"]["num_levels"], settings.steps)
        return settings

    def end_of_text(self, setting: str, corpus: str, provenance: Mapping[str, Any]) -> tuple[str, Concept] | None:
        """The concept that ends a document, and its file.

        ``setting`` is "none", a file, or "auto": that of the checkpoint, of ``corpus`` or of a corpus the model was
        trained on, whichever is there first; None if there is none, or the model has not learned to end documents.

        Raises:
            CheckpointError, UsageError, SpaceError: the file is missing, damaged, or not for these concepts.
        """
        if setting == "none":
            return None
        names = [setting]
        if setting == "auto":
            learned = self.notes.get("data", {}).get("end_of_text", "auto")
            if learned is None:
                return None
            own = f"{self.folder}/{END_OF_TEXT}"
            folders = [corpus, *(source["path"] for source in self.notes.get("sources", ()))]
            names = [f"{root}/{END_OF_TEXT}" for root in folders if open_files(root).size(END_OF_TEXT) is not None]
            names = names if learned == "auto" else [learned]
            names = [own] if (self.folder / END_OF_TEXT).is_file() else names
        if not names:
            return None
        try:
            concept = Concept.load(names[0])
        except FileNotFoundError as error:
            raise UsageError(f"no end-of-text concept: {names[0]} does not exist. Name another, or 'none'.") from error
        facts = SourceFacts(corpus, self.dim, np.dtype(np.float32), 0, dict(provenance), "")
        check_concept(concept, names[0], facts)
        return names[0], concept


def read_trained(path: str) -> TrainedFacts:
    """The facts of a run's newest checkpoint, or of one checkpoint.

    Raises:
        UsageError: there is none.
        CheckpointError: it is no Large Concept Model.
    """
    from lcm_models.train.run import find_checkpoint
    from lcm_models.train.state import NOTES

    folder = find_checkpoint(path)
    try:
        notes = json.loads((folder / NOTES).read_text("utf-8"))
        kind: type[ConceptModel] = resolve(LCMS, notes["variant"], "model")
        make_config(kind.config_type, None, notes["config"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{folder} holds no Large Concept Model ({error}). Give a folder that 'lcm-data train' wrote."
        ) from error
    return TrainedFacts(folder, kind, notes)

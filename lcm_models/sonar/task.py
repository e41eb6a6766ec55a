"""The task of training a SONAR space: gives networks, data and notes to the trainer of ``lcm_models.train``."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lcm_data.errors import UsageError
from lcm_data.normalize import Normalizer
from lcm_data.quantize.storage import load_codebook
from lcm_data.version import __version__
from lcm_models.sonar.batches import Batches, SonarBatch, SonarLoader, validation_batches
from lcm_models.sonar.config import BatchConfig, SonarConfig
from lcm_models.sonar.disturb import Disturbance
from lcm_models.sonar.model import SonarModel
from lcm_models.sonar.prepared import ABOUT, TOKENIZER, open_prepared
from lcm_models.train import run

KIND = "sonar"


def read_notes(path: str) -> dict[str, Any]:
    """What a checkpoint (or the newest of a run) says of its SONAR space.

    Raises:
        UsageError: there is no checkpoint.
        CheckpointError: it is no SONAR space, or damaged.
    """
    return run.read_notes(path, {KIND: "a SONAR space"})


@dataclass(frozen=True)
class SonarTask:
    """Train ``config`` on the prepared data that ``batches`` names.

    ``normalizer`` and ``codebook`` are paths, needed by the settings that disturb vectors (``disturb``).
    ``planned_vocab`` stands for the size of the vocabulary as long as the data are not prepared.
    """

    config: SonarConfig
    batches: BatchConfig
    normalizer: str | None = None
    codebook: str | None = None
    planned_vocab: int = 0

    def build(self) -> SonarModel:
        """The networks with random weights."""
        data = open_prepared(self.batches.path)
        model = SonarModel(self.config, data.vocab_size)
        model.disturb = self.disturbance()
        if self.config.sampled_softmax:
            model.token_share_V = torch.from_numpy(Batches(data, self.batches).token_share()).float()
        return model

    def disturbance(self) -> Disturbance | None:
        """What is done to vectors before they are decoded, if anything.

        Raises:
            UsageError: a normaliser or codebook is needed and not given, or of another width.
            CheckpointError: one of them cannot be read.
        """
        config = self.config
        if not config.noise and not config.quantized_share:
            return None
        if config.noise and self.normalizer is None:
            raise UsageError("model.noise needs the scale of the space: set model.normalizer to the file that fits it.")
        if config.quantized_share and self.codebook is None:
            raise UsageError("model.quantized_share needs codes: set model.codebook to the folder of a codebook.")
        normalizer = None if self.normalizer is None else Normalizer.load(self.normalizer)
        codebook = None if self.codebook is None else load_codebook(self.codebook)
        for name, part in (("normaliser", normalizer), ("codebook", codebook)):
            if part is not None and part.dim != config.width:
                raise UsageError(f"the {name} is for {part.dim} dimensions, the space has {config.width}.")
        if codebook is not None and codebook.provenance.space == "normalized" and normalizer is None:
            raise UsageError("the codebook is of normalised vectors: set model.normalizer, too.")
        return Disturbance(config, normalizer, codebook)

    def loader(self, rank: int, world_size: int) -> SonarLoader:
        """Endless batches of one process."""
        return SonarLoader(open_prepared(self.batches.path), self.batches, rank, world_size)

    def validation(self) -> Iterator[SonarBatch]:
        """One pass over the held-out pairs."""
        return validation_batches(open_prepared(self.batches.path), self.batches)

    def size(self, batch: SonarBatch) -> int:
        """Tokens that are decoded."""
        return len(batch.target_U)

    def identity(self) -> dict[str, dict[str, Any]]:
        """Sizes and losses, and what decides the batches."""
        data = {"prepared": open_prepared(self.batches.path).fingerprint, **self.batches.identity()}
        disturb = self.disturbance()
        parts = {"normalizer": disturb and disturb.normalizer, "codebook": disturb and disturb.codebook}
        marks = {name: part.fingerprint for name, part in parts.items() if part}
        return {"model": {**self.config.model_dump(mode="json"), **marks}, "data": data}

    def notes(self) -> dict[str, Any]:
        """What ``lcm_models.sonar.export`` needs, and where the networks come from."""
        data = open_prepared(self.batches.path)
        return {
            "kind": KIND,
            "config": self.config.model_dump(mode="json"),
            "languages": list(data.languages),
            "vocab_size": data.vocab_size,
            "data": self.batches.identity(),
            "prepared": data.about,
            "lcm_data": __version__,
        }

    def write_assets(self, folder: Path) -> None:
        """The tokenizer."""
        shutil.copyfile(open_prepared(self.batches.path).folder / TOKENIZER, folder / TOKENIZER)

    def describe(self) -> dict[str, int]:
        """Parameters, those that learn, and tokens of a batch."""
        is_prepared = Path(self.batches.path, ABOUT).is_file()
        vocab_size = open_prepared(self.batches.path).vocab_size if is_prepared else self.planned_vocab
        with torch.device("meta"):
            model = SonarModel(self.config, vocab_size)
        return {
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "learning": sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
            "batch_concepts": self.batches.batch_tokens,
        }

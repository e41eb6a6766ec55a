"""The task of learning a Large Concept Model from corpora: puts a variant, its data and its normaliser together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from lcm_data.end_of_text import END_OF_TEXT
from lcm_data.errors import InputError, UsageError
from lcm_data.store.files import absolute
from lcm_data.store.shard import sha256_of
from lcm_data.tables import resolve
from lcm_data.version import __version__
from lcm_models import LCMS
from lcm_models.checkpoint import CODEBOOK, KIND
from lcm_models.config import ModelConfig, make_config
from lcm_models.data import ConceptLoader, DataConfig, find_codebook, find_normalizer
from lcm_models.data.artefacts import find_end_of_text
from lcm_models.data.documents import SourceFacts
from lcm_models.data.loader import open_sources
from lcm_models.diffusion.fragility import FragilityRegressor
from lcm_models.diffusion.model import DiffusionModel, DiffusionModelConfig
from lcm_models.model import Batch, ConceptModel
from lcm_models.quant_lcm import QuantLCM


@dataclass(frozen=True)
class ConceptTask:
    """Train ``variant`` with ``config`` on ``data``; ``make_task`` makes one that fits together.

    ``normalizer`` and ``codebook`` are paths, by default those of the first corpus; normaliser "none" is for concepts
    that are normal already. ``facts`` is what is known of the data.
    """

    variant: str
    config: ModelConfig
    data: DataConfig
    normalizer: str | None
    codebook: str | None
    facts: Mapping[str, Any]

    def build(self) -> ConceptModel:
        """The model with its normaliser, and codebook if it needs one."""
        model: ConceptModel = resolve(LCMS, self.variant, "model")(self.config)
        facts = _facts(self.data)[0]
        if self.normalizer != "none":
            model.set_normalizer(find_normalizer(facts, self.normalizer))
        if isinstance(model, QuantLCM):
            model.set_codebook(find_codebook(facts, self.codebook))
        if isinstance(model, DiffusionModel) and model.config.diffusion.regressor:
            model.set_fragility(FragilityRegressor.load(model.config.diffusion.regressor))
        return model

    def loader(self, rank: int, world_size: int) -> ConceptLoader:
        """Endless batches of one process."""
        return ConceptLoader(self.data, rank, world_size)

    def validation(self) -> ConceptLoader:
        """One pass over the validation split."""
        return ConceptLoader(self.data.held_out())

    def size(self, batch: Batch) -> int:
        """Concepts, without padding."""
        return int((batch.doc_BS >= 0).sum())

    def identity(self) -> dict[str, dict[str, Any]]:
        """Variant and sizes, and what decides the batches."""
        parts = {name: self.facts[name] for name in ("normalizer", "codebook", "fragility") if name in self.facts}
        model = {**self.config.model_dump(mode="json"), "variant": self.variant, **parts}
        model.get("diffusion", {}).pop("regressor", None)  # what is in the file counts, not where it is
        return {"model": model, "data": self.data.identity()}

    def notes(self) -> dict[str, Any]:
        """All that ``lcm_models.load_model`` needs, and where the model comes from."""
        return {
            "kind": KIND,
            "variant": self.variant,
            "config": self.config.model_dump(mode="json"),
            **self.facts,
            "data": self.data.model_dump(mode="json"),
            "lcm_data": __version__,
        }

    def write_assets(self, folder: Path) -> None:
        """What weights do not hold: the codebook, and the concept that documents ended with."""
        facts = _facts(self.data)
        if self.facts["codebook"]:
            find_codebook(facts[0], self.codebook).save(folder / CODEBOOK)
        end = find_end_of_text(self.data.end_of_text, facts)
        if end is not None:
            end.write(folder / END_OF_TEXT)

    def describe(self) -> dict[str, int]:
        """Parameters, those that learn, and concepts of a batch at most."""
        with torch.device("meta"):
            model: ConceptModel = resolve(LCMS, self.variant, "model")(self.config)
        columns = self.data.batch_concepts or (self.data.batch_rows or 1) * self.data.max_len
        return {
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "learning": sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
            "batch_concepts": columns,
        }


def make_task(
    variant: str,
    preset: str | None,
    model: Mapping[str, Any],
    data: DataConfig,
    *,
    normalizer: str | None = None,
    codebook: str | None = None,
    validates: bool = True,
) -> ConceptTask:
    """A task whose parts fit together: sizes that were not given are those of the data.

    Raises:
        UnknownNameError: no such variant, preset or setting.
        UsageError, InputError, SpaceError, CheckpointError: data, normaliser, codebook and model do not fit, or one is
            missing; said before anything starts.
    """
    kind: type[ConceptModel] = resolve(LCMS, variant, "model")
    values = dict(model)
    data = data.model_copy(update={"with_codes": kind.needs_codes})
    loader = ConceptLoader(data.model_copy(update={"prefetch": 0}))
    facts: dict[str, Any] = {
        "provenance": dict(loader.provenance),
        "sources": [{"path": absolute(each.name), "identity": each.identity} for each in _facts(data)],
        "normalizer": "" if normalizer == "none" else loader.normalizer(normalizer).fingerprint,
        "codebook": "",
    }
    values.setdefault("concept_dim", loader.dim)
    if kind.needs_codes:
        book = loader.codebook(codebook)
        facts["codebook"] = book.fingerprint
        values.setdefault("num_levels", book.num_levels)
        values.setdefault("num_units", book.num_units)
    config = make_config(kind.config_type, preset, values)
    _check(config, data, loader.dim)
    if isinstance(config, DiffusionModelConfig) and config.diffusion.regressor:
        with open(config.diffusion.regressor, "rb") as stream:
            facts["fragility"] = sha256_of(stream)
        found = config.diffusion.model_copy(update={"regressor": absolute(config.diffusion.regressor)})
        config = config.model_copy(update={"diffusion": found})
    if validates:
        _check_validation(data)
    normalizer = normalizer if normalizer in (None, "none") else absolute(normalizer)
    codebook = codebook and absolute(codebook)
    return ConceptTask(variant, config, data.absolute(), normalizer, codebook, facts)


def _facts(data: DataConfig) -> list[SourceFacts]:
    return [source.facts for source in open_sources(data)]


def _check(config: ModelConfig, data: DataConfig, dim: int) -> None:
    if config.concept_dim != dim:
        raise UsageError(f"model.concept_dim is {config.concept_dim}, the corpus has {dim} dimensions: leave it out.")
    if isinstance(config, DiffusionModelConfig) and config.diffusion.weighting == "fragility":
        if config.diffusion.regressor is None:
            raise UsageError(
                "model.diffusion.weighting is 'fragility': set model.diffusion.regressor to the file of a regressor "
                "(see lcm_models.diffusion.fragility), or choose 'none' or 'snr'."
            )
        found = FragilityRegressor.load(config.diffusion.regressor).dim
        if found != dim:
            raise UsageError(
                f"{config.diffusion.regressor} is for {found} dimensions, the corpus has {dim}: fit one on this corpus."
            )
    if data.max_len > config.max_len:
        raise UsageError(
            f"data.max_len is {data.max_len}, and the model takes {config.max_len} concepts (model.max_len): "
            "lower the one or raise the other."
        )


def _check_validation(data: DataConfig) -> None:
    advice = "Hold some documents out (lcm-data segment --validation 0.01), or set train.valid_every=0."
    try:
        found = list(islice(ConceptLoader(data.held_out().model_copy(update={"prefetch": 0})), 1))
    except (InputError, UsageError) as error:
        raise UsageError(f"nothing to validate on: {error} {advice}") from error
    if not found:
        raise UsageError(f"nothing to validate on: the validation split has no document that is long enough. {advice}")

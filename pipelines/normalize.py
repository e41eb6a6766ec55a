"""``lcm-data normalize``: the robust scaler of the embedding space, fitted on a sample of a corpus."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from lcm_data.corpus import StageData
from lcm_data.errors import PlanMismatchError
from lcm_data.normalize import Normalizer
from lcm_data.progress import Show, silent
from lcm_data.space import space_of
from lcm_data.store.files import open_files
from pipelines.sampling import sample_embeddings
from pipelines.stage import refuse_outdated

FILE = "normalizer.safetensors"


class NormalizeConfig(BaseModel):
    """Settings of ``lcm-data normalize``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    corpus: str = Field(description="Corpus folder or fsspec URL.")
    method: Literal["gaussian_robust", "robust", "standard"] = Field("gaussian_robust", description="How to scale.")
    clip_proba: float | None = Field(None, gt=0, lt=0.5, description="Clip to the quantiles p and 1-p.")
    legacy_quantiles: bool = Field(False, description="Repeat the official fault of 0.25 and 0.75 percent.")
    sample_rows: int = Field(1_000_000, ge=2, description="Rows to fit on, at most.")
    seed: int = Field(0, ge=0, description="Of the sample.")
    overwrite: bool = Field(False, description="Replace a normaliser that differs.")


class NormalizeReport(BaseModel):
    """What was fitted, and where it is."""

    path: str
    fingerprint: str
    method: str
    rows: int
    dim: int
    median_scale: float
    seconds: float


def run(config: NormalizeConfig, show: Show = silent) -> NormalizeReport:
    """Fit the normaliser of the corpus and save it beside its stages.

    Raises:
        PlanMismatchError: the corpus has another normaliser and ``overwrite`` is not set.
    """
    begun = time.monotonic()
    corpus = open_files(config.corpus)
    data = StageData(corpus.child("embeddings"))
    refuse_outdated(corpus, "embeddings")
    sample = sample_embeddings(data, config.sample_rows, seed=config.seed, alpha=0.5, heldout=False)
    normalizer = Normalizer.fit(
        sample.train,
        method=config.method,
        clip_proba=config.clip_proba,
        legacy_quantiles=config.legacy_quantiles,
        encoder=data.manifest.provenance.get("encoder", ""),
        space=space_of(data.manifest.provenance),
        encoder_revision=data.manifest.provenance.get("encoder_revision", ""),
    )
    with corpus.child("embeddings").scratch() as folder:
        local = Path(folder, FILE)
        normalizer.save(local)
        if not config.overwrite and corpus.size(FILE) is not None and corpus.read(FILE) != local.read_bytes():
            raise PlanMismatchError(
                f"{corpus.root}/{FILE} was fitted with other settings or on other embeddings. Add --overwrite to "
                "replace it; models trained with the old one need the old one."
            )
        corpus.publish(local, FILE)
    return NormalizeReport(
        path=f"{corpus.root}/{FILE}",
        fingerprint=normalizer.fingerprint,
        method=config.method,
        rows=len(sample.train),
        dim=normalizer.dim,
        median_scale=float(sorted(normalizer.scale)[normalizer.dim // 2]),
        seconds=time.monotonic() - begun,
    )

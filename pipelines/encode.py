"""``lcm-data encode``: the sentences of a corpus to embeddings, shard for shard."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from lcm_data.encode import EncoderOptions, describe_encoder
from lcm_data.progress import Show, silent
from lcm_data.schema import StoreDtype
from lcm_data.sonar import hub
from lcm_data.store.files import absolute, open_files
from lcm_data.store.manifest import Manifest, load_manifest
from lcm_data.store.plan import Plan, Unit
from lcm_data.workers.encode import EncodeWorker
from pipelines.config import VerbConfig
from pipelines.stage import Report, Stage, provenance_metadata, refuse_other_space, run_stage, shard_inputs


def default_encoder(backend: str) -> str:
    """The encoder of a verb that is told none; only our own backend can read the one that ships."""
    return hub.default_model() if backend == "native" else "text_sonar_basic_encoder"


class EncodeConfig(VerbConfig):
    """Settings of ``lcm-data encode``."""

    backend: str = Field("native", description="native, sonar-space, sentence-transformers, or package.module:Class.")
    model: str = Field(
        default_factory=lambda known: default_encoder(known["backend"]),
        description="Encoder: a name, hf:owner/repo, or a folder or file.",
    )
    dtype: str = Field("float32", description="Precision of the network: float32, bfloat16 or float16.")
    store_dtype: StoreDtype = Field("float16", description="Precision of the stored vectors: float16 or float32.")
    device: str = Field("auto", description="auto, cpu or cuda.")
    token_budget: int | None = Field(None, ge=1, description="Tokens in a batch; by default chosen for the device.")
    prompt: str | None = Field(None, description="Text put before every sentence, for models that want one.")
    text: bool = Field(True, description="Keep the sentences beside their vectors.")

    @property
    def encoder(self) -> EncoderOptions:
        """The options of the encoder on a worker."""
        return EncoderOptions(
            model=absolute(self.model),
            backend=self.backend,
            dtype=self.dtype,
            device=self.device,
            token_budget=self.token_budget,
            threads=self.threads or None,
            prompt=self.prompt,
        )


def make_stage(config: EncodeConfig) -> Stage:
    """Describe the stage; raises if the segments are not finished or the model is not to be had."""
    corpus = open_files(config.corpus)
    segments = load_manifest(corpus.child("segments"))
    if "model" not in config.model_fields_set:
        hub.tell_default(config.model)
    described = describe_encoder(config.encoder)
    settings: dict[str, Any] = {
        # The weights count, not where they lie.
        "encoder": {name: value for name, value in described.items() if name != "encoder"},
        "dtype": config.dtype,
        "store_dtype": config.store_dtype,
        "token_budget": config.token_budget or "auto",
        "text": config.text,
    }
    provenance = {**segments.provenance, **described, "compute_dtype": config.dtype, "store_dtype": config.store_dtype}
    inputs = shard_inputs(segments.shards)
    if not config.overwrite:
        refuse_other_space(corpus.child("embeddings"), provenance)

    def make_plan() -> Plan:
        notes = {"provenance": provenance_metadata(provenance), "upstream": segments.plan_hash}
        return Plan("embeddings", settings, inputs, shard_units(segments), notes)

    def make_worker(plan: Plan) -> EncodeWorker:
        return EncodeWorker(
            source=corpus.child("segments").root,
            target=corpus.child("embeddings").root,
            encoder=config.encoder,
            plan_hash=plan.hash,
            store_dtype=config.store_dtype,
            with_text=config.text,
            metadata=provenance_metadata(provenance),
            corpus=corpus.root,
        )

    return Stage("embeddings", corpus.child("embeddings"), settings, inputs, make_plan, make_worker)


def shard_units(manifest: Manifest) -> tuple[Unit, ...]:
    """One unit for each shard of the stage before, numbered in path order, largest first to keep the tail short."""
    units = [Unit(number, shard.rows, {"shard": shard.path}) for number, shard in enumerate(manifest.shards)]
    return tuple(sorted(units, key=lambda unit: (-unit.rows, unit.id)))


def run(config: EncodeConfig, show: Show = silent) -> Report:
    """Encode all sentences that have no embedding yet."""
    return run_stage(make_stage(config), config.run_options, overwrite=config.overwrite, show=show)

"""``lcm-data generate``: the documents of a corpus written on by a Large Concept Model, a corpus of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc
from pydantic import Field

from lcm_data.corpus import StageData
from lcm_data.errors import UsageError
from lcm_data.progress import Show, silent
from lcm_data.store.files import Files, absolute, open_files
from lcm_data.store.plan import Plan, Unit
from lcm_data.store.shard import ShardInfo, document_groups, read_shard
from lcm_data.workers.generated import COLUMNS
from pipelines.config import Dtype, Languages, VerbConfig
from pipelines.derived import check_place, chosen_shards, document_units
from pipelines.stage import Report, Stage, provenance_metadata, refuse_outdated, run_stage, shard_inputs

if TYPE_CHECKING:
    from lcm_data.workers.base import StageWorker
    from lcm_models.generate.trained import TrainedFacts
    from lcm_models.generate.worker import GenerateOptions

STOPS = {
    "end_of_text": "end of text",
    "repetition": "repetition",
    "max_new": "length",
    "max_len": "length the model takes",
}
"""Why documents ended, for people."""


class GenerateConfig(VerbConfig):
    """Settings of ``lcm-data generate``; ``corpus`` is the one to make."""

    checkpoint: str = Field(description="Folder that 'lcm-data train' wrote: a run, or one of its checkpoints.")
    prefixes: str = Field(description="Corpus folder or fsspec URL whose documents are continued.")
    prefix_sentences: int | None = Field(None, ge=0, description="Sentences of a document that are its prefix.")
    prefix_share: float | None = Field(None, gt=0, le=1, description="Or their share of it; by default 0.5.")
    context: int | None = Field(None, ge=1, description="Read the last so many of them; by default what fits training.")
    with_prefix: bool = Field(False, description="Keep the prefix before what is generated.")
    max_new: int = Field(64, ge=1, description="New concepts of a document at most.")
    min_new: int = Field(0, ge=0, description="Concepts before which only length ends a document.")
    end_of_text: str = Field("auto", description="End-of-text concept: auto, none, or a .safetensors or .npy file.")
    end_of_text_cosine: float = Field(0.9, ge=-1, le=1, description="Cosine with it that ends a document.")
    repetition_cosine: float | None = Field(
        0.9, ge=-1, le=1, description="Cosine with the concept before that ends a document; null: none does."
    )
    sampling: dict[str, Any] = Field({}, description="Settings of the sampler: guidance, steps, temperature, ...")
    seed: int = Field(0, ge=0, description="Of what is drawn; each document has a seed of its own from it.")
    langs: Languages = Field(None, description="Only documents of these languages.")
    splits: list[str] | None = Field(["test"], description="Only these splits; null for all.")
    batch_rows: int = Field(64, ge=1, description="Documents that are generated side by side.")
    dtype: Dtype = Field("float32", description="Precision of matrix products: float32, bfloat16 or float16.")
    device: str = Field("auto", description="auto, cpu or cuda.")
    unit_documents: int = Field(256, ge=1, description="Documents of a unit, about: it ends where a row group does.")


def make_stage(config: GenerateConfig) -> Stage:
    """Describe the stage; raises if prefixes, model and settings do not fit together."""
    from lcm_models.generate.trained import read_trained
    from lcm_models.generate.worker import GenerateWorker

    origin, corpus = open_files(config.prefixes), open_files(config.corpus)
    check_place(origin, corpus, "embeddings", "generator_revision", "generated concepts")
    data = StageData(origin.child("embeddings"))
    refuse_outdated(origin, "embeddings")
    data.check_columns(COLUMNS)
    shards = chosen_shards(data, config.langs, config.splits)
    facts = read_trained(config.checkpoint)
    facts.check_corpus(data.dim, data.manifest.provenance, data.files.root)
    options, end = _options(config, facts, origin.root, data)
    revision = facts.revision()
    settings: dict[str, Any] = {
        "generator_revision": revision,
        "end_of_text": end,
        "sampling": facts.sampling(config.sampling).model_dump(mode="json"),
        "stop": dict(options.stop),
        **{name: getattr(options, name) for name in ("prefix_sentences", "prefix_share", "context", "seed")},
        **{name: getattr(options, name) for name in ("with_prefix", "max_rows", "dtype")},
        "unit_documents": config.unit_documents,
    }
    inputs = shard_inputs(shards)
    provenance = {
        **data.manifest.provenance,
        "generator": facts.variant,
        "generator_revision": revision,
        "generator_step": str(facts.step),
        "generator_seed": str(config.seed),
    }
    target = corpus.child("embeddings")

    def make_plan() -> Plan:
        notes = {"provenance": provenance_metadata(provenance)}
        return Plan("embeddings", settings, inputs, generate_units(data.files, shards, config.unit_documents), notes)

    def make_worker(plan: Plan) -> StageWorker:
        return GenerateWorker(data.files.root, target.root, options, plan.hash, provenance_metadata(provenance))

    return Stage("embeddings", target, settings, inputs, make_plan, make_worker, calibration_rows=8)


def generate_units(files: Files, shards: Sequence[ShardInfo], unit_documents: int) -> tuple[Unit, ...]:
    """Units of about ``unit_documents``; their rows are documents."""

    def counted(shard: ShardInfo) -> list[tuple[range, int]]:
        return [
            (groups, pc.run_end_encode(table["doc_id"].combine_chunks()).run_ends.to_numpy().size)
            for groups, _ in document_groups(files, shard.path)
            for table in [read_shard(files, shard.path, ["doc_id"], groups)]
        ]

    return document_units(shards, unit_documents, counted)


def _options(
    config: GenerateConfig, facts: TrainedFacts, root: str, data: StageData
) -> tuple[GenerateOptions, str | None]:
    """What a worker needs, and the fingerprint of the end-of-text concept."""
    from lcm_models.generate.worker import GenerateOptions

    if config.prefix_sentences is not None and config.prefix_share is not None:
        raise UsageError("--prefix-sentences and --prefix-share: give one of them.")
    if config.prefix_sentences is not None and config.prefix_sentences < facts.kind.min_context:
        raise UsageError(
            f"{facts.variant} needs a prefix of {facts.kind.min_context} sentence at least: raise --prefix-sentences."
        )
    found = facts.end_of_text(config.end_of_text, root, {**data.manifest.provenance, "dim": data.dim})
    stop = {
        "max_new": config.max_new,
        "min_new": config.min_new,
        "end_of_text": config.end_of_text_cosine,
        "repetition": config.repetition_cosine,
    }
    # What it saw in training, and half of that at least where new concepts would leave no room.
    context = config.context or max(facts.window - config.max_new, facts.window // 2, 1)
    context = min(context, facts.max_len - 1)
    read = context if config.prefix_sentences is None else min(context, config.prefix_sentences)
    facts.warn_of_length(read, config.max_new, "Lower --max-new or --context.")
    facts.sampling(config.sampling)
    options = GenerateOptions(
        checkpoint=absolute(str(facts.folder)),
        sampling=config.sampling,
        stop=stop,
        prefix_sentences=config.prefix_sentences,
        prefix_share=config.prefix_share or 0.5,
        context=context,
        seed=config.seed,
        end_of_text=None if found is None else absolute(found[0]),
        max_rows=config.batch_rows,
        device=config.device,
        dtype=config.dtype,
        threads=config.threads or None,
        with_prefix=config.with_prefix,
    )
    return options, None if found is None else found[1].fingerprint


def run(config: GenerateConfig, show: Show = silent) -> Report:
    """Continue all documents that are not continued yet."""
    report = run_stage(make_stage(config), config.run_options, overwrite=config.overwrite, show=show)
    stats = report.manifest.stats
    ends = {shown: int(stats[f"stop_{name}"]) for name, shown in STOPS.items() if stats.get(f"stop_{name}")}
    extra: dict[str, Any] = {
        "generated": int(stats["generated"]),
        "ended by": ", ".join(f"{name} {count:,}" for name, count in ends.items()),
        "ended at once": int(stats["nothing_generated"]) or None,
        "prefixes cut to their ends": int(stats["prefixes_cut"]) or None,
        "longer than in training": int(stats.get("longer_than_trained", 0)) or None,
    }
    return replace(report, extra=extra)

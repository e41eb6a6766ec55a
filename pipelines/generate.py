"""``lcm-data generate``: the documents of a corpus written on by a Large Concept Model, a corpus of their own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc
from pydantic import Field, field_validator

from lcm_data.corpus import StageData
from lcm_data.errors import UsageError
from lcm_data.languages import parse_language
from lcm_data.progress import Show, silent
from lcm_data.store.files import Files, LocalFiles, absolute, open_files
from lcm_data.store.plan import PLAN_PATH, Plan, Unit
from lcm_data.store.shard import ShardInfo, document_groups, read_shard
from lcm_data.workers.generated import COLUMNS
from pipelines.config import VerbConfig
from pipelines.stage import Report, Stage, provenance_metadata, refuse_outdated, run_stage

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
    langs: list[str] | None = Field(None, description="Only documents of these languages.")
    splits: list[str] | None = Field(["test"], description="Only these splits; null for all.")
    batch_rows: int = Field(64, ge=1, description="Documents that are generated side by side.")
    dtype: str = Field("float32", description="Precision of matrix products: float32, bfloat16 or float16.")
    device: str = Field("auto", description="auto, cpu or cuda.")
    unit_documents: int = Field(256, ge=1, description="Documents of a unit, about: it ends where a row group does.")

    @field_validator("langs")
    @classmethod
    def _known_languages(cls, names: list[str] | None) -> list[str] | None:
        return names and [parse_language(name) for name in names]

    @field_validator("dtype")
    @classmethod
    def _known_dtype(cls, name: str) -> str:
        if name not in ("float32", "bfloat16", "float16"):
            raise ValueError(f"allowed are float32, bfloat16 and float16, got {name!r}")
        return name


def make_stage(config: GenerateConfig) -> Stage:
    """Describe the stage; raises if prefixes, model and settings do not fit together."""
    from lcm_models.generate.trained import read_trained
    from lcm_models.generate.worker import GenerateWorker

    origin, target = open_files(config.prefixes), open_files(config.corpus).child("embeddings")
    _check_place(origin, open_files(config.corpus), target)
    data = StageData(origin.child("embeddings"))
    refuse_outdated(origin, "embeddings")
    data.check_columns(COLUMNS)
    shards = _chosen(data, config)
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
    inputs = {shard.path: f"{shard.rows} rows, sha256 {shard.sha256}" for shard in shards}
    provenance = {
        **data.manifest.provenance,
        "generator": facts.variant,
        "generator_revision": revision,
        "generator_step": str(facts.step),
        "generator_seed": str(config.seed),
    }

    def make_plan() -> Plan:
        notes = {"provenance": provenance_metadata(provenance), "source": data.manifest.plan_hash}
        return Plan("embeddings", settings, inputs, generate_units(data.files, shards, config.unit_documents), notes)

    def make_worker(plan: Plan) -> StageWorker:
        return GenerateWorker(data.files.root, target.root, options, plan.hash, provenance_metadata(provenance))

    return Stage("embeddings", target, settings, inputs, make_plan, make_worker, calibration_rows=8)


def generate_units(files: Files, shards: Sequence[ShardInfo], unit_documents: int) -> tuple[Unit, ...]:
    """Units of whole documents; their rows are documents. Numbered in the order of the rows, largest first."""

    def counted(shard: ShardInfo) -> list[tuple[range, int]]:
        return [
            (groups, pc.run_end_encode(table["doc_id"].combine_chunks()).run_ends.to_numpy().size)
            for groups, _ in document_groups(files, shard.path)
            for table in [read_shard(files, shard.path, ["doc_id"], groups)]
        ]

    specs: list[tuple[int, dict[str, Any]]] = []
    with ThreadPoolExecutor(16) as pool:  # an object store answers each in tens of milliseconds
        for shard, runs in zip(shards, pool.map(counted, shards), strict=True):
            start = stop = documents = 0
            for groups, num in runs:
                if documents and documents + num > unit_documents:
                    specs.append((documents, {"shard": shard.path, "groups": [start, stop]}))
                    start, documents = stop, 0
                stop, documents = groups.stop, documents + num
            specs.append((documents, {"shard": shard.path, "groups": [start, stop]}))
    units = [Unit(number, documents, spec) for number, (documents, spec) in enumerate(specs)]
    return tuple(sorted(units, key=lambda unit: (-unit.rows, unit.id)))


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
    facts.sampling(config.sampling)
    options = GenerateOptions(
        checkpoint=absolute(str(facts.folder)),
        sampling=config.sampling,
        stop=stop,
        prefix_sentences=config.prefix_sentences,
        prefix_share=config.prefix_share or 0.5,
        context=min(context, int(facts.notes["config"]["max_len"]) - 1),
        seed=config.seed,
        end_of_text=None if found is None else absolute(found[0]),
        max_rows=config.batch_rows,
        device=config.device,
        dtype=config.dtype,
        threads=config.threads or None,
        with_prefix=config.with_prefix,
    )
    return options, None if found is None else _fingerprint(found[1].vector)


def _fingerprint(vector: np.ndarray[Any, Any]) -> str:
    import hashlib

    return hashlib.sha256(vector.astype(np.float32).tobytes()).hexdigest()[:16]


def _chosen(data: StageData, config: GenerateConfig) -> list[ShardInfo]:
    paths = set(data.shards(config.langs, config.splits))
    return [shard for shard in data.manifest.shards if shard.path in paths and shard.rows]


def _check_place(origin: Files, corpus: Files, target: Files) -> None:
    """Generated concepts go to a corpus of their own; what an encoder made is never replaced."""
    roots = [
        os.path.realpath(files.root) if isinstance(files, LocalFiles) else files.root for files in (origin, corpus)
    ]
    if roots[0] == roots[1]:
        raise UsageError(
            f"the generated concepts would take the place of those of {origin.root}. Give another folder for them."
        )
    if target.size(PLAN_PATH) is not None:
        from lcm_data.store.plan import load_plan

        plan = load_plan(target)
        if plan is not None and "generator_revision" not in plan.config:
            raise UsageError(
                f"{target.root} holds embeddings that no model generated. Give another folder for the generated ones."
            )


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
    }
    return replace(report, extra=extra)

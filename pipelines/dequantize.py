"""``lcm-data dequantize``: codes back to vectors, the embeddings of a corpus of their own under the same ids."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import Field

from lcm_data import schema
from lcm_data.corpus import StageData
from lcm_data.errors import PlanMismatchError, UsageError
from lcm_data.progress import Show, silent
from lcm_data.quantize.codebook import Codebook
from lcm_data.quantize.storage import load_codebook
from lcm_data.store.files import Files, absolute, open_files
from lcm_data.store.manifest import MANIFEST_PATH
from lcm_data.store.plan import Plan, Unit
from lcm_data.store.shard import ShardInfo
from lcm_data.workers.dequantize import DequantizeWorker
from pipelines.config import Languages, VerbConfig
from pipelines.derived import check_place, chosen_shards
from pipelines.stage import Report, Stage, provenance_metadata, refuse_outdated, run_stage, shard_inputs

_TAKEN_OVER = ("text", *schema.TOKEN_COLUMNS, "truncated")


class DequantizeConfig(VerbConfig):
    """Settings of ``lcm-data dequantize``; ``corpus`` is the one to make."""

    codes: str = Field(description="Corpus folder or fsspec URL whose codes are decoded.")
    levels: int | None = Field(None, ge=1, description="Only the first levels of a code; by default all.")
    codebook: str | None = Field(None, description="Folder of the codebook; by default the one beside the codes.")
    store_dtype: schema.StoreDtype = Field("float16", description="Stored vectors: float16 or float32.")
    from_langs: Languages = Field(None, description="Only codes of these languages.")
    splits: list[str] | None = Field(None, description="Only these splits.")


def make_stage(config: DequantizeConfig) -> Stage:
    """Describe the stage; raises if the codes are not finished, or the codebook is not theirs."""
    origin, corpus = open_files(config.codes), open_files(config.corpus)
    check_place(origin, corpus, "embeddings", "codebook", "decoded vectors")
    data = StageData(origin.child("codes"))
    refuse_outdated(origin, "codes")
    shards = chosen_shards(data, config.from_langs, config.splits)
    where = absolute(config.codebook) if config.codebook else origin.child("codebook").root
    codebook = load_codebook(where)
    _check_fits(codebook, data, where)
    levels = config.levels or data.dim
    if levels > data.dim:
        raise UsageError(f"levels: got {levels}, allowed: 1 to {data.dim}, which the codes have.")
    settings: dict[str, Any] = {"codebook": codebook.fingerprint, "levels": levels, "store_dtype": config.store_dtype}
    facts = _facts(origin, shards)
    columns = () if facts is None else tuple(name for name in _TAKEN_OVER if name in facts.schema.names)
    settings["taken_over"] = list(columns)
    inputs = shard_inputs(shards)
    provenance = {
        **data.manifest.provenance,
        "codebook": codebook.fingerprint,
        "dequantized_levels": levels,
        "store_dtype": config.store_dtype,
        "dim": codebook.dim,
    }
    target = corpus.child("embeddings")

    def make_plan() -> Plan:
        notes = {"provenance": provenance_metadata(provenance)}
        units = [Unit(number, shard.rows, {"shard": shard.path}) for number, shard in enumerate(shards)]
        largest_first = tuple(sorted(units, key=lambda unit: (-unit.rows, unit.id)))
        return Plan("embeddings", settings, inputs, largest_first, notes)

    def make_worker(plan: Plan) -> DequantizeWorker:
        return DequantizeWorker(
            source=data.files.root,
            target=target.root,
            codebook=where,
            levels=levels,
            store_dtype=config.store_dtype,
            plan_hash=plan.hash,
            facts=None if facts is None else facts.files.root,
            columns=columns,
            metadata=provenance_metadata(provenance),
        )

    return Stage("embeddings", target, settings, inputs, make_plan, make_worker)


def _check_fits(codebook: Codebook, data: StageData, where: str) -> None:
    """Codes of another codebook would give vectors that mean nothing."""
    made_with = data.metadata.get("codebook", "")
    if made_with and made_with != codebook.fingerprint:
        raise PlanMismatchError(
            f"the codes of {data.files.root} were made with the codebook {made_with[:12]}, {where} is "
            f"{codebook.fingerprint[:12]}. Give theirs with --codebook."
        )
    if data.dim != codebook.num_levels:
        raise UsageError(f"the codes have {data.dim} levels, the codebook {where} has {codebook.num_levels}.")


def _facts(origin: Files, shards: list[ShardInfo]) -> StageData | None:
    """The embeddings that were quantized, if they are there and hold every shard."""
    embeddings = origin.child("embeddings")
    if embeddings.size(MANIFEST_PATH) is None:
        return None
    data = StageData(embeddings)
    return data if {shard.path for shard in shards} <= set(data.shards()) else None


def run(config: DequantizeConfig, show: Show = silent) -> Report:
    """Decode all codes that have no vector yet."""
    stage = make_stage(config)
    report = run_stage(stage, config.run_options, overwrite=config.overwrite, show=show)
    extra: dict[str, Any] = {"levels": stage.config["levels"]}
    beam = int(report.manifest.provenance.get("beam", "1"))
    if beam > 1 and config.levels:
        extra["note"] = (
            f"encoded with a beam of {beam}: fewer levels are further from the vectors than with a beam of 1"
        )
    return replace(report, extra=extra)

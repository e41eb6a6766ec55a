"""``lcm-data quantize``: residual codebooks fitted to the embeddings of a corpus, and the codes of every sentence."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import Field

from lcm_data.corpus import StageData
from lcm_data.errors import CheckpointError, PlanMismatchError, UsageError
from lcm_data.progress import Show, silent
from lcm_data.quantize import memory
from lcm_data.quantize.codebook import Codebook, LevelQuality, Provenance
from lcm_data.quantize.engines import choose_engine
from lcm_data.quantize.fit import FitOptions, estimate_memory, fit_codebook
from lcm_data.quantize.storage import load_codebook, save_codebook
from lcm_data.space import check_same_space, space_of
from lcm_data.store.files import Files, LocalFiles, absolute, open_files
from lcm_data.store.plan import Plan
from lcm_data.workers.quantize import QuantizeWorker
from pipelines.config import VerbConfig
from pipelines.encode import shard_units
from pipelines.sampling import num_heldout_rows, num_sample_rows, sample_embeddings
from pipelines.stage import (
    Report,
    Stage,
    provenance_metadata,
    refuse_other_space,
    refuse_outdated,
    run_stage,
    shard_inputs,
)

log = logging.getLogger("lcm_data.quantize")

_USED_CODEBOOK = "_lcm/codebook.txt"
_ROWS_PER_UNIT = 1000
_WORTH_SAYING = 1 << 30
"""Bytes from which the memory of a fit is stated without being asked for."""


class QuantizeConfig(VerbConfig):
    """Settings of ``lcm-data quantize``."""

    levels: int = Field(64, ge=1, description="Codebooks in a row.")
    units: int = Field(8192, ge=2, le=65536, description="Centroids of a codebook.")
    sample_rows: int | None = Field(None, ge=1, description="Rows to fit on, at most; by default 1000 a unit.")
    alpha: float = Field(0.5, ge=0, le=1, description="Languages share the sample in proportion to rows ** alpha.")
    iterations: int = Field(12, ge=1, description="k-means steps of a level.")
    engine: str = Field("auto", description="faiss, torch, or auto: torch for large codebooks where it is installed.")
    device: str = Field("auto", description="auto, cpu or cuda.")
    trainer: str = Field("auto", description="growing, spherical, or progressive as the paper; auto: by the engine.")
    beam: int = Field(1, ge=1, le=256, description="Codes kept while encoding; 1 alone has exact prefixes.")
    seed: int = Field(0, ge=0, description="Of sample and fit.")
    codebook: str | None = Field(None, description="A fitted codebook to use instead of fitting one.")

    @property
    def fit_options(self) -> FitOptions:
        """What the fit needs."""
        return FitOptions(
            num_levels=self.levels,
            num_units=self.units,
            iterations=self.iterations,
            engine=self.engine,
            device=self.device,
            trainer=self.trainer,
            seed=self.seed,
            threads=self.threads or None,
        )


def make_stage(config: QuantizeConfig) -> Stage:
    """Describe the stage; raises if the embeddings are not finished or a given codebook does not fit them."""
    corpus = open_files(config.corpus)
    target, home = corpus.child("codes"), corpus.child("codebook")
    data = StageData(corpus.child("embeddings"))
    refuse_outdated(corpus, "embeddings")
    if not config.overwrite:
        refuse_other_space(target, data.manifest.provenance)
    chosen = None if config.codebook is None else absolute(config.codebook)
    given = None if chosen is None else load_codebook(chosen)
    used: list[Codebook] = []
    if given is not None:
        _check_fits(given, data, str(chosen))
    settings = _settings(config, given, data.dim)
    encoding = {name: settings[name] for name in ("engine", "beam")}
    inputs = shard_inputs(data.manifest.shards)

    def make_plan() -> Plan:
        if config.codebook is None:
            _check_enough(config, data)
        made = provenance_metadata({**data.manifest.provenance, **encoding})
        notes = {"provenance": made, "upstream": data.manifest.plan_hash}
        return Plan("codes", settings, inputs, shard_units(data.manifest), notes)

    def worker_with(codebook: Codebook, plan: Plan) -> QuantizeWorker:
        size = {"levels": codebook.num_levels, "units": codebook.num_units}
        facts = {"codebook": codebook.fingerprint, **size, **encoding}
        return QuantizeWorker(
            source=data.files.root,
            target=target.root,
            codebook=chosen or home.root,
            plan_hash=plan.hash,
            metadata=provenance_metadata({**data.manifest.provenance, **facts}),
            device=config.device,
            **encoding,
        )

    def make_worker(plan: Plan) -> QuantizeWorker:
        used[:] = [given or fit_or_reuse(config, plan, data, home, target)]
        return worker_with(used[0], plan)

    def try_worker(plan: Plan) -> QuantizeWorker | None:
        codebook = given or fitted_before(plan, data, home)
        return None if codebook is None else worker_with(codebook, plan)

    def begin() -> None:
        _remember(target, used[0])
        if chosen is not None and open_files(chosen).root != home.root:
            _keep(home, used[0])

    return Stage("codes", target, settings, inputs, make_plan, make_worker, try_worker, begin)


def _settings(config: QuantizeConfig, given: Codebook | None, dim: int) -> dict[str, Any]:
    """What the codes depend on; ``engine`` is the one that encodes."""
    if given is not None:
        engine = choose_engine(config.engine, num_units=given.num_units, dim=given.dim)
        made_with: dict[str, Any] = {"codebook": given.fingerprint, "engine": engine}
    else:
        options = config.fit_options.chosen(dim)
        fit = {**vars(options), "sample_rows": config.sample_rows or _ROWS_PER_UNIT * config.units}
        for name in ("threads", "device"):  # not a matter of what is fitted
            fit.pop(name)
        made_with = {"fit": {**fit, "alpha": config.alpha}, "engine": options.engine}
    return {**made_with, "beam": config.beam}


def _check_enough(config: QuantizeConfig, data: StageData) -> None:
    rows = num_sample_rows(data, config.sample_rows or _ROWS_PER_UNIT * config.units)
    if rows < config.units:
        raise UsageError(
            f"{rows:,} sentences to fit on are fewer than the {config.units:,} units of a codebook. Use smaller "
            "--units, more --sample-rows, or a larger corpus (only its split 'train' counts)."
        )
    # Of the sample 2.5 times its size is held while it is chosen, in its stored type; then the fit has it as float32.
    held = num_heldout_rows(data)
    item = data.schema.field("emb").type.value_type.bit_width // 8
    needed = estimate_memory(config.fit_options, rows, data.dim, num_heldout=held)
    sampling = int(2.5 * (rows + held) * data.dim * item)
    level = logging.WARNING if max(needed.total, sampling) >= _WORTH_SAYING else logging.INFO
    log.log(level, "fitting on %d rows: memory %s; choosing them: %s", rows, needed, memory.gigabytes(sampling))
    available = memory.available_memory()
    memory.require(needed, available)
    if available is not None and sampling > available:
        raise UsageError(
            f"choosing {rows:,} rows to fit on takes {memory.gigabytes(sampling)}, and {memory.gigabytes(available)} "
            "are available. Use fewer --sample-rows, or a larger machine."
        )


def _check_fits(codebook: Codebook, data: StageData, where: str) -> None:
    if codebook.dim != data.dim:
        raise UsageError(
            f"the codebook {where} is for vectors of {codebook.dim} dimensions, the corpus has {data.dim}."
        )
    corpus, book = data.manifest.provenance, codebook.provenance
    advice = "Fit one on this corpus by leaving --codebook out."
    fitted_in = {"space": book.encoder_space, "encoder": book.encoder, "dim": codebook.dim}
    check_same_space(fitted_in, corpus, f"the codebook {where}", "the corpus", advice)
    revision = corpus.get("encoder_revision", "")
    fitted_on = book.encoder_fingerprint
    if fitted_on and revision and fitted_on != revision:
        raise PlanMismatchError(
            f"the codebook {where} was fitted on vectors of another encoder ({book.encoder}, {fitted_on[:12]}) "
            f"than the corpus has ({corpus.get('encoder')}, {revision[:12]}). {advice}"
        )


def fitted_before(plan: Plan, data: StageData, home: Files) -> Codebook | None:
    """The codebook beside the corpus if it was fitted for this plan."""
    try:
        found = load_codebook(home.root)
    except CheckpointError:
        return None
    return found if dict(found.provenance.sample) == _sample_facts(plan, data) else None


def _sample_facts(plan: Plan, data: StageData) -> dict[str, Any]:
    return {"plan": plan.hash, "embeddings": data.manifest.digest, **plan.config["fit"]}


def fit_or_reuse(config: QuantizeConfig, plan: Plan, data: StageData, home: Files, target: Files) -> Codebook:
    """The codebook of this plan: the one beside the corpus if it was fitted for it, else a new one, saved there."""
    if found := fitted_before(plan, data, home):
        target.remove_tree("_lcm/fit")  # of a run that was killed after saving the codebook
        return found
    sample = sample_embeddings(data, plan.config["fit"]["sample_rows"], seed=config.seed, alpha=config.alpha)
    provenance = Provenance(
        encoder=data.manifest.provenance.get("encoder", ""),
        encoder_fingerprint=data.manifest.provenance.get("encoder_revision", ""),
        encoder_space=space_of(data.manifest.provenance),
        sample=_sample_facts(plan, data),
    )
    checkpoints = Path(target.root, "_lcm/fit") if isinstance(target, LocalFiles) else None
    train_ND, heldout_ND = sample.train.astype("float32", copy=False), sample.heldout
    del sample  # only the float32 rows are held while the codebook is fitted
    codebook = fit_codebook(
        train_ND,
        heldout_ND,
        config.fit_options,
        provenance,
        progress=_log_level,
        checkpoint_dir=checkpoints,
        overwrite=True,
    )
    save_codebook(home, codebook)
    target.remove_tree("_lcm/fit")
    return load_codebook(home.root)


def _log_level(quality: LevelQuality) -> None:
    log.info(
        "level %d fitted: held-out error %.4f, cosine %.4f, perplexity %.0f",
        quality.level, quality.heldout_nmse, quality.heldout_cosine, quality.perplexity,
    )  # fmt: skip


def _keep(home: Files, codebook: Codebook) -> None:
    """The codebook beside a corpus is always the one of its codes."""
    try:
        if load_codebook(home.root).fingerprint == codebook.fingerprint:
            return
    except CheckpointError:
        pass  # none yet, or a damaged one
    save_codebook(home, codebook)


def _remember(target: Files, codebook: Codebook) -> None:
    """Codes of two codebooks must never stand in one stage, even if the folder of the codebook is replaced."""
    try:
        used = target.read(_USED_CODEBOOK).decode()
    except FileNotFoundError:
        target.write(_USED_CODEBOOK, codebook.fingerprint.encode())
        return
    if used != codebook.fingerprint:
        raise PlanMismatchError(
            f"{target.root} holds codes of the codebook {used[:12]}, now it is {codebook.fingerprint[:12]}. "
            "Restore that codebook, or add --overwrite to write all codes anew."
        )


def run(config: QuantizeConfig, show: Show = silent) -> Report:
    """Fit (or take) a codebook and quantize all sentences that have no codes yet."""
    stage = make_stage(config)
    report = run_stage(stage, config.run_options, overwrite=config.overwrite, show=show)
    codebook = load_codebook(config.codebook or open_files(config.corpus).child("codebook").root)
    extra: dict[str, Any] = {"codebook": f"{codebook.num_levels} x {codebook.num_units}, {codebook.fingerprint[:12]}"}
    stats = report.manifest.stats
    if stats.get("energy"):
        extra["unexplained length²"] = f"{stats['resid_energy'] / stats['energy']:.1%}"
    if codebook.quality:
        last = codebook.quality[-1]
        extra["held-out variance left"] = f"{last.heldout_nmse:.1%}, cosine {last.heldout_cosine:.3f}"
    return replace(report, extra=extra)

"""Fits a codebook to a sample of embeddings, level by level, and can resume between and inside levels.

At beam 1 residual quantization is k-means on what the levels before left over, so only one copy of the sample is
kept and updated in place. (FAISS's own ``ResidualQuantizer`` ends with tables of all pairs of units: 541 GB at 64
levels of 8192 units.) How one level is trained is in ``kmeans``; choosing the rows is in ``sample``.

The same sample, options, library versions and number of threads give the same bytes on the same machine, resumed or
not. Another machine, another build of the engine or (trainer ``progressive``) number of threads may round differently.

Shapes: N rows, K units, D dimensions.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from lcm_data.errors import UnknownNameError, UsageError
from lcm_data.quantize import memory
from lcm_data.quantize.checkpoint import STEP_SECONDS, Checkpoint, NoSteps
from lcm_data.quantize.codebook import MAX_UNITS, Codebook, LevelQuality, Provenance
from lcm_data.quantize.engines import Engine, choose_engine, load_engine
from lcm_data.quantize.kmeans import TRAINERS, Trainer, default_trainer
from lcm_data.quantize.tensorfile import as_bytes
from lcm_data.quantize.vectors import Array, blocks, check_finite, check_matrix
from lcm_data.tables import resolve

logger = logging.getLogger(__name__)

MIN_ROWS_PER_UNIT = 39
GOOD_ROWS_PER_UNIT = 1000


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """How to fit. The defaults of ``num_levels`` and ``num_units`` are the LCM paper's: 64 x 13 bits a sentence.

    ``iterations`` is the number of k-means steps of a level (``progressive`` takes them at each of 10 sizes).
    ``progressive`` is the paper's trainer and left 0.5 to 2 % less held-out error than ``spherical`` on synthetic
    data; ``spherical`` takes a third of its time and no copies of the sample. ``threads`` None means all that
    OpenMP sees. An ``engine`` of "auto" is chosen by the size of the codebook, a ``trainer`` of "auto" by the engine.
    """

    num_levels: int = 64
    num_units: int = 8192
    iterations: int = 12
    engine: str = "auto"
    device: str = "auto"
    trainer: str = "auto"
    seed: int = 0
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.trainer not in ("auto", *TRAINERS) and ":" not in self.trainer:
            raise UnknownNameError("trainer", self.trainer, ["auto", *TRAINERS])
        choose_engine(self.engine, num_units=1, dim=1)
        limits = {"num_levels": (1, 4096), "num_units": (2, MAX_UNITS), "iterations": (1, 1000), "seed": (0, 2**63 - 1)}
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise UsageError(f"{name}: got {getattr(self, name)}, allowed: {low} to {high}.")
        if self.threads is not None and self.threads < 1:
            raise UsageError(f"threads: got {self.threads}, allowed: 1 or more, or none given for all.")

    def chosen(self, dim: int) -> FitOptions:
        """The same with the engine and trainer that "auto" means for vectors of ``dim`` dimensions."""
        engine = choose_engine(self.engine, num_units=self.num_units, dim=dim)
        trainer = default_trainer(self.engine) if self.trainer == "auto" else self.trainer
        return replace(self, engine=engine, trainer=trainer)


Progress = Callable[[LevelQuality], None]
"""Called after each level, also for levels taken from a checkpoint."""


def estimate_memory(
    options: FitOptions, num_rows: int, dim: int, *, num_heldout: int = 0, overwrite: bool = False
) -> memory.MemoryEstimate:
    """Bytes ``fit_codebook`` allocates on top of its arguments; ``str()`` of it is a line for people."""
    options = options.chosen(dim)
    return memory.estimate(
        num_levels=options.num_levels,
        num_units=options.num_units,
        trainer=options.trainer,
        engine=options.engine,
        num_rows=num_rows,
        dim=dim,
        num_heldout=num_heldout,
        overwrite=overwrite,
    )


def fit_codebook(
    train_ND: Array,
    heldout_ND: Array,
    options: FitOptions,
    provenance: Provenance,
    *,
    progress: Progress | None = None,
    checkpoint_dir: str | Path | None = None,
    overwrite: bool = False,
    step_seconds: float = STEP_SECONDS,
) -> Codebook:
    """Fit ``options.num_levels`` tables to ``train_ND`` and measure them on ``heldout_ND`` (float16/32/64, finite).

    ``overwrite`` lets a writable float32 ``train_ND`` be used up as working memory. With ``checkpoint_dir``, every
    finished level is saved there, and of the one in the making a step every ``step_seconds``; a rerun with the same
    arguments continues there.

    Raises:
        UsageError: arrays that do not fit, fewer rows than units, or more memory needed than there is.
        PlanMismatchError: the checkpoint is of another sample or other options.
        MissingExtraError: the engine is not installed.
    """
    check_matrix(train_ND, name="train")
    options = options.chosen(train_ND.shape[1])
    _check_sample(train_ND, heldout_ND, options)
    in_place = overwrite and train_ND.dtype == np.float32 and train_ND.flags.c_contiguous and train_ND.flags.writeable
    dim = train_ND.shape[1]
    needed = estimate_memory(options, len(train_ND), dim, num_heldout=len(heldout_ND), overwrite=in_place)
    memory.require(needed, memory.available_memory())
    logger.info(
        "fit of %d x %d units on %d rows: memory %s", options.num_levels, options.num_units, len(train_ND), needed
    )

    engine = load_engine(options.engine, options.device)
    with engine.threads(options.threads):
        residual = train_ND if in_place else _copy_float32(train_ND)
        heldout = _copy_float32(heldout_ND)
        facts = _facts(residual, heldout, options, provenance, engine)
        checkpoint = Checkpoint(Path(checkpoint_dir), facts, step_seconds) if checkpoint_dir is not None else None
        tables, quality = _fit_levels(engine, residual, heldout, options, progress, checkpoint)
    fit = {name: facts[name] for name in ("options", "engine", "train_rows", "heldout_rows")}
    return Codebook.build(tables, provenance, fit=fit, quality=tuple(quality))


def _fit_levels(
    engine: Engine,
    residual_ND: Array,
    heldout_HD: Array,
    options: FitOptions,
    progress: Progress | None,
    checkpoint: Checkpoint | None,
) -> tuple[Array, list[LevelQuality]]:
    trainer: Trainer = resolve(TRAINERS, options.trainer, "trainer")
    measure = _Measure(engine, residual_ND, heldout_HD, options.num_units)
    tables = np.empty((options.num_levels, options.num_units, residual_ND.shape[1]), dtype=np.float32)
    quality: list[LevelQuality] = []
    for level in range(options.num_levels):
        saved = checkpoint.load(level) if checkpoint else None
        if saved is not None:
            tables[level], ids = saved
        else:
            seed = int(np.random.SeedSequence([options.seed, level]).generate_state(1)[0])
            steps = checkpoint.steps(level) if checkpoint else NoSteps()
            tables[level] = trainer(engine, residual_ND, options.num_units, options.iterations, seed, steps)
            ids = engine.assign(residual_ND, tables[level])
            if checkpoint:
                checkpoint.save(level, tables[level], ids)
        quality.append(measure.level(tables[level], ids))
        _warn_if_poor(quality, options.num_units)
        if progress:
            progress(quality[-1])
    return tables, quality


class _Measure:
    """Subtracts one level after the other from the sample and the held-out rows, in place, and measures the rest."""

    def __init__(self, engine: Engine, residual_ND: Array, heldout_HD: Array, num_units: int) -> None:
        self._engine = engine
        self._residual, self._heldout, self._original = residual_ND, heldout_HD, heldout_HD.copy()
        self._num_units = num_units
        self._train_variance = _variance(residual_ND)
        self._heldout_variance = _variance(heldout_HD, residual_ND.mean(axis=0, dtype=np.float64))
        self._num_done = 0

    def level(self, table_KD: Array, ids_N: Array) -> LevelQuality:
        train_error = _subtract(self._residual, table_KD, ids_N)
        heldout_error = _subtract(self._heldout, table_KD, self._engine.assign(self._heldout, table_KD))
        counts = np.bincount(ids_N, minlength=self._num_units)
        share = counts[counts > 0] / counts.sum()
        self._num_done += 1
        return LevelQuality(
            level=self._num_done,
            heldout_nmse=heldout_error / self._heldout_variance,
            train_nmse=train_error / self._train_variance,
            heldout_cosine=_mean_cosine(self._original, self._heldout),
            used=int((counts > 0).sum()),
            dead=int((counts == 0).sum()),
            perplexity=float(np.exp(-(share * np.log(share)).sum())),
            max_share=float(share.max()),
        )


def _subtract(x_ND: Array, table_KD: Array, ids_N: Array) -> float:
    """Replace rows by their residuals, in place; returns the sum of squares in double precision."""
    total = 0.0
    for rows in blocks(len(x_ND)):
        x_ND[rows] -= table_KD[ids_N[rows]]
        total += float(np.square(x_ND[rows], dtype=np.float64).sum())
    return total


def _variance(x_ND: Array, mean_D: Array | None = None) -> float:
    """Sum of squared distances to the mean (one row has none: to ``mean_D``); 1 if the rows are all alike."""
    mean = x_ND.mean(axis=0, dtype=np.float64) if mean_D is None or len(x_ND) > 1 else mean_D
    total = sum(float(np.square(x_ND[rows] - mean).sum()) for rows in blocks(len(x_ND)))
    return total or 1.0


def _mean_cosine(original: Array, residual: Array) -> float:
    total = 0.0
    for rows in blocks(len(original)):
        x = original[rows].astype(np.float64)
        decoded = x - residual[rows]
        norms = np.linalg.norm(x, axis=1) * np.linalg.norm(decoded, axis=1)
        total += float((np.einsum("nd,nd->n", x, decoded) / np.maximum(norms, np.finfo(np.float64).tiny)).sum())
    return total / len(original)


def _check_sample(train_ND: Array, heldout_ND: Array, options: FitOptions) -> None:
    check_matrix(train_ND, name="train")
    check_matrix(heldout_ND, train_ND.shape[1], name="heldout")
    num_rows, num_units = len(train_ND), options.num_units
    if num_rows < num_units:
        raise UsageError(f"{num_rows} sample rows for {num_units} units: at least as many rows as units are needed.")
    if len(heldout_ND) == 0:
        raise UsageError(
            f"the held-out sample is empty: without it the quality of the codebook is unknown. {num_rows} rows that "
            "differ are too few: add sentences to the split 'train', or use a codebook that there is (--codebook)."
        )
    if options.trainer == "progressive" and num_rows < train_ND.shape[1]:
        raise UsageError(
            f"trainer 'progressive' needs at least as many rows as dimensions ({train_ND.shape[1]}), got {num_rows}."
        )
    check_finite(train_ND, "train")
    check_finite(heldout_ND, "heldout")
    if num_rows < MIN_ROWS_PER_UNIT * num_units:
        logger.warning(
            "only %.1f sample rows per unit: below %d the units fit the sample, not the corpus",
            num_rows / num_units,
            MIN_ROWS_PER_UNIT,
        )
    elif num_rows < GOOD_ROWS_PER_UNIT * num_units:
        logger.info("%.0f sample rows per unit; quality still grows up to %d", num_rows / num_units, GOOD_ROWS_PER_UNIT)


def _warn_if_poor(quality: list[LevelQuality], num_units: int) -> None:
    now, before = quality[-1], quality[-2].heldout_nmse if len(quality) > 1 else 1.0
    if now.perplexity < 0.5 * num_units:
        logger.warning("level %d uses its units unevenly: perplexity %.0f of %d", now.level, now.perplexity, num_units)
    if now.heldout_nmse > 0.999 * before:
        logger.warning(
            "level %d lowers the held-out error by less than 0.1 %% (%.5f to %.5f)", now.level, before, now.heldout_nmse
        )


def _copy_float32(x_ND: Array) -> Array:
    result = np.empty(x_ND.shape, dtype=np.float32)
    for rows in blocks(len(x_ND)):  # block by block: a memory-mapped sample is never read whole
        result[rows] = x_ND[rows]
    return result


def _facts(train: Array, heldout: Array, options: FitOptions, provenance: Provenance, engine: Engine) -> dict[str, Any]:
    """Everything the result depends on, as JSON; not the number of threads, which may change between two runs."""
    chosen = asdict(options)
    for name in ("threads", "engine", "device"):
        del chosen[name]
    return {
        "options": chosen,
        "engine": engine.facts,
        "train_rows": len(train),
        "heldout_rows": len(heldout),
        "train_hash": xxhash.xxh3_128_hexdigest(as_bytes(train)),
        "heldout_hash": xxhash.xxh3_128_hexdigest(as_bytes(heldout)),
        "provenance": asdict(provenance),
    }

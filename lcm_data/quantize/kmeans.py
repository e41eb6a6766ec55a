"""The trainers of one RVQ level: k-means variants that keep their units alive on residuals.

Which unit is nearest is the engine's to say (``lcm_data.quantize.engines``).

Plain k-means from random rows collapses on residuals: they have very unequal norms, small-norm centroids win nearly
all rows and the rest keep one row each, which splitting of *empty* clusters never notices.

Shapes: N rows, K units, D dimensions.
"""

from __future__ import annotations

import heapq
import itertools
import math
from typing import TYPE_CHECKING, Protocol

import numpy as np

from lcm_data.quantize.faiss_setup import load_faiss
from lcm_data.quantize.vectors import Array, blocks

if TYPE_CHECKING:
    from lcm_data.quantize.engines import Engine, Metric

TRAINERS = {
    "growing": "lcm_data.quantize.kmeans:growing_kmeans",
    "spherical": "lcm_data.quantize.kmeans:spherical_kmeans",
    "progressive": "lcm_data.quantize.kmeans:progressive_kmeans",
}
"""Trainers of one level, by name."""

_SPHERICAL_ITERATIONS = 2
_PROGRESSIVE_SIZES = 10
_GROWING_SIZES = (4, 16, 64)
_GROWING_ITERATIONS = 3
_BEYOND = np.float32(0.8)
_PCA_ROWS, _PCA_ITERATIONS = 8192, 5
_STARVED_SHARE = 0.04
_SPLIT = 1 / 1024


class Steps(Protocol):
    """Where a trainer keeps what it has reached, so that one that is killed goes on from there."""

    def load(self) -> tuple[int, Array] | None:
        """The number of finished steps and the centroids after them."""
        ...

    def save(self, step: int, centroids: Array) -> None:
        """Keep the state after ``step`` steps; may be skipped if the last time is not long ago."""
        ...


class Trainer(Protocol):
    """Centroids [K, D] float32 for the rows ``x_ND`` float32; ``seed`` differs from level to level."""

    def __call__(
        self, engine: Engine, x_ND: Array, num_units: int, iterations: int, seed: int, steps: Steps
    ) -> Array: ...


def default_trainer(engine: str) -> str:
    """FAISS trains as in the paper unless told otherwise."""
    return "progressive" if engine == "faiss" else "growing"


def growing_kmeans(engine: Engine, x_ND: Array, num_units: int, iterations: int, seed: int, steps: Steps) -> Array:
    """A warm start by direction in 4, 16 and 64 principal dimensions, 3 iterations each, then ``iterations`` in all.

    Starting in few dimensions finds the large structure as ``progressive`` does; dividing by direction keeps units
    alive as ``spherical`` does. Either alone is 2 % worse than the other on one kind of data; together they are not.
    Starved units are moved beside the largest ones after every iteration.

    In all dimensions a unit goes beyond the mean of its rows, by 0.8 of the way there ("over-relaxation"). As long as
    that is less than the way itself, each iteration still lowers the error, and twelve do what needs twenty without it.
    """
    dim = x_ND.shape[1]
    sizes = [size for size in _GROWING_SIZES if size < dim]
    basis_DE = _principal_axes(x_ND, sizes[-1]) if sizes else np.eye(dim, dtype=np.float32)
    few_NE = _project(x_ND, basis_DE) if sizes else x_ND
    plan: list[tuple[int, Metric]] = [(size, "dot") for size in sizes for _ in range(_GROWING_ITERATIONS)]
    plan += [(dim, "dot")] + [(dim, "l2")] * (iterations - 1)
    done, centroids = steps.load() or (0, _pick_rows(few_NE, num_units, np.random.default_rng(seed)))
    held, held_size = None, 0
    for step, (size, metric) in list(enumerate(plan))[done:]:
        if size != held_size:
            held, held_size = engine.hold(x_ND if size == dim else np.ascontiguousarray(few_NE[:, :size])), size
        start = _widen(centroids[:, :size], size, basis_DE)
        sums, counts = engine.lloyd(held, _unit(start) if metric == "dot" else start, metric)
        centroids = _means(sums, counts, start)
        if step < len(plan) - 1:
            if metric == "l2":
                centroids += _BEYOND * (centroids - start)
            _split_starved(centroids, counts)
        steps.save(step + 1, centroids)
    return centroids


def spherical_kmeans(engine: Engine, x_ND: Array, num_units: int, iterations: int, seed: int, steps: Steps) -> Array:
    """Two iterations with equal-norm centroids and inner products, then Lloyd with re-seeding of starved units.

    The warm start divides the rows by direction, so no centroid wins by being short. A unit with less than 4 % of
    the mean number of rows is moved beside the largest one, which the next iteration then divides.
    """
    warm = min(_SPHERICAL_ITERATIONS, iterations)
    done, centroids = steps.load() or (0, _unit(_pick_rows(x_ND, num_units, np.random.default_rng(seed))))
    held = engine.hold(x_ND)
    for step in range(done, iterations):
        sums, counts = engine.lloyd(held, centroids, "dot" if step < warm else "l2")
        if step < warm - 1:
            centroids = np.where(counts[:, None] > 0, _unit(sums), centroids).astype(np.float32)
        else:
            centroids = _means(sums, counts, centroids)
            if step < iterations - 1:
                _split_starved(centroids, counts)
        steps.save(step + 1, centroids)
    return centroids


def progressive_kmeans(engine: Engine, x_ND: Array, num_units: int, iterations: int, seed: int, steps: Steps) -> Array:
    """k-means that starts in few principal dimensions and grows to all ("Improved RVQ", Liu et al. 2015), by FAISS.

    What the LCM paper used: ``faiss.ProgressiveDimClustering``, with a state to go on from after each of its 10 sizes;
    ``iterations`` are spent at each. The result depends on the number of threads, because that of the PCA does.
    """
    faiss = load_faiss()
    num_rows, dim = x_ND.shape
    pca = faiss.PCAMatrix(dim, dim)
    pca.train(x_ND)
    rotated = pca.apply(x_ND)
    done, centroids = steps.load() or (0, np.zeros((num_units, 0), dtype=np.float32))
    for step in range(done, _PROGRESSIVE_SIZES):
        size = int(dim ** ((1 + step) / _PROGRESSIVE_SIZES))
        clustering = faiss.Clustering(size, num_units)
        clustering.niter = iterations
        clustering.seed = seed & 0x7FFFFFFF
        # All rows: the library would take 256 per unit, silently, and the same ones at every level.
        clustering.max_points_per_centroid = math.ceil(num_rows / num_units)
        clustering.min_points_per_centroid = 1
        if step:
            start = np.zeros((num_units, size), dtype=np.float32)
            start[:, : centroids.shape[1]] = centroids
            faiss.copy_array_to_vector(start.ravel(), clustering.centroids)
        index = faiss.IndexFlatL2(size)
        on_gpu = engine.facts.get("device", "cpu") != "cpu"
        if on_gpu and hasattr(faiss, "index_cpu_to_all_gpus") and faiss.get_num_gpus() > 0:
            index = faiss.index_cpu_to_all_gpus(index)
        clustering.train(np.ascontiguousarray(rotated[:, :size]), index)
        centroids = faiss.vector_to_array(clustering.centroids).reshape(num_units, size)
        steps.save(step + 1, centroids)
    result: Array = pca.reverse_transform(np.ascontiguousarray(centroids))
    return result


def cluster_sums(x_ND: Array, ids_N: Array, num_units: int) -> tuple[Array, Array]:
    """Sum [K, D] float64 and number [K] of the rows of every unit; always added in row order."""
    order = np.argsort(ids_N, kind="stable")
    bounds = np.searchsorted(ids_N[order], np.arange(num_units + 1))
    sums = np.zeros((num_units, x_ND.shape[1]))
    for unit, (start, end) in enumerate(itertools.pairwise(bounds.tolist())):
        for rows in blocks(end - start):
            sums[unit] += x_ND[order[start + rows.start : start + rows.stop]].sum(axis=0, dtype=np.float64)
    return sums, np.diff(bounds)


def _principal_axes(x_ND: Array, count: int) -> Array:
    """Directions [D, count] of most variance, of at most 8,192 rows taken at even distances.

    By a few power iterations on a block: near enough for a start, and cheap where a full decomposition is not.
    """
    rows = x_ND[:: math.ceil(len(x_ND) / _PCA_ROWS)]
    rows = rows - rows.mean(axis=0)
    covariance = (rows.T @ rows).astype(np.float64)
    axes = np.random.default_rng(0).standard_normal((len(covariance), min(len(covariance), count + 16)))
    for _ in range(_PCA_ITERATIONS):
        axes = np.linalg.qr(covariance @ axes)[0]
    _, turn = np.linalg.eigh(axes.T @ covariance @ axes)
    return np.ascontiguousarray((axes @ turn[:, ::-1])[:, :count], dtype=np.float32)


def _project(x_ND: Array, basis_DE: Array) -> Array:
    few_NE = np.empty((len(x_ND), basis_DE.shape[1]), dtype=np.float32)
    for rows in blocks(len(x_ND)):
        np.matmul(x_ND[rows], basis_DE, out=few_NE[rows])
    return few_NE


def _widen(centroids: Array, size: int, basis_DE: Array) -> Array:
    """Centroids in ``size`` dimensions: more principal ones are zeros, all are those of the rows themselves."""
    have = centroids.shape[1]
    if have == size:
        return centroids
    if size == len(basis_DE):
        return np.ascontiguousarray(centroids @ basis_DE[:, :have].T)
    wide = np.zeros((len(centroids), size), dtype=np.float32)
    wide[:, :have] = centroids
    return wide


def _pick_rows(x_ND: Array, num_units: int, rng: np.random.Generator) -> Array:
    """Random rows that are not zero (a row that is a unit of an earlier level has no direction left)."""
    order = rng.permutation(len(x_ND))
    picked: list[Array] = []
    wanted = num_units
    for rows in blocks(len(order), max(num_units, 1024)):
        candidates = x_ND[order[rows]]
        candidates = candidates[candidates.any(axis=1)][:wanted]
        picked.append(candidates)
        wanted -= len(candidates)
        if not wanted:
            break
    return np.concatenate([*picked, x_ND[order[:wanted]]])


def _unit(x: Array) -> Array:
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    unit: Array = np.divide(x, norms, out=np.zeros_like(x), where=norms > 0)
    return unit.astype(np.float32)


def _means(sums: Array, counts: Array, previous: Array) -> Array:
    """Mean of each cluster, rounded to float32; an empty one keeps its centroid."""
    return np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], previous).astype(np.float32)


def _split_starved(centroids: Array, counts: Array) -> None:
    """Put each starved centroid, and the largest cluster's, a little to either side of the latter; in place."""
    starved = np.flatnonzero(counts < max(1.0, _STARVED_SHARE * counts.mean()))
    if len(starved) == 0:
        return
    weakest = set(starved.tolist())
    largest = [(-int(count), unit) for unit, count in enumerate(counts) if unit not in weakest]
    heapq.heapify(largest)
    sign = np.where(np.arange(centroids.shape[1]) % 2, 1 + _SPLIT, 1 - _SPLIT).astype(np.float32)
    for unit in starved.tolist():
        count, source = heapq.heappop(largest)
        centroids[unit] = centroids[source] * sign
        centroids[source] *= 2 - sign
        for half in (unit, source):
            heapq.heappush(largest, (count // 2, half))

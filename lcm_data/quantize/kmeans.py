"""The two trainers of one RVQ level: k-means variants that keep their units alive on residuals.

Plain k-means from random rows collapses on residuals: they have very unequal norms, small-norm centroids win nearly
all rows and the rest keep one row each, which splitting of *empty* clusters never notices.

Shapes: N rows, K units, D dimensions.
"""

from __future__ import annotations

import heapq
import itertools
import math
from typing import Any, Protocol

import numpy as np

from lcm_data.quantize.faiss_setup import load_faiss
from lcm_data.quantize.vectors import Array, blocks, nearest

TRAINERS = {
    "spherical": "lcm_data.quantize.kmeans:spherical_kmeans",
    "progressive": "lcm_data.quantize.kmeans:progressive_kmeans",
}
"""Trainers of one level, by name."""

_SPHERICAL_ITERATIONS = 2
_STARVED_SHARE = 0.04
_SPLIT = 1 / 1024


class Trainer(Protocol):
    """Centroids [K, D] float32 for the rows ``x_ND`` float32; ``seed`` differs from level to level."""

    def __call__(self, x_ND: Array, num_units: int, iterations: int, seed: int) -> Array: ...


def spherical_kmeans(x_ND: Array, num_units: int, iterations: int, seed: int) -> Array:
    """Two iterations with equal-norm centroids and inner products, then Lloyd with re-seeding of starved units.

    The warm start divides the rows by direction, so no centroid wins by being short. A unit with less than 4 % of
    the mean number of rows is moved beside the largest one, which the next iteration then divides.
    """
    rng = np.random.default_rng(seed)
    centroids = _unit(_pick_rows(x_ND, num_units, rng))
    warm = min(_SPHERICAL_ITERATIONS, iterations)
    for step in range(warm):
        ids = assign(x_ND, centroids, "dot")[0]
        sums, counts = cluster_sums(x_ND, ids, num_units)
        if step < warm - 1:
            centroids = np.where(counts[:, None] > 0, _unit(sums), centroids).astype(np.float32)
    centroids = _means(sums, counts, centroids)
    _split_starved(centroids, counts)
    for step in range(warm, iterations):
        ids = assign(x_ND, centroids)[0]
        sums, counts = cluster_sums(x_ND, ids, num_units)
        centroids = _means(sums, counts, centroids)
        if step < iterations - 1:
            _split_starved(centroids, counts)
    return centroids


def progressive_kmeans(x_ND: Array, num_units: int, iterations: int, seed: int) -> Array:
    """k-means that starts in few principal dimensions and grows to all ("Improved RVQ", Liu et al. 2015), by FAISS.

    What the LCM paper used; ``iterations`` are spent at each of 10 sizes. The result depends on the number of
    threads, because that of the PCA does.
    """
    faiss = load_faiss()
    trainer = faiss.ProgressiveDimClustering(x_ND.shape[1], num_units)
    trainer.niter = iterations
    trainer.seed = seed & 0x7FFFFFFF
    # All rows: the library would take 256 per unit, silently, and the same ones at every level.
    trainer.max_points_per_centroid = math.ceil(len(x_ND) / num_units)
    trainer.min_points_per_centroid = 1
    trainer.train(len(x_ND), faiss.swig_ptr(x_ND), faiss.ProgressiveDimIndexFactory())
    flat: Array = faiss.vector_to_array(trainer.centroids)
    return flat.reshape(num_units, x_ND.shape[1])


def assign(x_ND: Array, table_KD: Array, metric: Any = "l2") -> tuple[Array, float]:
    """Nearest unit [N] uint16 of every row, and the sum of the scores in double precision."""
    ids = np.empty(len(x_ND), dtype=np.uint16)
    total = 0.0
    for rows in blocks(len(x_ND)):
        ids[rows], scores = nearest(x_ND[rows], table_KD, metric)
        total += float(scores.sum(dtype=np.float64))
    return ids, total


def cluster_sums(x_ND: Array, ids_N: Array, num_units: int) -> tuple[Array, Array]:
    """Sum [K, D] float64 and number [K] of the rows of every unit; always added in row order."""
    order = np.argsort(ids_N, kind="stable")
    bounds = np.searchsorted(ids_N[order], np.arange(num_units + 1))
    sums = np.zeros((num_units, x_ND.shape[1]))
    for unit, (start, end) in enumerate(itertools.pairwise(bounds.tolist())):
        for rows in blocks(end - start):
            sums[unit] += x_ND[order[start + rows.start : start + rows.stop]].sum(axis=0, dtype=np.float64)
    return sums, np.diff(bounds)


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

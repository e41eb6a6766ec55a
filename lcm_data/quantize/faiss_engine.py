"""The engine FAISS: exact float32 search on the CPU, or on GPUs where faiss-gpu is installed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from lcm_data.errors import UsageError
from lcm_data.quantize.engines import Metric
from lcm_data.quantize.faiss_setup import load_faiss
from lcm_data.quantize.kmeans import cluster_sums
from lcm_data.quantize.vectors import Array, blocks


class FaissEngine:
    """See ``lcm_data.quantize.engines.Engine``."""

    name = "faiss"

    def __init__(self, device: str = "auto") -> None:
        self._faiss = load_faiss()
        self._gpu = _gpu_resources(self._faiss, device)
        self.facts = {"name": "faiss", "faiss": self._faiss.__version__, "numpy": np.__version__}
        if self._gpu is not None:
            self.facts["device"] = "cuda"

    @contextlib.contextmanager
    def threads(self, wanted: int | None) -> Iterator[None]:
        before = self._faiss.omp_get_max_threads()
        self._faiss.omp_set_num_threads(wanted or before)
        try:
            yield
        finally:
            self._faiss.omp_set_num_threads(before)

    def hold(self, x_ND: Array) -> Array:
        return x_ND

    def assign(self, x_ND: Array, table_KD: Array, metric: Metric = "l2") -> Array:
        ids = np.empty(len(x_ND), dtype=np.uint16)
        for rows in blocks(len(x_ND)):
            ids[rows] = self._search(x_ND[rows], table_KD, 1, metric)[0][:, 0]
        return ids

    def lloyd(self, x_ND: Array, table_KD: Array, metric: Metric = "l2") -> tuple[Array, Array]:
        return cluster_sums(x_ND, self.assign(x_ND, table_KD, metric), len(table_KD))

    def prepare(self, table_KD: Array) -> Array:
        return table_KD

    def nearest(self, x_ND: Array, table: Array, count: int) -> tuple[Array, Array]:
        ids, distances = self._search(x_ND, table, count, "l2")
        return ids, distances - np.square(x_ND).sum(axis=1, keepdims=True)

    def encode(self, x_ND: Array, tables: Sequence[Array]) -> tuple[Array, Array]:
        codes_NM = np.empty((len(x_ND), len(tables)), dtype=np.uint16)
        residual = x_ND.copy()
        for level, table_KD in enumerate(tables):
            codes_NM[:, level] = self.assign(residual, table_KD)
            residual -= table_KD[codes_NM[:, level]]
        return codes_NM, np.linalg.norm(residual, axis=1)

    def _search(self, x_ND: Array, table_KD: Array, count: int, metric: Metric) -> tuple[Array, Array]:
        """No N x K block is built, whatever N is; neither matrix is copied."""
        kind = self._faiss.METRIC_L2 if metric == "l2" else self._faiss.METRIC_INNER_PRODUCT
        if self._gpu is not None:
            scores, ids = self._faiss.knn_gpu(self._gpu, x_ND, table_KD, count, metric=kind)
        else:
            scores, ids = self._faiss.knn(x_ND, table_KD, count, kind)
        if len(ids) and ids.min() < 0:  # what FAISS says of NaN; as an unsigned number it would be a unit
            raise UsageError(f"FAISS finds no unit for {int((ids < 0).any(axis=1).sum())} rows: check_finite() first.")
        return ids, scores


def _gpu_resources(faiss: Any, device: str) -> Any:
    """What faiss-gpu needs to search, None for the CPU."""
    found = hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0
    if device == "cuda" and not found:
        raise UsageError("device cuda: this FAISS sees no GPU. Install faiss-gpu ('lcm-data[gpu]'), or use cpu.")
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"device: got {device!r}, allowed: auto, cpu, cuda.")
    return faiss.StandardGpuResources() if found and device != "cpu" else None

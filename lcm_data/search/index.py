"""The index of the vectors of a corpus: building it, its file, and searching it. What the rows are is not known here.

Scores are cosines: vectors are indexed at length 1. Besides an approximate search, an ``ivf`` index offers a bound: how
far, at most, a score it gives is from the true one, which is what makes exact answers possible without reading
everything (see ``lcm_data.search.engine``).

Shapes: N rows, D dimensions, Q queries, K results.
"""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lcm_data.quantize.faiss_setup import load_faiss
from lcm_data.search.kinds import TRAINING_ROWS, num_lists

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

VERSION = 2
GOOD_RECALL = 0.98
"""Share of the ten nearest rows that an ``ivf`` search is set to find, near 64 disturbed rows of the corpus."""

_ROUNDING = 1e-5
"""Of scores in float32."""
_TRIED, _NEAREST = 64, 10
_ITERATIONS = 8
_DISTURBED = 0.7
_MARGIN = 0.25
"""By which the range of a number is widened beyond the sample: one row that is cut off spoils the bound of all."""


@dataclass(frozen=True, kw_only=True)
class IndexFacts:
    """What an index is.

    Attributes:
        digest: of the embeddings it was made of.
        lists, probes: of ``ivf``, and how many of them an ordinary search looks at.
        recall: of such a search, as measured when the index was built; 1 for ``flat``.
        bound: largest difference between a score and the true cosine.
    """

    version: int
    kind: str
    digest: str
    rows: int
    dim: int
    lists: int
    probes: int
    recall: float
    bound: float
    bytes: int = 0


class VectorIndex:
    """A FAISS index with its facts."""

    def __init__(self, index: Any, facts: IndexFacts) -> None:
        self.facts = facts
        self._index = index

    def search(
        self, query_QD: Float32, k: int, chosen_N: npt.NDArray[np.bool_] | None = None, *, every: bool = False
    ) -> tuple[Float32, Int64]:
        """The k best scores [Q, K] and their rows, best first, among the ``chosen``; -1 for rows that are not there.

        ``every`` looks at all lists of an ``ivf`` index.
        """
        faiss = load_faiss("searching")
        how: dict[str, Any] = {}
        if chosen_N is not None:
            how["sel"] = faiss.IDSelectorBitmap(np.packbits(chosen_N, bitorder="little"))
        if self.facts.kind == "ivf":
            probes = self.facts.lists if every else self.facts.probes
            params = faiss.SearchParametersIVF(nprobe=probes, **how)
        else:
            params = faiss.SearchParameters(**how)
        scores, rows = self._index.search(np.ascontiguousarray(query_QD, np.float32), k, params=params)
        return scores, rows

    def save(self, file: Path) -> None:
        """Write the index, and its facts beside it, last."""
        faiss = load_faiss("searching")
        file.parent.mkdir(parents=True, exist_ok=True)
        with _replacing(file) as temporary:
            faiss.write_index(self._index, str(temporary))
        self.facts = IndexFacts(**{**asdict(self.facts), "bytes": file.stat().st_size})
        with _replacing(file.with_suffix(".json")) as temporary:
            temporary.write_text(json.dumps(asdict(self.facts), indent=1) + "\n")

    @classmethod
    def load(cls, file: Path, digest: str) -> VectorIndex | None:
        """The index in ``file``, mapped into memory; None if there is none, or none that can be used."""
        try:
            facts = IndexFacts(**json.loads(file.with_suffix(".json").read_text()))
            if (facts.version, facts.digest, facts.bytes) != (VERSION, digest, file.stat().st_size):
                return None
            faiss = load_faiss("searching")
            flags = faiss.IO_FLAG_MMAP if facts.kind == "ivf" else faiss.IO_FLAG_MMAP_IFC
            index = faiss.read_index(str(file), flags)
        except (OSError, ValueError, TypeError, RuntimeError):
            return None
        return cls(index, facts) if (index.ntotal, index.d) == (facts.rows, facts.dim) else None


def build_index(kind: str, digest: str, rows: int, dim: int, blocks: Callable[[], Iterable[Float32]]) -> VectorIndex:
    """An index of ``rows`` vectors, which ``blocks`` gives in order, each time it is called."""
    faiss = load_faiss("searching")
    about: dict[str, Any] = {"version": VERSION, "kind": kind, "digest": digest, "rows": rows, "dim": dim}
    if kind == "flat":
        flat = faiss.IndexFlatIP(dim)
        for x_ND in blocks():
            flat.add(unit(x_ND))
        return VectorIndex(flat, IndexFacts(**about, lists=0, probes=0, recall=1.0, bound=_ROUNDING))
    lists = num_lists(rows)
    sample_ND = _sample(blocks(), rows, min(rows, max(TRAINING_ROWS * lists, 2048)))
    index = faiss.index_factory(dim, f"IVF{lists},SQ8", faiss.METRIC_INNER_PRODUCT)
    index.cp.spherical, index.cp.niter, index.cp.seed = True, _ITERATIONS, 1
    index.cp.min_points_per_centroid = 1
    index.sq.rangestat_arg = _MARGIN
    index.train(sample_ND)
    bound = _fill(faiss, index, blocks())
    index.nprobe = lists
    probes, recall = _tune(faiss, index, sample_ND)
    return VectorIndex(index, IndexFacts(**about, lists=lists, probes=probes, recall=recall, bound=bound))


def unit(x_ND: npt.NDArray[Any]) -> Float32:
    """Rows at length 1 in float32; zero stays zero."""
    x_ND = np.ascontiguousarray(x_ND, np.float32)
    largest = np.abs(x_ND).max(axis=1, keepdims=True, initial=0)
    x_ND = x_ND / np.where(largest > 0, largest, 1)  # else the squares of very short or long ones leave float32
    lengths = np.linalg.norm(x_ND, axis=1, keepdims=True)
    return np.asarray(x_ND / np.maximum(lengths, 1), np.float32)


def _sample(blocks: Iterable[Float32], rows: int, wanted: int) -> Float32:
    """``wanted`` rows at length 1, the same every time."""
    chosen = np.zeros(rows, bool)
    chosen[np.random.default_rng(0).permutation(rows)[:wanted]] = True
    parts, start = [], 0
    for x_ND in blocks:
        parts.append(unit(x_ND[chosen[start : start + len(x_ND)]]))
        start += len(x_ND)
    return np.concatenate(parts)


def _fill(faiss: Any, index: Any, blocks: Iterable[Float32]) -> float:
    """Add all vectors; gives the largest distance between one and what the index keeps of it.

    The score of a query of length 1 is wrong by no more (Cauchy and Schwarz).
    """
    index.set_direct_map_type(faiss.DirectMap.Array)
    worst = 0.0
    for x_ND in blocks:
        x_ND, start = unit(x_ND), index.ntotal
        index.add(x_ND)
        x_ND -= index.reconstruct_n(start, len(x_ND))
        worst = max(worst, float(np.linalg.norm(x_ND, axis=1).max(initial=0)))
    index.set_direct_map_type(faiss.DirectMap.NoMap)
    return worst + _ROUNDING


def _tune(faiss: Any, index: Any, sample_ND: Float32) -> tuple[int, float]:
    """How many lists must be looked at to find what looking at all finds, and the share of it found."""
    query_QD = sample_ND[:: max(1, len(sample_ND) // _TRIED)][:_TRIED]
    noise_QD = np.random.default_rng(1).standard_normal(query_QD.shape)
    query_QD = unit(query_QD + _DISTURBED * unit(noise_QD))  # a question is no row of the corpus
    k = min(_NEAREST, index.ntotal)

    def found(probes: int) -> Int64:
        rows: Int64 = index.search(query_QD, k, params=faiss.SearchParametersIVF(nprobe=probes))[1]
        return rows

    truth, probes = found(index.nlist), max(1, index.nlist // 256)
    while True:
        recall = float(np.mean([np.isin(a, b).mean() for a, b in zip(truth, found(probes), strict=True)]))
        if recall >= GOOD_RECALL or probes >= index.nlist:
            return min(probes, int(index.nlist)), recall
        probes = min(2 * probes, index.nlist)


@contextlib.contextmanager
def _replacing(file: Path) -> Iterator[Path]:
    temporary = file.with_name(f".{file.name}.{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)

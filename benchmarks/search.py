"""Searching a million vectors: the indexes of ``lcm-data search`` against brute force, unfiltered and filtered.

    python -m benchmarks.search [--rows 1000000] [--dim 256] [--queries 200] [--corpus CORPUS]

Vectors are drawn around cluster centres (as many as 4 roots of the rows), or are those of a corpus, repeated with noise
up to ``--rows``. Queries are vectors of the same kind that are not in the index. Reported are CPU seconds and wall time
of building, the file, queries a second one at a time, recall@10 against numpy in float32, by the true scores of the
rows found (so ties count), and the same for a filter that a hundredth of the rows passes.

The index alone is measured, and with ``--whole`` what ``lcm-data search`` does: the vectors become a corpus
(``lcm-data import``), candidates are scored by the vectors stored there, and the rows found are read.

Traps: FAISS and numpy use all the cores that OMP_NUM_THREADS allows; set it to 1 to compare per core. Stored vectors
are half floats, so the truth is computed on such.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lcm_data.corpus import open_corpus
from lcm_data.search.engine import CorpusSearch
from lcm_data.search.index import VectorIndex, build_index, unit
from pipelines.import_vectors import ImportConfig, run

K, BLOCK = 10, 20_000


def synthetic(rows: int, dim: int, seed: int) -> np.ndarray[Any, Any]:
    """Unit vectors around centres; clusters differ in size and width."""
    centres = np.random.default_rng(7).standard_normal((4 * int(rows**0.5), dim)).astype(np.float32)
    rng = np.random.default_rng(seed)
    x_ND = np.empty((rows, dim), np.float32)
    for start in range(0, rows, BLOCK):
        num = min(BLOCK, rows - start)
        at = (len(centres) * rng.random(num) ** 2).astype(int)
        width = rng.uniform(0.3, 1.2, (num, 1)).astype(np.float32)
        x_ND[start : start + num] = unit(centres[at] + width * rng.standard_normal((num, dim)).astype(np.float32))
    return x_ND


def real(corpus: str, rows: int, queries: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Vectors of a corpus, with noise where they are repeated, and some held out as queries."""
    batches = open_corpus(corpus).embeddings.batches(columns=["emb"])
    own = unit(np.concatenate([batch.vectors("emb") for batch in batches]))
    rng = np.random.default_rng(0)
    rng.shuffle(own)
    query, own = own[:queries], own[queries:]
    parts = [own]
    while sum(map(len, parts)) < rows:
        noise = rng.standard_normal(own.shape).astype(np.float32) * (0.3 / own.shape[1] ** 0.5)
        parts.append(unit(own + noise))
    return np.concatenate(parts)[:rows], query


def cpu() -> float:
    return time.process_time()


def timed(label: str, run: Callable[[], Any]) -> Any:
    begun, wall = cpu(), time.perf_counter()
    result = run()
    print(f"  {label}: {cpu() - begun:.1f} CPU s, {time.perf_counter() - wall:.1f} s")
    return result


def brute(x_ND: np.ndarray[Any, Any], query: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The K best scores, best first."""
    return -np.sort(-np.partition(x_ND @ query, -K)[-K:])


def measure(
    label: str, index: VectorIndex, x_ND: Any, queries: Any, truth: Any, chosen: Any = None, every: bool = False
) -> None:
    begun, wall = cpu(), time.perf_counter()
    found = [index.search(query[None], K, chosen, every=every)[1][0] for query in queries]
    spent, seconds = cpu() - begun, time.perf_counter() - wall
    scores = [x_ND[rows[rows >= 0]] @ query for rows, query in zip(found, queries, strict=True)]
    recall = np.mean([(row >= best[-1] - 1e-6).sum() / K for row, best in zip(scores, truth, strict=True)])
    rate, wall_rate = len(queries) / spent, len(queries) / seconds
    print(f"  {label}: recall@10 {recall:.4f}, {rate:,.1f} queries/CPU s ({wall_rate:,.1f} /s)")


def whole(x_ND: np.ndarray[Any, Any], queries: Any, truth: Any, folder: Path) -> None:
    """A corpus of the vectors, searched as the command does."""
    corpus = str(folder / "corpus")
    np.save(folder / "vectors.npy", x_ND.astype(np.float16))
    timed("imported", lambda: run(ImportConfig(
        source=str(folder / "vectors.npy"), corpus=corpus, lang="eng_Latn", space="benchmark", workers=1
    )))  # fmt: skip
    for kind in ("flat", "ivf"):
        search = timed(f"{kind} built", lambda kind=kind: CorpusSearch(corpus, kind))
        for exact in (False, True):
            begun, wall = cpu(), time.perf_counter()
            found = [search.search(query, K, exact=exact).hits for query in queries]
            spent, seconds = cpu() - begun, time.perf_counter() - wall
            recall = np.mean([
                sum(hit.score >= best[-1] - 1e-6 for hit in hits) / K for hits, best in zip(found, truth, strict=True)
            ])  # fmt: skip
            print(
                f"  {kind}{', exact' if exact else ''}: recall@10 {recall:.4f}, "
                f"{len(queries) / spent:,.1f} queries/CPU s ({len(queries) / seconds:,.1f} /s)"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--corpus")
    parser.add_argument("--whole", action="store_true", help="measure the search of a corpus, not the index")
    args = parser.parse_args()
    if args.corpus:
        x_ND, queries = real(args.corpus, args.rows, args.queries)
    else:
        x_ND, queries = synthetic(args.rows, args.dim, 1), synthetic(args.queries, args.dim, 2)
    x_ND = unit(x_ND.astype(np.float16))
    chosen = np.random.default_rng(3).random(len(x_ND)) < 0.01
    print(f"{len(x_ND):,} vectors of {x_ND.shape[1]} numbers, {'real' if args.corpus else 'synthetic'}")
    truth = timed("numpy, brute force", lambda: [brute(x_ND, query) for query in queries])
    few = [brute(x_ND[chosen], query) for query in queries]
    with tempfile.TemporaryDirectory() as folder:
        if args.whole:
            whole(x_ND, queries, truth, Path(folder))
        for kind in () if args.whole else ("flat", "ivf"):
            print(kind)

            def make(kind: str = kind) -> VectorIndex:
                starts = range(0, len(x_ND), BLOCK)
                return build_index(kind, "", *x_ND.shape, lambda: (x_ND[at : at + BLOCK] for at in starts))

            index = timed("built", make)
            file = Path(folder, f"{kind}.faiss")
            index.save(file)
            loaded = VectorIndex.load(file, "")
            assert loaded is not None
            facts = loaded.facts
            print(f"  file {facts.bytes / 1e6:,.0f} MB, {facts.lists} lists, {facts.probes} looked at")
            print(f"  recall measured when it was built {facts.recall:.3f}, bound of the error {facts.bound:.4f}")
            measure("search", loaded, x_ND, queries, truth)
            if kind == "ivf":
                measure("all lists", loaded, x_ND, queries[:20], truth[:20], every=True)
            measure("filter of 1 %", loaded, x_ND, queries[:50], few[:50], chosen, every=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"peak memory {peak:.1f} GB, the vectors themselves among it")


if __name__ == "__main__":
    main()

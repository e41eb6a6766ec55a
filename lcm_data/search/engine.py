"""Searching a corpus: the cached index, filters, and answers that are exact where they must be.

With filters, or ``exact``, the answer is the true one. A flat index gives it as it is. From an ``ivf`` index more
candidates are fetched than wanted, from all lists, and scored by the stored vectors; no other row can be better once
the best score that is left, plus the bound on its error, is below the worst that is kept. Without filters an ``ivf``
index looks at some lists only, and the scores are those of the stored vectors all the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lcm_data.corpus import Corpus, open_corpus
from lcm_data.errors import UsageError
from lcm_data.quantize.memory import available_memory
from lcm_data.search.filters import matching
from lcm_data.search.index import Float32, IndexFacts, Int64, VectorIndex, build_index, unit
from lcm_data.search.kinds import choose_kind
from lcm_data.search.rows import Rows
from lcm_data.sonar.fingerprint import cache_dir
from lcm_data.store.files import LocalFiles

FOLDER = "search"
"""Of the index, in the corpus."""

_ABANDONED_SECONDS = 3600
_FETCH_FACTOR, _FETCH_LEAST = 4, 64


@dataclass(frozen=True)
class Hit:
    """One row that was found; ``row`` is everything known about it but its vector."""

    rank: int
    score: float
    lang: str
    split: str
    doc_id: str
    sent_idx: int
    text: str | None
    row: dict[str, Any]


@dataclass(frozen=True)
class Found:
    """The answer to a query: ``matching`` of the ``rows`` of the corpus passed the filters; ``exact`` if it is sure."""

    hits: list[Hit]
    matching: int
    rows: int
    exact: bool


class CorpusSearch:
    """A corpus with its index, built when it is missing or of other embeddings than there are now.

    Args:
        root: the corpus.
        index: a kind of index, or "auto" (see ``lcm_data.search.kinds``).

    Raises:
        InputError: no corpus, or one without embeddings.
        UnknownNameError: no such kind of index.
        UsageError: not enough memory to build it.
        MissingExtraError: FAISS is not installed.
    """

    def __init__(self, root: str | os.PathLike[str], index: str = "auto") -> None:
        corpus = open_corpus(root, allow_partial=True)
        self.rows = Rows(corpus)
        self.data = self.rows.data
        self.built = False
        self._index = self._open(corpus, index)

    @property
    def facts(self) -> IndexFacts:
        """What the index is."""
        return self._index.facts

    def _open(self, corpus: Corpus, wanted: str) -> VectorIndex:
        rows, dim, digest = len(self.rows), self.data.dim, self.data.manifest.digest
        folder, own = _folder(corpus)
        stem = hashlib.sha256(digest.encode()).hexdigest()[:16]
        # One that is there needs no memory to build; an ivf index that was once asked for is not what "auto" means.
        kind = choose_kind(wanted, rows, dim, None)
        for building in (False, True):
            kind = choose_kind(wanted, rows, dim, available_memory()) if building else kind
            found = VectorIndex.load(folder / f"{stem}-{kind}.faiss", digest)
            if found is not None:
                return found
        index = build_index(kind, digest, rows, dim, self.rows.blocks)
        index.save(folder / f"{stem}-{kind}.faiss")
        self.built = True
        if own:
            _forget_others(folder, stem)
        return index

    def search(
        self,
        query_D: npt.ArrayLike,
        k: int = 10,
        *,
        langs: Sequence[str] | None = None,
        splits: Sequence[str] | None = None,
        where: str | None = None,
        exact: bool = False,
    ) -> Found:
        """The k rows nearest to a vector by cosine among those of some languages and splits for which ``where`` holds.

        Raises:
            UsageError: k, the vector, a language, a split or ``where`` cannot be used.
            MissingExtraError: DuckDB, for ``where``, is not installed.
        """
        query_1D = self._checked(query_D)
        if k < 1:
            raise UsageError(f"k must be 1 or more, got {k}.")
        chosen = self.rows.inside(langs, splits) if langs is not None or splits is not None else None
        if where is not None:
            chosen = matching(self.rows, where, np.ones(len(self.rows), bool) if chosen is None else chosen)
        num = len(self.rows) if chosen is None else int(chosen.sum())
        exact = exact or chosen is not None or self.facts.kind == "flat"
        if num == 0:
            return Found([], 0, len(self.rows), True)
        scores, rows = self._best(query_1D, min(k, num), chosen, num, exact)
        return Found(self._hits(scores, rows), num, len(self.rows), exact)

    def _best(
        self, query_1D: Float32, k: int, chosen: npt.NDArray[np.bool_] | None, num: int, exact: bool
    ) -> tuple[Float32, Int64]:
        """The k best scores and rows, best first, of equal ones the first row first."""
        index, facts = self._index, self.facts
        if facts.kind == "flat":
            scores, rows = index.search(query_1D, k, chosen)
            return _ordered(scores[0], rows[0], k)
        fetch = min(num, max(_FETCH_FACTOR * k, _FETCH_LEAST))
        while True:
            near, found = index.search(query_1D, fetch, chosen, every=exact)
            near, rows = near[0][found[0] >= 0], found[0][found[0] >= 0]
            if len(rows) < k and not exact:  # the lists that were looked at hold too few
                exact = True
                continue
            best, best_rows = _ordered(self._cosines(query_1D, rows), rows, k)
            if not exact or fetch >= num or (len(best) == k and best[-1] > near[-1] + facts.bound):
                return best, best_rows
            fetch = min(num, _FETCH_FACTOR * fetch)

    def _cosines(self, query_1D: Float32, rows: Int64) -> Float32:
        return np.asarray(unit(self.rows.vectors(rows)) @ query_1D[0], np.float32)

    def _checked(self, query_D: npt.ArrayLike) -> Float32:
        query = np.asarray(query_D, np.float32)
        if query.shape != (self.data.dim,) or not np.isfinite(query).all() or not query.any():
            raise UsageError(
                f"a query must be a vector of {self.data.dim} finite numbers, not all zero; got shape "
                f"{list(query.shape)}."
            )
        return unit(query[None])

    def _hits(self, scores: Float32, rows: Int64) -> list[Hit]:
        table = self.rows.take(rows, self.rows.schema.names).to_pylist()
        names = ("lang", "split", "doc_id", "sent_idx")
        return [
            Hit(rank, float(score), text=row.get("text"), row=row, **{name: row[name] for name in names})
            for rank, (score, row) in enumerate(zip(scores, table, strict=True), start=1)
        ]


def _ordered(scores: Float32, rows: Int64, k: int) -> tuple[Float32, Int64]:
    order = np.lexsort((rows, -scores))[:k]
    return scores[order], rows[order]


def _folder(corpus: Corpus) -> tuple[Path, bool]:
    """Where the index is kept, and whether nothing else is: in the corpus if that can be, else in the cache."""
    files = corpus.files
    if isinstance(files, LocalFiles) and os.access(files.root, os.W_OK):
        return Path(files.root, FOLDER), True
    return cache_dir() / FOLDER, False


def _forget_others(folder: Path, stem: str) -> None:
    """Remove indexes of other embeddings, and what killed runs left half written."""
    for file in folder.glob("*-*.*"):
        if file.suffix in {".faiss", ".json"} and not file.name.startswith(f"{stem}-"):
            file.unlink(missing_ok=True)
    for file in folder.glob(".*.tmp"):
        with contextlib.suppress(FileNotFoundError):  # whoever writes it has just finished
            if time.time() - file.stat().st_mtime > _ABANDONED_SECONDS:
                file.unlink()

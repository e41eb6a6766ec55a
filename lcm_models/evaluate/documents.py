"""The documents that are evaluated: a fixed sample of each language and split, whatever the shards look like."""

from __future__ import annotations

import functools
import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import xxhash

from lcm_data.corpus import StageData

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class EvalDocument:
    """A document: raw concepts float32 [S, D] and its sentences, if the corpus keeps them beside the vectors."""

    doc_id: str
    x_SD: Array
    texts: list[str] | None


@dataclass(frozen=True)
class Partition:
    """The documents of one language and split that are evaluated."""

    data: StageData
    split: str
    lang: str
    num_documents: int
    seed: int

    @property
    def name(self) -> str:
        """``split/lang``."""
        return f"{self.split}/{self.lang}"

    def documents(self) -> list[EvalDocument]:
        """``num_documents`` drawn with the seed by their ids (0: all), at least two sentences each, in order.

        Documents with a vector that is not finite are left out. All are held in memory.
        """
        has_text = "text" in self.data.schema.names
        columns = ["doc_id", "emb", *(["text"] if has_text else [])]
        found = []
        for shard, chosen in self._chosen.items():
            for document in self.data.documents_of(shard, columns):
                if document.doc_id in chosen:
                    x_SD = document.vectors("emb").astype(np.float32)
                    if np.isfinite(x_SD).all():
                        found.append(EvalDocument(document.doc_id, x_SD, document["text"] if has_text else None))
        return found

    @functools.cached_property
    def _chosen(self) -> dict[str, set[str]]:
        """Shards and the ids in them; only ids are read."""
        found: dict[str, set[str]] = {}
        for _, doc_id, shard in sorted(self._drawn(), key=lambda each: each[2]):
            found.setdefault(shard, set()).add(doc_id)
        return found

    def _drawn(self) -> Iterable[tuple[int, str, str]]:
        keys = (
            (hash_of(self.seed, document.doc_id), document.doc_id, shard)
            for shard in self.data.shards([self.lang], [self.split])
            for document in self.data.documents_of(shard, ["doc_id"])
            if len(document) > 1
        )
        return heapq.nsmallest(self.num_documents, keys) if self.num_documents else keys


@dataclass(frozen=True)
class Window:
    """Consecutive concepts of a document that a model sees at once, the first of them number ``start``."""

    document: int
    start: int
    x_SD: Array


def windows(documents: list[EvalDocument], max_len: int) -> list[Window]:
    """Documents cut to at most ``max_len`` concepts; a rest of one concept is left out: nothing precedes it."""
    return [
        Window(number, start, document.x_SD[start : start + max_len])
        for number, document in enumerate(documents)
        for start in range(0, len(document.x_SD) - 1, max_len)
        if len(document.x_SD) - start > 1
    ]


def hash_of(seed: int, *names: object) -> int:
    """A number that depends on the names alone."""
    return xxhash.xxh64_intdigest("\x1f".join(map(str, (seed, *names))).encode())

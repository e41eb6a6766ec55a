"""Documents of a corpus as tensors for a PyTorch training loop, shared out over ranks and loader workers.

Each document is one tensor of its concepts in order. Batching, packing and what models do with them are the caller's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from lcm_data.corpus import Corpus
from lcm_data.errors import UsageError
from lcm_data.normalize import Normalizer
from lcm_data.space import check_same_space


@dataclass(frozen=True)
class Reader:
    """Number ``rank`` of ``count`` readers that share a corpus between them."""

    rank: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.count:
            raise UsageError(f"rank {self.rank} of {self.count} readers: allowed are 0 to {self.count - 1}.")


class ConceptDocuments(IterableDataset[torch.Tensor]):
    """The documents of a corpus, each a float32 tensor ``x_SD`` of its S concepts of D dimensions.

    Over all readers (ranks, and the workers of a ``DataLoader`` on each) every document comes exactly once. With a
    ``seed`` the shards are permuted, differently for each ``epoch`` (set it with ``set_epoch``); inside a shard
    documents keep their order, so add a shuffle buffer where that matters. With a ``normalizer`` they are normalised.

    Raises:
        InputError: the corpus has no finished embeddings.
        UsageError: a language or split that it does not have, or a normaliser of another width.
        SpaceError: a normaliser that was fitted in another embedding space.
    """

    def __init__(
        self,
        corpus: Corpus,
        *,
        langs: Sequence[str] | None = None,
        splits: Sequence[str] | None = ("train",),
        reader: Reader | None = None,
        seed: int | None = None,
        normalizer: Normalizer | None = None,
    ) -> None:
        self._data = corpus.embeddings
        self._shards = self._data.shards(langs, splits)
        self._reader = reader or Reader()
        self._seed = seed
        self._epoch = 0
        self._normalizer = normalizer
        if normalizer is not None:
            self._check(normalizer)

    @property
    def dim(self) -> int:
        """Width D of the concepts."""
        return self._data.dim

    def set_epoch(self, epoch: int) -> None:
        """Choose the permutation of shards for the next pass; call it on every rank."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[torch.Tensor]:
        reader = self._share_with_workers()
        shards = self._shards
        if self._seed is not None:
            order = np.random.default_rng([self._seed, self._epoch]).permutation(len(shards))
            shards = [shards[index] for index in order]
        # Whole shards where there are enough for everybody; else every reader passes over all and takes its documents.
        by_shard = len(shards) >= reader.count
        for number, shard in enumerate(shards):
            if by_shard and number % reader.count != reader.rank:
                continue
            for place, document in enumerate(self._data.documents_of(shard, ["doc_id", "emb"])):
                if by_shard or (number + place) % reader.count == reader.rank:
                    yield self._tensor(document.vectors("emb"))

    def _check(self, normalizer: Normalizer) -> None:
        if normalizer.dim != self.dim:
            raise UsageError(f"the normaliser is for {normalizer.dim} dimensions, the corpus has {self.dim}.")
        fitted_in = {"space": normalizer.info.space, "encoder": normalizer.info.encoder, "dim": normalizer.dim}
        advice = "Fit one on this corpus with 'lcm-data normalize'."
        check_same_space(fitted_in, self._data.manifest.provenance, "the normaliser", "the corpus", advice)

    def _share_with_workers(self) -> Reader:
        info = get_worker_info()
        if info is None:
            return self._reader
        return Reader(self._reader.rank * info.num_workers + info.id, self._reader.count * info.num_workers)

    def _tensor(self, vectors: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> torch.Tensor:
        x_SD = torch.from_numpy(vectors.astype(np.float32))
        return x_SD if self._normalizer is None else self._normalizer.normalize(x_SD)

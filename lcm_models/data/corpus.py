"""Embeddings of a corpus, with their codes if wanted, as blocks of documents.

A block is the shortest run of row groups that holds whole documents: about a thousand sentences. Codes are matched by
sentence id where the two stages differ: ``quantize`` may have rejected sentences.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lcm_data import schema
from lcm_data.corpus import Corpus, StageData, open_corpus
from lcm_data.errors import InputError, UsageError
from lcm_data.store.files import open_files
from lcm_data.store.plan import load_plan
from lcm_data.store.reader import Kept, ShardReader
from lcm_data.store.shard import document_groups
from lcm_models.data.config import SourceConfig
from lcm_models.data.documents import Array, Documents, SourceFacts, digest
from lcm_models.data.warn import log

_LISTED = 1024
"""Shards whose blocks and documents are remembered: some 20 KiB each."""


class CorpusSource:
    """The documents of some languages and splits of a corpus.

    Raises:
        InputError: no finished embeddings, or no rows of these languages and splits.
        UsageError: a language or split that the corpus does not have, or codes are wanted and missing or outdated.
    """

    def __init__(self, config: SourceConfig, with_codes: bool = False) -> None:
        corpus = _open(config.path)
        self.data: StageData = corpus.embeddings
        self.shards = self.data.shards(config.langs, config.splits)
        if not self.shards:
            raise InputError(
                f"{config.path} has no sentences of the languages {_names(config.langs)} in the splits "
                f"{_names(config.splits)}; it has {', '.join(self.data.manifest.partitions)}. Choose others."
            )
        self._reader = ShardReader(self.data.files)
        self._blocks: Kept[int, list[tuple[range, int]]] = Kept(
            _LISTED, lambda shard: document_groups(self.data.files, self.shards[shard])
        )
        self._ends: Kept[int, list[npt.NDArray[np.int64]]] = Kept(_LISTED, self._find_ends)
        chosen = set(self.shards)
        rows = sum(shard.rows for shard in self.data.manifest.shards if shard.path in chosen)
        self._codes = _Codes(config.path, corpus, self.shards) if with_codes else None
        item = self.data.schema.field("emb").type.value_type
        self.facts = SourceFacts(
            name=config.path,
            dim=self.data.dim,
            dtype=np.dtype(item.to_pandas_dtype()),
            num_concepts=self._codes.num_rows if self._codes else rows,
            provenance={**self.data.manifest.provenance, "dim": str(self.data.dim)},
            identity=digest(self.data.manifest.digest, self.shards, self._codes.identity if self._codes else ""),
            codebook=self._codes.codebook if self._codes else "",
            num_levels=self._codes.num_levels if self._codes else 0,
        )

    @property
    def num_shards(self) -> int:
        return len(self.shards)

    def num_blocks(self, shard: int) -> int:
        return len(self._blocks[shard])

    def read(self, shard: int, block: int) -> Documents:
        return self._read(shard, block)[0]

    def read_with_ids(self, shard: int, block: int) -> tuple[Documents, list[str]]:
        """The documents of a block, and their ids."""
        documents, kept = self._read(shard, block)
        ids = self._all_ids(shard, block)
        return documents, ids if kept is None else [ids[index] for index in kept]

    def ids(self, shard: int, block: int) -> list[str]:
        """Ids of the documents of a block, as ``read_with_ids`` gives them."""
        if self._codes is None or self._codes.complete(self.shards[shard]):
            return self._all_ids(shard, block)
        return self.read_with_ids(shard, block)[1]

    def _read(self, shard: int, block: int) -> tuple[Documents, list[int] | None]:
        """The documents of a block, and which they are where some have lost all their sentences (None: all)."""
        path, (groups, _) = self.shards[shard], self._blocks[shard][block]
        x_ND, ends = self._reader.vectors(path, groups, "emb"), self._ends[shard][block]
        if self._codes is None:
            return Documents(x_ND, ends), None
        if self._codes.complete(path):
            return Documents(x_ND, ends, self._codes.of_groups(path, groups)), None
        sid_N = self._reader.read(path, groups, ["sid"])["sid"].to_numpy()
        codes_ML, has_code_N = self._codes.of_sentences(path, sid_N)
        ends = np.cumsum(has_code_N, dtype=np.int64)[ends - 1]
        kept = np.flatnonzero(np.diff(ends, prepend=0))
        return Documents(x_ND[has_code_N], ends[kept], codes_ML), kept.tolist()

    def _all_ids(self, shard: int, block: int) -> list[str]:
        table = self._reader.read(self.shards[shard], self._blocks[shard][block][0], ["doc_id"])
        last = self._ends[shard][block] - 1
        return list(table["doc_id"].combine_chunks().take(pa.array(last)).to_pylist())

    def _find_ends(self, shard: int) -> list[npt.NDArray[np.int64]]:
        """Ends of the documents of each block. Read for the whole shard: that costs little more than for a block."""
        blocks = self._blocks[shard]
        groups = range(blocks[0][0].start, blocks[-1][0].stop)
        doc_ids = self._reader.read(self.shards[shard], groups, ["doc_id"])["doc_id"]
        block_ends = np.cumsum([rows for _, rows in blocks])
        runs = pc.run_end_encode(doc_ids.combine_chunks()).run_ends.to_numpy()
        ends = np.union1d(runs, block_ends).astype(np.int64)
        parts = np.split(ends, np.searchsorted(ends, block_ends[:-1], side="right"))
        return [part - start for part, start in zip(parts, [0, *block_ends[:-1].tolist()], strict=True)]


class _Codes:
    """Codes of the sentences of some shards."""

    def __init__(self, name: str, corpus: Corpus, shards: list[str]) -> None:
        advice = f"Run 'lcm-data quantize {name}'"
        try:
            data, embeddings = corpus.codes, corpus.embeddings
        except InputError as error:
            raise UsageError(f"{name} has no codes, which this model learns. {advice}.") from error
        plan = load_plan(data.files)
        if plan is not None and plan.notes.get("upstream") != embeddings.manifest.plan_hash:
            raise UsageError(f"the codes of {name} are of other embeddings than it has now. {advice} --overwrite.")
        self._shards = {shard.path: shard.rows for shard in data.manifest.shards}
        self.num_rows = sum(self._shards.get(path, 0) for path in shards)
        if not self.num_rows:
            raise UsageError(f"{name} has no codes of the languages and splits asked for. {advice}.")
        self._sizes = {shard.path: shard.rows for shard in embeddings.manifest.shards}
        total = sum(self._sizes[path] for path in shards)
        if self.num_rows < total:
            log.warning("%s: %d of %d sentences have no codes and are left out", name, total - self.num_rows, total)
        self.codebook, self.num_levels = data.metadata.get("codebook", ""), data.dim
        self.identity = data.manifest.digest
        self._reader = ShardReader(data.files)
        self._whole: Kept[str, tuple[Array, Array]] = Kept(4, self._read_whole)

    def complete(self, path: str) -> bool:
        """Has each sentence of a shard codes? Then rows and row groups are those of the embeddings."""
        return self._shards.get(path) == self._sizes[path]

    def of_groups(self, path: str, groups: range) -> Array:
        """Codes [N, L] of some row groups of a complete shard."""
        return schema.vectors(self._reader.read(path, groups, ["codes"])["codes"])

    def of_sentences(self, path: str, sid_N: Array) -> tuple[Array, npt.NDArray[np.bool_]]:
        """Codes [M, L] of the sentences that have some, and which these are."""
        if not self._shards.get(path):
            return np.zeros((0, self.num_levels), np.uint16), np.zeros(len(sid_N), bool)
        sid_M, codes_ML = self._whole[path]
        place_N = np.minimum(np.searchsorted(sid_M, sid_N), len(sid_M) - 1)
        has_code_N = sid_M[place_N] == sid_N
        return codes_ML[place_N[has_code_N]], has_code_N

    def _read_whole(self, path: str) -> tuple[Array, Array]:
        """All codes of a shard in the order of their sentence ids; they are small."""
        footer = self._reader.footer(path)
        table = self._reader.read(path, range(footer.num_row_groups), ["sid", "codes"])
        sid_M = table["sid"].to_numpy()
        order = np.argsort(sid_M)
        return sid_M[order], schema.vectors(table["codes"])[order]


def _open(path: str) -> Corpus:
    try:
        return open_corpus(path)
    except InputError as error:
        if any(name.endswith(".parquet") for name in open_files(path).list()):
            raise InputError(
                f"{path} is not a corpus, but holds Parquet files. If their rows are documents with lists of vectors, "
                f"say so: data.sources=[{{path='{path}', kind='nested'}}]."
            ) from error
        raise


def _names(names: tuple[str, ...] | None) -> str:
    return "(all)" if names is None else ", ".join(names)

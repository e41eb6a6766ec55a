"""Small training data on disk: nested Parquet files whose concepts say which they are, and what a loader made of them.

A concept holds the number of its document, its position in it, and the number of its source.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lcm_models.data import ConceptLoader, DataConfig
from lcm_models.model import Batch

COLUMN = "text_sentences_sonar_emb"
DIM = 4
END = 999.0
"""First number of the end-of-text concept of ``write_end``."""

SHAPES = {"files": (60, 2, 5), "groups": (3, 20, 4), "little": (2, 1, 7)}
"""Files, row groups of each, documents of each."""


def lengths(shape: str) -> list[list[list[int]]]:
    num_files, num_groups, num_documents = SHAPES[shape]
    rng = np.random.default_rng(len(shape))
    return rng.integers(1, 21, (num_files, num_groups, num_documents)).tolist()


def concepts(document: int, length: int, source: int = 0, begin: int = 0) -> np.ndarray:
    x_SD = np.zeros((length, DIM), np.float32)
    x_SD[:, 0], x_SD[:, 1], x_SD[:, 2] = document, np.arange(begin, begin + length), source
    return x_SD


def column(documents: Sequence[np.ndarray], kind: pa.DataType | None = None) -> pa.Array:
    """Documents [S, DIM] as a column of lists of vectors, of fixed size by default."""
    kind = kind or pa.list_(pa.list_(pa.float32(), DIM))
    return pa.array([[list(map(float, x)) for x in document] for document in documents], type=kind)


def write_nested(folder: Path, files: Sequence[Sequence[Sequence[int]]], source: int = 0) -> Path:
    """Lengths of the documents of each row group of each file; documents are numbered through."""
    folder.mkdir(parents=True, exist_ok=True)
    number = 0
    for part, groups in enumerate(files):
        schema = pa.schema([pa.field(COLUMN, pa.list_(pa.list_(pa.float32(), DIM)))])
        with pq.ParquetWriter(folder / f"part-{part:03}.parquet", schema) as writer:
            for lengths in groups:
                documents = [concepts(number + index, length, source) for index, length in enumerate(lengths)]
                number += len(lengths)
                writer.write_table(pa.table([column(documents)], schema=schema))
    return folder


def write_end(folder: Path) -> str:
    file = folder / "end.npy"
    np.save(file, np.array([END, 0, 0, 0], np.float32))
    return str(file)


def config(*folders: Path, weights: Sequence[float | None] | None = None, **settings: object) -> DataConfig:
    """Data of nested folders."""
    shares = weights or [None] * len(folders)
    sources = [
        {"path": str(folder), "kind": "nested", "weight": share} for folder, share in zip(folders, shares, strict=True)
    ]
    given = {"max_len": 8, "batch_rows": 4, "end_of_text": None, "min_len": 1, "prefetch": 0, **settings}
    return DataConfig.model_validate({"sources": sources, **given})


def documents_of(batch: Batch) -> Iterable[np.ndarray]:
    """The windows of a batch, each [S, DIM]."""
    for x_SD, doc_S in zip(batch.x_BSD.numpy(), batch.doc_BS.numpy(), strict=True):
        for number in range(int(doc_S.max(initial=-1)) + 1):
            (columns,) = np.nonzero(doc_S == number)
            assert (np.diff(columns) == 1).all()
            yield x_SD[columns]


def seen(batches: Iterable[Batch]) -> Counter[tuple[int, int, int]]:
    """How often each concept (source, document, position) came; the end of text is (0, 999, 0)."""
    return Counter(
        (int(x[2]), int(x[0]), int(x[1])) for batch in batches for window in documents_of(batch) for x in window
    )


def one_pass(settings: DataConfig, world_size: int = 1) -> list[list[Batch]]:
    """The batches of each process."""
    once = settings.model_copy(update={"endless": False})
    return [list(ConceptLoader(once, rank, world_size)) for rank in range(world_size)]

"""Row groups of Parquet files by number, a bounded number of files open: for loaders and searches."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lcm_data import schema
from lcm_data.errors import VerificationError
from lcm_data.store.files import Files, LocalFiles
from lcm_data.store.pages import Array, plain_vectors
from lcm_data.store.shard import open_shard

K = TypeVar("K")
V = TypeVar("V")

_MOST_OPEN = 32


class Kept(Generic[K, V]):
    """The ``size`` values used last; others are made again when they are needed."""

    def __init__(self, size: int, make: Callable[[K], V]) -> None:
        self._size, self._make = size, make
        self._values: OrderedDict[K, V] = OrderedDict()

    def __getitem__(self, key: K) -> V:
        if key not in self._values:
            self._values[key] = self._make(key)
            if len(self._values) > self._size:
                self._values.popitem(last=False)
        self._values.move_to_end(key)
        return self._values[key]


class ShardReader:
    """Files of one tree, read by row group; local ones are memory-mapped. For one thread at a time."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._open: Kept[str, pq.ParquetFile] = Kept(_MOST_OPEN, lambda path: open_shard(files, path))
        self._schemas: Kept[str, pa.Schema] = Kept(_MOST_OPEN, lambda path: self._open[path].schema_arrow)
        self._bytes: Kept[str, Array | None] = Kept(_MOST_OPEN, self._map)

    def footer(self, path: str) -> pq.FileMetaData:
        """What the file says of itself.

        Raises:
            VerificationError: the file is missing or damaged.
        """
        return self._open[path].metadata

    def schema(self, path: str) -> pa.Schema:
        """Columns of the file, with its metadata."""
        return self._schemas[path]

    def read(self, path: str, groups: Sequence[int], columns: Sequence[str]) -> pa.Table:
        """Rows of some row groups.

        Raises:
            VerificationError: the file is missing or damaged.
        """
        shard = self._open[path]
        try:
            return shard.read_row_groups([*groups], columns=[*columns], use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise VerificationError(
                f"cannot read {self._files.root}/{path}: {error}. Check the storage, and the corpus with "
                "'lcm-data verify'."
            ) from error

    def vectors(self, path: str, groups: Sequence[int], column: str) -> Array:
        """A column of vectors of some row groups [N, D].

        Raises:
            VerificationError: the file is missing or damaged.
        """
        shard, file = self._open[path], self._bytes[path]
        kind = self._schemas[path].field(column).type
        found: list[Array] = []
        if file is not None:
            dtype = np.dtype(kind.value_type.to_pandas_dtype())
            for group in groups:
                x_ND = plain_vectors(file, shard.metadata.row_group(group), column, dtype, kind.list_size)
                if x_ND is None:
                    break
                found.append(x_ND)
        if len(found) < len(groups):
            return schema.vectors(self.read(path, groups, [column])[column])
        return found[0] if len(found) == 1 else np.concatenate(found)

    def _map(self, path: str) -> Array | None:
        """The bytes of a local file; None where Arrow has to read (and to say what is wrong)."""
        if not isinstance(self._files, LocalFiles):
            return None
        try:
            return np.memmap(Path(self._files.root, path), np.uint8, mode="r").view(np.ndarray)
        except (OSError, ValueError):
            return None

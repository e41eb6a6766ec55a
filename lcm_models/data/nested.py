"""Parquet files in the layout of the official LCM trainer: a row is a document, its vectors a list in a column.

Inner lists may be of fixed or variable size, of float16, float32 or float64. A row group is a block and is held in
memory while it is open. A folder ``split=NAME`` in the path of a file says its split.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from lcm_data.errors import InputError, UsageError
from lcm_data.store.files import open_files
from lcm_data.store.reader import ShardReader
from lcm_data.store.shard import METADATA_PREFIX
from lcm_models.data.config import SourceConfig
from lcm_models.data.documents import Array, Documents, SourceFacts, digest


class NestedSource:
    """The documents of a folder of Parquet files.

    Raises:
        InputError: no Parquet files, or none of the splits asked for.
        UsageError: a column is missing or holds no lists of vectors, or codes are wanted.
    """

    def __init__(self, config: SourceConfig, with_codes: bool = False) -> None:
        if with_codes:
            raise UsageError(f"{config.path} is nested and has no codes, which this model learns. Use a corpus.")
        files = open_files(config.path)
        found = {path: size for path, size in files.list().items() if path.endswith(".parquet")}
        if not found:
            raise InputError(f"{config.path} holds no Parquet files. Give the folder with the nested data.")
        chosen = {path: size for path, size in found.items() if _is_of(path, config.splits)}
        if not chosen:
            splits = sorted({split for path in found for split in _splits_of(path)})
            raise InputError(
                f"{config.path} has no files of the split {', '.join(config.splits or ())}; it has {', '.join(splits)}."
            )
        self.name, self._columns = config.path, [config.column]
        if config.prompt_column:
            self._columns.append(config.prompt_column)
        self._paths = sorted(chosen)
        self._reader = ShardReader(files)
        schema = self._reader.schema(self._paths[0])
        items = [self._item_type(schema, column) for column in self._columns]
        self._dim = self._width(schema)
        stored = {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}
        provenance = {
            key.removeprefix(METADATA_PREFIX): value for key, value in stored.items() if key.startswith(METADATA_PREFIX)
        }
        half = all(pa.types.is_float16(item) for item in items)
        self.facts = SourceFacts(
            name=config.path,
            dim=self._dim,
            dtype=np.dtype(np.float16 if half else np.float32),
            num_concepts=sum(self._count(path) for path in self._paths),
            provenance={**provenance, "dim": str(self._dim)},
            identity=digest(sorted(chosen.items()), self._columns),
            is_pairs=config.is_pairs,
        )

    @property
    def num_shards(self) -> int:
        return len(self._paths)

    def num_blocks(self, shard: int) -> int:
        return int(self._reader.footer(self._paths[shard]).num_row_groups)

    def read(self, shard: int, block: int) -> Documents:
        table = self._reader.read(self._paths[shard], [block], self._columns)
        parts = [self._lists(table[column], self._paths[shard]) for column in self._columns]
        x_ND, ends = parts[0]
        if len(parts) == 1:
            return Documents(x_ND, ends)
        return join(Documents(*parts[1]), Documents(x_ND, ends))

    def _item_type(self, schema: pa.Schema, column: str) -> pa.DataType:
        """Type of the numbers in a column of lists of vectors."""
        if column not in schema.names:
            raise UsageError(
                f"{self.name} has no column {column!r}; it has {', '.join(schema.names)}. Set 'column', or kind "
                "'corpus' for what 'lcm-data encode' wrote."
            )
        outer = schema.field(column).type
        inner = outer.value_type if _is_list(outer) else outer
        if not (_is_list(outer) and _is_list(inner) and pa.types.is_floating(inner.value_type)):
            raise UsageError(f"the column {column!r} of {self.name} is {outer}, not lists of vectors: set 'column'.")
        return inner.value_type

    def _width(self, schema: pa.Schema) -> int:
        """Width of the vectors: of the type, or of the first document where inner lists are of variable size."""
        inner = schema.field(self._columns[0]).type.value_type
        if pa.types.is_fixed_size_list(inner):
            return int(inner.list_size)
        for path in self._paths:
            for group in range(self._reader.footer(path).num_row_groups):
                values = self._reader.read(path, [group], self._columns[:1])[0].combine_chunks()
                vectors = (values.chunk(0) if isinstance(values, pa.ChunkedArray) else values).flatten()
                if len(vectors):
                    return len(vectors[0])
        raise InputError(f"{self.name} holds no vectors in the column {self._columns[0]!r}.")

    def _count(self, path: str) -> int:
        """Vectors in a file, by its footer; all columns of vectors together."""
        footer = self._reader.footer(path)
        total = 0
        for group in (footer.row_group(index) for index in range(footer.num_row_groups)):
            for place in range(group.num_columns):
                column = group.column(place)
                if column.path_in_schema.split(".")[0] in self._columns:
                    total += column.num_values // self._dim
        return total

    def _lists(self, column: pa.ChunkedArray, path: str) -> tuple[Array, Array]:
        """Vectors of all rows one after the other [N, D], and where each row ends; a null row is empty."""
        array = pa.chunked_array(column).combine_chunks()
        rows = array if isinstance(array, pa.Array) else pa.concat_arrays(array.chunks)
        ends = np.cumsum(rows.value_lengths().fill_null(0).to_numpy(), dtype=np.int64)
        vectors = rows.flatten()
        widths = vectors.value_lengths() if not pa.types.is_fixed_size_list(vectors.type) else None
        bad = vectors.null_count or (widths is not None and set(widths.unique().to_pylist()) - {self._dim})
        numbers = vectors.flatten()
        if bad or numbers.null_count or len(numbers) != len(vectors) * self._dim:
            raise InputError(
                f"{self.name}/{path}: a vector is null or not of {self._dim} numbers. Write the file again without it."
            )
        x_ND: Array = numbers.to_numpy(zero_copy_only=False).reshape(-1, self._dim)
        return (x_ND.astype(np.float32), ends) if x_ND.dtype == np.float64 else (x_ND, ends)


def join(prompts: Documents, answers: Documents) -> Documents:
    """Each prompt followed by its answer."""
    num_prompt = np.diff(prompts.ends, prepend=0)
    num_answer = np.diff(answers.ends, prepend=0)
    ends = np.cumsum(num_prompt + num_answer)
    dtype = np.result_type(prompts.x_ND, answers.x_ND)
    x_ND = np.empty((int(ends[-1]) if len(ends) else 0, answers.x_ND.shape[1]), dtype)
    of_prompt = _rows_of(ends - num_prompt - num_answer, num_prompt)
    of_answer = _rows_of(ends - num_answer, num_answer)
    x_ND[of_prompt], x_ND[of_answer] = prompts.x_ND, answers.x_ND
    codes_NL = None
    if prompts.codes_NL is not None and answers.codes_NL is not None:
        codes_NL = np.empty((len(x_ND), answers.codes_NL.shape[1]), answers.codes_NL.dtype)
        codes_NL[of_prompt], codes_NL[of_answer] = prompts.codes_NL, answers.codes_NL
    return Documents(x_ND, ends, codes_NL, num_prompt)


def _rows_of(starts: Array, lengths: Array) -> Array:
    """The numbers ``start, start + 1, ...`` of all spans, one after the other."""
    before = np.cumsum(lengths) - lengths
    rows: Array = np.arange(int(lengths.sum())) + np.repeat(starts - before, lengths)
    return rows


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _splits_of(path: str) -> list[str]:
    return [part.removeprefix("split=") for part in path.split("/")[:-1] if part.startswith("split=")]


def _is_of(path: str, splits: tuple[str, ...] | None) -> bool:
    """Is the file of one of the splits? One outside of any folder ``split=`` is of ``train``."""
    return splits is None or bool(set(_splits_of(path) or ["train"]) & set(splits))

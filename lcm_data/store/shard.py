"""One shard: writing it to a local file with the settings of the schema, checking it, and reading it back.

A shard holds whole documents in order; its row groups are cut at document ends so that each can be used alone.
Where a shard goes and when it counts is decided in ``lcm_data.store.commits``.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lcm_data import schema
from lcm_data.errors import StorageError, VerificationError
from lcm_data.store.files import Files, storage_errors

METADATA_PREFIX = "lcm."
ROW_GROUP_MIN, ROW_GROUP_MAX = 1024, 2048
"""Rows of a row group: 2-4 MiB of half floats, 2.4 ms to fetch one random sentence."""

_BLOCK = 1 << 22
_REDO = "run its stage again: only its unit is done anew."


@dataclass(frozen=True)
class ShardInfo:
    """What a commit records about one shard file."""

    path: str
    rows: int
    bytes: int
    sha256: str


def shard_path(split: str, lang: str, part: int) -> str:
    """Path of a shard inside its stage; the same part keeps its number through all stages."""
    return f"data/split={split}/lang={lang}/part-{part:06d}.parquet"


def parse_shard_path(path: str) -> tuple[str, str, int]:
    """Split, language and part number of a shard path."""
    _, split, lang, name = path.split("/")
    return split.removeprefix("split="), lang.removeprefix("lang="), int(name[5:-8])


def row_group_sizes(doc_ids: pa.Array) -> list[int]:
    """Sizes of row groups between ``ROW_GROUP_MIN`` and ``ROW_GROUP_MAX`` rows, ending where documents end.

    Only a document longer than ``ROW_GROUP_MAX`` is cut inside.
    """
    num_rows = len(doc_ids)
    if not num_rows:
        return []
    runs = np.diff(pc.run_end_encode(doc_ids).run_ends.to_numpy(), prepend=0)
    sizes: list[int] = []
    current = 0
    for run in (int(r) for r in runs):
        if current and (current >= ROW_GROUP_MIN or current + run > ROW_GROUP_MAX):
            sizes.append(current)
            current = 0
        current += run
        while current > ROW_GROUP_MAX:
            sizes.append(ROW_GROUP_MAX)
            current -= ROW_GROUP_MAX
    return [*sizes, current] if current else sizes


def write_shard(file: Path, table: pa.Table, metadata: Mapping[str, str]) -> None:
    """Write ``table`` (documents in order) to the local ``file`` and check the footer that reached the disk.

    ``metadata`` goes into the file under the prefix ``lcm.``; it must not hold times or hosts, so that the same
    unit always gives the same bytes.
    """
    pairs = {f"{METADATA_PREFIX}{key}": value for key, value in sorted(metadata.items())}
    table = table.replace_schema_metadata(pairs)
    with (
        storage_errors("write", str(file)),
        pq.ParquetWriter(file, table.schema, **schema.writer_settings(table.schema)) as writer,
    ):
        start = 0
        for size in row_group_sizes(table["doc_id"].combine_chunks()):
            writer.write_table(table.slice(start, size), row_group_size=size)
            start += size
    written = pq.ParquetFile(file).metadata.num_rows
    if written != table.num_rows:
        raise StorageError(f"{file}: wrote {table.num_rows} rows but the file says {written}. Check the disk.")


def describe_file(file: Path, path: str, rows: int) -> ShardInfo:
    """Size and SHA-256 of a finished local file that will be published as ``path``."""
    with open(file, "rb") as stream:
        return ShardInfo(path, rows, file.stat().st_size, sha256_of(stream))


def sha256_of(stream: BinaryIO) -> str:
    """SHA-256 of what is left in ``stream``."""
    digest = hashlib.sha256()
    while block := stream.read(_BLOCK):
        digest.update(block)
    return digest.hexdigest()


def open_shard(files: Files, path: str, check_pages: bool = False) -> pq.ParquetFile:
    """Open a shard for reading; local files are memory-mapped. ``check_pages`` costs a fifth of the reading speed.

    Raises:
        VerificationError: the file is missing or not a whole Parquet file.
    """
    with _shard_errors(files, path):
        source = files.open(path)
        return pq.ParquetFile(source, memory_map=isinstance(source, str), page_checksum_verification=check_pages)


def read_shard(
    files: Files, path: str, columns: Sequence[str] | None = None, groups: Sequence[int] | None = None
) -> pa.Table:
    """The rows of a shard, or of some of its row groups, projected to ``columns``; page checksums are verified."""
    names = None if columns is None else [*columns]
    with open_shard(files, path, check_pages=True) as shard, _shard_errors(files, path):
        return shard.read(names) if groups is None else shard.read_row_groups([*groups], names)


def document_groups(files: Files, path: str) -> list[tuple[range, int]]:
    """The smallest runs of row groups that hold whole documents, with their rows; only the footer is read."""
    with open_shard(files, path) as shard:
        sizes = [shard.metadata.row_group(index).num_rows for index in range(shard.num_row_groups)]
    runs: list[tuple[range, int]] = []
    first = rows = 0
    for index, size in enumerate(sizes):
        rows += size
        # A full one may have been cut inside a document (see ``row_group_sizes``).
        if size < ROW_GROUP_MAX or index == len(sizes) - 1:
            runs.append((range(first, index + 1), rows))
            first, rows = index + 1, 0
    return runs


@contextlib.contextmanager
def _shard_errors(files: Files, path: str) -> Iterator[None]:
    try:
        with storage_errors("read", f"{files.root}/{path}"):
            yield
    except FileNotFoundError as error:
        raise VerificationError(f"the shard {files.root}/{path} is missing: {_REDO}") from error
    except (pa.ArrowException, StorageError) as error:
        # A page whose checksum is wrong comes from pyarrow as a bare OSError, which no disk or network raises.
        if isinstance(error, StorageError) and (type(error.__cause__) is not OSError or error.__cause__.errno):
            raise
        raise VerificationError(
            f"the shard {files.root}/{path} is damaged: {error.__cause__ or error}. Delete it and {_REDO}"
        ) from error


def iter_row_groups(files: Files, path: str, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The row groups of a shard one after the other; memory stays that of one group."""
    with open_shard(files, path) as shard:
        for index in range(shard.num_row_groups):
            with _shard_errors(files, path):
                group = shard.read_row_group(index, columns=None if columns is None else [*columns])
            yield group


def shard_metadata(shard: pq.ParquetFile) -> dict[str, str]:
    """The ``lcm.`` key-value metadata of an open shard, without the prefix."""
    pairs: Mapping[bytes, bytes] = shard.schema_arrow.metadata or {}
    decoded = ((key.decode(), value.decode()) for key, value in pairs.items())
    return {key.removeprefix(METADATA_PREFIX): value for key, value in decoded if key.startswith(METADATA_PREFIX)}

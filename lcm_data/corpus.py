"""Reading a corpus: its stages, its documents in order, its vectors in batches, as numpy, torch or Arrow.

    corpus = open_corpus("my-corpus")
    for document in corpus.embeddings.documents(langs=["eng_Latn"], splits=["train"]):
        document.doc_id, document["text"], document.vectors("emb")      # [num_sentences, dim] float16

Only shards that the manifest names are read, one row group at a time, and only the columns asked for. Nothing here
writes.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lcm_data import schema
from lcm_data.errors import InputError, UsageError
from lcm_data.store.files import Files, open_files
from lcm_data.store.manifest import Manifest, load_manifest
from lcm_data.store.plan import load_plan
from lcm_data.store.shard import iter_row_groups, open_shard, parse_shard_path, read_shard, shard_metadata

if TYPE_CHECKING:
    import torch

_MADE_BY = {"segments": "segment", "embeddings": "encode", "codes": "quantize"}
"""The verb that makes each stage."""


@dataclass(frozen=True)
class Batch:
    """Consecutive rows of one language and split."""

    lang: str
    split: str
    table: pa.Table

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __getitem__(self, column: str) -> list[Any]:
        """A column as Python values.

        Raises:
            UsageError: the column was not read, or there is none of that name.
        """
        values: list[Any] = self._column(column).to_pylist()
        return values

    def vectors(self, column: str = "emb") -> np.ndarray[Any, Any]:
        """A vector column (``emb``, ``codes``) as a read-only array [num_rows, size] in its stored type.

        Raises:
            UsageError: the column was not read, or holds no vectors.
        """
        values = self._column(column)
        if not pa.types.is_fixed_size_list(values.type):
            raise UsageError(f"the column {column!r} holds no vectors but {values.type}. Use batch[{column!r}].")
        return schema.vectors(values)

    def _column(self, name: str) -> pa.ChunkedArray:
        if name not in self.table.column_names:
            raise UsageError(
                f"no column {name!r} was read. There are: {', '.join(self.table.column_names)}. "
                "Name the columns you need in columns=[...], or leave it out to read them all."
            )
        return self.table[name]

    def tensor(self, column: str = "emb") -> torch.Tensor:
        """A vector column as a tensor [num_rows, size] of its own memory."""
        import torch

        return torch.from_numpy(self.vectors(column).copy())


@dataclass(frozen=True)
class CorpusDocument(Batch):
    """All rows of one document, in order."""

    doc_id: str


class StageData:
    """The rows of one stage of a corpus."""

    def __init__(self, files: Files, allow_partial: bool = False) -> None:
        self.files = files
        self.manifest: Manifest = load_manifest(files, allow_partial)

    def __len__(self) -> int:
        return self.manifest.rows

    @property
    def langs(self) -> list[str]:
        """Languages that have rows."""
        return sorted({name.split("/")[1] for name in self.manifest.partitions})

    @property
    def splits(self) -> list[str]:
        """Splits that have rows."""
        return sorted({name.split("/")[0] for name in self.manifest.partitions})

    @functools.cached_property
    def schema(self) -> pa.Schema:
        """Schema of the shards, without file metadata."""
        with open_shard(self.files, self._first_shard()) as shard:
            return shard.schema_arrow.remove_metadata()

    @functools.cached_property
    def metadata(self) -> dict[str, str]:
        """Provenance as the shards carry it (encoder, dtype, segmenter, ...)."""
        with open_shard(self.files, self._first_shard()) as shard:
            own = shard_metadata(shard)
        return {key: value for key, value in own.items() if key not in {"unit", "split", "lang"}}

    @property
    def dim(self) -> int:
        """Size of the vectors: of ``emb`` for embeddings, levels for codes.

        Raises:
            UsageError: the stage has no vectors.
        """
        for field in self.schema:
            if pa.types.is_fixed_size_list(field.type):
                return int(field.type.list_size)
        raise UsageError(f"the stage {self.manifest.stage!r} holds no vectors; use corpus.embeddings or corpus.codes.")

    def shards(self, langs: Sequence[str] | None = None, splits: Sequence[str] | None = None) -> list[str]:
        """Paths of the shards of the given languages and splits (all by default; one may be a plain str), in order.

        Raises:
            UsageError: a language or split that the stage does not have.
        """
        langs, splits = _listed(langs), _listed(splits)
        for kind, wanted, has in (("language", langs, self.langs), ("split", splits, self.splits)):
            for name in wanted or ():
                if name not in has:
                    raise UsageError(f"no {kind} {name!r} in {self.files.root}. It has: {', '.join(has)}.")
        return [
            shard.path
            for shard in self.manifest.shards
            if (langs is None or parse_shard_path(shard.path)[1] in langs)
            and (splits is None or parse_shard_path(shard.path)[0] in splits)
        ]

    def batches(
        self,
        size: int | None = None,
        *,
        langs: Sequence[str] | None = None,
        splits: Sequence[str] | None = None,
        columns: Sequence[str] | None = None,
    ) -> Iterator[Batch]:
        """Rows in order, in batches of at most ``size`` (the row groups as they are by default)."""
        if size is not None and size < 1:
            raise UsageError(f"size must be 1 or more rows, got {size}.")
        for path in self.shards(langs, splits):
            split, lang, _ = parse_shard_path(path)
            for group in iter_row_groups(self.files, path, self._checked(columns)):
                step = size or max(1, group.num_rows)
                for start in range(0, group.num_rows, step):
                    yield Batch(lang, split, group.slice(start, step))

    def documents(
        self,
        *,
        langs: Sequence[str] | None = None,
        splits: Sequence[str] | None = None,
        columns: Sequence[str] | None = None,
    ) -> Iterator[CorpusDocument]:
        """Whole documents in order; memory stays that of one row group and one document."""
        for path in self.shards(langs, splits):
            yield from self.documents_of(path, columns)

    def documents_of(self, shard: str, columns: Sequence[str] | None = None) -> Iterator[CorpusDocument]:
        """Whole documents of one of the ``shards``, in order."""
        columns = _listed(columns)
        wanted = None if columns is None else list(dict.fromkeys(["doc_id", *columns]))
        split, lang, _ = parse_shard_path(shard)
        for doc_id, table in self._documents_of(shard, wanted):
            yield CorpusDocument(lang, split, table, doc_id)

    def _documents_of(self, path: str, columns: Sequence[str] | None) -> Iterator[tuple[str, pa.Table]]:
        held: list[pa.Table] = []
        held_id: str | None = None
        for group in iter_row_groups(self.files, path, self._checked(columns)):
            runs = pc.run_end_encode(group["doc_id"].combine_chunks())
            start = 0
            for doc_id, end in zip(runs.values.to_pylist(), runs.run_ends.to_pylist(), strict=True):
                if held_id is not None and doc_id != held_id:
                    yield held_id, pa.concat_tables(held)
                    held = []
                held_id = doc_id
                held.append(group.slice(start, end - start))
                start = end
        if held_id is not None:
            yield held_id, pa.concat_tables(held)

    def table(
        self,
        *,
        langs: Sequence[str] | None = None,
        splits: Sequence[str] | None = None,
        columns: Sequence[str] | None = None,
    ) -> pa.Table:
        """All rows at once, with ``lang`` and ``split`` as columns. Everything asked for is held in memory."""
        columns = self._checked(columns)
        tables = []
        for path in self.shards(langs, splits):
            split, lang, _ = parse_shard_path(path)
            tables.append(_with_place(read_shard(self.files, path, columns), lang, split))
        if not tables:
            empty = self.schema.empty_table()
            tables = [_with_place(empty if columns is None else empty.select([*columns]), "", "")]
        return pa.concat_tables(tables).unify_dictionaries()

    def _checked(self, columns: Sequence[str] | None) -> Sequence[str] | None:
        columns = _listed(columns)
        self.check_columns(columns or ())
        return columns

    def check_columns(self, names: Sequence[str]) -> None:
        """Refuse to work without columns: those of another stage, or of a newer layout than this one has.

        Raises:
            UsageError: one of them is not there.
        """
        for name in names:
            if name not in self.schema.names:
                raise UsageError(
                    f"no column {name!r} in {self.files.root}. It has: {', '.join(self.schema.names)}.{self._advice()}"
                )

    def _advice(self) -> str:
        """What to do about columns that a stage of an older layout lacks."""
        plan = load_plan(self.files)
        if plan is None or plan.schema == schema.SCHEMA_VERSION:
            return ""
        return (
            f" Its layout is that of version {plan.schema}, today's is {schema.SCHEMA_VERSION}: make it anew with "
            f"'lcm-data {_MADE_BY[plan.stage]} --overwrite' if you need the column."
        )

    def _first_shard(self) -> str:
        if not self.manifest.shards:
            raise InputError(f"{self.files.root} holds no rows: every input row was rejected. See _lcm/rejects/.")
        return self.manifest.shards[0].path


def _listed(names: Sequence[str] | None) -> Sequence[str] | None:
    """A plain str is one name: as a sequence it would be its letters."""
    return [names] if isinstance(names, str) else names


def _with_place(table: pa.Table, lang: str, split: str) -> pa.Table:
    table = table.replace_schema_metadata(None)
    for name, value in (("lang", lang), ("split", split)):
        indices = pa.array(np.zeros(len(table), dtype=np.int32))
        table = table.append_column(name, pa.DictionaryArray.from_arrays(indices, pa.array([value])))
    return table


class Corpus:
    """A corpus folder (local, or behind an fsspec URL) with the stages that exist in it."""

    def __init__(self, root: str | os.PathLike[str], allow_partial: bool = False) -> None:
        self.files = open_files(root)
        self._allow_partial = allow_partial

    @property
    def stages(self) -> list[str]:
        """Stages that have begun."""
        return [stage for stage in schema.STAGES if self.files.size(f"{stage}/_lcm/plan.json") is not None]

    @functools.cached_property
    def segments(self) -> StageData:
        """Sentences as text with offsets."""
        return self._stage("segments")

    @functools.cached_property
    def embeddings(self) -> StageData:
        """Sentences as vectors."""
        return self._stage("embeddings")

    @functools.cached_property
    def codes(self) -> StageData:
        """Sentences as RVQ codes."""
        return self._stage("codes")

    def _stage(self, name: schema.Stage) -> StageData:
        return StageData(self.files.child(name), self._allow_partial)


def open_corpus(root: str | os.PathLike[str], allow_partial: bool = False) -> Corpus:
    """Open the corpus at ``root``: a folder or any fsspec URL.

    With ``allow_partial`` unfinished stages show what is committed so far; without, touching one is an error.

    Raises:
        InputError: there is no corpus at ``root``.
    """
    corpus = Corpus(root, allow_partial)
    if not corpus.stages:
        raise InputError(
            f"{corpus.files.root} is not a corpus: it has none of {', '.join(schema.STAGES)}. "
            "Make one with 'lcm-data segment INPUT... CORPUS'."
        )
    return corpus

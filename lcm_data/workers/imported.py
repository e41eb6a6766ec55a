"""The workers of ``lcm-data import``: rows of files of vectors to the segments of a corpus, then to its embeddings.

Both read the same slices in the same way. The first keeps sentences, the second their vectors, which it finds by the
ids of the segments; a vector that is none is a reject there, and its sentence a gap.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from lcm_data import schema
from lcm_data.errors import InputError
from lcm_data.exchange.slices import Defaults, ReadSlice, Sentence, SourceSlice, read_slice
from lcm_data.exchange.sources import read_range
from lcm_data.exchange.vectors import Reasons, dense, one_array
from lcm_data.store.commits import Commit, RejectRow
from lcm_data.store.files import Files, open_files
from lcm_data.store.shard import read_shard, shard_path
from lcm_data.workers.base import Task
from lcm_data.workers.output import CRASHED, UnitOutput, commit_output, row_reject, shard_facts
from lcm_data.workers.storable import is_storable, norms_of

_KEPT = (*schema.ID_COLUMNS, "text")


@dataclass
class _Rows:
    task: Task
    rows_in: int
    read: ReadSlice


@dataclass
class ImportSegmentsWorker:
    """Rows of sources to segments. ``modality`` is what the vectors are of: text, speech, sign, image, ..."""

    target: str
    defaults: Defaults
    modality: str
    plan_hash: str
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def files(self) -> Files:
        return open_files(self.target)

    def setup(self) -> None:
        """Nothing is loaded."""

    def read(self, task: Task) -> _Rows:
        found = read_rows(SourceSlice.from_json(task.unit.spec), self.defaults)
        first, last = task.rows or (0, task.unit.rows)
        wanted = set(range(first, last)) - set(task.skip)
        for document in found.documents:
            document.sentences = [sentence for sentence in document.sentences if sentence.row in wanted]
        found.documents = [document for document in found.documents if document.sentences]
        found.rejects = [reject for reject in found.rejects if reject.row in wanted]
        found.rejects += [RejectRow(row, CRASHED, "importing this row ended the worker") for row in task.skip]
        return _Rows(task, task.unit.rows, found)

    def work(self, loaded: _Rows) -> UnitOutput:
        output = UnitOutput(loaded.task.unit.id, loaded.rows_in, rejects=loaded.read.rejects)
        by_place: dict[tuple[str, str], list[tuple[Sentence, int, int]]] = defaultdict(list)
        done: set[int] = set()
        for document in loaded.read.documents:
            begin = 0
            first = document.sentences[0]
            for sentence in document.sentences:
                by_place[first.split, first.lang].append((sentence, document.num_sentences, begin))
                begin += len(sentence.text) + 1
                done.add(sentence.row)
        for (split, lang), sentences in by_place.items():
            path = shard_path(split, lang, output.unit)
            output.tables[path] = _segments_table(
                sentences, SourceSlice.from_json(loaded.task.unit.spec), self.modality
            )
        output.rows_done = len(done)
        output.stats = {
            "documents": float(len(loaded.read.documents)),
            "sentences": float(sum(table.num_rows for table in output.tables.values())),
            "without_text": float(loaded.read.num_without_text),
        }
        return output

    def write(self, output: UnitOutput) -> Commit:
        return commit_output(self.files, output, self.plan_hash, partial(shard_facts, self.metadata, "segments"))


def read_rows(part: SourceSlice, defaults: Defaults) -> ReadSlice:
    """The documents of a slice; vectors are read only where the rows alone do not say how many there are."""
    names = part.columns.of_facts
    if part.columns.nested or not names:
        names = [*names, part.columns.embedding]
    return read_slice(part, read_range(part.file, part.start, part.stop, names), defaults)


def _segments_table(rows: list[tuple[Sentence, int, int]], part: SourceSlice, modality: str) -> pa.Table:
    sentences = [sentence for sentence, _, _ in rows]
    begins = np.array([begin for _, _, begin in rows], np.int64)
    lengths = np.array([len(sentence.text) for sentence in sentences], np.int64)
    columns: dict[str, Any] = {
        "sid": [schema.sentence_id(each.lang, each.doc_id, each.sent_idx) for each in sentences],
        "doc_id": [each.doc_id for each in sentences],
        "sent_idx": [each.sent_idx for each in sentences],
        "n_sents": [count for _, count, _ in rows],
        "para_idx": np.zeros(len(rows), np.int32),
        "text": [each.text for each in sentences],
        "char_start": begins,
        "char_end": begins + lengths,
        "n_chars": lengths,
        "modality": [modality] * len(rows),
        "source": [part.file.name] * len(rows),
    }
    arrays = [
        pa.array(columns[each.name], each.type) if each.name in columns else pa.nulls(len(rows), each.type)
        for each in schema.SEGMENTS
    ]
    return pa.Table.from_arrays(arrays, schema=schema.SEGMENTS)


@dataclass
class ImportTrialWorker(ImportSegmentsWorker):
    """Segments and embeddings of the same rows, to learn what both would cost; writes nothing."""

    dim: int = 1
    store_dtype: schema.StoreDtype = "float16"

    def work(self, loaded: _Rows) -> UnitOutput:
        output = super().work(loaded)
        part = SourceSlice.from_json(loaded.task.unit.spec)
        first, last = loaded.task.rows or (0, loaded.task.unit.rows)
        table = read_range(part.file, part.start + first, part.start + last, [part.columns.embedding])
        x_ND, _ = _vectors_of(part, table, self.dim)
        kind = schema.vector_type(pa.from_numpy_dtype(np.dtype(self.store_dtype)), self.dim)
        output.tables["vectors"] = pa.table({"emb": schema.vector_array(x_ND.astype(self.store_dtype), kind)})
        return output


def _vectors_of(part: SourceSlice, table: pa.Table, dim: int) -> tuple[np.ndarray[Any, Any], Reasons]:
    """Vectors of rows of a source, those of nested documents one after the other."""
    vectors = one_array(table[part.columns.embedding])
    return dense(one_array(vectors.flatten()) if part.columns.nested else vectors, dim)


@dataclass
class _Vectors:
    """The segments of a unit by shard, the row of the unit at which each begins, and the vector of each segment."""

    task: Task
    tables: dict[str, pa.Table]
    rows: dict[str, np.ndarray[Any, np.dtype[np.int64]]]
    vector_of: dict[str, np.ndarray[Any, np.dtype[np.int64]]]
    x_ND: np.ndarray[Any, Any]
    reasons: Reasons
    rejects: list[RejectRow]


@dataclass
class ImportVectorsWorker:
    """Vectors of sources to the embeddings of segments that ``ImportSegmentsWorker`` made of the same slices."""

    source: str
    target: str
    defaults: Defaults
    dim: int
    plan_hash: str
    store_dtype: schema.StoreDtype = "float16"
    with_text: bool = True
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def files(self) -> Files:
        return open_files(self.target)

    def setup(self) -> None:
        """Nothing is loaded."""

    def read(self, task: Task) -> _Vectors:
        part = SourceSlice.from_json(task.unit.spec["slice"])
        segments = {path: read_shard(open_files(self.source), path, _KEPT) for path in task.unit.spec["shards"]}
        names = list(dict.fromkeys([*part.columns.of_facts, part.columns.embedding]))
        rows_table = read_range(part.file, part.start, part.stop, names)
        found = read_slice(part, rows_table, self.defaults)
        place = {
            schema.sentence_id(each.lang, each.doc_id, each.sent_idx): each.vector
            for document in found.documents
            for each in document.sentences
        }
        loaded = _Vectors(task, {}, {}, {}, *_vectors_of(part, rows_table, self.dim), [])
        first, last = task.rows or (0, task.unit.rows)
        before = 0
        for path, table in segments.items():
            rows = np.arange(before, before + table.num_rows)
            kept = rows[(rows >= first) & (rows < last) & ~np.isin(rows, task.skip)]
            for row in np.intersect1d(rows, task.skip):
                loaded.rejects.append(row_reject(table, int(row) - before, CRASHED, "it ended the worker", int(row)))
            loaded.tables[path], loaded.rows[path] = table.take(pa.array(kept - before)), kept
            loaded.vector_of[path] = _places(loaded.tables[path], place, part)
            before += table.num_rows
        return loaded

    def work(self, loaded: _Vectors) -> UnitOutput:
        output = UnitOutput(loaded.task.unit.id, loaded.task.unit.rows, rejects=loaded.rejects)
        for path, table in loaded.tables.items():
            vectors = loaded.vector_of[path]
            x_ND = loaded.x_ND[vectors]
            norms = norms_of(x_ND)
            good = is_storable(x_ND, norms, self.store_dtype)
            for at in np.flatnonzero(~good):
                what = ("invalid_embedding", _problem(x_ND[at], float(norms[at]), self.store_dtype))
                reason, error = loaded.reasons.get(int(vectors[at]), what)
                output.rejects.append(row_reject(table, int(at), reason, error, int(loaded.rows[path][at])))
            made = self._table(table.filter(pa.array(good)), x_ND[good], norms[good])
            output.tables[path] = made
            output.rows_done += made.num_rows
        output.stats = {"sentences": float(output.rows_done)}
        return output

    def _table(self, segments: pa.Table, x_ND: np.ndarray[Any, Any], norms: np.ndarray[Any, Any]) -> pa.Table:
        target = schema.embeddings_schema(self.dim, self.store_dtype, self.with_text)
        num = segments.num_rows
        values = {
            "n_tokens": pa.array(np.zeros(num, np.int32)),
            "n_unk": pa.array(np.zeros(num, np.int32)),
            "truncated": pa.array(np.zeros(num, np.bool_)),
            "norm": pa.array(norms),
            "emb": schema.vector_array(x_ND.astype(self.store_dtype), target.field("emb").type),
        }
        columns = [values[name] if name in values else segments[name] for name in target.names]
        return pa.Table.from_arrays(columns, schema=target)

    def write(self, output: UnitOutput) -> Commit:
        return commit_output(self.files, output, self.plan_hash, partial(shard_facts, self.metadata, "embeddings"))


def _places(segments: pa.Table, place: dict[int, int], part: SourceSlice) -> np.ndarray[Any, np.dtype[np.int64]]:
    try:
        return np.array([place[sid] for sid in segments["sid"].to_pylist()], np.int64)
    except KeyError as error:
        raise InputError(
            f"{part.file.uri!r} has other rows than when its sentences were imported: the file has changed. Restore "
            "it, or import it anew with --overwrite."
        ) from error


def _problem(x_D: np.ndarray[Any, Any], norm: float, dtype: str) -> str:
    if np.isnan(x_D).any():
        return "a number of the vector is not a number (NaN)"
    if np.isinf(x_D).any():
        return "a number of the vector is infinite"
    if not x_D.any():
        return "the vector is zero"
    return f"too large or too small for {dtype}: its length is {norm:g}"

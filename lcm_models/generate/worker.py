"""The worker that generates: documents of a run of row groups in, their continuations out.

A row is a document. What a document gets depends on the checkpoint, the settings, the seed, its language and its id:
not on its unit, nor on what is generated beside it.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
import xxhash

from lcm_data import schema
from lcm_data.end_of_text import Concept
from lcm_data.errors import LcmDataError
from lcm_data.store.commits import Commit, RejectRow
from lcm_data.store.files import Files, open_files
from lcm_data.store.shard import parse_shard_path, read_shard, shard_path
from lcm_data.workers.base import Task
from lcm_data.workers.generated import COLUMNS, GeneratedDocument, generated_table
from lcm_data.workers.output import (
    CRASHED,
    UnitOutput,
    check_identity,
    commit_output,
    each_or_error,
    refuse_to_blame_all,
)
from lcm_models.checkpoint import load_model
from lcm_models.config import Frozen
from lcm_models.generate.loop import Continuation, Request, generate
from lcm_models.generate.stop import StopRules
from lcm_models.generate.trained import read_trained
from lcm_models.model import ConceptModel


@dataclass(frozen=True)
class GenerateOptions:
    """What is generated, and how.

    The prefix of a document is its first ``prefix_sentences``, or ``prefix_share`` of it, and of that the last
    ``context`` sentences are read.
    """

    checkpoint: str
    sampling: Mapping[str, Any]
    stop: Mapping[str, Any]
    prefix_sentences: int | None
    prefix_share: float
    context: int
    seed: int
    end_of_text: str | None
    max_rows: int
    device: str = "auto"
    dtype: str = "float32"
    threads: int | None = None
    with_prefix: bool = False

    def num_prefix(self, length: int) -> int:
        """Sentences of the prefix of a document of ``length``."""
        if self.prefix_sentences is not None:
            return min(length, self.prefix_sentences)
        return min(length, math.ceil(self.prefix_share * length))


@dataclass
class _Loaded:
    task: Task
    num_documents: int
    rows: list[int]
    documents: list[pa.Table]
    rejects: list[RejectRow]


@dataclass
class GenerateWorker:
    """Settings of the work; the model is loaded in ``setup``."""

    source: str
    target: str
    options: GenerateOptions
    plan_hash: str
    metadata: dict[str, str] = field(default_factory=dict)
    _model: ConceptModel | None = field(default=None, init=False, repr=False, compare=False)
    _sampling: Frozen | None = field(default=None, init=False, repr=False, compare=False)
    _end_D: torch.Tensor | None = field(default=None, init=False, repr=False, compare=False)
    _window: int = field(default=0, init=False, repr=False, compare=False)

    @property
    def files(self) -> Files:
        return open_files(self.target)

    def setup(self) -> None:
        options = self.options
        if options.threads:
            torch.set_num_threads(options.threads)
        facts = read_trained(options.checkpoint)
        check_identity("model", self.metadata, {"generator_revision": facts.revision()}, ("generator_revision",))
        self._model = load_model(facts.folder, device=device_of(options.device)).model
        self._sampling, self._window = facts.sampling(options.sampling), facts.window
        if options.end_of_text is not None:
            self._end_D = torch.from_numpy(Concept.load(options.end_of_text).vector)

    def read(self, task: Task) -> _Loaded:
        spec = task.unit.spec
        table = read_shard(open_files(self.source), spec["shard"], COLUMNS, range(*spec["groups"]))
        runs = pc.run_end_encode(table["doc_id"].combine_chunks())
        ends = runs.run_ends.to_pylist()
        loaded = _Loaded(task, len(ends), [], [], [])
        first, last = task.rows or (0, len(ends))
        for row, (doc_id, start, end) in enumerate(zip(runs.values.to_pylist(), [0, *ends[:-1]], ends, strict=True)):
            if not first <= row < last:
                continue
            document = table.slice(start, end - start)
            if row in task.skip:
                error = "continuing this document ended the worker"
                loaded.rejects.append(RejectRow(row, CRASHED, error, doc_id=doc_id))
            elif not np.isfinite(schema.vectors(document["emb"])).all():
                loaded.rejects.append(RejectRow(row, "invalid_embedding", "not finite", doc_id=doc_id))
            else:
                loaded.rows.append(row)
                loaded.documents.append(document)
        return loaded

    def work(self, loaded: _Loaded) -> UnitOutput:
        _, lang, _ = parse_shard_path(loaded.task.unit.spec["shard"])
        begun = time.perf_counter()
        requests = [self._request(lang, document) for document in loaded.documents]
        # Like lengths side by side; a document comes out the same in any order.
        order = sorted(range(len(requests)), key=lambda index: len(requests[index].prefix_SD))
        parts, errors = each_or_error(lambda some: self._generate([requests[i] for i in some]), order)
        refuse_to_blame_all("model", "documents", len(order), errors)
        for index, error in errors:
            loaded.rejects.append(_reject(loaded, index, "model_error", f"{type(error).__name__}: {error}"))
        found = {index: made for some, made_of in parts for index, made in zip(some, made_of, strict=True)}
        for index in [index for index, made in found.items() if made.stop == "not_finite"]:
            loaded.rejects.append(_reject(loaded, index, "not_finite", "the model gave a concept that is not finite"))
            del found[index]
        return self._assemble(loaded, lang, found, time.perf_counter() - begun)

    def _request(self, lang: str, document: pa.Table) -> Request:
        number = self.options.num_prefix(document.num_rows)
        vectors_ND = schema.vectors(document["emb"])[:number][-self.options.context :].astype(np.float32)
        return Request(torch.from_numpy(vectors_ND), seed_of(self.options.seed, lang, document["doc_id"][0].as_py()))

    def _generate(self, requests: Sequence[Request]) -> list[Continuation]:
        assert self._model is not None
        stop = StopRules(**self.options.stop)
        with precision(self._model, self.options.dtype):
            return list(generate(self._model, requests, stop, self._sampling, self._end_D, self.options.max_rows))

    def _assemble(self, loaded: _Loaded, lang: str, found: dict[int, Continuation], seconds: float) -> UnitOutput:
        split, _, _ = parse_shard_path(loaded.task.unit.spec["shard"])
        documents, cut, longer = [], 0, 0
        for index, made in sorted(found.items()):
            table = loaded.documents[index]
            number = self.options.num_prefix(table.num_rows)
            cut += number > self.options.context
            longer += min(number, self.options.context) + len(made.x_ND) > self._window
            first = table["sent_idx"][number - 1].as_py() + 1 if number else 0
            doc_id = table["doc_id"][0].as_py()
            documents.append(GeneratedDocument(doc_id, table.slice(0, number), first, made.x_ND.numpy(), made.stop))
        source = loaded.documents[0]["emb"].type if loaded.documents else schema.vector_type(pa.float16(), 1)
        dtype: schema.StoreDtype = "float16" if source.value_type == pa.float16() else "float32"
        table = generated_table(lang, documents, source.list_size, dtype, self.options.with_prefix)
        output = UnitOutput(loaded.task.unit.id, loaded.num_documents, rows_done=len(documents), rejects=loaded.rejects)
        new = sum(len(document.x_ND) for document in documents)
        output.stats = {
            "documents": float(len(documents)),
            "generated": float(new),
            "prefixes_cut": float(cut),
            "longer_than_trained": float(longer),
            "nothing_generated": float(sum(not len(document.x_ND) for document in documents)),
            "busy_seconds": seconds,
        }
        stops = Counter(document.stop for document in documents)
        output.stats |= {f"stop_{reason}": float(count) for reason, count in stops.items()}
        if table.num_rows:
            output.tables[shard_path(split, lang, loaded.task.unit.id)] = table
        return output

    def write(self, output: UnitOutput) -> Commit:
        return commit_output(self.files, output, self.plan_hash, self._shard_metadata)

    def _shard_metadata(self, path: str) -> dict[str, str]:
        split, lang, _ = parse_shard_path(path)
        return {**self.metadata, "stage": "embeddings", "split": split, "lang": lang}


def seed_of(seed: int, lang: str, doc_id: str) -> int:
    """The seed of a document: of the run's, its language and its id, so that it keeps it wherever it lies."""
    return xxhash.xxh64_intdigest(f"{seed}\x1f{lang}\x1f{doc_id}".encode()) >> 1


def device_of(name: str) -> torch.device:
    """The device of a setting: "auto" is a GPU where there is one.

    Raises:
        LcmDataError: PyTorch has no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise LcmDataError(f"device {name!r} cannot be used here: {error}. Give cpu, or auto.") from error


@contextlib.contextmanager
def precision(model: ConceptModel, dtype: str) -> Iterator[None]:
    """Matrix products in ``dtype`` meanwhile; the rest stays float32."""
    chosen = getattr(torch, dtype)
    with torch.autocast(model.device.type, dtype=chosen, enabled=chosen != torch.float32):
        yield


def _reject(loaded: _Loaded, index: int, reason: str, error: str) -> RejectRow:
    doc_id = loaded.documents[index]["doc_id"][0].as_py()
    return RejectRow(loaded.rows[index], reason, error[:500], doc_id=doc_id)

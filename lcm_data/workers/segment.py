"""The worker of the ``segments`` stage: the documents of one slice of the input to sentences, by language and split."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from lcm_data import schema
from lcm_data.documents import Columns, Document, ReadOptions, Reject, Slice, read
from lcm_data.documents.detect import LanguageDetector, resolve_language
from lcm_data.segment import Segment, Segmenter, load_segmenter, segment_documents
from lcm_data.splits import SplitRule
from lcm_data.store.commits import Commit, RejectRow
from lcm_data.store.files import Files, open_files
from lcm_data.store.shard import parse_shard_path, shard_path
from lcm_data.workers.base import Task
from lcm_data.workers.output import CRASHED, UnitOutput, check_identity, commit_output, each_or_error


@dataclass
class _Loaded:
    task: Task
    rows_in: int
    documents: list[Document]
    rejects: list[RejectRow]


@dataclass
class SegmentWorker:
    """Settings of the work; segmenter and language detector are loaded in ``setup``."""

    target: str
    columns: Columns
    read_options: ReadOptions
    lang: str | None
    min_lang_score: float
    segmenter: str
    segmenter_model: str | None
    max_chars: int | None
    splits: SplitRule
    plan_hash: str
    metadata: dict[str, str] = field(default_factory=dict)
    _segmenter: Segmenter | None = field(default=None, init=False, repr=False)
    _detector: LanguageDetector | None = field(default=None, init=False, repr=False)

    @property
    def files(self) -> Files:
        return open_files(self.target)

    def setup(self) -> None:
        self._segmenter = load_segmenter(self.segmenter, self.segmenter_model)
        check_identity("segmenter", self.metadata, {"segmenter": self._segmenter.fingerprint}, ("segmenter",))
        self._detector = LanguageDetector() if self.lang is None else None

    def read(self, task: Task) -> _Loaded:
        first, last = task.rows or (0, task.unit.rows)
        skip, duplicates = set(task.skip), set(task.unit.spec.get("duplicates", ()))
        loaded = _Loaded(task, task.unit.rows, [], [])
        for item in read(Slice.from_json(task.unit.spec["slice"]), self.columns, self.read_options):
            if not first <= item.row < last:
                continue
            if isinstance(item, Reject):
                loaded.rejects.append(RejectRow(item.row, item.reason, item.error, item.doc_id, text=item.text))
            elif item.row in skip:
                loaded.rejects.append(_reject(item, CRASHED, "segmenting this document ended the worker"))
            elif item.row in duplicates:
                error = "another row of the input has the same id and language and was kept"
                loaded.rejects.append(_reject(item, "duplicate_id", error))
            else:
                loaded.documents.append(item)
        return loaded

    def work(self, loaded: _Loaded) -> UnitOutput:
        output = UnitOutput(loaded.task.unit.id, loaded.rows_in, rejects=loaded.rejects)
        by_lang: dict[str, list[Document]] = defaultdict(list)
        for document in loaded.documents:
            resolved = resolve_language(document, self.lang, self._detector, self.min_lang_score)
            if isinstance(resolved, Reject):
                output.rejects.append(_reject(document, resolved.reason, resolved.error))
            else:
                assert resolved.lang is not None
                by_lang[resolved.lang].append(resolved)
        for lang, documents in sorted(by_lang.items()):
            self._segment(lang, documents, output)
        output.stats["documents"] = float(output.rows_done)
        output.stats["sentences"] = float(sum(table.num_rows for table in output.tables.values()))
        output.stats["chars"] = float(sum(len(document.text) for document in loaded.documents))
        return output

    def _segment(self, lang: str, documents: list[Document], output: UnitOutput) -> None:
        assert self._segmenter is not None
        segmenter = self._segmenter
        parts, errors = each_or_error(
            lambda rows: segment_documents([documents[i].text for i in rows], lang, segmenter, self.max_chars),
            list(range(len(documents))),
        )
        for index, error in errors:
            output.rejects.append(_reject(documents[index], "segmenter_error", f"{type(error).__name__}: {error}"))
        by_split: dict[str, list[tuple[Document, list[Segment]]]] = defaultdict(list)
        for rows, results in parts:
            for index, segments in zip(rows, results, strict=True):
                by_split[self.splits.split_of(documents[index].doc_id)].append((documents[index], segments))
        for split, done in by_split.items():
            output.tables[shard_path(split, lang, output.unit)] = segments_table(lang, done)
            output.rows_done += len(done)

    def write(self, output: UnitOutput) -> Commit:
        return commit_output(self.files, output, self.plan_hash, self._shard_metadata)

    def _shard_metadata(self, path: str) -> dict[str, str]:
        split, lang, _ = parse_shard_path(path)
        return {**self.metadata, "stage": "segments", "split": split, "lang": lang}


def segments_table(lang: str, documents: Sequence[tuple[Document, list[Segment]]]) -> pa.Table:
    """The rows of the segments schema for documents of one language and their segments."""
    counts = np.array([len(segments) for _, segments in documents], np.int32)
    pairs = [(document, segment) for document, segments in documents for segment in segments]
    sent_idx = np.arange(len(pairs), dtype=np.int32) - np.repeat(np.cumsum(counts) - counts, counts).astype(np.int32)
    bounds = np.array([segment for _, segment in pairs], np.int32).reshape(-1, 3)
    columns: dict[str, object] = {
        "sid": [schema.sentence_id(lang, pair[0].doc_id, idx) for pair, idx in zip(pairs, sent_idx, strict=True)],
        "doc_id": [document.doc_id for document, _ in pairs],
        "sent_idx": sent_idx,
        "n_sents": np.repeat(counts, counts),
        "para_idx": bounds[:, 2],
        "text": [document.text[segment.start : segment.end] for document, segment in pairs],
        "char_start": bounds[:, 0],
        "char_end": bounds[:, 1],
        "n_chars": bounds[:, 1] - bounds[:, 0],
        "lid_score": [document.lid_score for document, _ in pairs],
        "modality": ["text"] * len(pairs),
        "source": [document.source for document, _ in pairs],
    }
    arrays = [pa.array(columns[each.name], type=each.type) for each in schema.SEGMENTS]
    return pa.Table.from_arrays(arrays, schema=schema.SEGMENTS)


def _reject(document: Document, reason: str, error: str) -> RejectRow:
    return RejectRow(document.row, reason, error[:500], document.doc_id, text=document.text[:200])

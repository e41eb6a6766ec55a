"""The worker of the ``segments`` stage: the documents of one slice of the input to segments, by language and split.

Texts become sentences, recordings segments of speech. How the rows look is in ``segments_table``.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from lcm_data.audio import SAMPLE_RATE, AudioError, AudioOptions
from lcm_data.audio.clips import clip_path, write_flac
from lcm_data.audio.read import ClipReader
from lcm_data.audio.recording import Recording, segment_recording
from lcm_data.audio.vad import VoiceActivity, vad_fingerprint
from lcm_data.documents import Columns, Document, ReadOptions, Reject, Slice, read
from lcm_data.documents.detect import LanguageDetector, resolve_language
from lcm_data.segment import Segment, Segmenter, load_segmenter, segment_documents
from lcm_data.splits import SplitRule
from lcm_data.store.commits import Commit, RejectRow
from lcm_data.store.files import Files, open_files
from lcm_data.store.shard import shard_path
from lcm_data.workers.base import Task
from lcm_data.workers.output import CRASHED, UnitOutput, check_identity, commit_output, each_or_error, shard_facts
from lcm_data.workers.segments_table import placed_transcript, speech_table, text_table

T = TypeVar("T")


@dataclass
class _Loaded:
    task: Task
    rows_in: int
    documents: list[Document]
    rejects: list[RejectRow]


@dataclass
class SegmentWorker:
    """Settings of the work; segmenter and language detector are loaded in ``setup``.

    With ``audio`` there may be recordings among the documents; with ``clips`` their segments are files, too.
    """

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
    audio: AudioOptions | None = None
    clips: bool = False
    _voice: VoiceActivity | None = field(default=None, init=False, repr=False)
    _segmenter: Segmenter | None = field(default=None, init=False, repr=False)
    _detector: LanguageDetector | None = field(default=None, init=False, repr=False)

    @property
    def files(self) -> Files:
        return open_files(self.target)

    def setup(self) -> None:
        self._segmenter = load_segmenter(self.segmenter, self.segmenter_model)
        check_identity("segmenter", self.metadata, {"segmenter": self._segmenter.fingerprint}, ("segmenter",))
        self._detector = LanguageDetector() if self.lang is None else None
        if self.audio is not None:
            check_identity("voice activity detector", self.metadata, {"vad": vad_fingerprint()}, ("vad",))
            self._voice = VoiceActivity()

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
            texts = self._texts(lang, [document for document in documents if document.uri is None], output)
            self._add(lang, texts, text_table, output)
            recordings = self._recordings([document for document in documents if document.uri is not None], output)
            self._add(lang, recordings, speech_table, output)
            for document, found in recordings:
                name = f"audio_seconds.{self.splits.split_of(document.doc_id)}.{lang}"
                output.stats[name] = output.stats.get(name, 0.0) + found.seconds
        output.stats["documents"] = float(output.rows_done)
        output.stats["sentences"] = float(sum(table.num_rows for table in output.tables.values()))
        output.stats["chars"] = float(sum(len(document.text) for document in loaded.documents))
        return output

    def _texts(self, lang: str, documents: list[Document], output: UnitOutput) -> list[tuple[Document, list[Segment]]]:
        assert self._segmenter is not None
        segmenter = self._segmenter
        parts, errors = each_or_error(
            lambda rows: segment_documents([documents[i].text for i in rows], lang, segmenter, self.max_chars),
            list(range(len(documents))),
        )
        for index, error in errors:
            output.rejects.append(_reject(documents[index], "segmenter_error", f"{type(error).__name__}: {error}"))
        return [(documents[i], found) for rows, results in parts for i, found in zip(rows, results, strict=True)]

    def _recordings(self, documents: list[Document], output: UnitOutput) -> list[tuple[Document, Recording]]:
        done = []
        stats = output.stats
        for document in documents:
            assert document.uri is not None
            assert self.audio is not None
            assert self._voice is not None
            is_utterance = bool(document.text.strip())
            storage = self.read_options.storage_options
            try:
                found = segment_recording(
                    document.uri, self._voice, self.audio, is_utterance=is_utterance, storage_options=storage
                )
            except AudioError as error:
                output.rejects.append(_reject(document, error.reason, error.error))
                continue
            done.append((document, found))
            stats["audio_seconds"] = stats.get("audio_seconds", 0.0) + found.seconds
            stats["speech_seconds"] = stats.get("speech_seconds", 0.0) + sum(each.length for each in found.segments)
            lost = is_utterance and not placed_transcript(document, found)
            stats["transcripts_unplaced"] = stats.get("transcripts_unplaced", 0.0) + lost
        return done

    def _add(
        self, lang: str, done: list[tuple[Document, T]], table_of: Callable[[str, list[tuple[Document, T]]], pa.Table],
        output: UnitOutput,
    ) -> None:  # fmt: skip
        """Rows of ``done`` to the tables of their splits."""
        by_split: dict[str, list[tuple[Document, T]]] = defaultdict(list)
        for document, found in done:
            by_split[self.splits.split_of(document.doc_id)].append((document, found))
        for split, documents in by_split.items():
            path = shard_path(split, lang, output.unit)
            table = table_of(lang, documents)
            output.tables[path] = pa.concat_tables([output.tables[path], table]) if path in output.tables else table
            output.rows_done += len(documents)

    def write(self, output: UnitOutput) -> Commit:
        if self.clips:
            self._write_clips(output)
        return commit_output(self.files, output, self.plan_hash, partial(shard_facts, self.metadata, "segments"))

    def _write_clips(self, output: UnitOutput) -> None:
        """The segments of recordings as files, before the commit that says they are there."""
        with self.files.scratch() as folder, contextlib.ExitStack() as opened:
            reader, uri = None, None
            for table in output.tables.values():
                for row in table.filter(pc.is_valid(table["audio_uri"])).to_pylist():
                    if row["audio_uri"] != uri or reader is None:
                        opened.close()
                        uri = row["audio_uri"]
                        reader = opened.enter_context(ClipReader(uri, self.read_options.storage_options))
                    x_N = reader.read(row["channel"], row["t_start"], row["t_end"])
                    write_flac(str(folder / "clip.flac"), x_N, SAMPLE_RATE)
                    self.files.publish(folder / "clip.flac", clip_path(output.unit, row["sid"]))


def _reject(document: Document, reason: str, error: str) -> RejectRow:
    return RejectRow(document.row, reason, error[:500], document.doc_id, text=document.text[:200])

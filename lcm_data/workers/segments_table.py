"""The rows of the segments schema: sentences of texts and segments of recordings, in one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from lcm_data import schema
from lcm_data.audio.recording import Recording
from lcm_data.documents import Document
from lcm_data.segment import Segment


def text_table(lang: str, documents: Sequence[tuple[Document, list[Segment]]]) -> pa.Table:
    """The rows of texts of one language."""
    pairs = [(document, segment) for document, segments in documents for segment in segments]
    bounds = np.array([segment for _, segment in pairs], np.int32).reshape(-1, 3)
    columns = {
        **_common(lang, [(document, len(segments)) for document, segments in documents]),
        "para_idx": bounds[:, 2],
        "text": [document.text[segment.start : segment.end] for document, segment in pairs],
        "char_start": bounds[:, 0],
        "char_end": bounds[:, 1],
        "n_chars": bounds[:, 1] - bounds[:, 0],
        "modality": [schema.TEXT] * len(pairs),
    }
    return _table(columns, len(pairs))


def speech_table(lang: str, documents: Sequence[tuple[Document, Recording]]) -> pa.Table:
    """The rows of recordings of one language.

    A transcript is the text of a recording's only segment. Where there are several, nothing tells which part of it each
    says, and their texts are empty.
    """
    pairs = [(document, segment) for document, recording in documents for segment in recording.segments]
    texts = [placed_transcript(document, recording) for document, recording in documents for _ in recording.segments]
    starts = [document.text.find(text) for (document, _), text in zip(pairs, texts, strict=True)]
    columns = {
        **_common(lang, [(document, len(recording.segments)) for document, recording in documents]),
        "para_idx": np.zeros(len(pairs), np.int32),
        "text": texts,
        "char_start": starts,
        "char_end": [start + len(text) for start, text in zip(starts, texts, strict=True)],
        "n_chars": [len(text) for text in texts],
        "modality": [schema.SPEECH] * len(pairs),
        "audio_uri": [document.uri for document, _ in pairs],
        "channel": [segment.channel for _, segment in pairs],
        "t_start": [segment.seconds[0] for _, segment in pairs],
        "t_end": [segment.seconds[1] for _, segment in pairs],
        "sample_rate": [recording.sample_rate for _, recording in documents for _ in recording.segments],
        "speech_ratio": [segment.speech_ratio for _, segment in pairs],
        "loudness_db": [segment.loudness_db for _, segment in pairs],
    }
    return _table(columns, len(pairs))


def placed_transcript(document: Document, recording: Recording) -> str:
    """The transcript, if it is that of a segment."""
    return document.text.strip() if len(recording.segments) == 1 else ""


def _common(lang: str, documents: Sequence[tuple[Document, int]]) -> dict[str, object]:
    """The columns that repeat facts of a document, or count its rows."""
    counts = np.array([num_rows for _, num_rows in documents], np.int32)
    each = [document for document, num_rows in documents for _ in range(num_rows)]
    sent_idx = np.arange(len(each), dtype=np.int32) - np.repeat(np.cumsum(counts) - counts, counts).astype(np.int32)
    return {
        "sid": [schema.sentence_id(lang, doc.doc_id, idx) for doc, idx in zip(each, sent_idx, strict=True)],
        "doc_id": [document.doc_id for document in each],
        "sent_idx": sent_idx,
        "n_sents": np.repeat(counts, counts),
        "lid_score": [document.lid_score for document in each],
        "source": [document.source for document in each],
    }


def _table(columns: Mapping[str, object], num_rows: int) -> pa.Table:
    """Columns that are not given are null."""
    arrays = [
        pa.array(columns[field.name], type=field.type) if field.name in columns else pa.nulls(num_rows, field.type)
        for field in schema.SEGMENTS
    ]
    return pa.Table.from_arrays(arrays, schema=schema.SEGMENTS)

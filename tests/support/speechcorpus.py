"""The ``segments`` stage of a corpus with sentences and clips of recordings, without looking for speech in them."""

from __future__ import annotations

import wave
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from speechlike import clip

from lcm_data import schema
from lcm_data.store.files import open_files
from lcm_data.store.manifest import build_manifest, save_manifest
from lcm_data.store.plan import Plan, Unit, save_plan
from lcm_data.store.shard import shard_path
from lcm_data.workers.output import UnitOutput, commit_output


class Spoken(NamedTuple):
    """A row of speech."""

    uri: str
    start_s: float
    end_s: float
    channel: int | None = None
    text: str = ""


def write_recording(path: Path, seconds: float, seed: int = 0, channels: int = 1) -> str:
    """A WAV file of 16 bits at 16 kHz whose channel c is ``clip(..., seed + c)``."""
    tracks = [clip(round(seconds * 16000), seed + channel) for channel in range(channels)]
    samples = (np.stack(tracks, axis=1) * 32768).astype("<i2")
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(samples.tobytes())
    return str(path)


def write_segments(corpus: Path, rows: Mapping[str, Sequence[str | Spoken]]) -> Path:
    """Write the rows of each language as one shard; five rows are a document."""
    files = open_files(str(corpus)).child("segments")
    plan = Plan("segments", {}, {}, tuple(Unit(i, len(rows[lang])) for i, lang in enumerate(rows)),
                {"provenance": {"vad": "none"}})  # fmt: skip
    save_plan(files, plan)
    commits = {}
    for number, (lang, some) in enumerate(rows.items()):
        output = UnitOutput(number, rows_in=len(some), rows_done=len(some))
        table = [_row(lang, place, row) for place, row in enumerate(some)]
        output.tables[shard_path("train", lang, number)] = pa.Table.from_pylist(table, schema=schema.SEGMENTS)
        commits[number] = commit_output(files, output, plan.hash, lambda path: {"stage": "segments"})
    save_manifest(files, build_manifest(plan, commits))
    return corpus


def _row(lang: str, place: int, row: str | Spoken) -> dict[str, Any]:
    doc_id, sent_idx = f"doc{place // 5}", place % 5
    text = row if isinstance(row, str) else row.text
    facts: dict[str, Any] = {
        "sid": schema.sentence_id(lang, doc_id, sent_idx), "doc_id": doc_id, "sent_idx": sent_idx, "n_sents": 5,
        "para_idx": 0, "text": text, "char_start": 0, "char_end": len(text), "n_chars": len(text), "source": "test",
        "modality": schema.TEXT,
    }  # fmt: skip
    if isinstance(row, Spoken):
        facts |= {"modality": schema.SPEECH, "audio_uri": row.uri, "channel": row.channel, "t_start": row.start_s,
                  "t_end": row.end_s, "sample_rate": 16000}  # fmt: skip
    return facts

"""``lcm-data inspect`` on recordings: totals and lengths of segments by language, and the picture of a recording.

What a segment is (its times, its loudness) stands in the stage ``segments`` only. Of a later stage those segments are
counted that it still has.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lcm_data.audio import AudioError
from lcm_data.audio.envelope import Envelope, read_envelope
from lcm_data.corpus import Corpus, StageData, open_corpus
from lcm_data.documents import Columns, ReadOptions, Slice, read
from lcm_data.errors import InputError, UsageError
from lcm_data.quality.recording_plot import Mark, clock, draw_recording
from lcm_data.store.commits import read_commits, read_rejects
from lcm_data.store.files import Files
from lcm_data.store.plan import load_plan
from lcm_data.store.shard import iter_row_groups, parse_shard_path
from lcm_data.workers.speech import num_clips

AUDIO_SECONDS = "audio_seconds"
"""Statistic of the manifest, followed by split and language: seconds of the recordings that have segments."""

_COLUMNS = ("sid", "doc_id", "t_start", "t_end", "loudness_db")
_TICKS_A_SECOND = 100
_DB_STEPS, _DB_TOP = 10, 20
"""Lengths are counted by hundredths of a second, loudness by tenths of a dB below 20."""
_WIDTHS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
_MOST_BARS = 30
_SUFFIXES = (".png", ".svg", ".pdf")
_OTHERS_NAMED = 3

Counts = npt.NDArray[np.int64]


@dataclasses.dataclass
class _Totals:
    """The segments of recordings of one language; memory does not grow with them."""

    recordings: int = 0
    segments: int = 0
    seconds: float = 0.0
    longest: float = 0.0
    lengths: Counts = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))
    loudness: Counts = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))

    def add(self, seconds_N: npt.NDArray[np.float64], loudness_N: npt.NDArray[np.float32]) -> None:
        """More segments; loudness may be nan."""
        self.segments += len(seconds_N)
        self.seconds += float(seconds_N.sum())
        self.longest = max(self.longest, float(seconds_N.max(initial=0.0)))
        self.lengths = _added(self.lengths, np.rint(seconds_N * _TICKS_A_SECOND))
        known_N = loudness_N[np.isfinite(loudness_N)]
        self.loudness = _added(self.loudness, np.rint((_DB_TOP - known_N.clip(max=_DB_TOP)) * _DB_STEPS))

    def row(self, lang: str, hours: float | None) -> dict[str, Any]:
        """A row of a table; ``hours`` are those of the recordings, None if nobody counted them."""
        spoken = self.seconds / 3600
        loudness = _median(self.loudness)
        return {
            "lang": lang,
            "recordings": self.recordings,
            "segments": self.segments,
            "hours": None if hours is None else round(hours, 4),
            "speech hours": round(spoken, 4),
            "speech share": None if not hours else round(spoken / hours, 4),
            "seconds mean": round(self.seconds / max(1, self.segments), 2),
            "seconds median": round(_median(self.lengths) / _TICKS_A_SECOND, 2),
            "seconds max": round(self.longest, 2),
            "loudness dB": round(_DB_TOP - loudness / _DB_STEPS, 1) if self.loudness.any() else None,
        }

    def bars(self, width: float, num: int) -> list[int]:
        """Segments by length: shorter than ``width``, than twice of it, and so on."""
        at = np.arange(len(self.lengths)) // round(width * _TICKS_A_SECOND)
        return [int(count) for count in np.bincount(at.clip(max=num - 1), self.lengths, minlength=num)]


def _added(counts: Counts, values: npt.NDArray[Any]) -> Counts:
    more = np.bincount(values.astype(np.int64), minlength=len(counts))
    more[: len(counts)] += counts
    return more


def _median(counts: Counts) -> int:
    return int(np.searchsorted(np.cumsum(counts), (counts.sum() + 1) // 2)) if len(counts) else 0


def recordings_of(
    corpus: Corpus, data: StageData, langs: Sequence[str] | None, splits: Sequence[str] | None
) -> dict[str, Any]:
    """Totals by language (``recordings``), and lengths of segments (``durations``); empty for a corpus of text."""
    found: dict[str, _Totals] = {}
    stats: dict[str, float] = {}
    if "segments" in corpus.stages:
        segments = StageData(corpus.files.child("segments"), allow_partial=True)
        stats = segments.manifest.stats
        for path in segments.shards(langs, splits):
            if num_clips(segments.files, path) and data.files.size(path) is not None:
                totals = found.setdefault(parse_shard_path(path)[1], _Totals())
                _count(segments.files, path, None if data.manifest.stage == "segments" else data.files, totals)
    if not found:
        return {}
    rows = [found[lang].row(lang, _hours(stats, lang, splits)) for lang in sorted(found)]
    longest = max(totals.longest for totals in found.values())
    width = next((each for each in _WIDTHS if longest <= each * _MOST_BARS), longest / _MOST_BARS)
    num = max(1, int(np.ceil(longest / width - 1e-9)))
    edges = [round(width * place, 2) for place in range(num + 1)]
    return {
        "recordings": rows,
        "durations": {"edges": edges, "segments": {lang: found[lang].bars(width, num) for lang in sorted(found)}},
    }


def _hours(stats: dict[str, float], lang: str, splits: Sequence[str] | None) -> float | None:
    seconds = [
        value
        for name, value in stats.items()
        if name.startswith(f"{AUDIO_SECONDS}.")
        and name.endswith(f".{lang}")
        and (splits is None or name.split(".")[1] in splits)
    ]
    return sum(seconds) / 3600 if seconds else None


def _count(segments: Files, path: str, later: Files | None, totals: _Totals) -> None:
    """Add the segments of a shard, of those only that the same shard of a later stage has."""
    kept = None if later is None else pa.concat_tables(iter_row_groups(later, path, ["sid"]))["sid"].combine_chunks()
    last = None
    for group in iter_row_groups(segments, path, _COLUMNS):
        group = group.filter(pc.is_valid(group["t_start"]))
        if kept is not None:
            group = group.filter(pc.is_in(group["sid"], kept))
        if not len(group):
            continue
        documents = pc.run_end_encode(group["doc_id"].combine_chunks()).values.to_pylist()
        totals.recordings += len(documents) - (documents[0] == last)
        last = documents[-1]
        totals.add(
            np.subtract(group["t_end"].to_numpy(), group["t_start"].to_numpy()),
            group["loudness_db"].cast(pa.float32()).fill_null(float("nan")).to_numpy(),
        )


@dataclasses.dataclass
class _Found:
    """A recording of a corpus: its rows, or why it has none."""

    doc_id: str
    uri: str
    lang: str = ""
    split: str = ""
    rows: tuple[dict[str, Any], ...] = ()
    notes: tuple[str, ...] = ()


def picture(
    root: str, file: str, doc_id: str | None, langs: Sequence[str] | None, splits: Sequence[str] | None
) -> dict[str, Any]:
    """Draw a recording (by default the first one) with its segments as an image file, and say what is in it.

    Raises:
        UsageError: the corpus or the document has no recording, or the file cannot be written.
        InputError: no such document, or its recording cannot be read.
        MissingExtraError: matplotlib or PyAV is not installed.
    """
    target = Path(file)
    if target.suffix.lower() not in _SUFFIXES or not target.parent.is_dir():
        raise UsageError(f"the picture must be a {', '.join(_SUFFIXES)} file in an existing folder, got {file!r}.")
    corpus = open_corpus(root, allow_partial=True)
    found = _find(corpus, doc_id, langs, splits)
    rejected = _rejects_after(corpus, {row["sid"]: row["sent_idx"] for row in found.rows})
    try:
        envelope = read_envelope(found.uri)
    except AudioError as error:
        raise InputError(f"the recording {found.uri!r} cannot be drawn: {error.error}.") from error
    marks = [
        Mark(
            number=row["sent_idx"], start=row["t_start"], end=row["t_end"], channel=row["channel"],
            speech_ratio=_or(row["speech_ratio"], 1.0), loudness_db=_or(row["loudness_db"], 0.0),
            rejected=row["sent_idx"] in rejected,
        )
        for row in found.rows
    ]  # fmt: skip
    notes = [_about(found, envelope), _summary(marks, envelope.seconds), *found.notes, *_grouped(rejected)]
    if envelope.error:
        notes.append(f"decoding ended early: {envelope.error}")
    figure = draw_recording(envelope, marks, found.doc_id, [note for note in notes if note])
    try:
        figure.savefig(target)
    except OSError as error:
        raise UsageError(f"the picture {file!r} cannot be written: {error.strerror}.") from error
    return {
        "title": f"{file}: {found.doc_id}, {clock(envelope.seconds)} with {len(marks):,} segments",
        "picture": file, "doc_id": found.doc_id, "lang": found.lang, "split": found.split, "recording": found.uri,
        "seconds": round(envelope.seconds, 3), "segments": len(marks), "notes": [note for note in notes if note],
        "rows": [],
    }  # fmt: skip


def _or(value: float | None, other: float) -> float:
    return other if value is None else value


def _find(corpus: Corpus, doc_id: str | None, langs: Sequence[str] | None, splits: Sequence[str] | None) -> _Found:
    """The recording of a document, or the first one there is."""
    if "segments" not in corpus.stages:
        raise UsageError(f"{corpus.files.root} has no segments, so nothing says which recordings it was made of.")
    segments = StageData(corpus.files.child("segments"), allow_partial=True)
    is_text = False
    for path in segments.shards(langs, splits):
        rows = _rows(segments.files, path, doc_id)
        is_text |= bool(rows) and doc_id is not None
        rows = [row for row in rows if row.get("audio_uri") is not None]
        if rows:
            split, lang, _ = parse_shard_path(path)
            return _Found(rows[0]["doc_id"], rows[0]["audio_uri"], lang, split, tuple(rows))
    if (rejected := _rejected(segments, doc_id)) is not None:
        return rejected
    if doc_id is None or is_text:
        what = "the corpus" if doc_id is None else f"the document {doc_id!r}"
        raise UsageError(
            f"{what} is text, and a picture shows a recording. Recordings become documents with 'lcm-data segment "
            "talks/*.mp3 CORPUS --lang LANG', or --audio-column for the rows of a manifest."
        )
    raise InputError(f"no document {doc_id!r} in {segments.files.root}. {_some(segments, langs, splits)}")


def _rows(segments: Files, path: str, doc_id: str | None) -> list[dict[str, Any]]:
    """The rows of a document in a shard; of the first recording if ``doc_id`` is None."""
    if doc_id is None:
        doc_id = next(_recorded(segments, path), None)
        if doc_id is None:
            return []
    table = pq.read_table(segments.open(path), filters=[("doc_id", "==", doc_id)], partitioning=None)
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def _recorded(segments: Files, path: str) -> Iterator[str]:
    """The ids of the recordings of a shard."""
    if not num_clips(segments, path):
        return
    for group in iter_row_groups(segments, path, ["doc_id", "audio_uri"]):
        yield from dict.fromkeys(group.filter(pc.is_valid(group["audio_uri"]))["doc_id"].to_pylist())


def _some(segments: StageData, langs: Sequence[str] | None, splits: Sequence[str] | None) -> str:
    names = (name for path in segments.shards(langs, splits) for name in _recorded(segments.files, path))
    some = [repr(name) for name, _ in zip(names, range(_OTHERS_NAMED), strict=False)]
    return f"It has recordings such as {', '.join(some)}." if some else "It has no recordings."


def _rejected(segments: StageData, doc_id: str | None) -> _Found | None:
    """A recording that ``segment`` rejected: where it is, and why it has no segments."""
    plan = load_plan(segments.files)
    if doc_id is None or plan is None:
        return None
    units = {unit.id: unit for unit in plan.units}
    for number, commit in sorted(read_commits(segments.files).items()):
        rejects = read_rejects(segments.files, number) if commit.rejects else []
        for reject in (each for each in rejects if each["doc_id"] == doc_id):
            columns = Columns(**plan.config.get("columns", {}))
            items = read(Slice.from_json(units[number].spec["slice"]), columns, ReadOptions())
            uri = next((getattr(item, "uri", None) for item in items if item.row == reject["row"]), None)
            if uri is not None:
                return _Found(doc_id, uri, notes=(f"rejected, {reject['reason']}: {reject['error']}",))
    return None


def _rejects_after(corpus: Corpus, places: dict[int, int]) -> dict[int, str]:
    """Segments that a later stage rejected, by number, with the reason."""
    found: dict[int, str] = {}
    for name in corpus.stages:
        files = corpus.files.child(name)
        for unit in (unit for unit, commit in read_commits(files).items() if commit.rejects and name != "segments"):
            for reject in read_rejects(files, unit):
                if reject["sid"] in places:
                    found[places[reject["sid"]]] = f"{reject['reason']} ({name})"
    return found


def _grouped(rejected: dict[int, str]) -> list[str]:
    """One line a reason."""
    lines = []
    for reason in sorted(set(rejected.values())):
        numbers = sorted(number for number, why in rejected.items() if why == reason)
        few = ", ".join(map(str, numbers[:10])) + (", …" if len(numbers) > 10 else "")
        lines.append(f"red, {len(numbers):,} rejected: {reason}: {few}")
    return lines


def _about(found: _Found, envelope: Envelope) -> str:
    channels = len(envelope.low_CB)
    where = f"{found.lang}, {found.split}" if found.lang else ""
    parts = (
        found.uri, f"{envelope.rate:,} Hz", f"{channels} channel{'s' * (channels > 1)}", clock(envelope.seconds), where
    )  # fmt: skip
    return "   ".join(filter(None, parts))


def _summary(marks: Sequence[Mark], seconds: float) -> str:
    if not marks:
        return ""
    lengths = [mark.end - mark.start for mark in marks]
    loudness = float(np.median([mark.loudness_db for mark in marks]))
    share = "" if any(mark.channel for mark in marks) else f" ({sum(lengths) / seconds:.0%})"
    return (
        f"{len(marks):,} segments of {min(lengths):.1f} to {max(lengths):.1f} s, median {np.median(lengths):.1f} s   "
        f"{clock(sum(lengths))} in segments{share}   median loudness {loudness:.0f} dB"
    )

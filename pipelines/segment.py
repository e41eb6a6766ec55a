"""``lcm-data segment``: documents of many files and languages to sentences, recordings to segments of speech."""

from __future__ import annotations

from dataclasses import asdict, fields, replace
from typing import Any

from pydantic import Field

from lcm_data.audio import AudioOptions
from lcm_data.audio.model import Channels
from lcm_data.audio.vad import require_audio, vad_fingerprint
from lcm_data.documents import Columns, Inputs, ReadOptions, list_inputs
from lcm_data.documents.detect import LanguageDetector
from lcm_data.documents.recordings import named_recordings
from lcm_data.errors import UsageError
from lcm_data.languages import parse_language
from lcm_data.progress import Show, silent
from lcm_data.segment import load_segmenter
from lcm_data.splits import SplitRule
from lcm_data.store.files import absolute, open_files
from lcm_data.store.plan import Plan
from lcm_data.workers.segment import SegmentWorker
from pipelines.config import VerbConfig
from pipelines.scanning import Scanning, plan_units
from pipelines.stage import Report, Stage, run_stage


class SegmentConfig(VerbConfig):
    """Settings of ``lcm-data segment``."""

    inputs: list[str] = Field(min_length=1, description="Files, folders, globs or fsspec URLs.")
    text_column: str = Field("text", description="Field or column that holds the text.")
    id_column: str | None = Field(None, description="Field that holds the id; by default 'id' where a row has it.")
    lang_column: str | None = Field(None, description="Field of the language; by default 'lang' where a row has it.")
    lang: str | None = Field(None, description="Language of documents that do not say; that of texts is detected.")
    audio_column: str | None = Field(None, description="Field of a path or URL: rows that have it are recordings.")
    min_lang_score: float = Field(0.5, ge=0, le=1, description="Detected languages below this are rejected.")
    segmenter: str = Field("rules", description="rules, spacy, stanza, sat, or package.module:Class.")
    segmenter_model: str | None = Field(None, description="Name or path of the segmenter's model.")
    max_chars: int = Field(250, ge=0, description="Longest segment in characters; 0 for no cap.")
    channels: Channels = Field("mix", description="mix: one track of all channels; each: every channel for itself.")
    min_pause: float = Field(0.25, description="Seconds of a pause that ends a segment of speech.")
    min_seconds: float = Field(1.0, description="Shortest segment of speech.")
    max_seconds: float = Field(30.0, description="Longest segment of speech.")
    padding: float = Field(0.1, description="Seconds kept around speech, at most half of a pause.")
    speech_threshold: float = Field(0.5, description="Probability at which speech begins.")
    max_hours: float = Field(24.0, description="Longer recordings are rejected.")
    clips: bool = Field(False, description="Write every segment of speech as a FLAC file, too.")
    validation: float = Field(0.01, ge=0, le=1, description="Share of documents for validation.")
    test: float = Field(0.01, ge=0, le=1, description="Share of documents for test.")
    split_seed: int = Field(0, ge=0, description="Another seed holds out other documents.")
    max_doc_chars: int = Field(2_000_000, ge=1, description="Longer documents are rejected.")
    unit_bytes: int = Field(8 << 20, ge=1, description="Input text of a unit: about 65,000 sentences.")
    unit_audio_bytes: int = Field(64 << 20, ge=1, description="Recordings of a unit, in bytes as stored.")
    unit_recordings: int = Field(32, ge=1, description="Rows of a unit where rows may be recordings.")
    storage_options: dict[str, Any] = Field(
        default_factory=dict,
        exclude=True,
        repr=False,
        description="Of fsspec, for inputs and recordings.",
    )

    @property
    def fixed_lang(self) -> str | None:
        """The language of documents that do not say, None if it is to be detected."""
        return None if self.lang is None else parse_language(self.lang)

    @property
    def columns(self) -> Columns:
        """Which fields of a row are read."""
        return Columns(text=self.text_column, id=self.id_column, lang=self.lang_column, audio=self.audio_column)

    @property
    def read_options(self) -> ReadOptions:
        """Limits of rows and of units."""
        return ReadOptions(
            max_doc_chars=self.max_doc_chars,
            audio_slice_bytes=self.unit_audio_bytes,
            manifest_rows=self.unit_recordings,
            storage_options=self.storage_options or None,
        )

    @property
    def audio(self) -> AudioOptions:
        """How recordings are cut."""
        return AudioOptions(**{each.name: getattr(self, each.name) for each in fields(AudioOptions)})

    def list_inputs(self) -> Inputs:
        """The files to segment. Raises as ``lcm_data.documents.list_inputs``."""
        return list_inputs(self.inputs, storage_options=self.storage_options or None)

    @property
    def splits(self) -> SplitRule:
        """How documents are held out."""
        return SplitRule(self.validation, self.test, self.split_seed)


def make_stage(
    config: SegmentConfig, show: Show = silent, *, workers_scan: bool = False, inputs: Inputs | None = None
) -> Stage:
    """Describe the stage; raises if the inputs or the segmenter are not to be had.

    With ``workers_scan`` a large input is scanned by the workers, who leave files in the stage until the plan is made.
    """
    inputs = inputs or config.list_inputs()
    audio = _audio_settings(config, inputs)
    target = open_files(config.corpus).child("segments")
    fingerprint = load_segmenter(config.segmenter, config.segmenter_model).fingerprint
    settings = _settings(config, fingerprint, audio)
    fingerprints = _fingerprints(inputs) | named_recordings(inputs.files, config.columns, config.read_options)
    provenance = {"segmenter": fingerprint, "max_chars": str(config.max_chars)}
    if audio:
        provenance["vad"] = audio["vad"]

    def make_plan() -> Plan:
        scanning = Scanning(
            files=target,
            inputs=inputs,
            columns=config.columns,
            read_options=config.read_options,
            lang=config.fixed_lang,
            slice_bytes=config.unit_bytes,
            min_lang_score=config.min_lang_score,
        )
        units = plan_units(scanning, config.run_options if workers_scan else None, show)
        notes = {"provenance": provenance, "skipped": list(inputs.skipped)}
        return Plan("segments", settings, fingerprints, units, notes)

    def make_worker(plan: Plan) -> SegmentWorker:
        return SegmentWorker(
            target=target.root,
            columns=config.columns,
            read_options=config.read_options,
            lang=config.fixed_lang,
            min_lang_score=config.min_lang_score,
            segmenter=config.segmenter,
            segmenter_model=config.segmenter_model and absolute(config.segmenter_model),
            max_chars=config.max_chars or None,
            splits=config.splits,
            plan_hash=plan.hash,
            metadata=provenance,
            audio=config.audio if audio else None,
            clips=config.clips,
        )

    calibration_rows = 2 if audio else 256
    return Stage("segments", target, settings, fingerprints, make_plan, make_worker, calibration_rows=calibration_rows)


def _settings(config: SegmentConfig, segmenter: str, audio: dict[str, Any]) -> dict[str, Any]:
    """What the output depends on besides the inputs."""
    settings: dict[str, Any] = {
        "columns": {name: value for name, value in asdict(config.columns).items() if name != "audio" or value},
        "lang": config.fixed_lang or f"detected by {LanguageDetector.fingerprint}",
        "min_lang_score": config.min_lang_score,
        "segmenter": segmenter,
        "max_chars": config.max_chars,
        "splits": asdict(config.splits),
        "max_doc_chars": config.max_doc_chars,
        "unit_bytes": config.unit_bytes,
    }
    return {**settings, "audio": audio} if audio else settings


def _audio_settings(config: SegmentConfig, inputs: Inputs) -> dict[str, Any]:
    """What the segments of recordings depend on; empty if the inputs hold none.

    Raises:
        UsageError: audio files, and nothing says their language.
        MissingExtraError: what reads recordings is not installed.
    """
    files = [file for file in inputs.files if file.format == "audio"]
    if not files and config.audio_column is None:
        return {}
    if files and config.lang is None:
        raise UsageError(
            f"{len(files):,} recordings such as {files[0].uri!r} do not say their language, and it is not detected "
            "from sound. Add --lang, or name them in a manifest with a field of the language (--audio-column)."
        )
    require_audio()
    units = {"unit_audio_bytes": config.unit_audio_bytes, "unit_recordings": config.unit_recordings}
    return {**asdict(config.audio), **units, "clips": config.clips, "vad": vad_fingerprint()}


def _fingerprints(inputs: Inputs) -> dict[str, str]:
    return {file.name: f"{file.size} bytes, {file.fingerprint}" for file in inputs.files}


def run(config: SegmentConfig, show: Show = silent) -> Report:
    """Segment all documents that have no sentences yet."""
    inputs = config.list_inputs()
    stage = make_stage(config, show, workers_scan=True, inputs=inputs)
    report = run_stage(stage, config.run_options, overwrite=config.overwrite, show=show)
    return replace(report, extra={"skipped_files": inputs.skipped})

"""``lcm-data segment``: documents of many files and languages to sentences."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from pydantic import Field

from lcm_data.documents import Columns, Inputs, ReadOptions, list_inputs
from lcm_data.documents.detect import LanguageDetector
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
    lang: str | None = Field(None, description="Language of documents that do not say; detected by default.")
    min_lang_score: float = Field(0.5, ge=0, le=1, description="Detected languages below this are rejected.")
    segmenter: str = Field("rules", description="rules, spacy, stanza, sat, or package.module:Class.")
    segmenter_model: str | None = Field(None, description="Name or path of the segmenter's model.")
    max_chars: int = Field(250, ge=0, description="Longest segment in characters; 0 for no cap.")
    validation: float = Field(0.01, ge=0, le=1, description="Share of documents for validation.")
    test: float = Field(0.01, ge=0, le=1, description="Share of documents for test.")
    split_seed: int = Field(0, ge=0, description="Another seed holds out other documents.")
    max_doc_chars: int = Field(2_000_000, ge=1, description="Longer documents are rejected.")
    unit_bytes: int = Field(8 << 20, ge=1, description="Input text of a unit: about 65,000 sentences.")

    @property
    def fixed_lang(self) -> str | None:
        """The language of documents that do not say, None if it is to be detected."""
        return None if self.lang is None else parse_language(self.lang)

    @property
    def columns(self) -> Columns:
        """Which fields of a row are read."""
        return Columns(text=self.text_column, id=self.id_column, lang=self.lang_column)

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
    inputs = inputs or list_inputs(config.inputs)
    target = open_files(config.corpus).child("segments")
    fingerprint = load_segmenter(config.segmenter, config.segmenter_model).fingerprint
    settings: dict[str, Any] = {
        "columns": asdict(config.columns),
        "lang": config.fixed_lang or f"detected by {LanguageDetector.fingerprint}",
        "min_lang_score": config.min_lang_score,
        "segmenter": fingerprint,
        "max_chars": config.max_chars,
        "splits": asdict(config.splits),
        "max_doc_chars": config.max_doc_chars,
        "unit_bytes": config.unit_bytes,
    }
    read_options = ReadOptions(max_doc_chars=config.max_doc_chars)
    provenance = {"segmenter": fingerprint, "max_chars": str(config.max_chars)}

    def make_plan() -> Plan:
        scanning = Scanning(
            files=target,
            inputs=inputs,
            columns=config.columns,
            read_options=read_options,
            lang=config.fixed_lang,
            slice_bytes=config.unit_bytes,
            min_lang_score=config.min_lang_score,
        )
        units = plan_units(scanning, config.run_options if workers_scan else None, show)
        notes = {"provenance": provenance, "skipped": list(inputs.skipped)}
        return Plan("segments", settings, _fingerprints(inputs), units, notes)

    def make_worker(plan: Plan) -> SegmentWorker:
        return SegmentWorker(
            target=target.root,
            columns=config.columns,
            read_options=read_options,
            lang=config.fixed_lang,
            min_lang_score=config.min_lang_score,
            segmenter=config.segmenter,
            segmenter_model=config.segmenter_model and absolute(config.segmenter_model),
            max_chars=config.max_chars or None,
            splits=config.splits,
            plan_hash=plan.hash,
            metadata=provenance,
        )

    return Stage("segments", target, settings, _fingerprints(inputs), make_plan, make_worker)


def _fingerprints(inputs: Inputs) -> dict[str, str]:
    return {file.name: f"{file.size} bytes, {file.fingerprint}" for file in inputs.files}


def run(config: SegmentConfig, show: Show = silent) -> Report:
    """Segment all documents that have no sentences yet."""
    inputs = list_inputs(config.inputs)
    stage = make_stage(config, show, workers_scan=True, inputs=inputs)
    report = run_stage(stage, config.run_options, overwrite=config.overwrite, show=show)
    return replace(report, extra={"skipped_files": inputs.skipped})

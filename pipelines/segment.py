"""``lcm-data segment``: documents of many files and languages to sentences."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np
from pydantic import Field

from lcm_data.documents import Columns, Inputs, ReadOptions, ScannedSlice, list_inputs, number_rows, pieces, scan
from lcm_data.languages import parse_language
from lcm_data.progress import Show, silent
from lcm_data.segment import load_segmenter
from lcm_data.splits import SplitRule
from lcm_data.store.files import open_files
from lcm_data.store.plan import Plan, Unit
from lcm_data.workers.segment import SegmentWorker
from pipelines.config import VerbConfig
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


def make_stage(config: SegmentConfig) -> Stage:
    """Describe the stage; raises if the inputs or the segmenter are not to be had."""
    inputs = list_inputs(config.inputs)
    target = open_files(config.corpus).child("segments")
    fingerprint = load_segmenter(config.segmenter, config.segmenter_model).fingerprint
    settings: dict[str, Any] = {
        "columns": asdict(config.columns),
        "lang": config.fixed_lang or "detected",
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
        units = plan_units(inputs, config, read_options)
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
            segmenter_model=config.segmenter_model,
            max_chars=config.max_chars or None,
            splits=config.splits,
            plan_hash=plan.hash,
            metadata=provenance,
        )

    return Stage("segments", target, settings, _fingerprints(inputs), make_plan, make_worker)


def _fingerprints(inputs: Inputs) -> dict[str, str]:
    return {file.name: f"{file.size} bytes, {file.fingerprint}" for file in inputs.files}


def plan_units(inputs: Inputs, config: SegmentConfig, options: ReadOptions) -> tuple[Unit, ...]:
    """Cut the inputs into units of about ``unit_bytes`` and note which of their rows repeat an earlier id.

    One pass over the input; the driver holds 16 bytes a document.
    """
    scanned: list[ScannedSlice] = []
    for piece in pieces(inputs.files):
        scanned += scan(
            piece,
            config.columns,
            slice_bytes=config.unit_bytes,
            default_lang=config.fixed_lang,
            options=options,
        )
    scanned.sort(key=lambda each: (each.slice.uri, each.slice.start))
    slices = number_rows([each.slice for each in scanned])
    repeated = repeated_keys([each.keys for each in scanned])
    units = []
    for number, (part, rows) in enumerate(zip(slices, repeated, strict=True)):
        spec: dict[str, Any] = {"slice": part.to_json()}
        if rows:
            spec["duplicates"] = rows
        units.append(Unit(number, part.num_rows, spec))
    return tuple(units)


def repeated_keys(keys: list[np.ndarray[Any, np.dtype[np.uint64]]]) -> list[list[int]]:
    """For each slice the rows whose key (two numbers; zeros for none) stands in an earlier row of the input."""
    if not keys:
        return []
    flat = np.concatenate(keys)
    pairs = np.ascontiguousarray(flat).view([("high", np.uint64), ("low", np.uint64)]).reshape(-1)
    _, first = np.unique(pairs, return_index=True)
    repeated = flat.any(axis=1)
    repeated[first] = False
    ends = np.cumsum([len(each) for each in keys])
    return [np.flatnonzero(part).tolist() for part in np.split(repeated, ends[:-1])]


def run(config: SegmentConfig, show: Show = silent) -> Report:
    """Segment all documents that have no sentences yet."""
    report = run_stage(make_stage(config), config.run_options, overwrite=config.overwrite, show=show)
    return replace(report, extra={"skipped_files": list_inputs(config.inputs).skipped})

"""Planning ``segment``: one pass over the input that cuts it into units and finds documents given twice."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lcm_data.documents import Columns, Inputs, Piece, ReadOptions, ScannedSlice, number_rows, pieces, scan
from lcm_data.progress import Show
from lcm_data.runner import RunOptions
from lcm_data.store.files import Files
from lcm_data.store.plan import Plan, Unit
from lcm_data.workers.scan import ScanWorker, load_scan, scan_path
from pipelines.stage import Stage, run_stage

_PARALLEL_BYTES = 1 << 30
"""Inputs below this are scanned by the driver: at some 300 MB/s that is quicker than starting workers."""


@dataclass(frozen=True)
class Scanning:
    """What to scan and how; ``files`` is the stage that the scan is for."""

    files: Files
    inputs: Inputs
    columns: Columns
    read_options: ReadOptions
    lang: str | None
    slice_bytes: int

    def worker(self, target: Files, plan_hash: str) -> ScanWorker:
        """The worker that scans one piece."""
        return ScanWorker(target.root, self.columns, self.read_options, self.lang, self.slice_bytes, plan_hash)


def plan_units(scanning: Scanning, options: RunOptions | None, show: Show) -> tuple[Unit, ...]:
    """Units of about ``slice_bytes`` of input, each with the rows in it that repeat an earlier id.

    With ``options`` a large input is scanned by workers. The driver holds 16 bytes a document.
    """
    parts = pieces(scanning.inputs.files)
    if options is not None and len(parts) > 1 and sum(map(_size, parts)) >= _PARALLEL_BYTES:
        scanned = _scan_on_workers(scanning, parts, options, show)
    else:
        scanned = [each for part in parts for each in _scan_here(scanning, part)]
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


def _scan_here(scanning: Scanning, part: Piece) -> list[ScannedSlice]:
    return scan(
        part,
        scanning.columns,
        slice_bytes=scanning.slice_bytes,
        default_lang=scanning.lang,
        options=scanning.read_options,
    )


def _scan_on_workers(scanning: Scanning, parts: list[Piece], options: RunOptions, show: Show) -> list[ScannedSlice]:
    """Scan the pieces as the units of a stage of its own, which resumes like any other and is dropped afterwards."""
    files = scanning.files.child("_lcm/scan")
    settings = {
        "columns": asdict(scanning.columns),
        "lang": scanning.lang,
        "slice_bytes": scanning.slice_bytes,
        "max_doc_chars": scanning.read_options.max_doc_chars,
    }
    fingerprints = {file.name: file.fingerprint for file in scanning.inputs.files}
    units = tuple(Unit(number, _size(part), asdict(part)) for number, part in enumerate(parts))

    def make_plan() -> Plan:
        return Plan("scan", settings, fingerprints, units)

    def make_worker(plan: Plan) -> ScanWorker:
        return scanning.worker(files, plan.hash)

    run_stage(Stage("scan", files, settings, fingerprints, make_plan, make_worker), options, show=show)
    scanned = [each for unit in units for each in load_scan(files.read(scan_path(unit.id)))]
    files.remove_tree()
    return scanned


def _size(part: Piece) -> int:
    return (part.stop - part.start) if part.stop is not None else sum(file.size for file in part.files)


def repeated_keys(keys: list[np.ndarray[Any, np.dtype[np.uint64]]]) -> list[list[int]]:
    """For each slice the rows whose key (two numbers; zeros for none) stands in an earlier row of the input."""
    if not keys:
        return []
    flat = np.concatenate(keys)
    pairs = np.ascontiguousarray(flat).view([("high", np.uint64), ("low", np.uint64)]).reshape(-1)
    _, first = np.unique(pairs, return_index=True)
    repeated: np.ndarray[Any, np.dtype[np.bool_]] = np.asarray(flat.any(axis=1))
    repeated[first] = False
    ends = np.cumsum([len(each) for each in keys])
    return [np.flatnonzero(part).tolist() for part in np.split(repeated, ends[:-1])]

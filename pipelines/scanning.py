"""Planning ``segment``: one pass over the input that cuts it into units and finds documents given twice.

Most inputs are done with that. Rows that may be the same document, because they share an id and a language or do not
say their language, are read in a second pass, which treats them as the workers will.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lcm_data.documents import (
    Columns,
    Document,
    Inputs,
    Piece,
    ReadOptions,
    Reject,
    ScannedSlice,
    Slice,
    number_rows,
    pieces,
    read,
    scan,
)
from lcm_data.documents.detect import LanguageDetector, resolve_language
from lcm_data.documents.rows import NO_KEY, id_hashes, identity, key_array
from lcm_data.errors import PlanMismatchError, VerificationError
from lcm_data.progress import Show
from lcm_data.runner import RunOptions
from lcm_data.store.files import Files
from lcm_data.store.plan import Plan, Unit
from lcm_data.workers.scan import ScanWorker, load_scan, scan_path
from pipelines.stage import Stage, run_stage

log = logging.getLogger("lcm_data.scanning")

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
    min_lang_score: float = 0.5

    def worker(self, target: Files, plan_hash: str) -> ScanWorker:
        """The worker that scans one piece."""
        return ScanWorker(target.root, self.columns, self.read_options, self.lang, self.slice_bytes, plan_hash)


def plan_units(scanning: Scanning, options: RunOptions | None, show: Show) -> tuple[Unit, ...]:
    """Units of about ``slice_bytes`` of input, each with the rows in it that repeat another document.

    With ``options`` a large input is scanned by workers. The driver holds 16 bytes a document, while it looks for
    repeated ids some 80.
    """
    parts = pieces(scanning.inputs.files)
    if options is not None and len(parts) > 1 and sum(map(_size, parts)) >= _PARALLEL_BYTES:
        scanned = _scan_on_workers(scanning, parts, options, show)
    else:
        scanned = [each for part in parts for each in _scan_here(scanning, part)]
    scanned.sort(key=lambda each: (each.slice.uri, each.slice.start))
    slices = number_rows([each.slice for each in scanned])
    repeated = find_duplicates(scanning, slices, [each.keys for each in scanned])
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
        "unit_recordings": scanning.read_options.manifest_rows,
        "unit_audio_bytes": scanning.read_options.audio_slice_bytes,
        "keys": "xxh64 of id, of language and id",
    }
    fingerprints = {file.name: file.fingerprint for file in scanning.inputs.files}
    units = tuple(Unit(number, _size(part), asdict(part)) for number, part in enumerate(parts))

    def make_plan() -> Plan:
        return Plan("scan", settings, fingerprints, units)

    def make_worker(plan: Plan) -> ScanWorker:
        return scanning.worker(files, plan.hash)

    stage = Stage("scan", files, settings, fingerprints, make_plan, make_worker)
    try:
        run_stage(stage, options, show=show)
    except (PlanMismatchError, VerificationError) as error:
        # Left by a killed scan of other input or settings; nobody but this function ever wants it.
        log.info("an earlier scan is dropped: %s", error)
        run_stage(stage, options, overwrite=True, show=show)
    scanned = [each for unit in units for each in load_scan(files.read(scan_path(unit.id)))]
    files.remove_tree()
    return scanned


def _size(part: Piece) -> int:
    """Bytes that a scan reads; recordings are not opened."""
    if part.format == "audio":
        return 0
    return (part.stop - part.start) if part.stop is not None else sum(file.size for file in part.files)


def find_duplicates(
    scanning: Scanning, slices: Sequence[Slice], keys: Sequence[npt.NDArray[np.uint64]]
) -> list[list[int]]:
    """For each slice the rows that are the same document as another row, which is kept.

    A document is its language and id. Of the rows of one, the first that is no reject is kept; only that a row which
    gives the id goes before one whose generated id happens to be the same.

    Args:
        slices: all of the input in order, numbered.
        keys: of each, see ``ScannedSlice.keys``.
    """
    if not slices:
        return []
    ends = np.cumsum([len(each) for each in keys])
    keys_N2 = np.concatenate(keys)
    generated = keys_N2[:, 0] == 0
    if generated.any() and not generated.all():
        for part, start in zip(slices, [0, *ends[:-1].tolist()], strict=True):
            own = np.flatnonzero(generated[start : start + part.num_rows])
            keys_N2[start + own, 0] = id_hashes(_generated_ids(part, own.tolist()))
    suspects = suspect_rows(keys_N2)
    del keys_N2
    by_slice = np.split(suspects, np.searchsorted(suspects, ends[:-1]))
    starts = [0, *ends[:-1].tolist()]
    wanted = [(rows - start).tolist() for rows, start in zip(by_slice, starts, strict=True)]
    if not len(suspects):
        return wanted
    log.info("%s rows may repeat others and are read to find out", f"{len(suspects):,}")
    identities = key_array(list(_identities(scanning, slices, wanted)))
    # Stable: rows of the same identity and kind stay in their order.
    order = np.lexsort((generated[suspects], identities[:, 1], identities[:, 0]))
    ordered = identities[order]
    again = (ordered[1:] == ordered[:-1]).all(axis=1) & ordered[1:].any(axis=1)
    repeated = np.sort(suspects[order[1:][again]])
    found = np.split(repeated, np.searchsorted(repeated, ends[:-1]))
    return [(rows - start).tolist() for rows, start in zip(found, starts, strict=True)]


def suspect_rows(keys_N2: npt.NDArray[np.uint64]) -> npt.NDArray[np.intp]:
    """The rows that share an id with others, unless all of these say their languages and no two the same."""
    ids, languages = keys_N2[:, 0], keys_N2[:, 1]
    _, group, counts = np.unique(ids, return_inverse=True, return_counts=True)
    rows = np.flatnonzero((counts[group] > 1) & (ids != 0))
    group, languages = group[rows], languages[rows]
    order = np.lexsort((languages, group))
    same = (group[order][1:] == group[order][:-1]) & (languages[order][1:] == languages[order][:-1])
    is_suspect = np.zeros(len(counts), np.bool_)
    is_suspect[group[order][1:][same]] = True
    is_suspect[group[languages == 0]] = True
    return rows[is_suspect[group]]


def _generated_ids(part: Slice, rows: Iterable[int]) -> Iterator[str]:
    """What ``RowMaker`` calls rows that give no id; a text file is called by its name."""
    if part.group:
        return (part.group[row][1] for row in rows)
    return (f"{part.name}#{part.first_row + row}" for row in rows)


def _identities(scanning: Scanning, slices: Sequence[Slice], wanted: Sequence[Sequence[int]]) -> Iterator[bytes]:
    """The identity of each wanted row of each slice; zeros for a row that will be rejected."""
    detector: LanguageDetector | None = None
    for part, rows in zip(slices, wanted, strict=True):
        if not rows:
            continue
        chosen = set(rows)
        for item in read(part, scanning.columns, scanning.read_options):
            if item.row not in chosen:
                continue
            resolved: Document | Reject = item
            if isinstance(item, Document):
                if item.lang is None and scanning.lang is None:
                    detector = detector or LanguageDetector()
                resolved = resolve_language(item, scanning.lang, detector, scanning.min_lang_score)
            yield NO_KEY if isinstance(resolved, Reject) else identity(resolved.lang or "", resolved.doc_id)

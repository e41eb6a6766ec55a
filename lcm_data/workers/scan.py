"""The worker that scans inputs: one piece of the input in, its slices and the keys of its rows out.

A scan is the pass before segmenting that cuts the input into units and finds repeated ids. Small inputs are scanned
by the driver; this worker is for those that take minutes.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass

import numpy as np

from lcm_data.documents import Columns, Piece, ReadOptions, ScannedSlice, Slice, scan
from lcm_data.documents.inputs import InputFile
from lcm_data.store.commits import Commit
from lcm_data.store.files import Files, open_files
from lcm_data.workers.base import Task
from lcm_data.workers.output import UnitOutput, commit_output


@dataclass
class _Scanned(UnitOutput):
    slices: tuple[ScannedSlice, ...] = ()


@dataclass
class ScanWorker:
    """Settings of the scan."""

    target: str
    columns: Columns
    read_options: ReadOptions
    lang: str | None
    slice_bytes: int
    plan_hash: str

    @property
    def files(self) -> Files:
        return open_files(self.target)

    def setup(self) -> None:
        """Nothing to load."""

    def read(self, task: Task) -> Task:
        return task

    def work(self, task: Task) -> _Scanned:
        spec = dict(task.unit.spec)
        spec["files"] = tuple(InputFile(**file) for file in spec["files"])
        found = scan(
            Piece(**spec),
            self.columns,
            slice_bytes=self.slice_bytes,
            default_lang=self.lang,
            options=self.read_options,
        )
        return _Scanned(task.unit.id, task.unit.rows, rows_done=task.unit.rows, slices=tuple(found))

    def write(self, output: _Scanned) -> Commit:
        self.files.write(scan_path(output.unit), dump_scan(output.slices))
        return commit_output(self.files, output, self.plan_hash, lambda path: {})


def scan_path(unit: int) -> str:
    """Where the result of scanning a piece is, until the plan is made."""
    return f"scanned/{unit:06d}.npz"


def dump_scan(scanned: tuple[ScannedSlice, ...]) -> bytes:
    """Slices and keys as the bytes of an ``.npz`` file."""
    slices = json.dumps([each.slice.to_json() for each in scanned]).encode()
    keys = [each.keys for each in scanned] or [np.zeros((0, 2), np.uint64)]
    buffer = io.BytesIO()
    np.savez(buffer, slices=np.frombuffer(slices, np.uint8), keys=np.concatenate(keys))
    return buffer.getvalue()


def load_scan(data: bytes) -> list[ScannedSlice]:
    """The inverse of ``dump_scan``."""
    with np.load(io.BytesIO(data)) as arrays:
        slices = [Slice.from_json(each) for each in json.loads(arrays["slices"].tobytes())]
        keys = arrays["keys"]
    ends = np.cumsum([each.num_rows for each in slices])
    return [ScannedSlice(each, part) for each, part in zip(slices, np.split(keys, ends[:-1]), strict=True)]

"""Records of the runs that made a stage: the command, when and where, and the versions of what had a part in it.

They are for people. No digest or plan depends on them, and a stage without any is whole.
"""

from __future__ import annotations

import json
import platform
import re
import shlex
import socket
import sys
import time
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import PurePath

from lcm_data.store.files import Files
from lcm_data.version import __version__

FOLDER = "_lcm/runs"
_PACKAGES = ("numpy", "pyarrow", "torch", "faiss-cpu", "faiss-gpu", "sentencepiece", "ray")
_COMMANDS = {"lcm-data", "cli.py"}


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One run that did something. ``command`` is "" where it was started from Python."""

    command: str
    started: float
    finished: float
    units: int
    workers: int
    host: str
    versions: dict[str, str]


def record_run(files: Files, started: float, units: int, workers: int) -> None:
    """Write down a run that ends now."""
    record = RunRecord(
        command=_command(), started=started, finished=time.time(), units=units, workers=workers,
        host=socket.gethostname(), versions=_versions(),
    )  # fmt: skip
    files.write(f"{FOLDER}/{round(started * 1000):013d}.json", json.dumps(asdict(record), indent=1).encode())


def read_runs(files: Files) -> list[RunRecord]:
    """All runs, in order; what cannot be read is left out."""
    found = []
    for path in sorted(files.list(FOLDER)):
        try:
            found.append(RunRecord(**json.loads(files.read(path))))
        except (ValueError, TypeError, FileNotFoundError):
            continue
    return found


def _command() -> str:
    """What was typed, without passwords in URLs."""
    if PurePath(sys.argv[0]).name not in _COMMANDS:
        return ""
    return re.sub(r"(\w+://)[^/@\s]+@", r"\1", shlex.join(["lcm-data", *sys.argv[1:]]))


def _versions() -> dict[str, str]:
    found = {"lcm-data": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found

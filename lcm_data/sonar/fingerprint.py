"""The cache folder of this package and the sha256 of large files, remembered so that a 3 GB file is hashed once."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import sys
from pathlib import Path


def cache_dir() -> Path:
    """Where downloads and remembered hashes live: ``$LCM_DATA_CACHE``, else the platform's cache folder."""
    if given := os.environ.get("LCM_DATA_CACHE"):
        return Path(given).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "lcm-data"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "lcm-data" / "cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lcm-data"


def file_sha256(path: Path) -> str:
    """The sha256 of a file in hexadecimal.

    Remembered by size and modification time under the cache folder. A cache that cannot be written only costs time.
    """
    path = path.resolve()
    stat = path.stat()
    try:
        known = json.loads(_note(path).read_text())
        if all(known.get(name) == value for name, value in _key(path).items()):
            return str(known["sha256"])
    except (OSError, ValueError, AttributeError, KeyError):
        pass  # never hashed, or an unreadable note: hash again
    digest = _sha256(path, stat.st_size, stat.st_mtime_ns)
    remember_sha256(path, digest)
    return digest


def remember_sha256(path: Path, digest: str) -> None:
    """Note the hash of a file for ``file_sha256``, by someone who has just computed it under another name."""
    path = path.resolve()
    entry = _note(path)
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        note = entry.with_name(f"{entry.name}.{os.getpid()}.tmp")
        note.write_text(json.dumps({**_key(path), "sha256": digest}))
        os.replace(note, entry)
    except OSError:
        pass


def _note(path: Path) -> Path:
    return cache_dir() / "sha256" / f"{hashlib.sha256(str(path).encode()).hexdigest()[:32]}.json"


def _key(path: Path) -> dict[str, str | int]:
    stat = path.stat()
    return {"path": str(path), "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}


@functools.lru_cache(maxsize=64)
def _sha256(path: Path, _size: int, _mtime_ns: int) -> str:
    """Hash the content; the other arguments are the key that makes a changed file a new question."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""Finding input files: paths, folders, patterns and URLs become a sorted list of files with formats and fingerprints.

Names of files are relative to what they were found by, so that the ids made from them do not depend on where a
folder is mounted. Opening and reading files is in ``streams`` and the readers of each format.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import xxhash

from lcm_data.documents.streams import file_system, storage_errors
from lcm_data.errors import InputError

FORMATS: dict[str, str] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".csv": "csv",
    ".tsv": "tsv",
    ".txt": "text",
    ".md": "text",
    **dict.fromkeys(
        (
            *(".wav", ".flac", ".mp3", ".m4a", ".m4b", ".mp4", ".aac", ".ogg", ".oga", ".opus", ".webm", ".mka"),
            *(".aif", ".aiff", ".au", ".w64", ".wma", ".amr", ".g722"),
        ),
        "audio",
    ),
}
"""Suffix -> name of the reader in ``slices.READERS``."""

COMPRESSIONS: dict[str, str] = {".gz": "gz", ".zst": "zst"}
"""Second suffix -> compression; not for Parquet and audio, which compress inside."""

_UNCOMPRESSED = ("parquet", "audio")
_EDGE_BYTES = 64 << 10
_MAGIC = frozenset("*?[")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_VERSION_KEYS = ("ETag", "etag", "blob_id", "md5Hash", "content_md5", "LastModified", "last_modified", "created")


@dataclass(frozen=True, slots=True, kw_only=True)
class InputFile:
    """One input file; every field is a JSON value."""

    uri: str
    """Absolute path or URL."""
    name: str
    """Relative to the folder, pattern or file's folder it was found by; unique in one list."""
    format: str
    compression: str | None
    size: int
    """Bytes as stored."""
    fingerprint: str
    """Hash of the size and the first and last 64 KiB, then in plain text the modification time (UTC) or the ETag."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """What ``list_inputs`` found."""

    files: tuple[InputFile, ...]
    """Sorted by URI, each once."""
    skipped: tuple[str, ...]
    """Files inside folders or matched by patterns that are hidden or of no known format."""


@dataclass(frozen=True, slots=True)
class _Found:
    uri: str
    name: str
    explicit: bool


def list_inputs(
    patterns: Sequence[str | os.PathLike[str]],
    *,
    storage_options: Mapping[str, Any] | None = None,
    formats: Mapping[str, str] = FORMATS,
) -> Inputs:
    """List input files.

    Each pattern is a file, a folder (searched recursively), a glob (``**`` too), or an fsspec URL of any of these.
    Formats follow from suffixes: see ``COMPRESSIONS`` and ``formats``, by default ``FORMATS``.

    Raises:
        InputError: a pattern matches nothing or (part of) a corpus of ours, a file given by its own name is of no
            known format, or cannot be read.
        MissingExtraError: the package for a URL is not installed.
        StorageError: reading failed.
    """
    found: dict[str, _Found] = {}
    for pattern in patterns:
        for entry in _search(os.fspath(pattern), storage_options):
            found.setdefault(entry.uri, entry)
            if not entry.uri.isascii() and entry.uri.encode("utf-8", "ignore").decode() != entry.uri:
                raise InputError(f"the file name {entry.uri!r} is not UTF-8, and so cannot be an id. Rename it.")
    skipped = []
    known: dict[str, tuple[str, str | None]] = {}
    for entry in found.values():
        kind = file_format(entry.uri, formats)
        hidden = any(part.startswith((".", "_")) for part in entry.name.split("/"))
        if entry.explicit and kind is None:
            raise InputError(
                f"{entry.uri!r} is of no known format. Known suffixes: {_known(formats)}. Rename or convert it."
            )
        if kind is None or (hidden and not entry.explicit):
            skipped.append(entry.uri)
        else:
            known[entry.uri] = kind
    if not known:
        listed = ", ".join(repr(os.fspath(pattern)) for pattern in patterns) or "nothing"
        raise InputError(
            f"no input files in {listed} ({len(skipped)} of other formats). Known suffixes: {_known(formats)}."
        )
    names = _names([found[uri] for uri in sorted(known)])
    with ThreadPoolExecutor(16) as threads:  # two small reads a file: slow one by one on object stores
        prints = threads.map(lambda uri: _fingerprint(uri, storage_options), names)
        files = tuple(
            InputFile(uri=uri, name=name, format=known[uri][0], compression=known[uri][1], size=size, fingerprint=mark)
            for (uri, name), (size, mark) in zip(names.items(), prints, strict=True)
        )
    return Inputs(files, tuple(sorted(skipped)))


def file_format(uri: str, formats: Mapping[str, str] = FORMATS) -> tuple[str, str | None] | None:
    """Format and compression by suffix: ``x.jsonl.gz`` -> ("jsonl", "gz"); None if unknown."""
    stem, suffix = os.path.splitext(uri.lower())
    compression = COMPRESSIONS.get(suffix)
    if compression is not None:
        suffix = os.path.splitext(stem)[1]
    kind = formats.get(suffix)
    if kind is None or (compression is not None and (kind in _UNCOMPRESSED or formats is not FORMATS)):
        return None
    return kind, compression


def _known(formats: Mapping[str, str]) -> str:
    plain = " ".join(formats)
    if formats is not FORMATS:
        return plain
    return f"{plain}; those of text but .parquet also with {' or '.join(COMPRESSIONS)}"


def _search(pattern: str, storage_options: Mapping[str, Any] | None) -> list[_Found]:
    """The files of one pattern, with names relative to its folder."""
    if "://" not in pattern:
        pattern = os.path.abspath(os.path.expanduser(pattern))
    fs, path = file_system(pattern, storage_options)
    path = path.rstrip("/") or path
    with storage_errors(pattern):
        if fs.isfile(path):
            return [_Found(_uri(fs, path, pattern), path.rsplit("/", 1)[-1], explicit=True)]
        if fs.isdir(path):
            root, matches = path, _files_below(fs, path)
        elif _MAGIC & set(path):
            root, matches = _fixed_part(path), _glob(fs, path)
        else:
            matches = []
    if not matches:
        raise InputError(
            f"no such file or folder, and nothing matches: {pattern!r}. Check the path, or quote the pattern."
        )
    if "file" in fs.protocol:
        _refuse_corpus([root, *map(os.path.dirname, matches)])
    prefix = root.rstrip("/") + "/"
    return [_Found(_uri(fs, match, pattern), match.removeprefix(prefix), explicit=False) for match in matches]


def _refuse_corpus(folders: Iterable[str]) -> None:
    """Sentences must not be taken for documents: no folder may be a stage of a corpus, or inside of one."""
    seen: set[str] = set()
    for folder in folders:
        while folder not in seen:
            seen.add(folder)
            if os.path.isdir(os.path.join(folder, "_lcm")):
                raise InputError(
                    f"{folder!r} is (part of) a corpus of lcm-data, not documents; give the documents it was made "
                    "from, and keep corpora out of input folders."
                )
            folder = os.path.dirname(folder)


def _glob(fs: Any, pattern: str) -> list[str]:
    """Matches of a pattern, with the files inside of those that are folders."""
    try:
        matches = fs.glob(pattern)
    except ValueError as error:
        raise InputError(f"bad pattern {pattern!r}: {error}.") from error
    files: list[str] = []
    for match in matches:
        files.extend(_files_below(fs, match) if fs.isdir(match) else [match])
    return files


def _files_below(fs: Any, folder: str) -> list[str]:
    """All files in a folder and those below it.

    The local walk is ours: that of fsspec leaves out folders it may not list, and follows links in circles.
    """
    if "file" not in fs.protocol:
        return list(fs.find(folder))

    def fail(error: OSError) -> None:
        raise error

    files: list[str] = []
    seen: set[str] = set()
    for at, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        folders[:] = [name for name in sorted(folders) if os.path.realpath(os.path.join(at, name)) not in seen]
        seen.update(os.path.realpath(os.path.join(at, name)) for name in ("", *folders))
        files.extend(os.path.join(at, name) for name in names)
    return files


def _fixed_part(path: str) -> str:
    """The folder part of a glob before its first wildcard."""
    fixed = []
    for part in path.split("/")[:-1]:
        if _MAGIC & set(part):
            break
        fixed.append(part)
    return "/".join(fixed)


def _uri(fs: Any, path: str, pattern: str) -> str:
    """Local files as plain absolute paths, others with their protocol."""
    protocol = pattern.partition("://")[0] if "://" in pattern else "file"
    return path if protocol in ("file", "local") else str(fs.unstrip_protocol(path))


def _names(found: Sequence[_Found]) -> dict[str, str]:
    """URI -> unique name: as found, or relative to the common folder of all if two files would share a name."""
    if len({entry.name for entry in found}) == len(found):
        return {entry.uri: entry.name for entry in found}
    folders = [entry.uri.split("/")[:-1] for entry in found]
    num_common = 0
    while len({tuple(folder[: num_common + 1]) for folder in folders}) == 1 and num_common < len(folders[0]):
        num_common += 1
    return {entry.uri: "/".join(entry.uri.split("/")[num_common:]) for entry in found}


def _fingerprint(uri: str, storage_options: Mapping[str, Any] | None) -> tuple[int, str]:
    """Size in bytes and fingerprint of one file."""
    fs, path = file_system(uri, storage_options)
    with storage_errors(uri):
        info = fs.info(path)
        size = int(info["size"])
        digest = xxhash.xxh3_64(str(size).encode())
        with fs.open(path, "rb") as file:
            digest.update(file.read(_EDGE_BYTES))
            if size > _EDGE_BYTES:
                file.seek(max(_EDGE_BYTES, size - _EDGE_BYTES))
                digest.update(file.read(_EDGE_BYTES))
    return size, f"{digest.hexdigest()} {stored_version(path, info)}".rstrip()


def stored_version(path: str, info: Mapping[str, Any]) -> str:
    """What the storage says about a file's version: its modification time to the ns if local, else an ETag or such."""
    if "mtime" in info:
        seconds, nanoseconds = divmod(os.stat(path).st_mtime_ns, 10**9)
        at = _EPOCH + timedelta(seconds=seconds)
        return f"modified {at:%Y-%m-%dT%H:%M:%S}.{nanoseconds:09d}Z"
    return next((f"{key} {info[key]}" for key in _VERSION_KEYS if info.get(key)), "")

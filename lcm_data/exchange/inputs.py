"""Finding files of vectors to import: which there are, of which kind, and what their paths say of language and split.

Reading them is in ``lcm_data.exchange.sources``.
"""

from __future__ import annotations

import json
import logging
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import xxhash

from lcm_data.documents.inputs import InputFile, list_inputs
from lcm_data.documents.streams import file_system, storage_errors
from lcm_data.errors import InputError, UnknownNameError
from lcm_data.languages import parse_language

log = logging.getLogger("lcm_data.import")

FORMATS = {".parquet": "parquet", ".npy": "npy", ".arrow": "arrow", ".lance": "lance", ".jsonl": "rows"}
"""Suffix -> kind of source; ``rows`` are never a source, only metadata beside a .npy."""

SPLIT_NAMES = {"train": "train", "validation": "validation", "test": "test"}
SPLIT_NAMES |= dict.fromkeys(("training",), "train")
SPLIT_NAMES |= dict.fromkeys(("valid", "val", "dev"), "validation")
SPLIT_NAMES |= dict.fromkeys(("testing", "eval", "evaluation"), "test")
"""Names of splits that are met elsewhere, and ours."""

_KEYWORD = re.compile(rf"^({'|'.join(SPLIT_NAMES)})(?=[-_.]|$)")
_COMPANIONS = (".json", ".md", ".txt", ".yaml", ".yml", ".lock", ".safetensors", ".gitattributes", ".jsonl")
_METADATA_NAMES = ("rows", "metadata")
_LANCE = re.compile(r"^(.*?\.lance)/")


@dataclass(frozen=True)
class SourceFile:
    """One file (or Lance dataset) of vectors; every field is a JSON value."""

    kind: str
    uri: str
    name: str
    fingerprint: str
    metadata_uri: str | None = None
    """Of a .npy the file with one row for each of its vectors."""
    version: int | None = None
    """Of a Lance dataset: what is read is this one, whatever is written meanwhile."""


@dataclass(frozen=True)
class Place:
    """What a path says about its rows, None where it says nothing."""

    lang: str | None = None
    split: str | None = None


def list_sources(source: str, metadata: str | None = None) -> list[SourceFile]:
    """The files of vectors at a path: a file, a folder, a pattern or an fsspec URL of these, in order.

    Args:
        metadata: the file with the rows of a .npy; by default one beside it of the same name, or ``rows`` or
            ``metadata``, with the suffix .parquet or .jsonl.

    Raises:
        InputError: there are none, or part of a corpus was given.
    """
    listed = list_inputs([source], formats=FORMATS)
    found = _of_datasets(listed.files)
    _say_what_is_left_out(source, listed.skipped)
    arrays = [file for file in found if file.format == "npy"]
    if metadata is not None and len(arrays) != 1:
        raise InputError(f"--metadata belongs to one .npy file, {source} holds {len(arrays)}. Name that file alone.")
    beside = _metadata_of(arrays, found)
    if metadata is not None:
        (given,) = list_inputs([metadata], formats=FORMATS).files
        beside[arrays[0].uri] = given
    taken = {file.uri for file in beside.values()}
    sources = [
        _array_source(file, beside.get(file.uri)) if file.format == "npy" else _plain_source(file)
        for file in found
        if file.uri not in taken and file.format not in ("lance", "rows")
    ]
    sources += _lance_sources([file for file in found if file.format == "lance"])
    if not sources:
        raise InputError(f"{source} holds no vectors. Give Parquet, .npy, .arrow or Lance files, or a folder of them.")
    return sorted(sources, key=lambda each: each.uri)


def _of_datasets(files: Sequence[InputFile]) -> list[InputFile]:
    """The files without those that ``datasets`` keeps beside a dataset on disk: caches with all of its columns."""
    folders = {file.uri.rpartition("/")[0] for file in files if file.format == "arrow"}
    members = {folder: names for folder in folders if (names := _names_in_state(folder)) is not None}
    kept: list[InputFile] = []
    left_out: list[InputFile] = []
    for file in files:
        folder, _, name = file.uri.rpartition("/")
        is_cache = file.format == "arrow" and folder in members and name not in members[folder]
        (left_out if is_cache else kept).append(file)
    if left_out:
        log.warning("%d files are caches of 'datasets', not data, such as %s", len(left_out), left_out[0].uri)
    return kept


def _names_in_state(folder: str) -> set[str] | None:
    """Names of the files of a dataset that was saved to disk; None if the folder is none."""
    fs, path = file_system(f"{folder}/state.json")
    try:
        with fs.open(path, "rb") as stream:
            return {str(each["filename"]) for each in json.loads(stream.read())["_data_files"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _say_what_is_left_out(source: str, skipped: Sequence[str]) -> None:
    """Warn of files that may have been meant; not of what comes with data, such as cards."""
    meant = [
        uri for uri in skipped if not uri.lower().endswith(_COMPANIONS) and ".lance/" not in uri and "/_lcm/" not in uri
    ]
    if meant:
        log.warning(
            "%s: %d files were not read, such as %s: hidden, or none of %s", source, len(meant), meant[0],
            ", ".join(sorted(set(FORMATS) - {".jsonl"})),
        )  # fmt: skip


def _plain_source(file: InputFile) -> SourceFile:
    return SourceFile(file.format, file.uri, _full_name(file), f"{file.size} bytes, {file.fingerprint}")


def _full_name(file: InputFile) -> str:
    """The name with the folders around it that say language or split, where a part of a tree was given."""
    outside = file.uri.removesuffix(file.name).split("/")
    return "/".join([*(part for part in outside if part.startswith(("lang=", "split="))), file.name])


def _array_source(file: InputFile, rows: InputFile | None) -> SourceFile:
    alone = _plain_source(file)
    rows = rows or _beside(file)
    if rows is None:
        return alone
    return replace(alone, metadata_uri=rows.uri, fingerprint=f"{alone.fingerprint}; rows {rows.fingerprint}")


def _beside(file: InputFile) -> InputFile | None:
    """The metadata of a .npy that was named itself: nothing else of its folder was listed."""
    for uri in _metadata_uris(file.uri):
        try:
            return list_inputs([uri], formats=FORMATS).files[0]
        except InputError:
            continue
    return None


def _metadata_of(arrays: Sequence[InputFile], found: Sequence[InputFile]) -> dict[str, InputFile]:
    known = {file.uri: file for file in found}
    matches = {file.uri: [known[uri] for uri in _metadata_uris(file.uri) if uri in known] for file in arrays}
    return {uri: files[0] for uri, files in matches.items() if files}


def _metadata_uris(uri: str) -> list[str]:
    folder, _, name = uri.rpartition("/")
    stems = (name.removesuffix(".npy"), *_METADATA_NAMES)
    return [f"{folder}/{stem}{suffix}" for stem in stems for suffix in (".parquet", ".jsonl")]


def _lance_sources(files: Sequence[InputFile]) -> list[SourceFile]:
    """Lance datasets by the data files inside of them."""
    datasets: dict[str, list[InputFile]] = defaultdict(list)
    for file in files:
        if match := _LANCE.match(file.uri):
            datasets[match.group(1)].append(file)
    found = []
    for uri, parts in sorted(datasets.items()):
        mark = xxhash.xxh3_64_hexdigest("\n".join(sorted(f"{part.uri} {part.fingerprint}" for part in parts)).encode())
        match = _LANCE.match(parts[0].name)
        version, rows = _lance_version(uri)
        if version is not None:
            mark = f"{mark}, version {version}, {rows} rows"
        name = match.group(1) if match else uri.rpartition("/")[2]
        found.append(SourceFile("lance", uri, name, mark, version=version))
    return found


def _lance_version(uri: str) -> tuple[int | None, int]:
    """Version and rows of a Lance dataset: deleting rows leaves its data files as they are."""
    try:
        import lance
    except ImportError:  # said when it is opened
        return None, 0
    with storage_errors(uri):
        data = lance.dataset(uri)
        return int(data.version), int(data.count_rows())


def place_of(name: str) -> Place:
    """Language and split that the path of a file names, relative to the folder that was given.

    ``lang=CODE`` and ``split=NAME`` are folders of this project and of the official LCM trainer; ``train/`` and
    ``train-00000-of-00002.parquet`` are how Hugging Face datasets name splits.

    Raises:
        InputError: a folder names a language or split that there is not.
    """
    *folders, file = name.split("/")
    given = dict(part.split("=", 1) for part in folders if "=" in part)
    lang = given.get("lang")
    if lang is not None:
        try:
            lang = parse_language(lang)
        except UnknownNameError as error:
            raise InputError(f"the folder lang={lang} of {name!r}: {error}") from error
    split = given.get("split")
    if split is not None and split not in SPLIT_NAMES:
        raise InputError(
            f"the folder split={split} of {name!r} names no split. Known: {', '.join(sorted(SPLIT_NAMES))}. Rename it."
        )
    if split is None:
        named = [part for part in folders if part in SPLIT_NAMES] or _KEYWORD.findall(file)
        split = named[-1] if named else None
    return Place(lang, SPLIT_NAMES[split] if split else None)

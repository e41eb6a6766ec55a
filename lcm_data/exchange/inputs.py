"""Finding files of vectors to import: which there are, of which kind, and what their paths say of language and split.

Reading them is in ``lcm_data.exchange.sources``.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import xxhash

from lcm_data.documents.inputs import InputFile, list_inputs
from lcm_data.errors import InputError, UnknownNameError
from lcm_data.languages import parse_language

FORMATS = {".parquet": "parquet", ".npy": "npy", ".arrow": "arrow", ".lance": "lance", ".jsonl": "rows"}
"""Suffix -> kind of source; ``rows`` are never a source, only metadata beside a .npy."""

SPLIT_NAMES = {"train": "train", "validation": "validation", "test": "test"}
SPLIT_NAMES |= dict.fromkeys(("training",), "train")
SPLIT_NAMES |= dict.fromkeys(("valid", "val", "dev"), "validation")
SPLIT_NAMES |= dict.fromkeys(("testing", "eval", "evaluation"), "test")
"""Names of splits that are met elsewhere, and ours."""

_KEYWORD = re.compile(rf"^({'|'.join(SPLIT_NAMES)})(?=[-_.]|$)")
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
    found = list_inputs([source], formats=FORMATS).files
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


def _plain_source(file: InputFile) -> SourceFile:
    return SourceFile(file.format, file.uri, file.name, f"{file.size} bytes, {file.fingerprint}")


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
        found.append(SourceFile("lance", uri, match.group(1) if match else uri.rpartition("/")[2], mark))
    return found


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

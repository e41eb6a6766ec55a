"""Audio files: each is one document, whose id is the name of the file. Small ones are put together in slices.

Nothing is opened here: what is in a recording is found by ``lcm_data.audio``, on the worker. Recordings that the rows
of a manifest name come through the readers of these rows; of them, ``named_recordings`` says which versions they are.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from lcm_data.documents.inputs import InputFile, stored_version
from lcm_data.documents.model import Columns, Document, ReadOptions, Reject
from lcm_data.documents.slices import Piece, ScannedSlice, Slice, grouped, pieces, read, scan
from lcm_data.documents.streams import file_system, storage_errors
from lcm_data.errors import InputError, StorageError

_MAX_GROUP = 1000
_ROWS_AT_ONCE = 10_000
_THREADS, _TRIES, _WAIT_SECONDS = 32, 3, 0.5
_MANY_IN_A_FOLDER = 100
"""Files of a remote folder from which on it is listed, a thousand an answer, instead of asking for each."""
MISSING = "missing"


class RecordingReader:
    """Reader of audio files; see ``inputs.FORMATS``."""

    def scan(
        self, piece: Piece, columns: Columns, slice_bytes: int, default_lang: str | None, options: ReadOptions
    ) -> Iterator[ScannedSlice]:
        """Group by size as stored; nothing is read."""
        return grouped(piece.files, options.audio_slice_bytes, _MAX_GROUP)

    def read(self, part: Slice, columns: Columns, options: ReadOptions) -> Iterator[Document | Reject]:
        """The files of a slice."""
        for row, (uri, name, _) in enumerate(part.group):
            yield Document(name, "", None, None, row, name, uri)


def named_recordings(files: Sequence[InputFile], columns: Columns, options: ReadOptions) -> dict[str, str]:
    """The recordings that manifests name, as "manifest: path" with size and modification time or ETag.

    One pass over the rows, and one look at each recording's entry in its storage; none is opened.

    Raises:
        InputError, StorageError, MissingExtraError: as ``scan`` and ``read``; a recording that is not there is none.
    """
    if columns.audio is None:
        return {}
    options = dataclasses.replace(options, manifest_rows=_ROWS_AT_ONCE)
    names: dict[str, str] = {}
    for file in (file for file in files if file.format not in ("text", "audio")):
        folder = file.uri.rpartition("/")[0] + "/"
        for piece in pieces([file]):
            for part in scan(piece, columns, slice_bytes=64 << 20, options=options):
                for item in read(part.slice, columns, options):
                    if isinstance(item, Document) and item.uri is not None:
                        names.setdefault(item.uri, f"{file.name}: {item.uri.removeprefix(folder)}")
    storage = options.storage_options
    remote = [uri for uri in names if "://" in uri]
    _list_folders(remote, storage)
    with ThreadPoolExecutor(_THREADS) as threads:
        versions = dict(zip(remote, threads.map(lambda uri: _version(uri, storage), remote), strict=True))
    return {name: versions.get(uri) or _version(uri, storage) for uri, name in names.items()}


def _list_folders(uris: Sequence[str], storage_options: Mapping[str, Any] | None) -> None:
    """Have file systems list folders of which many files are asked for: they answer from their memory then."""
    folders: dict[str, list[str]] = defaultdict(list)
    for uri in uris:
        folders[uri.rpartition("/")[0]].append(uri)
    for folder, some in folders.items():
        if len(some) >= _MANY_IN_A_FOLDER and not folder.startswith("http"):
            # Whatever is wrong is said of each file.
            with contextlib.suppress(InputError, StorageError), storage_errors(folder):
                fs, path = file_system(folder, storage_options)
                fs.invalidate_cache(path)
                fs.ls(path, detail=True)


def _version(uri: str, storage_options: Mapping[str, Any] | None) -> str:
    """Size and version of a recording, without opening it; a storage that does not answer is asked again."""
    for left in reversed(range(_TRIES)):
        try:
            fs, path = file_system(uri, storage_options)
            with storage_errors(uri):
                info = fs.info(path)
                return f"{info.get('size')} bytes, {stored_version(path, info)}".rstrip(", ")
        except InputError:
            return MISSING
        except StorageError:
            if not left:
                raise
            time.sleep(_WAIT_SECONDS)
    raise AssertionError

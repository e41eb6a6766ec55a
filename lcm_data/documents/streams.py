"""Bytes of input files: opening any fsspec URL, decompressing, and cutting into lines at known offsets.

Offsets are always in uncompressed bytes. Plain files are read from any offset; a compressed file can only be read
forward, so its stream is kept open between slices. What a line means is left to the readers of each format.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import fsspec
import zstandard

from lcm_data.documents.model import ReadOptions
from lcm_data.errors import InputError, MissingExtraError, StorageError

_CHUNK_BYTES = 1 << 20
# zstd expands up to 32,768-fold and its decoder has no output limit: small pieces bound what one call can return.
_ZSTD_INPUT_BYTES = 8 << 10
_HEAD_BYTES = 1 << 10

UTF8_MARK = b"\xef\xbb\xbf"
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")

_CLIENTS = {"botocore", "aiobotocore", "aiohttp", "google", "gcsfs", "huggingface_hub", "httpx", "requests"}
_EXTRAS = {"s3": ("s3fs", "s3"), "gs": ("gcsfs", "gcs"), "gcs": ("gcsfs", "gcs"), "hf": ("huggingface_hub", "hf")}


class Line(NamedTuple):
    """One line of a file."""

    start: int
    data: bytes
    """Without the newline."""
    size: int
    """Bytes in the file, newline included."""
    is_cut: bool
    """Whether the line was over the limit, so that ``data`` is only its beginning."""


class _Decoder(Protocol):
    """What gzip and zstd decoders have in common: one gzip member or zstd frame."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, /) -> bytes: ...


def file_system(uri: str, storage_options: Mapping[str, Any] | None = None) -> tuple[Any, str]:
    """The fsspec file system of a path or URL, and the path inside it.

    Raises:
        InputError: no file system of this name. MissingExtraError: its package is not installed.
    """
    protocol = uri.partition("://")[0] if "://" in uri else "file"
    try:
        fs, path = fsspec.url_to_fs(uri, **(storage_options or {}))
    except ImportError as error:
        package, extra = _EXTRAS.get(protocol, (str(error), protocol))
        raise MissingExtraError(f"reading {protocol}:// URLs", package, extra) from error
    except ValueError as error:
        raise InputError(f"cannot open {uri!r}: {error}. Give a local path or a URL that fsspec knows.") from error
    return fs, str(path)


@contextlib.contextmanager
def storage_errors(uri: str) -> Iterator[None]:
    """Map what file systems raise: ``InputError`` if a file is missing or forbidden, else ``StorageError``."""
    try:
        yield
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise InputError(f"cannot read {uri!r}: {error}. Check the path and its permissions.") from error
    except OSError as error:
        raise StorageError(f"reading {uri!r} failed: {error}. Run the same command again to resume.") from error
    except Exception as error:
        # Missing credentials, unreachable endpoints and the like are no OSErrors in the clients of object stores.
        if type(error).__module__.partition(".")[0] not in _CLIENTS:
            raise
        raise StorageError(f"reading {uri!r} failed: {error}. Check credentials and network, then resume.") from error


def read_chunks(
    uri: str,
    compression: str | None,
    start: int = 0,
    storage_options: Mapping[str, Any] | None = None,
) -> Generator[bytes, None, None]:
    """Uncompressed bytes of a file from ``start`` to its end; ``start`` must be 0 for a compressed file.

    Raises:
        InputError: the file is missing, or its compressed data is damaged or ends too early.
        StorageError: reading failed.
    """
    assert start == 0 or compression is None, (uri, start)
    fs, path = file_system(uri, storage_options)
    raw = _raw_chunks(fs, path, uri, start, _ZSTD_INPUT_BYTES if compression == "zst" else _CHUNK_BYTES)
    if compression is None:
        yield from raw
    elif compression == "gz":
        yield from _decompress(raw, _GzipMember, uri)
    else:
        # Some corpora are packed with `zstd --long=31`; the default refuses windows above 128 MiB.
        context = zstandard.ZstdDecompressor(max_window_size=1 << 31)
        yield from _decompress(raw, context.decompressobj, uri)


def _raw_chunks(fs: Any, path: str, uri: str, start: int, size: int) -> Iterator[bytes]:
    with storage_errors(uri), fs.open(path, "rb") as file:
        file.seek(start)
        while data := file.read(_CHUNK_BYTES):
            for at in range(0, len(data), size):
                yield data[at : at + size]


class _GzipMember:
    """zlib's decoder with bounded output; ``decompress(b"")`` goes on with what did not fit."""

    def __init__(self) -> None:
        self._decoder = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._decoder.eof

    @property
    def unused_data(self) -> bytes:
        return self._decoder.unused_data

    def decompress(self, data: bytes, /) -> bytes:
        return self._decoder.decompress(self._decoder.unconsumed_tail + data, _CHUNK_BYTES)

    @property
    def has_more(self) -> bool:
        return bool(self._decoder.unconsumed_tail)


def _decompress(raw: Iterator[bytes], new_decoder: Callable[[], Any], uri: str) -> Iterator[bytes]:
    """Decode concatenated gzip members or zstd frames, and refuse a stream that ends inside one.

    The stock stream readers of ``zstandard`` end silently there, which would lose the rest of a half-copied file.
    """
    decoder: Any = None
    num_done = num_out = 0
    try:
        for data in raw:
            while data or (decoder is not None and getattr(decoder, "has_more", False)):
                if decoder is None:
                    # Tape archives pad gzip files with zeros.
                    data = data.lstrip(b"\0") if num_done else data
                    if not data:
                        break
                    decoder = new_decoder()
                out = decoder.decompress(data)
                data = b""
                num_out += len(out)
                if out:
                    yield out
                if decoder.eof:
                    data, decoder, num_done = decoder.unused_data, None, num_done + 1
    except (zlib.error, zstandard.ZstdError) as error:
        raise InputError(
            f"{uri!r}: damaged compressed data after {num_out:,} uncompressed bytes ({error}). "
            "Copy the file again, or repair it."
        ) from error
    if decoder is not None or num_done == 0:
        raise InputError(
            f"{uri!r}: the compressed data ends too early, after {num_out:,} uncompressed bytes: the file is "
            "truncated. Copy it again, or cut it back to whole lines and compress it anew."
        )


class LineStream:
    """Lines of one file, read forward; ``position`` is the offset of the next one.

    Args:
        uri: for error messages.
        chunks: uncompressed bytes from ``position`` on.
        position: offset of their first byte.
        limit: lines above this many bytes are cut to their beginning, in bounded memory.
    """

    def __init__(self, uri: str, chunks: Iterator[bytes], position: int, limit: int) -> None:
        self.position = position
        self._uri = uri
        self._chunks = chunks
        self._limit = limit
        self._lines: list[bytes] = []  # complete lines, last first
        self._tail: list[bytes] = []  # what has been read of the line after these
        self._tail_size = 0

    def lines(self, stop: int | None = None) -> Iterator[Line]:
        """The lines that begin before ``stop`` (None: to the end of the file)."""
        while stop is None or self.position < stop:
            line = self._next_line()
            if line is None:
                return
            self.position += line.size
            yield self._without_mark(line) if line.start == 0 else line

    def skip_line(self) -> None:
        """Go to the line after this one."""
        line = self._next_line()
        self.position += line.size if line else 0

    def skip_to(self, offset: int) -> None:
        """Go forward to ``offset``, the start of a line."""
        assert offset >= self.position, (offset, self.position)
        for _ in self.lines(offset):
            pass
        assert self.position == offset or not self._tail_size, (offset, self.position)

    def _without_mark(self, line: Line) -> Line:
        if line.data.startswith(UTF16_MARKS):
            raise InputError(f"{self._uri!r} is in UTF-16. Convert it: iconv -f utf-16 -t utf-8")
        return line._replace(data=line.data.removeprefix(UTF8_MARK))

    def _next_line(self) -> Line | None:
        while not self._lines:
            chunk = next(self._chunks, None)
            if chunk is None:
                return self._take_tail(newline=0) if self._tail_size else None
            if b"\n" not in chunk:
                self._extend_tail(chunk)
                continue
            first, *rest = chunk.split(b"\n")
            if self._tail:
                self._extend_tail(first)
                line = self._take_tail(newline=1)
                self._extend_tail(rest.pop())
                self._lines = rest[::-1]
                return line
            self._extend_tail(rest.pop())
            self._lines = [*rest[::-1], first]
        data = self._lines.pop()
        is_cut = len(data) > self._limit
        return Line(self.position, data[:_HEAD_BYTES] if is_cut else data, len(data) + 1, is_cut)

    def _extend_tail(self, data: bytes) -> None:
        self._tail_size += len(data)
        if self._tail_size > self._limit:
            # Over the limit: keep only what a reject shows.
            head = b"".join(self._tail)[:_HEAD_BYTES]
            self._tail = [head + data[: _HEAD_BYTES - len(head)]]
        elif data:
            self._tail.append(data)

    def _take_tail(self, newline: int) -> Line:
        line = Line(self.position, b"".join(self._tail), self._tail_size + newline, self._tail_size > self._limit)
        self._tail, self._tail_size = [], 0
        return line


_kept: dict[str, LineStream] = {}
"""The last compressed stream read to the end of a slice, by what it was opened with. At most one entry a process."""


class Source(Protocol):
    """The file of a slice, or a listed file."""

    @property
    def uri(self) -> str: ...
    @property
    def compression(self) -> str | None: ...
    @property
    def fingerprint(self) -> str: ...


@contextlib.contextmanager
def line_stream(source: Source, start: int, options: ReadOptions) -> Iterator[LineStream]:
    """Lines of a file from offset ``start``; a byte order mark at the beginning of the file is left out.

    A compressed stream is kept for the next caller, so that reading the slices of a file in order decompresses it
    once. Any other order is right too, but starts again from the beginning of the file.

    Raises:
        InputError: the file is in UTF-16, or as ``read_chunks``.
        StorageError: as ``read_chunks``.
    """
    uri, limit = source.uri, options.max_row_bytes
    if source.compression is None:
        with contextlib.closing(read_chunks(uri, None, start, options.storage_options)) as chunks:
            yield LineStream(uri, chunks, start, limit)
        return
    key = f"{source.fingerprint} {limit} {uri}"
    # Taken out while in use: a second thread on the same file opens its own.
    stream = _kept.pop(key, None)
    if stream is None or stream.position > start:
        stream = LineStream(uri, read_chunks(uri, source.compression, 0, options.storage_options), 0, limit)
    stream.skip_to(start)
    yield stream
    _kept.clear()
    _kept[key] = stream

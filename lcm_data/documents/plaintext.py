"""Text files: each is one document, whose id is the name of the file. Small ones are put together in slices."""

from __future__ import annotations

from collections.abc import Iterator

from lcm_data.documents.model import Columns, Document, ReadOptions, Reject
from lcm_data.documents.rows import ABSENT, RowError, RowMaker
from lcm_data.documents.slices import Piece, ScannedSlice, Slice, grouped
from lcm_data.documents.streams import UTF8_MARK, UTF16_MARKS, read_chunks

_MAX_GROUP = 1000


class TextReader:
    """Reader of ``.txt`` and ``.md``."""

    def scan(
        self, piece: Piece, columns: Columns, slice_bytes: int, default_lang: str | None, options: ReadOptions
    ) -> Iterator[ScannedSlice]:
        """Group by size as stored; nothing is read."""
        return grouped(piece.files, slice_bytes, _MAX_GROUP)

    def read(self, part: Slice, columns: Columns, options: ReadOptions) -> Iterator[Document | Reject]:
        """The files of a slice."""
        for row, (uri, name, compression) in enumerate(part.group):
            make = RowMaker(name, 0, options)
            data = _content(uri, compression, options)
            if data is None:
                error = RowError("too_long", f"the file has over {options.max_row_bytes:,} bytes (max_row_bytes)")
                yield make.reject(row, error, "", name)
            elif data.startswith(UTF16_MARKS):
                error = RowError("invalid_utf8", "the file is in UTF-16. Convert it: iconv -f utf-16 -t utf-8")
                yield make.reject(row, error, data, name)
            else:
                yield make.make(row, data.removeprefix(UTF8_MARK), name, ABSENT)


def _content(uri: str, compression: str | None, options: ReadOptions) -> bytes | None:
    """The bytes of a file, None if there are more than ``max_row_bytes``."""
    chunks = []
    num_bytes = 0
    for chunk in read_chunks(uri, compression, 0, options.storage_options):
        num_bytes += len(chunk)
        if num_bytes > options.max_row_bytes:
            return None
        chunks.append(chunk)
    return b"".join(chunks)

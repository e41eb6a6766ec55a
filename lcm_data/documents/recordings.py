"""Audio files: each is one document, whose id is the name of the file. Small ones are put together in slices.

Nothing is opened here: what is in a recording is found by ``lcm_data.audio``, on the worker. Recordings that the rows
of a manifest name come through the readers of these rows.
"""

from __future__ import annotations

from collections.abc import Iterator

from lcm_data.documents.model import Columns, Document, ReadOptions, Reject
from lcm_data.documents.slices import Piece, ScannedSlice, Slice, grouped

_MAX_GROUP = 1000


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

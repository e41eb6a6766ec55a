from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import zstandard

from lcm_data.documents import (
    Columns,
    Document,
    ReadOptions,
    Reject,
    ScannedSlice,
    Slice,
    list_inputs,
    number_rows,
    pieces,
    read,
    scan,
)


def packed(data: bytes, suffix: str) -> bytes:
    """``data`` as the suffix of a file name says, in several members or frames where there is enough of it."""
    half = len(data) // 2
    parts = [data[:half], data[half:]]
    if suffix.endswith(".gz"):
        return b"".join(gzip.compress(part) for part in parts)
    if suffix.endswith(".zst"):
        return b"".join(zstandard.ZstdCompressor().compress(part) for part in parts)
    return data


class Corpus:
    """Runs the whole way over files: list, cut, read."""

    def __init__(self, columns: Columns, options: ReadOptions, slice_bytes: int, piece_bytes: int) -> None:
        self.columns = columns
        self.options = options
        self.slice_bytes = slice_bytes
        self.piece_bytes = piece_bytes

    def scanned(self, *patterns: str | Path) -> list[ScannedSlice]:
        files = list_inputs([str(pattern) for pattern in patterns]).files
        found: list[ScannedSlice] = []
        for piece in pieces(files, self.piece_bytes):
            found += scan(piece, self.columns, slice_bytes=self.slice_bytes, options=self.options)
        return found

    def slices(self, *patterns: str | Path) -> list[Slice]:
        parts = number_rows([found.slice for found in self.scanned(*patterns)])
        # Slices travel as JSON.
        return [Slice.from_json(json.loads(json.dumps(part.to_json()))) for part in parts]

    def rows(self, *patterns: str | Path) -> list[Document | Reject]:
        return [row for part in self.slices(*patterns) for row in read(part, self.columns, self.options)]


@pytest.fixture
def corpus() -> Callable[..., Corpus]:
    def make(
        *,
        text: str = "text",
        id: str | None = None,  # noqa: A002 (the name of the option)
        lang: str | None = None,
        slice_bytes: int = 1 << 20,
        piece_bytes: int = 1 << 20,
        **options: Any,
    ) -> Corpus:
        return Corpus(Columns(text=text, id=id, lang=lang), ReadOptions(**options), slice_bytes, piece_bytes)

    return make


def texts(rows: Sequence[Document | Reject]) -> list[str]:
    """Of documents the text, of rejects the reason in angle brackets."""
    return [row.text if isinstance(row, Document) else f"<{row.reason}>" for row in rows]


@pytest.fixture
def as_texts() -> Callable[[Sequence[Document | Reject]], list[str]]:
    return texts


@pytest.fixture
def pack() -> Callable[[bytes, str], bytes]:
    return packed

"""Which index a corpus gets, by its size and the memory there is. Building one is ``lcm_data.search.index``."""

from __future__ import annotations

import math

from lcm_data.errors import UnknownNameError, UsageError
from lcm_data.quantize.memory import gigabytes

KINDS = {
    "flat": "every vector as float32: each search looks at all of them, and is exact",
    "ivf": "one byte a number, in lists by nearness: a search looks at some lists; filtered ones at all, and are exact",
}
"""Kinds of index, and what they are."""

FLAT_BYTES = 1 << 31
"""The largest flat index that is chosen unasked: a search in it takes some tenths of a second."""

TRAINING_ROWS = 50
"""Rows a list, from which its centre is learned."""

_FLOAT, _ID = 4, 8


def choose_kind(wanted: str, rows: int, dim: int, available: int | None) -> str:
    """``wanted``, or for "auto" the exact kind while it is small; refused if it cannot be built in ``available`` bytes.

    Raises:
        UnknownNameError: no such kind.
        UsageError: the memory is not enough.
    """
    if wanted != "auto" and wanted not in KINDS:
        raise UnknownNameError("index", wanted, [*KINDS, "auto"])
    kind = wanted
    if wanted == "auto":
        kind = "flat" if rows * dim * _FLOAT <= FLAT_BYTES and _fits("flat", rows, dim, available) else "ivf"
    if not _fits(kind, rows, dim, available):
        advice = "Use --index ivf, or a larger machine." if kind == "flat" else "Use a machine with more memory."
        raise UsageError(
            f"a {kind} index of {rows:,} vectors of {dim} numbers takes {gigabytes(build_bytes(kind, rows, dim))} to "
            f"build, and {gigabytes(available or 0)} are available. {advice}"
        )
    return kind


def build_bytes(kind: str, rows: int, dim: int) -> int:
    """Memory that building takes; afterwards an index is read from its file as it is needed."""
    if kind == "flat":
        return 2 * rows * dim * _FLOAT  # a growing array is copied
    training = TRAINING_ROWS * num_lists(rows) * dim * _FLOAT
    return 2 * rows * (dim + _ID) + rows * _ID + training


def num_lists(rows: int) -> int:
    """Lists of an ``ivf`` index: about twice the square root of the rows."""
    return max(1, min(round(2 * math.sqrt(rows)), rows // 8))


def _fits(kind: str, rows: int, dim: int, available: int | None) -> bool:
    return available is None or build_bytes(kind, rows, dim) <= available

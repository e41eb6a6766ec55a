"""How much memory a fit takes, stated before it starts, and how much this process may have."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from lcm_data.errors import UsageError
from lcm_data.quantize.vectors import BLOCK_ROWS

_FLOAT = 4
GROWING_SIZE = 64
"""Dimensions of the reduced copy that the trainer ``growing`` makes of the rows, and of the part it works on."""


@dataclass(frozen=True, kw_only=True)
class MemoryEstimate:
    """Bytes a fit allocates on top of the arrays it is given."""

    residuals: int
    tables: int
    trainer: int
    scratch: int

    @property
    def total(self) -> int:
        return self.residuals + self.tables + self.trainer + self.scratch

    def __str__(self) -> str:
        return (
            f"{gigabytes(self.total)} (residuals {gigabytes(self.residuals)}, tables {gigabytes(self.tables)}, "
            f"trainer {gigabytes(self.trainer)}, scratch {gigabytes(self.scratch)})"
        )


def gigabytes(num_bytes: int) -> str:
    """``num_bytes`` for people."""
    return f"{num_bytes / 1e9:.2f} GB"


def estimate(
    *,
    num_levels: int,
    num_units: int,
    trainer: str,
    engine: str,
    num_rows: int,
    dim: int,
    num_heldout: int,
    overwrite: bool,
) -> MemoryEstimate:
    """Memory of fitting ``num_levels`` x ``num_units`` centroids to ``num_rows`` rows of ``dim`` dimensions."""
    matrix = num_rows * dim * _FLOAT
    # The residuals are the one full copy of the sample; FAISS's progressive trainer keeps its rows rotated and,
    # while it works, cut to the current dimensions.
    copies = 2 if trainer == "progressive" else 2 * GROWING_SIZE / dim if trainer == "growing" else 0
    sums = num_units * dim * (8 + 2 * _FLOAT)
    per_row = 2 + 8 + 8  # unit, order, bounds
    return MemoryEstimate(
        residuals=(0 if overwrite else matrix) + num_heldout * dim * 2 * _FLOAT,
        tables=num_levels * num_units * dim * _FLOAT,
        trainer=int(copies * matrix) + sums + num_rows * per_row,
        scratch=_scratch(engine, num_units, dim),
    )


def _scratch(engine: str, num_units: int, dim: int) -> int:
    rows = 4 * BLOCK_ROWS * dim * _FLOAT  # a block of rows, its units and their difference
    if engine == "faiss":
        return BLOCK_ROWS * 1024 * _FLOAT + rows  # its block of scores is 4096 x 1024
    # torch: the table for scoring, sums of a block, the scores of a block, its own workspace.
    return rows + 2 * num_units * dim * _FLOAT + (1 << 23) * _FLOAT + (64 << 20)


def require(needed: MemoryEstimate, available: int | None) -> None:
    """Raise ``UsageError`` with the numbers if ``needed`` exceeds ``available`` (None: unknown, nothing is checked)."""
    if available is not None and needed.total > available:
        raise UsageError(
            f"the fit needs {needed}, but only {gigabytes(available)} of memory is available. "
            "Use fewer sample rows (memory is proportional to them), the trainer 'spherical' (no copies of the rows), "
            "or a larger machine."
        )


def available_memory() -> int | None:
    """Bytes this process can still allocate without swapping: of the machine, or of its container if that is less."""
    candidates = [value for value in (_machine(), _container()) if value is not None]
    return min(candidates) if candidates else None


def _machine() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return None


def _container(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Room under the limit of a version 2 control group; the page cache counts as free, it gives way."""
    try:
        limit = int((root / "memory.max").read_text())
        used = int((root / "memory.current").read_text())
        stats = dict(line.split() for line in (root / "memory.stat").read_text().splitlines())
        return max(0, limit - used + int(stats.get("inactive_file", 0)))
    except (OSError, ValueError):  # no such group, or "max": no limit
        return None

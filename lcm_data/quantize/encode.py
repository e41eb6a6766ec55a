"""Encoding: rows to codes, greedily or by beam search, with any engine. Checking the rows is the codebook's.

Greedy codes have the property that the first k numbers are the code with k levels. Beam search keeps the best ``beam``
codes while it goes through the levels: together they are nearer to the row, but a prefix of such a code is no longer
the best code of its length, and for few levels it is worse than the greedy one.

Shapes: N rows, B kept codes of a row, M levels, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lcm_data.errors import UsageError
from lcm_data.quantize.engines import Engine
from lcm_data.quantize.vectors import Array, blocks

BLOCK_ROWS = 4096
MAX_BEAM = 256


class Encoder:
    """Encodes with the tables [M, K, D] of a codebook. Tables are prepared for the engine once: keep it."""

    def __init__(self, tables_MKD: Array, engine: Engine, beam: int = 1) -> None:
        if not 1 <= beam <= MAX_BEAM:
            raise UsageError(f"beam: got {beam}, allowed: 1 (greedy, exact prefixes) to {MAX_BEAM}.")
        self._tables, self._engine, self._beam = tables_MKD, engine, beam
        self._prepared = [engine.prepare(table_KD) for table_KD in tables_MKD]

    def encode(self, x_ND: Array) -> tuple[Array, Array]:
        """Codes uint16 [N, M] and the length float32 [N] of what they leave of each (finite) row."""
        codes_NM = np.empty((len(x_ND), len(self._tables)), dtype=np.uint16)
        norms_N = np.empty(len(x_ND), dtype=np.float32)
        for rows in blocks(len(x_ND), max(256, BLOCK_ROWS // self._beam)):
            x = x_ND[rows].astype(np.float32, order="C")
            if self._beam == 1:
                codes_NM[rows], norms_N[rows] = self._engine.encode(x, self._prepared)
            else:
                codes_NM[rows], norms_N[rows] = beam_search(self._engine, self._tables, self._prepared, x, self._beam)
        return codes_NM, norms_N


def beam_search(
    engine: Engine, tables_MKD: Array, prepared: Sequence[Any], x_ND: Array, beam: int
) -> tuple[Array, Array]:
    """Codes and what they leave of the rows: of all extensions of the codes kept, the ``beam`` nearest are kept."""
    num_rows, dim = x_ND.shape
    row_N1 = np.arange(num_rows)[:, None]
    residual_NBD = x_ND[:, None, :]
    codes_NBM = np.empty((num_rows, 1, 0), dtype=np.uint16)
    for table_KD, table in zip(tables_MKD, prepared, strict=True):
        kept = residual_NBD.shape[1]
        each = min(beam, len(table_KD))
        ids, change = engine.nearest(np.ascontiguousarray(residual_NBD.reshape(-1, dim)), table, each)
        error_NB = np.square(residual_NBD).sum(axis=2)
        error = (error_NB[:, :, None] + change.reshape(num_rows, kept, each)).reshape(num_rows, -1)
        best = np.argsort(error, axis=1, kind="stable")[:, :beam]
        parent, unit = best // each, ids.reshape(num_rows, -1)[row_N1, best]
        residual_NBD = residual_NBD[row_N1, parent] - table_KD[unit]
        codes_NBM = np.concatenate([codes_NBM[row_N1, parent], unit[:, :, None].astype(np.uint16)], axis=2)
    norms_NB = np.linalg.norm(residual_NBD, axis=2)
    best_N = norms_NB.argmin(axis=1)
    return codes_NBM[row_N1[:, 0], best_N], norms_NB[row_N1[:, 0], best_N]

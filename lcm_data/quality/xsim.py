"""Similarity search across languages: how often the nearest sentence of another language is not the translation.

As in LASER and NLLB ("xsim"): by cosine, and by the ratio margin, which divides a cosine by the mean cosine of both
sentences with their ``k`` nearest neighbours (Artetxe and Schwenk 2019, eq 2). The search is exact.

Shapes: N sentence pairs, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

NEIGHBOURS = 4
"""k of the margin in LASER and NLLB."""

_BLOCK_VALUES = 2**25


@dataclass(frozen=True)
class XsimScore:
    """Errors of the search from one language into another, as shares of ``num_sentences``; 0 is perfect."""

    num_sentences: int
    cosine: float
    margin: float


def xsim(
    x_ND: Array, y_ND: Array, x_texts: Sequence[str], y_texts: Sequence[str], neighbours: int = NEIGHBOURS
) -> tuple[XsimScore, XsimScore]:
    """Search errors from x to y and from y to x; row i of one side is the translation of row i of the other.

    Found is right if its text equals a text that some row of this very source text is aligned with: repeated
    sentences are no errors. Vectors must be finite and not zero, and there must be at least one.
    """
    assert len(x_ND) == len(y_ND) == len(x_texts) == len(y_texts) > 0
    x_ND, y_ND = unit_rows(x_ND), unit_rows(y_ND)
    x_to_y, y_to_x = top_cosines(x_ND, y_ND, neighbours), top_cosines(y_ND, x_ND, neighbours)
    return (
        _score(x_to_y, y_to_x, _text_ids(x_texts), _text_ids(y_texts)),
        _score(y_to_x, x_to_y, _text_ids(y_texts), _text_ids(x_texts)),
    )


def unit_rows(x_ND: Array) -> Array:
    """Rows of length 1 in float32."""
    x_ND = x_ND.astype(np.float32)
    return np.asarray(x_ND / np.linalg.norm(x_ND, axis=1, keepdims=True))


def top_cosines(x_ND: Array, y_MD: Array, k: int) -> tuple[Array, Array]:
    """The k largest cosines [N, k] of every row of x with rows of y, largest first, and the rows [N, k] of y.

    Rows have length 1; k is cut to M.
    """
    k = min(k, len(y_MD))
    cosines = np.empty((len(x_ND), k), np.float32)
    rows = np.empty((len(x_ND), k), np.int64)
    step = max(1, _BLOCK_VALUES // len(y_MD))
    for start in range(0, len(x_ND), step):
        block = slice(start, min(start + step, len(x_ND)))
        all_BM = x_ND[block] @ y_MD.T
        found_Bk = np.argpartition(-all_BM, k - 1, axis=1)[:, :k]
        found_Bk.sort(axis=1)  # equal cosines: the first row wins
        order = np.argsort(-np.take_along_axis(all_BM, found_Bk, 1), axis=1, kind="stable")
        rows[block] = np.take_along_axis(found_Bk, order, 1)
        cosines[block] = np.take_along_axis(all_BM, rows[block], 1)
    return cosines, rows


def by_margin(forward: tuple[Array, Array], backward: tuple[Array, Array]) -> Array:
    """Row [N] of y with the largest ratio margin among the k nearest of each row of x.

    ``forward`` and ``backward`` are ``top_cosines`` of x in y and of y in x.
    """
    cosines_Nk, rows_Nk = forward
    mean_N, mean_M = cosines_Nk.mean(axis=1), backward[0].mean(axis=1)
    # A mean that is not positive would turn the order round; real spaces have none.
    scale_Nk = np.maximum((mean_N[:, None] + mean_M[rows_Nk]) / 2, 1e-6)
    best_N = np.argmax(cosines_Nk / scale_Nk, axis=1)
    return np.asarray(rows_Nk[np.arange(len(rows_Nk)), best_N])


def _score(
    forward: tuple[Array, Array], backward: tuple[Array, Array], source_ids: Array, target_ids: Array
) -> XsimScore:
    def errors(found: Array) -> float:
        key = source_ids * (int(target_ids.max()) + 1)
        return float(np.mean(~np.isin(key + target_ids[found], key + target_ids)))

    return XsimScore(len(source_ids), errors(forward[1][:, 0]), errors(by_margin(forward, backward)))


def _text_ids(texts: Sequence[str]) -> Array:
    """A number for every row, equal for equal texts."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(text.strip(), len(numbers)) for text in texts], np.int64)

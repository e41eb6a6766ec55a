"""How good RVQ codes are: what each level leaves unexplained, how its units are used, and what would be possible.

Works on vectors and their codes; reading corpora, decoding text, drawing and writing are done elsewhere.

Shapes: N rows, M levels, K units a level, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from lcm_data.quality.roundtrip import RoundTrip
from lcm_data.quantize.codebook import Codebook

Array = np.ndarray[Any, Any]

SCHEMA_VERSION = 1
_ENOUGH_CODES = 20
_TINY = np.finfo(np.float64).tiny


@dataclass(frozen=True, kw_only=True)
class Level:
    """The first ``level`` levels together, and the units of the last of them.

    ``nmse`` is the squared error over the variance, ``gain`` the share of the error before that this level takes away,
    ``yardstick`` the least ``nmse`` that any code of ``bits`` bits could have if the vectors were Gaussian with their
    covariance. Usage is that of all codes that were read.
    """

    level: int
    bits: float
    nmse: float
    cosine: float
    gain: float
    yardstick: float
    used: int
    dead: int
    perplexity: float
    max_share: float


@dataclass(frozen=True, kw_only=True)
class Errors:
    """Of the rows of one language: squared error over their own variance, and mean cosine, after each level."""

    sentences: int
    nmse: list[float]
    cosine: list[float]


@dataclass(frozen=True, kw_only=True)
class Gate:
    """A figure with a limit; ``passed`` is None where there were too few rows to tell."""

    name: str
    level: int
    value: float
    limit: float
    passed: bool | None


@dataclass(frozen=True, kw_only=True)
class CodesReport:
    """What was measured on which rows. ``text`` holds scores of decoded text by language, then number of levels; 0
    stands for the vector itself. ``duplicates`` counts distinct vectors that share a whole code with another one.
    """

    corpus: str
    out: str
    settings: dict[str, Any]
    provenance: dict[str, Any]
    splits: list[str]
    sentences: int
    codes_read: int
    duplicates: int
    levels: list[Level]
    languages: dict[str, Errors]
    fit: list[dict[str, Any]]
    text: dict[str, dict[int, RoundTrip]]
    gates: list[Gate]
    skipped: list[str] = field(default_factory=list)

    @property
    def failed(self) -> list[Gate]:
        """The gates that were not passed."""
        return [gate for gate in self.gates if gate.passed is False]

    def to_json(self) -> dict[str, Any]:
        """JSON values only."""
        return {"schema_version": SCHEMA_VERSION, **asdict(self)}


class Usage:
    """How often each unit occurs, added up from any number of blocks of codes."""

    def __init__(self, num_levels: int, num_units: int) -> None:
        self.counts_MK = np.zeros((num_levels, num_units), dtype=np.int64)

    @property
    def rows(self) -> int:
        """Codes seen."""
        return int(self.counts_MK[0].sum())

    def add(self, codes_NM: Array) -> None:
        """Count the units of these rows."""
        for level, column in enumerate(codes_NM.T):
            self.counts_MK[level] += np.bincount(column, minlength=self.counts_MK.shape[1])

    def of(self, level: int) -> dict[str, Any]:
        """Usage of a level, counted from 0: the fields of ``Level``."""
        counts = self.counts_MK[level]
        share = counts[counts > 0] / max(1, counts.sum())
        return {
            "used": int((counts > 0).sum()),
            "dead": int((counts == 0).sum()),
            "perplexity": float(np.exp(-(share * np.log(share)).sum())),
            "max_share": float(share.max(initial=0.0)),
        }


def measure_errors(
    codebook: Codebook, emb_ND: Array, codes_NM: Array, langs_N: Sequence[str]
) -> tuple[Errors, dict[str, Errors]]:
    """Errors of all rows together (over the variance of all), and of each language whose rows are not all alike."""
    names, lang_N = np.unique(np.asarray(langs_N), return_inverse=True)
    x_ND = emb_ND.astype(np.float64)
    left_ND = x_ND.copy()
    norm_N = np.linalg.norm(x_ND, axis=1)
    error_MN, cosine_MN = np.empty((2, codes_NM.shape[1], len(x_ND)))
    for level, table_KD in enumerate(codebook.tables_MKD[: codes_NM.shape[1]]):
        left_ND -= table_KD[codes_NM[:, level]]
        decoded_ND = x_ND - left_ND
        error_MN[level] = np.square(left_ND).sum(axis=1)
        lengths_N = np.maximum(norm_N * np.linalg.norm(decoded_ND, axis=1), _TINY)
        cosine_MN[level] = np.einsum("nd,nd->n", x_ND, decoded_ND) / lengths_N

    def variance_of(rows: Array) -> float:
        return float(np.square(x_ND[rows] - x_ND[rows].mean(axis=0)).sum())

    def errors(rows: Array, variance: float) -> Errors:
        return Errors(
            sentences=len(rows),
            nmse=(error_MN[:, rows].sum(axis=1) / variance).tolist(),
            cosine=cosine_MN[:, rows].mean(axis=1).tolist(),
        )

    each = {}
    for number, name in enumerate(names):
        rows = np.flatnonzero(lang_N == number)
        if variance := variance_of(rows):
            each[str(name)] = errors(rows, variance)
    every = np.arange(len(x_ND))
    return errors(every, variance_of(every) or 1.0), each


def yardstick(emb_ND: Array, bits: Sequence[float]) -> list[float]:
    """Least NMSE of a Gaussian source with the covariance of the rows at each number of bits (reverse water-filling).

    Of few rows the covariance has too few directions, so the figure is too low: a thousand rows more than dimensions
    are enough to compare with.
    """
    x_ND = emb_ND.astype(np.float64)
    variances_D = np.linalg.eigvalsh(np.cov(x_ND, rowvar=False, bias=True).reshape(x_ND.shape[1], -1))[::-1]
    variances_D = variances_D[variances_D > variances_D.max(initial=0.0) * 1e-12]
    if not len(variances_D):
        return [0.0] * len(bits)
    # With the n largest above the water, level = (prod of them * 4 ** -bits) ** (1 / n).
    count_D = np.arange(1, len(variances_D) + 1)
    log_product_D = np.cumsum(np.log2(variances_D))
    rest_D = variances_D.sum() - np.cumsum(variances_D)
    found = []
    for wanted in bits:
        water_D = 2 ** ((log_product_D - 2 * wanted) / count_D)
        fits = water_D <= variances_D
        last = int(np.flatnonzero(fits)[-1])
        found.append(float((count_D[last] * water_D[last] + rest_D[last]) / variances_D.sum()))
    return found


def shared_codes(emb_ND: Array, codes_NM: Array) -> int:
    """How many distinct vectors have the whole code of another distinct vector."""
    return len(_distinct(emb_ND)) - len(_distinct(codes_NM[_distinct(emb_ND)]))


def _distinct(rows: Array) -> Array:
    width = rows.shape[1] * rows.itemsize
    return np.unique(np.ascontiguousarray(rows).view(np.dtype((np.void, width)))[:, 0], return_index=True)[1]


def make_levels(overall: Errors, usage: Usage, bound: Sequence[float], bits: Sequence[float]) -> list[Level]:
    """One record a level."""
    before = [1.0, *overall.nmse[:-1]]
    return [
        Level(
            level=level + 1,
            bits=bits[level],
            nmse=nmse,
            cosine=overall.cosine[level],
            gain=1 - nmse / before[level] if before[level] else 0.0,
            yardstick=bound[level],
            **usage.of(level),
        )
        for level, nmse in enumerate(overall.nmse)
    ]


def check_gates(
    levels: Sequence[Level],
    num_units: int,
    codes_read: int,
    *,
    min_usage: float,
    min_gain: float,
) -> list[Gate]:
    """Each level's perplexity as a share of the units, and its gain, against their least values.

    The perplexity of few rows is low whatever the codebook: with less than 20 codes a unit it is not judged.
    """
    enough = codes_read >= _ENOUGH_CODES * num_units
    gates = []
    for each in levels:
        share = each.perplexity / num_units
        passed = share >= min_usage if enough else None
        gates.append(Gate(name="usage", level=each.level, value=share, limit=min_usage, passed=passed))
        gates.append(Gate(name="gain", level=each.level, value=each.gain, limit=min_gain, passed=each.gain >= min_gain))
    return gates

"""The engine torch, on CPU and CUDA: one matrix product scores all units, in bfloat16 where the machine is fast at it.

bfloat16 alone would choose another unit for 2 to 6 % of the rows. So the four best units of a row are compared again
in float32 wherever the best two are nearer to each other than rounding is large: the units are then those of a float32
search for more than 99.9 % of the rows.

Scores are x.c - |c|^2 / 2, both counted from the mean of the units: what all vectors share would only cost precision.
The half norms take part in the matrix product, as three more dimensions: each is the sum of
three bfloat16 numbers. The best units are found without sorting all scores: units are grouped by their number modulo
``groups``, and the best R units are among the R groups with the largest maxima.

Shapes: N rows, K units, D dimensions.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from lcm_data.errors import UsageError
from lcm_data.quantize.engines import Metric
from lcm_data.quantize.vectors import Array, blocks

_SUM_ROWS = 65536
"""Rows summed in float32 before they are added up in float64; also what is sent to a GPU at once."""
_SCORES = {"cpu": 1 << 23, "cuda": 1 << 25}
"""Scores of a block: what stays in the cache of a core, what keeps a GPU busy."""
_GROUPS = {16384: 256, 2048: 128, 128: 64}
"""Groups by the least number of units; fewer units than all of these are groups of one."""
_CANDIDATES = 4
_HALF_FROM = 32
"""Dimensions from which bfloat16 is worth it; with fewer, many units may be nearer to each other than its rounding."""
_ALIGN = 32
_CENTERED_FROM = 1 / 32
"""How large the squared length of the units' mean must be, in mean half norms, to be worth a subtraction."""
_RESIDENT_SHARE = 0.7


@dataclass(frozen=True)
class _Table:
    """A table ready to be searched: ``scoring`` [K padded, D padded] has the half norms in it.

    ``mean_square`` [D padded] is that of the units as they are scored.
    """

    exact_KD: torch.Tensor
    half_norm_K: torch.Tensor
    center_D: torch.Tensor | None
    mean_square: torch.Tensor
    scoring: torch.Tensor
    groups: int


class TorchEngine:
    """See ``lcm_data.quantize.engines.Engine``."""

    name = "torch"

    def __init__(self, device: str = "auto") -> None:
        self._device = _find_device(device)
        self._dtype = torch.bfloat16 if _is_fast_at_bfloat16(self._device) else torch.float32
        self._held: dict[str, torch.Tensor] = {}
        where = "cpu" if self._device.type == "cpu" else torch.cuda.get_device_name(self._device)
        scores = "bfloat16, candidates in float32" if self._dtype == torch.bfloat16 else "float32"
        self.facts = {"name": "torch", "torch": torch.__version__, "device": where, "scores": scores}

    @contextlib.contextmanager
    def threads(self, wanted: int | None) -> Iterator[None]:
        before = torch.get_num_threads()
        torch.set_num_threads(wanted or before)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def hold(self, x_ND: Array) -> Any:
        """On a GPU with room for all rows, there; else they are sent block by block."""
        if self._device.type == "cpu":
            return x_ND
        free, _ = torch.cuda.mem_get_info(self._device)
        return self._send(x_ND) if x_ND.nbytes < _RESIDENT_SHARE * free else x_ND

    def assign(self, x_ND: Any, table_KD: Array, metric: Metric = "l2") -> Array:
        table = self._table(table_KD, metric)
        ids = np.empty(len(x_ND), dtype=np.uint16)
        for rows in blocks(len(x_ND), _SUM_ROWS):
            ids[rows] = self._nearest(self._send(x_ND[rows]), table).cpu().numpy()
        return ids

    def lloyd(self, x_ND: Any, table_KD: Array, metric: Metric = "l2") -> tuple[Array, Array]:
        table = self._table(table_KD, metric)
        num_units = len(table_KD)
        sums = torch.zeros(table.exact_KD.shape, dtype=torch.float64, device=self._device)
        counts = torch.zeros(num_units, dtype=torch.int64, device=self._device)
        for rows in blocks(len(x_ND), _SUM_ROWS):
            x = self._send(x_ND[rows])
            ids = self._nearest(x, table, exact=False)
            count = torch.bincount(ids, minlength=num_units)
            # A bag a unit, its rows in order: the same sum every time, on a GPU, too.
            starts = count.cumsum(0) - count
            sums += F.embedding_bag(ids.argsort(stable=True), x, starts, mode="sum")
            counts += count
        return sums.cpu().numpy(), counts.cpu().numpy()

    def prepare(self, table_KD: Array) -> _Table:
        return self._table(table_KD, "l2")

    def nearest(self, x_ND: Array, table: _Table, count: int) -> tuple[Array, Array]:
        ids = np.empty((len(x_ND), count), dtype=np.int64)
        change = np.empty((len(x_ND), count), dtype=np.float32)
        gathered = (count + _CANDIDATES) * x_ND.shape[1]  # numbers a row
        for rows in self._blocks(len(x_ND), table, max(16, _SCORES[self._device.type] // gathered)):
            x = self._send(x_ND[rows])
            _, found = self._top(self._scores(x, table)[0], table, count + _CANDIDATES // 2)
            score, order = self._exact(x, table, found).sort(dim=1, descending=True, stable=True)
            ids[rows] = found.gather(1, order[:, :count]).cpu().numpy()
            change[rows] = -2 * score[:, :count].cpu().numpy()
        return ids, change

    def encode(self, x_ND: Array, tables: Sequence[_Table]) -> tuple[Array, Array]:
        codes_NM = torch.empty((len(x_ND), len(tables)), dtype=torch.int32)
        residual = self._send(x_ND).clone() if self._device.type == "cpu" else self._send(x_ND)
        for level, table in enumerate(tables):
            codes_NM[:, level] = self._nearest(residual, table, subtract=True)
        return codes_NM.numpy().astype(np.uint16), torch.linalg.vector_norm(residual, dim=1).cpu().numpy()

    # -- search --------------------------------------------------------------------------------------------------

    def _nearest(self, x_ND: torch.Tensor, table: _Table, exact: bool = True, subtract: bool = False) -> torch.Tensor:
        """Nearest unit [N] int64 of every row; ``subtract`` replaces the rows by what it leaves.

        Without ``exact`` units that bfloat16 cannot tell apart may be taken for each other.
        """
        ids_N = torch.empty(len(x_ND), dtype=torch.int64, device=x_ND.device)
        for rows in self._blocks(len(x_ND), table):
            x = x_ND[rows]
            scores, padded = self._scores(x, table)
            first, second, best = two_best(scores)
            sure = first > 0
            if exact and scores.dtype == torch.bfloat16:
                sure &= first - second > _rounding(padded, first, table)
            unsure = (~sure).nonzero()[:, 0]
            if len(unsure) and exact:
                few, scores = x.index_select(0, unsure), scores.index_select(0, unsure)
                best[unsure] = self._compared(few, scores, table)
            elif len(unsure):
                best[unsure] = scores[unsure].flatten(1).argmax(dim=1).clamp_(max=len(table.exact_KD) - 1)
            ids_N[rows] = best
            if subtract:
                x -= table.exact_KD.index_select(0, best)
        return ids_N

    def _compared(self, x_ND: torch.Tensor, scores_NSG: torch.Tensor, table: _Table) -> torch.Tensor:
        """The nearest unit [N], the candidates compared in float32; of equally near ones the first, as in FAISS."""
        _, found = self._top(scores_NSG, table, _CANDIDATES)
        exact = self._exact(x_ND, table, found)
        last = len(table.exact_KD) - 1
        return torch.where(exact == exact.amax(dim=1, keepdim=True), found, last).amin(dim=1)

    def _scores(self, x_ND: torch.Tensor, table: _Table) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores [N, S, G] of all units (unit = s * G + g), and the rows as they were scored, in memory used again."""
        num_rows, dim = x_ND.shape
        padded = self._buffer("rows", num_rows, table.scoring.shape[1], table.scoring)
        padded[:, :dim] = x_ND if table.center_D is None else x_ND - table.center_D
        padded[:, dim:] = 1  # times zero after the three parts of the half norms
        scores = self._buffer("scores", num_rows, len(table.scoring), table.scoring)
        torch.mm(padded, table.scoring.T, out=scores)
        return scores.view(num_rows, -1, table.groups), padded

    def _top(self, scores_NSG: torch.Tensor, table: _Table, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores float32 and numbers of the ``count`` units that score highest, best first."""
        count = min(count, len(table.exact_KD))
        width = min(count, table.groups)
        groups = _group_maxima(scores_NSG, width).topk(width, dim=1).indices
        members = scores_NSG.gather(2, groups[:, None, :].expand(-1, scores_NSG.shape[1], -1)).flatten(1)
        top, place = members.topk(min(count, members.shape[1]), dim=1)
        found = (place // width) * table.groups + groups.gather(1, place % width)
        return top.float(), found.clamp_(max=len(table.exact_KD) - 1)  # padding wins only where all scores are NaN

    def _buffer(self, use: str, num_rows: int, width: int, like: torch.Tensor) -> torch.Tensor:
        """Memory [num_rows, width] that is used again for every block: new pages cost as much as filling them."""
        held = self._held.get(use)
        if held is None or held.dtype != like.dtype or held.numel() < num_rows * width:
            held = self._held[use] = like.new_empty(num_rows * width)
        return held[: num_rows * width].view(num_rows, width)

    def _exact(self, x_ND: torch.Tensor, table: _Table, ids_NC: torch.Tensor) -> torch.Tensor:
        units = table.exact_KD.index_select(0, ids_NC.flatten()).view(*ids_NC.shape, x_ND.shape[1])
        return torch.matmul(units, x_ND[:, :, None])[:, :, 0] - table.half_norm_K[ids_NC]

    def _blocks(self, num_rows: int, table: _Table, most: int = 4096) -> Iterator[slice]:
        by_scores = _SCORES[self._device.type] // len(table.scoring)
        return blocks(num_rows, min(most, max(256, min(4096, by_scores))))

    def _send(self, x_ND: Any) -> torch.Tensor:
        if isinstance(x_ND, torch.Tensor):
            return x_ND
        with warnings.catch_warnings():  # of read-only arrays (mapped files); nothing writes to them
            warnings.simplefilter("ignore", UserWarning)
            return torch.from_numpy(np.ascontiguousarray(x_ND)).to(self._device)

    def _table(self, table_KD: Array, metric: Metric) -> _Table:
        exact = self._send(table_KD)
        num_units, dim = exact.shape
        dtype = self._dtype if dim >= _HALF_FROM else torch.float32
        half_norm = exact.square().sum(dim=1) / 2 if metric == "l2" else exact.new_zeros(num_units)
        center, centered = None, exact
        if metric == "l2":
            mean = exact.mean(dim=0)
            if float(mean.square().sum()) > _CENTERED_FROM * float(half_norm.mean()):
                center, centered = mean, exact - mean
        groups = next((groups for least, groups in _GROUPS.items() if num_units >= least), num_units)
        rows = math.ceil(num_units / groups) * groups
        scoring = torch.zeros((rows, math.ceil((dim + 3) / _ALIGN) * _ALIGN), dtype=dtype, device=self._device)
        scoring[:num_units, :dim] = centered
        rest = -centered.square().sum(dim=1) / 2 if metric == "l2" else half_norm
        for place in range(dim, dim + 3):
            scoring[:num_units, place] = rest
            rest = rest - scoring[:num_units, place].float()
        scoring[num_units:, dim] = -math.inf
        mean_square = torch.zeros_like(scoring[0])
        mean_square[:dim] = centered.square().mean(dim=0)
        return _Table(exact, half_norm, center, mean_square, scoring, groups)


def sums_of_units(tables_MKD: Array, codes_NL: Array) -> Array:
    """The sum [N, D] float32 of the units that each row of codes names, level after level, on the CPU."""
    num_levels, num_units, dim = tables_MKD.shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        units = torch.from_numpy(tables_MKD.reshape(num_levels * num_units, dim))
    first = np.arange(codes_NL.shape[1], dtype=np.int64) * num_units
    return F.embedding_bag(torch.from_numpy(codes_NL.astype(np.int64) + first), units, mode="sum").numpy()


def two_best(scores_NSG: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of each row the best score, and the second best or 0, float32 [N], and the unit of the best, int64 [N].

    Right where the best is positive, which it says itself. The bits of positive floats are ordered as integers are, and
    those of negative ones are negative: so a score and its place become one integer, of which the largest is found
    several times faster than a largest float and its place are.
    """
    dtype, num_groups = scores_NSG.dtype, scores_NSG.shape[2]
    bits_NSG = scores_NSG.view(torch.int16 if dtype == torch.bfloat16 else torch.int32)
    first_N, group_N, second_N = _pop(bits_NSG.amax(dim=1))
    members_NS = bits_NSG.gather(2, group_N[:, None, None].expand(-1, bits_NSG.shape[1], 1))[:, :, 0]
    _, place_N, third_N = _pop(members_NS)
    second_N = torch.maximum(second_N, third_N).clamp_min(0)
    first_N, second_N = (bits_N.to(bits_NSG.dtype).view(dtype).float() for bits_N in (first_N, second_N))
    return first_N, second_N, place_N * num_groups + group_N


def _pop(bits_NW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The largest integer of each row, its place (int64), and the largest of the others."""
    width = 8 * bits_NW.element_size()
    keys_NW = bits_NW.to(torch.int32 if width == 16 else torch.int64)
    keys_NW = keys_NW.bitwise_left_shift_(width).add_(
        torch.arange(keys_NW.shape[1], dtype=keys_NW.dtype, device=keys_NW.device)
    )
    top_N = keys_NW.amax(dim=1)
    place_N = (top_N & ((1 << width) - 1)).long()
    keys_NW.scatter_(1, place_N[:, None], torch.iinfo(keys_NW.dtype).min)
    return top_N >> width, place_N, keys_NW.amax(dim=1) >> width


def _group_maxima(scores_NSG: torch.Tensor, count: int) -> torch.Tensor:
    """The largest score [N, G] of each group, exact for the ``count`` best groups of a row.

    As in ``two_best`` it is the bits that are compared. Rows with too few groups of positive scores are done again.
    """
    if scores_NSG.dtype != torch.bfloat16:
        return scores_NSG.amax(dim=1)
    maxima_NG = scores_NSG.view(torch.int16).amax(dim=1).view(torch.bfloat16)
    poor = ((maxima_NG > 0).sum(dim=1) < count).nonzero()[:, 0]
    if len(poor):
        maxima_NG[poor] = scores_NSG[poor].amax(dim=1)
    return maxima_NG


def _rounding(padded: torch.Tensor, best_N: torch.Tensor, table: _Table) -> torch.Tensor:
    """How far two scores may have moved against each other: by rounding the result, and the factors (8 sigma)."""
    spread_N = (padded.square() @ table.mean_square[:, None])[:, 0].float().sqrt()
    return best_N.abs() * 2**-7 + spread_N * 2**-6


def _find_device(device: str) -> torch.device:
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"device: got {device!r}, allowed: auto, cpu, cuda.")
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("device cuda: this torch sees no GPU. Use cpu, or auto.")
    found = device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(found)


def _is_fast_at_bfloat16(device: torch.device) -> bool:
    """Whether there are instructions for products of bfloat16: elsewhere they are emulated, slowly."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    tests = [getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("amx_tile", "avx512_bf16")]
    return any(test is not None and test() for test in tests)

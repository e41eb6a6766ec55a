"""The engines that search for nearest units: which there are, which one is meant, and what each must offer.

FAISS works in float32 and is the reference; torch runs on CPU and CUDA and is several times as fast where there are
matrix units for bfloat16. Both answer the same questions on numpy arrays, so training (``kmeans``), fitting (``fit``)
and encoding (``encode``) are written once.

Shapes: N rows, K units, D dimensions.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, Protocol

from lcm_data.errors import UnknownNameError
from lcm_data.quantize.vectors import Array
from lcm_data.tables import resolve

ENGINES = {
    "faiss": "lcm_data.quantize.faiss_engine:FaissEngine",
    "torch": "lcm_data.quantize.torch_engine:TorchEngine",
}
"""Engines by name. Each is made with the name of a device."""

Metric = Literal["l2", "dot"]

_WORTH_TORCH = 1 << 20


class Engine(Protocol):
    """Answers which unit is nearest to a row. ``facts`` are JSON: what the answers depend on."""

    name: str
    facts: dict[str, str]

    def threads(self, wanted: int | None) -> AbstractContextManager[None]:
        """Use so many CPU threads inside the context (None: leave them)."""
        ...

    def hold(self, x_ND: Array) -> Any:
        """The rows where they are searched fastest; for ``lloyd`` and ``assign`` in place of ``x_ND``."""
        ...

    def assign(self, x_ND: Any, table_KD: Array, metric: Metric = "l2") -> Array:
        """Nearest unit [N] uint16 of every row."""
        ...

    def lloyd(self, x_ND: Any, table_KD: Array, metric: Metric = "l2") -> tuple[Array, Array]:
        """Sum [K, D] float64 and number [K] int64 of the rows nearest to each unit."""
        ...

    def prepare(self, table_KD: Array) -> Any:
        """A table as ``nearest`` and ``encode`` take it: worth its time and memory if it is used again."""
        ...

    def nearest(self, x_ND: Array, table: Any, count: int) -> tuple[Array, Array]:
        """The ``count`` nearest units [N, count] of every row, and how much the squared length of the row changes by
        taking each away, [N, count] float32; nearest first."""
        ...

    def encode(self, x_ND: Array, tables: Sequence[Any]) -> tuple[Array, Array]:
        """Greedy codes [N, M] uint16 of rows float32, and the length [N] float32 of what they leave."""
        ...


def choose_engine(name: str, *, num_units: int, dim: int) -> str:
    """The engine that ``auto`` means; any other name as it is.

    torch, where it is installed and a level has a million numbers (1,024 units of 1,024 dimensions, say): below, it is
    not faster at encoding, and importing it takes longer than it saves.

    Raises:
        UnknownNameError: no engine has this name.
    """
    if name != "auto":
        if name not in ENGINES and ":" not in name:
            raise UnknownNameError("engine", name, ["auto", *ENGINES])
        return name
    large = num_units * dim >= _WORTH_TORCH
    return "torch" if large and importlib.util.find_spec("torch") else "faiss"


def load_engine(name: str, device: str = "auto") -> Engine:
    """The engine of a name that ``choose_engine`` gave; ``device`` is auto, cpu or cuda.

    Raises:
        UsageError: it does not run on this device, or is not known.
        MissingExtraError: its library is not installed.
    """
    engine: Engine = resolve(ENGINES, name, "engine")(device)
    return engine

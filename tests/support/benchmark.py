"""The benchmarks as tests use them: the plain networks they compare with, the experiments they run."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

ROOT = str(Path(__file__).parents[2])


def benchmark(name: str) -> ModuleType:
    """The module ``benchmarks.NAME``, which is not installed."""
    if ROOT not in sys.path:
        sys.path.append(ROOT)
    return importlib.import_module(f"benchmarks.{name}")

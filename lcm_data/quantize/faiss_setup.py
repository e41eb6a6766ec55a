"""Imports FAISS with the settings it needs to run at full speed; knows nothing about what it is used for.

Both settings are read once, when the library is loaded, so FAISS must be imported through ``load_faiss`` only.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from lcm_data.errors import MissingExtraError

_AVX512 = {"avx512f", "avx512dq", "avx512bw", "avx512vl", "avx512cd"}


def load_faiss(feature: str = "quantization") -> Any:
    """The ``faiss`` module.

    Raises:
        MissingExtraError: FAISS is not installed; ``feature`` is what wanted it.
    """
    for name, value in tuned_environment(_cpuinfo()).items():
        os.environ.setdefault(name, value)
    try:
        import faiss
    except ImportError as error:
        raise MissingExtraError(feature, "faiss-cpu", "cpu") from error
    return faiss


def tuned_environment(cpuinfo: str) -> dict[str, str]:
    """Environment variables for a machine whose ``/proc/cpuinfo`` reads ``cpuinfo``.

    The OpenBLAS inside the FAISS wheels (0.3.15) does not know recent processors and falls back to kernels for Haswell
    (AMD) or even Prescott (Intel): half or a fifth as fast as those for SkylakeX, which run on any AVX-512 processor.
    Two OpenMP runtimes in one process (FAISS and torch) that both spin while waiting take each other's cores.
    """
    wanted = {"OMP_WAIT_POLICY": "PASSIVE"}
    flags: set[str] = set()
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "flags":
            flags = set(value.split())
            break
    if flags >= _AVX512:
        wanted["OPENBLAS_CORETYPE"] = "SkylakeX"
    return wanted


def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:  # not Linux: nothing to tune
        return ""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from lcm_data.quantize.faiss_setup import tuned_environment

AVX512 = "avx512f avx512dq avx512bw avx512vl avx512cd"


def test_processors_with_avx512_get_its_kernels() -> None:
    def cpu(vendor: str, flags: str) -> str:
        return f"processor\t: 0\nvendor_id\t: {vendor}\nmodel name\t: X: Y\nflags\t\t: fpu {flags}\n"

    for vendor in ("AuthenticAMD", "GenuineIntel"):
        assert tuned_environment(cpu(vendor, AVX512))["OPENBLAS_CORETYPE"] == "SkylakeX"
    for other in (cpu("AuthenticAMD", "avx2"), cpu("AuthenticAMD", "avx512f"), cpu("GenuineIntel", "avx2"), ""):
        assert tuned_environment(other) == {"OMP_WAIT_POLICY": "PASSIVE"}


def _run(script: str, path: Path | None = None, **environment: str) -> str:
    clean = {k: v for k, v in os.environ.items() if k not in ("OPENBLAS_CORETYPE", "OMP_WAIT_POLICY")}
    extra = {"PYTHONPATH": str(path)} if path else {}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**clean, **extra, **environment},
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


def test_the_users_own_setting_stays() -> None:
    script = (
        "import os; from lcm_data.quantize.faiss_setup import load_faiss; load_faiss(); "
        "print(os.environ['OPENBLAS_CORETYPE'], os.environ['OMP_WAIT_POLICY'])"
    )
    assert _run(script, OPENBLAS_CORETYPE="Haswell", OMP_WAIT_POLICY="ACTIVE") == "Haswell ACTIVE"


def test_importing_the_package_loads_neither_faiss_nor_torch() -> None:
    script = (
        "import sys, lcm_data.normalize, lcm_data.quantize.codebook, lcm_data.quantize.fit, lcm_data.quantize.sample; "
        "print([name for name in ('faiss', 'torch', 'scipy', 'safetensors', 'pyarrow') if name in sys.modules])"
    )
    assert _run(script) == "[]"


def test_a_missing_faiss_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "faiss.py").write_text("raise ImportError('no such module')")
    script = (
        "from lcm_data.quantize.faiss_setup import load_faiss\n"
        "from lcm_data.errors import MissingExtraError\n"
        "try: load_faiss('encoding')\n"
        "except MissingExtraError as error: print(error)"
    )
    assert "pip install 'lcm-data[cpu]'" in _run(script, tmp_path)

"""Whether a vector can be stored: finite in its stored type, and so long that rounding leaves what it says."""

from __future__ import annotations

from typing import Any

import numpy as np

from lcm_data.schema import StoreDtype

Float32 = np.ndarray[Any, np.dtype[np.float32]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]


def norms_of(x_ND: np.ndarray[Any, Any]) -> Float32:
    """Lengths [N] of vectors [N, D]; squares are summed in float64, where they neither overflow nor vanish."""
    with np.errstate(over="ignore", invalid="ignore"):
        norms: Float32 = np.sqrt(np.einsum("nd,nd->n", x_ND, x_ND, dtype=np.float64)).astype(np.float32)
    return norms


def is_storable(x_ND: np.ndarray[Any, Any], norms_N: Float32, dtype: StoreDtype) -> Bools:
    """Vectors that are finite in the type they are stored in, and so long that it keeps 99 % of them at least.

    Of vectors whose numbers are half floats already, whatever type they come in, nothing is lost: they only must not be
    zero. So what was stored once is stored again.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        stored = x_ND.astype(dtype, copy=False)
    # Among the smallest numbers of a type, rounding moves each by up to half a step, however small it is.
    rounding = 0.5 * float(np.finfo(dtype).smallest_subnormal) * np.sqrt(x_ND.shape[1])
    is_exact_N = (stored == x_ND).all(1) & (dtype == "float16")
    least_N = np.where(is_exact_N, 0.0, 100 * rounding)
    return np.isfinite(stored).all(1) & np.isfinite(norms_N) & (norms_N > least_N)  # type: ignore[no-any-return]

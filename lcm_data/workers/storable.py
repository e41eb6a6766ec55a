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

    A short one that the type holds exactly, as when it comes from there, loses nothing: it only must not be zero.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        stored = x_ND.astype(dtype, copy=False)
    # Among the smallest numbers of a type, rounding moves each by up to half a step, however small it is.
    rounding = 0.5 * float(np.finfo(dtype).smallest_subnormal) * np.sqrt(x_ND.shape[1])
    is_long = norms_N > 100 * rounding
    short = np.flatnonzero(~is_long & (norms_N > 0))
    is_long[short] = (stored[short] == x_ND[short]).all(1)
    return np.isfinite(stored).all(1) & np.isfinite(norms_N) & is_long  # type: ignore[no-any-return]

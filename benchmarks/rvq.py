"""RVQ side by side: our fit, encode and decode against ``faiss.ResidualQuantizer``, in one process on the same rows.

    python benchmarks/rvq.py --dim 256 --rows 20000 --levels 4 --units 256

The rows are synthetic: a Zipf mixture of Gaussians with a power-law spectrum and log-normal radii, rotated at random.
Traps: without ``Skip_codebook_tables`` the peer spends its time (and 541 GB at 64 x 8192) on tables that beam 1 never
uses; without ``OPENBLAS_CORETYPE`` the BLAS in its wheel runs at half speed on recent AMD processors, so both sides
get it; wall time on a shared machine says little, so CPU seconds are compared; and NMSE must be of held-out rows. Both
decoders of the peer and of us include no unpacking of bits. Figures are of the machine they were made on.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from lcm_data.quantize.codebook import Provenance
from lcm_data.quantize.faiss_setup import load_faiss
from lcm_data.quantize.fit import FitOptions, fit_codebook
from lcm_data.quantize.kmeans import TRAINERS

Array = np.ndarray[Any, Any]


def mixture(num_rows: int, dim: int, seed: int, components: int = 200) -> Array:
    shared = np.random.default_rng(123)
    spread = np.arange(1, dim + 1) ** -0.375  # variances fall as i ** -0.75
    means = shared.standard_normal((components, dim)) * spread
    rotation = np.linalg.qr(shared.standard_normal((dim, dim)))[0]
    share = 1 / np.arange(1, components + 1)
    rng = np.random.default_rng(seed)
    rows = (
        rng.standard_normal((num_rows, dim)) * spread + means[rng.choice(components, num_rows, p=share / share.sum())]
    )
    return np.ascontiguousarray((rows * np.exp(0.3 * rng.standard_normal((num_rows, 1)))) @ rotation, dtype=np.float32)


def timed(work: Callable[[], Any], repeats: int = 1) -> tuple[Any, float]:
    """Result and CPU seconds of one run of ``work``: the best of ``repeats``."""
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        result = work()
        seconds.append(time.process_time() - start)
    return result, min(seconds)


def nmse(rows: Array, decoded: Array) -> float:
    return float(((rows - decoded) ** 2).sum() / ((rows - rows.mean(axis=0)) ** 2).sum())


def peer(args: argparse.Namespace, train: Array, heldout: Array) -> dict[str, float]:
    faiss = load_faiss()
    quantizer = faiss.ResidualQuantizer(args.dim, args.levels, int(np.log2(args.units)))
    quantizer.max_beam_size = 1
    quantizer.train_type = quantizer.Train_progressive_dim | quantizer.Skip_codebook_tables
    quantizer.cp.max_points_per_centroid = -(-len(train) // args.units)  # all rows, as ours
    quantizer.cp.min_points_per_centroid = 1  # no warnings in the table
    _, fit_seconds = timed(lambda: quantizer.train(train))
    packed, encode_seconds = timed(lambda: quantizer.compute_codes(heldout), 3)
    decoded, decode_seconds = timed(lambda: quantizer.decode(packed), 3)
    return {"nmse": nmse(heldout, decoded), "fit": fit_seconds, "encode": encode_seconds, "decode": decode_seconds}


def ours(args: argparse.Namespace, train: Array, heldout: Array, trainer: str) -> dict[str, float]:
    options = FitOptions(num_levels=args.levels, num_units=args.units, trainer=trainer)
    codebook, fit_seconds = timed(lambda: fit_codebook(train, heldout, options, Provenance(encoder="synthetic")))
    (codes, _), encode_seconds = timed(lambda: codebook.encode(heldout), 3)
    decoded, decode_seconds = timed(lambda: codebook.decode(codes), 3)
    perplexity = min(level.perplexity for level in codebook.quality)
    result = {"nmse": nmse(heldout, decoded), "fit": fit_seconds, "encode": encode_seconds, "decode": decode_seconds}
    return {**result, "perplexity": perplexity}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name, default in (("dim", 256), ("rows", 20000), ("heldout", 8000), ("levels", 4), ("units", 256)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    args = parser.parse_args()
    if args.units & (args.units - 1):
        parser.error("--units must be a power of two: the peer stores whole bits")
    train, heldout = mixture(args.rows, args.dim, 1), mixture(args.heldout, args.dim, 2)
    results = {"faiss.ResidualQuantizer": peer(args, train, heldout)}
    results |= {f"lcm-data {trainer}": ours(args, train, heldout, trainer) for trainer in TRAINERS}
    if args.json:
        print(json.dumps({"args": vars(args), "results": results}, indent=2))
        return
    base = results["faiss.ResidualQuantizer"]
    print(f"{args.rows} x {args.dim} rows, {args.levels} x {args.units} units, {args.heldout} held-out; CPU s (x peer)")
    print(f"{'':24}{'NMSE':>8}{'fit':>16}{'encode':>16}{'decode':>16}")
    for name, result in results.items():
        cells = "".join(f"{result[k]:>9.3f} {result[k] / base[k]:5.2f}x" for k in ("fit", "encode", "decode"))
        print(f"{name:24}{result['nmse']:8.4f}{cells}")


if __name__ == "__main__":
    main()

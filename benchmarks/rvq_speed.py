"""How fast codes are made and read at full size: against the matrix product alone, and against FAISS, in one run.

    python -m benchmarks.rvq_speed                       # 64 x 8192 units of 1024 dimensions: 7 GB of memory
    python -m benchmarks.rvq_speed --levels 4 --device cuda

The tables are Gaussian with lengths that fall from level to level; speed does not depend on where they come from. The
product is that of the same blocks of rows with the same tables in the precision that scores are made in, nothing else.
Traps: CPU seconds, for the machine may be shared; the best of several runs for either side, one after the other in
turn; FAISS gets ``OPENBLAS_CORETYPE`` and IndexFlat for its search (1.15 times its default), and no cross tables.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from lcm_data.quantize.codebook import Codebook, Provenance
from lcm_data.quantize.faiss_setup import load_faiss

Array = np.ndarray[Any, Any]


def seconds(work: Callable[[], Any], clock: Callable[[], float]) -> float:
    """Of one run."""
    start = clock()
    work()
    return clock() - start


def in_turn(jobs: dict[str, Callable[[], Any]], repeats: int, clock: Callable[[], float]) -> dict[str, float]:
    """Best seconds of each, measured in turn so that a busy machine is busy for all."""
    best = dict.fromkeys(jobs, float("inf"))
    for _ in range(repeats):
        for name, work in jobs.items():
            best[name] = min(best[name], seconds(work, clock))
    return best


def product(encoder: Any, rows: Array, device: str) -> Callable[[], None]:
    """All the matrix products of encoding ``rows``."""
    import torch

    engine, tables = encoder._engine, encoder._prepared
    scoring = tables[0].scoring
    x = torch.zeros((len(rows), scoring.shape[1]), dtype=scoring.dtype, device=scoring.device)
    x[:, : rows.shape[1]] = torch.from_numpy(rows)
    blocks = list(engine._blocks(len(rows), tables[0]))

    def run() -> None:
        for table in tables:
            for block in blocks:
                torch.mm(x[block], table.scoring.T)
        if device == "cuda":
            torch.cuda.synchronize()

    return run


def peer(codebook: Codebook) -> Any:
    """FAISS with the same tables."""
    faiss = load_faiss()
    quantizer = faiss.ResidualQuantizer(codebook.dim, codebook.num_levels, int(np.log2(codebook.num_units)))
    quantizer.max_beam_size = 1
    quantizer.train_type |= quantizer.Skip_codebook_tables
    faiss.copy_array_to_vector(codebook.tables_MKD.ravel(), quantizer.codebooks)
    quantizer.is_trained = True
    quantizer.factory = faiss.ProgressiveDimIndexFactory()  # kept alive with the quantizer
    quantizer.assign_index_factory = quantizer.factory
    return quantizer


def main() -> None:
    """Print rates and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name, default in (("levels", 64), ("units", 8192), ("dim", 1024), ("rows", 2048)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--decode-rows", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu", help="cpu or cuda (wall time there)")
    args = parser.parse_args()
    faiss = load_faiss()
    faiss.omp_set_num_threads(1)
    import torch

    torch.set_num_threads(1)
    clock = time.process_time if args.device == "cpu" else time.perf_counter
    rng = np.random.default_rng(0)
    tables = rng.standard_normal((args.levels, args.units, args.dim), dtype=np.float32)
    tables *= (0.2 * 0.97 ** np.arange(args.levels, dtype=np.float32))[:, None, None]
    codebook = Codebook(tables, {"provenance": Provenance(encoder="random")})
    rows = rng.standard_normal((args.rows, args.dim), dtype=np.float32)
    codes = rng.integers(0, args.units, (args.decode_rows, args.levels)).astype(np.uint16)
    encoder = codebook.encoder("torch", device=args.device)
    quantizer = peer(codebook)
    packed = faiss.pack_bitstrings(codes.astype(np.int32), int(np.log2(args.units)))
    flop = 2.0 * args.levels * args.units * args.dim
    fp32 = torch.from_numpy(rows[:1024])
    jobs: dict[str, Callable[[], Any]] = {
        "product": product(encoder, rows, args.device),
        "encode": lambda: codebook.encode(rows, encoder),
        "float32 product": lambda: torch.mm(fp32, torch.from_numpy(tables[0]).T),
    }
    found = in_turn(jobs, args.repeats, clock)
    # At once: for every call FAISS copies the tables into its index.
    start = clock()
    theirs = quantizer.compute_codes(rows)
    found["faiss encode"] = clock() - start
    found |= in_turn(
        {"decode": lambda: codebook.decode(codes), "faiss decode": lambda: quantizer.decode(packed)},
        args.repeats,
        clock,
    )
    exact = faiss.unpack_bitstrings(theirs, args.levels, int(np.log2(args.units)))
    same = codebook.encode(rows, encoder)[0] == exact
    rate = {name: args.rows / found[name] for name in ("product", "encode", "faiss encode")}
    fp32_rate = 2.0 * 1024 * args.units * args.dim / found["float32 product"]
    print(f"{args.levels} x {args.units} x {args.dim}, {encoder._engine.facts}")
    print(f"encode {rate['encode']:,.0f} rows/s, {rate['encode'] * flop / 1e9:,.0f} GFLOP/s")
    print(
        f"  of the product alone ({rate['product'] * flop / 1e9:,.0f} GFLOP/s): {rate['encode'] / rate['product']:.1%}"
    )
    print(f"  of a float32 product ({fp32_rate / 1e9:,.0f} GFLOP/s): {rate['encode'] * flop / fp32_rate:.2f}x")
    print(f"  FAISS {rate['faiss encode']:,.0f} rows/s: {rate['encode'] / rate['faiss encode']:.2f}x")
    print(f"  numbers equal to FAISS: {same.mean():.4%}, whole codes {same.all(axis=1).mean():.2%}")
    decoded, other = args.decode_rows / found["decode"], args.decode_rows / found["faiss decode"]
    print(f"decode {decoded:,.0f} rows/s, FAISS {other:,.0f}: {decoded / other:.2f}x")


if __name__ == "__main__":
    main()

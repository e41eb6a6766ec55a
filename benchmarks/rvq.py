"""RVQ side by side: fitting, encoding and decoding against FAISS and vector-quantize-pytorch, on the same rows.

    python -m benchmarks.rvq --data mixture --dim 1024 --rows 50000 --levels 8 --units 256
    python -m benchmarks.rvq --data gaussian --dim 1024 --rows 50000 --levels 8 --units 256
    python -m benchmarks.rvq --data my-corpus --levels 16 --units 256

``mixture`` is a Zipf mixture of Gaussians with a power-law spectrum (i ** -0.75) and log-normal radii, rotated at
random; ``gaussian`` has one component, the spectrum i ** -1 and no spread of radii. Anything else is a corpus with
embeddings: its ``train`` rows, distinct, a tenth held out.

Traps: without ``Skip_codebook_tables`` the peer spends its time (and 541 GB at 64 x 8192) on tables that beam 1 never
uses; without ``OPENBLAS_CORETYPE`` the BLAS in its wheel runs at a half to a fifth of its speed on recent processors,
so both sides get it; wall time on a shared machine says little, so CPU seconds are compared; NMSE must be of held-out
rows; FAISS takes 256 rows a unit unless told otherwise; vector-quantize-pytorch starts from one batch, so it gets all
rows as one, and then as many EMA epochs as asked. Decoding includes no unpacking of bits on either side.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from lcm_data.quantize.codebook import Codebook, Provenance
from lcm_data.quantize.faiss_setup import load_faiss
from lcm_data.quantize.fit import FitOptions, fit_codebook

Array = np.ndarray[Any, Any]
Result = dict[str, Any]

OURS = {"torch": "growing", "torch ": "spherical", "faiss": "spherical", "faiss ": "progressive"}
PEER = "faiss.ResidualQuantizer"
LUCID = "vector-quantize-pytorch"


def mixture(num_rows: int, dim: int, seed: int, components: int = 200) -> Array:
    """The mixture of the module's docstring; other seeds give other rows of the same distribution."""
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


def gaussian(num_rows: int, dim: int, seed: int) -> Array:
    """The Gaussian of the module's docstring."""
    rotation = np.linalg.qr(np.random.default_rng(5).standard_normal((dim, dim)))[0]
    rows = np.random.default_rng(seed).standard_normal((num_rows, dim)) * np.arange(1, dim + 1) ** -0.5
    return np.ascontiguousarray(rows @ rotation, dtype=np.float32)


def load_rows(args: argparse.Namespace) -> tuple[Array, Array]:
    """Rows to train on and held-out ones."""
    made = {"mixture": mixture, "gaussian": gaussian}.get(args.data)
    if made is not None:
        return made(args.rows, args.dim, 1), made(args.heldout, args.dim, 2)
    from lcm_data.corpus import StageData
    from lcm_data.store.files import open_files
    from pipelines.sampling import sample_embeddings

    sample = sample_embeddings(StageData(open_files(args.data).child("embeddings")), args.rows, seed=0, alpha=0.5)
    return sample.train.astype(np.float32), sample.heldout.astype(np.float32)


def timed(work: Callable[[], Any], repeats: int = 1) -> tuple[Any, float]:
    """Result and CPU seconds of one run of ``work``: the best of ``repeats``."""
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        result = work()
        seconds.append(time.process_time() - start)
    return result, min(seconds)


def nmse(rows: Array, decoded: Array) -> float:
    """Squared error over the variance."""
    return float(((rows - decoded) ** 2).sum() / ((rows - rows.mean(axis=0)) ** 2).sum())


def perplexity(codes_NM: Array, units: int) -> float:
    """The lowest of all levels, as a share of the units."""
    lowest = math.inf
    for column in codes_NM.T:
        share = np.bincount(column, minlength=units) / len(column)
        share = share[share > 0]
        lowest = min(lowest, float(np.exp(-(share * np.log(share)).sum())))
    return lowest / units


def new_quantizer(args: argparse.Namespace, dim: int) -> Any:
    """FAISS's own quantizer as the paper used it: progressive, beam 1; all rows, as ours."""
    faiss = load_faiss()
    quantizer = faiss.ResidualQuantizer(dim, args.levels, int(np.log2(args.units)))
    quantizer.max_beam_size = 1
    quantizer.train_type = quantizer.Train_progressive_dim | quantizer.Skip_codebook_tables
    return quantizer


def unpack(packed: Array, args: argparse.Namespace) -> Array:
    """Codes [N, M] of the peer's bytes."""
    return np.asarray(load_faiss().unpack_bitstrings(packed, args.levels, int(np.log2(args.units))))


def peer(args: argparse.Namespace, train: Array, heldout: Array) -> Result:
    quantizer = new_quantizer(args, train.shape[1])
    quantizer.cp.max_points_per_centroid = -(-len(train) // args.units)
    quantizer.cp.min_points_per_centroid = 1  # no warnings in the table
    _, fit_seconds = timed(lambda: quantizer.train(train))
    packed, encode_seconds = timed(lambda: quantizer.compute_codes(heldout), 3)
    decoded, decode_seconds = timed(lambda: quantizer.decode(packed), 3)
    used = perplexity(unpack(quantizer.compute_codes(train), args), args.units)
    seconds = {"fit": fit_seconds, "encode": encode_seconds, "decode": decode_seconds}
    return {"nmse": nmse(heldout, decoded), **seconds, "perplexity": used}


def lucidrains(args: argparse.Namespace, train: Array, heldout: Array) -> Result:
    """``ResidualVQ`` with k-means start on all rows, then EMA epochs in batches."""
    import torch
    from vector_quantize_pytorch import ResidualVQ

    torch.manual_seed(0)
    model = ResidualVQ(
        dim=train.shape[1], num_quantizers=args.levels, codebook_size=args.units, kmeans_init=True, kmeans_iters=10,
        threshold_ema_dead_code=2,
    )  # fmt: skip
    rows = torch.from_numpy(train)

    def fit() -> None:
        with torch.no_grad():
            model(rows[None])
            for _ in range(args.ema_epochs):
                for batch in rows.split(4096):
                    model(batch[None])

    _, fit_seconds = timed(fit)
    model.eval()
    with torch.no_grad():
        (_, codes, _), encode_seconds = timed(lambda: model(torch.from_numpy(heldout)[None]), 1)
        decoded, decode_seconds = timed(lambda: model.get_output_from_indices(codes)[0].numpy(), 3)
        used = perplexity(np.concatenate([model(each[None])[1][0].numpy() for each in rows.split(4096)]), args.units)
    seconds = {"fit": fit_seconds, "encode": encode_seconds, "decode": decode_seconds}
    return {"nmse": nmse(heldout, decoded), **seconds, "perplexity": used}


def agreement(codebook: Codebook, args: argparse.Namespace, rows: Array, codes: Array) -> dict[str, float]:
    """Share of equal numbers, and of equal whole codes, with those FAISS gives with the same tables."""
    faiss = load_faiss()
    quantizer = new_quantizer(args, codebook.dim)
    faiss.copy_array_to_vector(codebook.tables_MKD.ravel(), quantizer.codebooks)
    quantizer.is_trained = True
    same = unpack(quantizer.compute_codes(rows), args) == codes
    return {"same numbers": float(same.mean()), "same codes": float(same.all(axis=1).mean())}


def ours(args: argparse.Namespace, train: Array, heldout: Array, engine: str, trainer: str) -> Result:
    options = FitOptions(
        num_levels=args.levels, num_units=args.units, engine=engine, trainer=trainer, threads=1, device=args.device
    )
    codebook, fit_seconds = timed(lambda: fit_codebook(train, heldout, options, Provenance(encoder="benchmark")))
    encoder = codebook.encoder(engine, device=args.device)
    (codes, _), encode_seconds = timed(lambda: codebook.encode(heldout, encoder), 3)
    decoded, decode_seconds = timed(lambda: codebook.decode(codes), 3)
    used = min(level.perplexity for level in codebook.quality) / args.units
    seconds = {"fit": fit_seconds, "encode": encode_seconds, "decode": decode_seconds}
    beam, beam_seconds = timed(lambda: codebook.encode(heldout[:1000], codebook.encoder(engine, beam=5))[0])
    wide = {"beam 5": nmse(heldout[:1000], codebook.decode(beam)) / nmse(heldout[:1000], decoded[:1000])}
    wide["beam 5 time"] = beam_seconds / 1000 / (encode_seconds / len(heldout))
    main_figures = {"nmse": nmse(heldout, decoded), **seconds, "perplexity": used}
    return {**main_figures, **agreement(codebook, args, heldout, codes), **wide}


def main() -> None:
    """Print one table of all sides."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", default="mixture", help="mixture, gaussian, or a corpus with embeddings")
    for name, default in (("dim", 256), ("rows", 20000), ("heldout", 8000), ("levels", 8), ("units", 256)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--ema-epochs", type=int, default=1, help=f"of {LUCID}")
    parser.add_argument("--device", default="cpu", help="of the engine torch: cpu, cuda, auto")
    parser.add_argument("--trainers", nargs="*", default=list(OURS.values()), help="only these of ours")
    parser.add_argument("--no-lucidrains", action="store_true")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    args = parser.parse_args()
    if args.units & (args.units - 1):
        parser.error("--units must be a power of two: the peer stores whole bits")
    load_faiss().omp_set_num_threads(1)
    import torch

    torch.set_num_threads(1)
    train, heldout = load_rows(args)
    results: dict[str, Result] = {PEER: peer(args, train, heldout)}
    skipped = [] if importlib.util.find_spec("vector_quantize_pytorch") else [f"{LUCID}: not installed"]
    if not skipped and not args.no_lucidrains:
        results[LUCID] = lucidrains(args, train, heldout)
    for engine, trainer in OURS.items():
        if trainer in args.trainers:
            results[f"{engine.strip()} {trainer}"] = ours(args, train, heldout, engine.strip(), trainer)
    if args.json:
        print(json.dumps({"args": vars(args), "results": results, "skipped": skipped}, indent=2))
        return
    _print(args, train, heldout, results)
    print("\n".join(f"skipped {each}" for each in skipped))


def _print(args: argparse.Namespace, train: Array, heldout: Array, results: dict[str, Result]) -> None:
    base = results[PEER]
    print(
        f"{args.data}: {len(train)} x {train.shape[1]} rows, {args.levels} x {args.units} units, {len(heldout)} held "
        "out; CPU s (x FAISS)"
    )
    print(f"{'':24}{'NMSE':>16}{'fit':>16}{'encode':>16}{'decode':>16}{'least usage':>12}")
    for name, result in results.items():
        cells = "".join(f"{result[k]:>8.4g} {result[k] / base[k]:6.3f}x" for k in ("nmse", "fit", "encode", "decode"))
        extra = ", ".join(f"{key} {value:.4f}" for key, value in list(result.items())[5:])
        print(f"{name:24}{cells}{result['perplexity']:11.1%}  {extra}")


if __name__ == "__main__":
    main()

"""Sentences per second of the text encoder on this machine, next to the matrix rate it could reach and to its peers.

    python -m benchmarks.encoder --sentences 64 --threads 1 --peers transformers sonar-space
    python -m benchmarks.encoder --small --sentences 2048 --budgets 1024 4096 16384
    python -m benchmarks.encoder --device cuda --peers transformers

Weights are random at full size (1024 wide, 24 layers), lengths log-normal around 28 tokens. All contenders get the same
weights, ids and threads and run in turn, so a busy machine is unfair to none; the median round counts. Peers run as a
user calls them and with the best of a few batch sizes, found first. On a busy machine read the columns by CPU second,
with one thread (waiting threads burn CPU time too); on a GPU everything is by wall time, and peak memory and batch
sizes up to 262,144 tokens are shown as well. Traps: the embedding has fewer rows than the real one (a lookup costs
nothing, and 1 GB stays free); tokenising and files are left out; the matrix rate is the best of several kernels and row
counts for the two feed-forward products, in the same rounds; attention is work the rate does not count.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.encoder_peers import Peer, sonar_space_peer, transformers_peer
from lcm_data.encode.batching import gather_tokens, token_batches
from lcm_data.encode.native import default_token_budget
from lcm_data.errors import MissingExtraError
from lcm_data.sonar.layers import linear
from lcm_data.sonar.text_encoder import TextEncoder, TextEncoderConfig

VOCAB = 8192
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "int8": torch.float32}
GPU_BUDGETS = (4096, 16384, 65536, 262144)
PEER_SIZES = {"cpu": (5, 16, 48), "cuda": (32, 128, 512)}
SHIPPED = {"transformers": 32, "sonar-space": 5}
AIMS = (  # ours, theirs (a prefix of their name), how many times faster
    ("lcm-data bfloat16", "sonar-space float32 as shipped", 4.5),
    ("lcm-data float32", "sonar-space float32 as shipped", 2.3),
    ("lcm-data bfloat16", "sonar-space bfloat16 best", 1.2),
    ("lcm-data bfloat16", "transformers bfloat16 best", 1.25),
)


@dataclass
class Contender:
    """One way to encode all sentences, and what its rounds took."""

    run: Callable[[], np.ndarray]
    dtype: str
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    vectors: np.ndarray | None = None
    peak_bytes: int = 0


class Clock:
    """Wall and CPU seconds of a call, the GPU's work included."""

    def __init__(self, device: str) -> None:
        self.on_gpu = device.startswith("cuda")

    def time(self, function: Callable[[], Any]) -> tuple[float, float, Any]:
        self._wait()
        wall, cpu = time.perf_counter(), time.process_time()
        result = function()
        self._wait()
        return time.perf_counter() - wall, time.process_time() - cpu, result

    def cost(self, function: Callable[[], Any]) -> float:
        """What ratios are made of: CPU seconds on a CPU, wall seconds on a GPU."""
        return self.time(function)[0 if self.on_gpu else 1]

    def _wait(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize()


def sentence_ids(num_sentences: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Random ids [T] and lengths [N]: log-normal, mean near 28 tokens, from 4 to 200."""
    rng = np.random.default_rng(seed)
    lengths = np.clip(np.round(rng.lognormal(3.18, 0.55, num_sentences)), 4, 200).astype(np.int32)
    return rng.integers(4, VOCAB, int(lengths.sum()), dtype=np.int32), lengths


def random_network(config: TextEncoderConfig, device: str) -> TextEncoder:
    """A float32 network with weights of a plausible size."""
    with torch.device("meta"):
        network = TextEncoder(config)
    network.to_empty(device=device)
    generator = torch.Generator(device).manual_seed(0)
    for name, parameter in network.named_parameters():
        if "layer_norm" in name:
            parameter.data.fill_(1.0 if name.endswith("weight") else 0.0)
        else:
            parameter.data.normal_(0, parameter.shape[-1] ** -0.5, generator=generator)
    network.reset_positions()
    return network.requires_grad_(False).eval()


def in_dtype(network: TextEncoder, dtype: torch.dtype) -> TextEncoder:
    """A copy whose weights, but not the position table, have another dtype (shared if they have it already)."""
    with torch.device("meta"):
        copy = TextEncoder(network.config)
    copy.load_state_dict({name: tensor.to(dtype) for name, tensor in network.state_dict().items()}, assign=True)
    copy.position_table = network.position_table
    return copy.requires_grad_(False).eval()


def ours(network: TextEncoder, ids: np.ndarray, lengths: np.ndarray, budget: int) -> Callable[[], np.ndarray]:
    """Packed batches, as the native backend runs them."""
    device = network.layer_norm.weight.device
    starts = np.cumsum(lengths, dtype=np.int64) - lengths

    def run() -> np.ndarray:
        batches = token_batches(lengths, budget)
        parts = []
        for rows in batches:
            packed = torch.from_numpy(gather_tokens(ids, starts, lengths, rows))
            packed = packed.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else packed
            parts.append(network(packed, lengths[rows].tolist()))
        out = np.empty((len(lengths), network.config.model_dim), np.float32)
        out[np.concatenate(batches)] = torch.cat(parts).cpu().numpy()
        return out

    return run


def matrix_rate(plain: TextEncoder, fast: TextEncoder, clock: Clock) -> float:
    """FLOP per second of the feed-forward products: best of a few row counts, torch's own kernel or ours."""
    best = 0.0
    for network in (plain, fast):
        layer: Any = network.encoder.layers[0]
        run = _torch_products if network is plain else _our_products
        c, norm = network.config, network.layer_norm.weight
        for num_rows in (4096, 16384) if clock.on_gpu else (512, 1024, 2048):
            x = torch.randn(num_rows, c.model_dim, device=norm.device, dtype=norm.dtype)
            cost = min(clock.cost(partial(run, x, layer.ffn)) for _ in range(3))
            best = max(best, 4.0 * num_rows * c.model_dim * c.ffn_dim / cost)
    return best


def _torch_products(x: torch.Tensor, ffn: Any) -> torch.Tensor:
    return F.linear(ffn.inner_proj(x), ffn.output_proj.weight, ffn.output_proj.bias)


def _our_products(x: torch.Tensor, ffn: Any) -> torch.Tensor:
    return linear(linear(x, ffn.inner_proj, "relu"), ffn.output_proj)


def best_size(run: Peer, sizes: Sequence[int], clock: Clock) -> int:
    """The batch size that a peer is fastest with, each tried once after a warm-up."""
    run(sizes[0])
    return min(sizes, key=lambda size: clock.cost(lambda: run(size)))


def peer_contenders(
    peer: str, dtype: str, plain: TextEncoder, data: tuple[np.ndarray, np.ndarray], args: argparse.Namespace
) -> dict[str, Contender]:
    """A peer as a user calls it and at its best, in one dtype."""
    clock = Clock(args.device)
    shipped = SHIPPED[peer]
    if peer == "sonar-space":
        as_is = best = sonar_space_peer(plain, *data)
        how = f"as shipped, batch {shipped}"
    else:
        as_is = transformers_peer(plain, *data, length_sorted=False)
        best = transformers_peer(plain, *data, length_sorted=True)
        how = f"unsorted, batch {shipped}"
    size = best_size(best, args.peer_sizes or PEER_SIZES["cuda" if clock.on_gpu else "cpu"], clock)
    sort = ", sorted" if peer == "transformers" else ""
    found = {f"{peer} {dtype} {how}": Contender(lambda: as_is(shipped), dtype)}
    if best is not as_is or size != shipped:
        return found | {f"{peer} {dtype} best: batch {size}{sort}": Contender(lambda: best(size), dtype)}
    return {f"{peer} {dtype} as shipped and best: batch {size}": next(iter(found.values()))}


def contenders(args: argparse.Namespace, config: TextEncoderConfig) -> tuple[dict[str, Contender], dict[str, Any]]:
    """Every dtype of ours, the peers asked for (those not installed are named and left out), and our networks."""
    base = random_network(config, args.device)
    data = sentence_ids(args.sentences, args.seed)
    found: dict[str, Contender] = {}
    networks = {}
    for dtype in args.dtypes:
        plain = in_dtype(base, DTYPES[dtype])
        for peer in args.peers if dtype != "int8" else ():
            try:
                found |= peer_contenders(peer, dtype, plain, data, args)
            except (ImportError, MissingExtraError) as error:
                print(f"{peer} is left out: {error}")
        fast = in_dtype(plain, DTYPES[dtype])
        fast.pack(int8=dtype == "int8")
        networks[dtype] = (plain, fast)
        for budget in args.budgets:
            found[f"lcm-data {dtype}, {budget} tokens"] = Contender(ours(fast, *data, budget), dtype)
    return found, networks


def measure(args: argparse.Namespace, found: dict[str, Contender], networks: dict[str, Any]) -> dict[str, float]:
    """Run everybody in turn; returns the median matrix rate by dtype."""
    clock = Clock(args.device)
    rates: dict[str, list[float]] = {dtype: [] for dtype in networks}
    for contender in found.values():  # warm-up
        if clock.on_gpu:
            torch.cuda.reset_peak_memory_stats()
        contender.vectors = contender.run()
        contender.peak_bytes = torch.cuda.max_memory_allocated() if clock.on_gpu else 0
    for _ in range(args.rounds):
        for dtype, (plain, fast) in networks.items():
            rates[dtype].append(matrix_rate(plain, fast, clock))
        for contender in found.values():
            wall, cpu, _ = clock.time(contender.run)
            contender.seconds.append(wall)
            contender.cpu_seconds.append(cpu)
    return {dtype: statistics.median(values) for dtype, values in rates.items()}


def table(
    args: argparse.Namespace, found: dict[str, Contender], rates: dict[str, float], flops: float
) -> dict[str, Any]:
    """Print and return one row a contender."""
    on_gpu = Clock(args.device).on_gpu
    exact = next(c.vectors for c in found.values() if c.dtype == args.dtypes[0])
    assert exact is not None
    unit = "s" if on_gpu else "CPU-s"
    print(
        f"{'contender':48} {'sent/s':>8} {'sent/' + unit:>10} {'TFLOP/' + unit:>12} {'of GEMM':>8} {'cosine':>9}  GiB"
    )
    rows = {}
    for name, contender in found.items():
        assert contender.vectors is not None
        cost = statistics.median(contender.seconds if on_gpu else contender.cpu_seconds)
        product = (contender.vectors * exact).sum(1)
        cosine = product / np.linalg.norm(contender.vectors, axis=1) / np.linalg.norm(exact, axis=1)
        row = {
            "sentences_per_second": args.sentences / statistics.median(contender.seconds),
            "sentences_per_cost": args.sentences / cost,
            "tflop_per_cost": flops / cost / 1e12,
            "share_of_matrix_rate": flops / cost / rates[contender.dtype],
            "worst_cosine": float(cosine.min()),
            "peak_gib": contender.peak_bytes / 2**30,
        }
        rows[name] = row
        a, b, c, d, e, f = row.values()
        print(f"{name:48} {a:8.2f} {b:10.2f} {c:12.3f} {d:8.0%} {e:9.6f} {f:4.1f}")
    return rows


def ratios(rows: dict[str, dict[str, float]]) -> dict[str, float]:
    """Ours over theirs, where both ran, next to what was aimed at."""
    result = {}
    for mine, theirs, aim in AIMS:
        ours_best = max((r["sentences_per_cost"] for name, r in rows.items() if name.startswith(mine)), default=0.0)
        for name in [name for name in rows if _matches(name, theirs)]:
            result[f"{mine} / {name}"] = ours_best / rows[name]["sentences_per_cost"]
            print(f"{mine} / {name}: {result[f'{mine} / {name}']:.2f}x (aim {aim}x)")
    return result


def _matches(name: str, prefix: str) -> bool:
    """``best`` also finds a peer that is at its best as shipped."""
    return name.startswith(prefix) or (
        prefix.endswith(" best") and name.startswith(f"{prefix[:-5]} as shipped and best")
    )


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--sentences", type=int, help="default 64 on a CPU, 32768 on a GPU")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--budgets", type=int, nargs="+", help="tokens in a batch")
    parser.add_argument("--dtypes", nargs="+", choices=list(DTYPES), help="the first is what cosines are to")
    parser.add_argument("--peers", nargs="*", choices=sorted(SHIPPED), default=[])
    parser.add_argument("--peer-sizes", type=int, nargs="+", help="batch sizes to choose a peer's best from")
    parser.add_argument("--small", action="store_true", help="4 layers of width 256 instead of 24 of 1024")
    parser.add_argument("--layers", type=int, help="fewer layers, for ratios in less time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", "--json", type=Path, help="also write the table as JSON")
    args = parser.parse_args(argv)
    on_gpu = args.device.startswith("cuda")
    args.sentences = args.sentences or (32768 if on_gpu else 64)
    args.budgets = args.budgets or (
        list(GPU_BUDGETS) if on_gpu else [default_token_budget("cpu", 256 if args.small else 1024)]
    )
    args.dtypes = args.dtypes or (["float32", "bfloat16"] + ([] if on_gpu else ["int8"]))
    return args


def main(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    torch.set_num_threads(args.threads)
    sizes = {"model_dim": 256, "num_layers": 4, "num_heads": 4, "ffn_dim": 1024} if args.small else {}
    sizes |= {"num_layers": args.layers} if args.layers else {}
    config = TextEncoderConfig(vocab_size=VOCAB, **sizes)
    _, lengths = sentence_ids(args.sentences, args.seed)
    print(
        f"torch {torch.__version__}, {args.threads} threads, {args.sentences} sentences of {lengths.mean():.1f} tokens"
    )
    with torch.inference_mode():
        found, networks = contenders(args, config)
        rates = measure(args, found, networks)
    print("TFLOP/s of the matrix kernels:", {dtype: round(rate / 1e12, 3) for dtype, rate in rates.items()})
    rows = table(args, found, rates, config.flops(int(lengths.sum())))
    compared = ratios(rows)
    if args.out:
        result = {"arguments": {k: str(v) for k, v in vars(args).items()}, "rows": rows, "ratios": compared}
        args.out.write_text(json.dumps({**result, "matrix_rates": rates}, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Base-LCM and Two-Tower of 1.6B on a GPU in bfloat16: share of the matrix rate in training, memory, latency.

    python -m benchmarks.models --device cuda
    python -m benchmarks.models --device cuda --compile --micro-batch 56 --batches 1 64
    python -m benchmarks.models --device cuda --preset 300m --rounds 10          # a smaller GPU

A training step is loss, gradients, clipping and AdamW with float32 weights under autocast, on documents of 128 concepts
(``--concepts``), 7,168 a step as in the official recipes (``--micro-batch`` documents; lower it if memory ends). Model
FLOPs are the products of one forward and backward pass, counted by PyTorch on the meta device, so nothing recomputed
counts; they are set against the rate of a large product of matrices in the same run, and against the data sheet where
the GPU is known. Latency is that of one more concept for every document of a batch, 64 concepts of context, weights in
bfloat16. Times are by CUDA events, the median of the rounds. ``python -m benchmarks.models_gpu --rehearse`` runs all of
it in seconds on a CPU, tiny, to see that it works; its times mean nothing.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lcm_models import build_model
from lcm_models.model import Batch, ConceptModel

DIM = 1024
DATA_SHEETS = {"H200": 989e12, "H100 PCIe": 756e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "A10": 125e12}
"""Dense bfloat16 operations a second, by a part of the name of the GPU; the first that fits counts."""


def measure(given: argparse.Namespace) -> list[dict[str, Any]]:
    """All figures, a row each."""
    device, preset = torch.device(given.device), given.preset or "1.6b"
    rate = matrix_rate(device, 8192 if device.type == "cuda" else 256, given.rounds)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    nominal = next((value for part, value in DATA_SHEETS.items() if part in name), None)
    rows = [{"what": "matrix rate", "device": name, "tflops": rate / 1e12, "data_sheet": (nominal or 0) / 1e12}]
    for variant in ("base", "two-tower"):
        rows.append(training(variant, preset, given, device, rate, nominal))
        for batch in given.batches or [1, 64]:
            rows.append(generation(variant, preset, batch, 64, given.rounds, device))
    return rows


def seconds_of(run: Callable[[], Any], rounds: int, device: torch.device) -> float:
    """Median seconds, after three runs that do not count."""
    values = []
    for number in range(rounds + 3):
        if device.type == "cuda":
            first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            first.record()
            run()
            last.record()
            torch.cuda.synchronize(device)
            value = first.elapsed_time(last) / 1e3
        else:
            begin = time.perf_counter()
            run()
            value = time.perf_counter() - begin
        if number >= 3:
            values.append(value)
    return statistics.median(values)


def matrix_rate(device: torch.device, size: int, rounds: int) -> float:
    """Operations a second of a product of square matrices in bfloat16."""
    one, other = torch.randn(2, size, size, device=device, dtype=torch.bfloat16)
    return 2 * size**3 / seconds_of(lambda: one @ other, rounds, device)


def step_flops(variant: str, preset: str, rows: int, concepts: int) -> int:
    """Operations in the products of one forward and backward pass."""
    with torch.device("meta"):
        model = build_model(variant, preset)
        batch = Batch(torch.empty(rows, concepts, DIM), torch.empty(rows, concepts, dtype=torch.long))
        with FlopCounterMode(display=False) as counter:
            model(batch).mean().backward()
    return int(counter.get_total_flops())


def peak_gib(device: torch.device) -> float:
    return torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else 0.0


def fresh(device: torch.device) -> None:
    """Forget what ran before."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def make(variant: str, preset: str, device: torch.device) -> ConceptModel:
    """A model with random weights, made where it is to be."""
    with torch.device("meta"):
        model = build_model(variant, preset)
    model.to_empty(device=device)
    model.init_weights()
    return model


def training(
    variant: str, preset: str, given: argparse.Namespace, device: torch.device, rate: float, nominal: float | None
) -> dict[str, Any]:
    fresh(device)
    torch.set_float32_matmul_precision("high")
    model = make(variant, preset, device).train()
    network: Any = torch.compile(model) if given.compile else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
    batch = Batch.of([0.01 * torch.randn(given.concepts, DIM) for _ in range(given.micro_batch)]).to(device)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16):
            loss = network(batch)
        loss.mean().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 25.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    seconds = seconds_of(step, given.rounds, device)
    flops = step_flops(variant, preset, given.micro_batch, given.concepts)
    return {
        "what": f"{variant} {preset} training" + (", compiled" if given.compile else ""),
        "million_parameters": sum(p.numel() for p in model.parameters()) / 1e6,
        "concepts_a_step": given.micro_batch * given.concepts,
        "s_a_step": seconds,
        "concepts_a_s": given.micro_batch * given.concepts / seconds,
        "model_tflops": flops / seconds / 1e12,
        "share_of_matrix_rate": flops / seconds / rate,
        "share_of_data_sheet": flops / seconds / nominal if nominal else None,
        "peak_gib": peak_gib(device),
    }


@torch.no_grad()
def generation(variant: str, preset: str, rows: int, context: int, rounds: int, device: torch.device) -> dict[str, Any]:
    fresh(device)
    model = make(variant, preset, device).to(torch.bfloat16).eval()
    state = model.start([0.01 * torch.randn(context, DIM, device=device) for _ in range(rows)])
    seconds = seconds_of(lambda: model.step(state), rounds, device)  # the context grows a little
    return {
        "what": f"{variant} {preset} next concept, {rows} x {context} of context",
        "ms": 1e3 * seconds,
        "concepts_a_s": rows / seconds,
        "peak_gib": peak_gib(device),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rehearse", action="store_true", required=True, help="everything once, tiny, on a CPU")
    parser.parse_args()
    tiny = {"preset": "tiny", "rounds": 1, "batches": [1, 2], "micro_batch": 2, "concepts": 8, "compile": False}
    for row in measure(argparse.Namespace(device="cpu", **tiny)):
        print(row)


if __name__ == "__main__":
    main()

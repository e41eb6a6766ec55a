"""Speed of Base-LCM and Two-Tower next to the same networks written plainly, and next to x-transformers.

    OMP_NUM_THREADS=1 python -m benchmarks.models                     # 30m, one thread of a CPU
    OMP_NUM_THREADS=1 python -m benchmarks.models --preset tiny
    python -m benchmarks.models --device cuda                         # 1.6b in bfloat16: see benchmarks.models_gpu

On a CPU: a training step (loss, gradients, AdamW), generation with and without what is kept between concepts and steps
of sampling, and what a concept costs as its context grows. Contenders have the same sizes, weights, batch and
optimiser; those that are the same network must give the same loss and the same concepts. They run in turn, and CPU
seconds count, so that a busy machine is unfair to none; the median round is shown. x-transformers, if installed, has a
Transformer of the same sizes (rotary positions, RMSNorm, SwiGLU, no biases in attention) in place of Base-LCM. Traps:
new denoisers have closed gates (opened here, which changes results, not speed); attention is a small part of a step at
128 concepts; packed documents, which the others do not isolate, are left out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from benchmarks.plain_lcm import PlainBase, PlainTwoTower
from lcm_models import build_model
from lcm_models.diffusion.model import DiffusionModel
from lcm_models.diffusion.sampler import DiffusionSampling, sampling_levels
from lcm_models.model import Batch, ConceptModel
from lcm_models.official import official_state

DIM = 1024
STEPS = 40


def make(variant: str, preset: str) -> ConceptModel:
    """A model with random weights, of which none is zero."""
    torch.manual_seed(0)
    model = build_model(variant, preset)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    return model


def plain_of(model: ConceptModel) -> Any:
    """The plain network with the same sizes and weights."""
    config = model.config.model_dump()
    sizes = (DIM, config["width"], config["num_heads"])
    network: nn.Module
    if isinstance(model, DiffusionModel):
        layers = (config["num_context_layers"], config["num_denoiser_layers"])
        network = PlainTwoTower(*sizes, layers, config["dropout"])
    else:
        network = PlainBase(*sizes, config["num_layers"], config["dropout"])
    network.load_state_dict(official_state(model))
    return network


def x_transformers_of(model: ConceptModel) -> nn.Module | None:
    """A causal Transformer over vectors of the same sizes, or None if the package is not installed."""
    try:
        from x_transformers import ContinuousTransformerWrapper, Decoder
    except ImportError:
        return None
    config = model.config.model_dump()
    inner = model.get_submodule("tower.layers.0.ffn.inner_proj").weight.shape[0]  # type: ignore[index, union-attr]
    layers = Decoder(
        dim=config["width"],
        depth=config["num_layers"],
        heads=config["num_heads"],
        attn_dim_head=config["width"] // config["num_heads"],
        attn_flash=True,
        rotary_pos_emb=True,
        rotary_emb_dim=config["width"] // config["num_heads"],
        use_rmsnorm=True,
        ff_glu=True,
        ff_swish=True,
        ff_mult=inner / config["width"],
        layer_dropout=0.0,
        attn_dropout=0.0,
        ff_dropout=config["dropout"],
    )
    wrapper: nn.Module = ContinuousTransformerWrapper(
        dim_in=DIM, dim_out=DIM, max_seq_len=4096, attn_layers=layers, use_abs_pos_emb=False
    )
    return wrapper


# -- measuring ---------------------------------------------------------------------------------------------------------


def in_turn(runs: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median CPU seconds of each, run one after the other in every round, after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            begin = time.process_time()
            run()
            if number:
                seconds[name].append(time.process_time() - begin)
    return {name: statistics.median(values) for name, values in seconds.items()}


def step_of(network: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], float]:
    """A training step."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-5, fused=True)
    network.train()

    def step() -> float:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        optimizer.step()
        return float(value.detach())

    return step


def training(variant: str, preset: str, rows: int, concepts: int, rounds: int) -> list[dict[str, Any]]:
    """Steps on ``rows`` documents of as many concepts each."""
    model = make(variant, preset)
    plain = plain_of(model)
    batch = Batch.of([0.01 * torch.randn(concepts, DIM) for _ in range(rows)])
    runs: dict[str, Callable[[], Any]] = {"ours": step_of(model, lambda: model(batch).mean())}
    networks: dict[str, nn.Module] = {"ours": model, "plain": plain}
    if isinstance(model, DiffusionModel):
        draws, tables = model.draw(batch), (model.schedule.alpha_T, model.schedule.sigma_T)

        def plain_loss(fixed: bool = False) -> Tensor:
            some = draws if fixed else model.draw(batch)
            loss: Tensor = plain.loss(batch.x_BSD, some.level_BS, some.drop_BS, some.noise_BSD, *tables)
            return loss

        check_same(model.eval()(batch, draws).mean(), plain.eval() and plain_loss(fixed=True))
    else:

        def plain_loss(fixed: bool = False) -> Tensor:
            loss: Tensor = plain.loss(batch.x_BSD)
            return loss

        check_same(model.eval()(batch).mean(), plain.eval() and plain_loss())
        if (peer := x_transformers_of(model)) is not None:
            networks["x-transformers"] = peer
            x_BSD = batch.x_BSD
            runs["x-transformers"] = step_of(
                peer, lambda: (peer(x_BSD)[:, :-1] - x_BSD[:, 1:]).pow(2).sum(dim=-1).mean()
            )
    runs["plain"] = step_of(plain, plain_loss)
    model.train()
    seconds = in_turn(runs, rounds)
    return [
        {
            "what": f"{variant} training step",
            "who": name,
            "million_parameters": round(sum(p.numel() for p in networks[name].parameters()) / 1e6, 1),
            "cpu_s": value,
            "concepts_per_cpu_s": rows * concepts / value,
            "ours_is_faster": value / seconds["ours"],
        }
        for name, value in seconds.items()
    ]


def check_same(one: Tensor, other: Tensor, atol: float = 0.0) -> None:
    """What is compared must be the same network."""
    assert torch.allclose(one, other, rtol=1e-3, atol=atol), (one, other)


@torch.no_grad()
def generation(variant: str, preset: str, rows: int, concepts: int, rounds: int) -> list[dict[str, Any]]:
    """The next concept of ``rows`` documents that have ``concepts``, appended to them."""
    model = make(variant, preset).eval()
    plain = plain_of(model).eval()
    prefixes = [0.01 * torch.randn(concepts, DIM) for _ in range(rows)]
    x_BSD = torch.stack(prefixes)

    def ours() -> Tensor:
        state = model.start(prefixes)
        begin = time.process_time()
        found = model.step(state)
        seconds.append(time.process_time() - begin)
        return found

    seconds: list[float] = []
    runs: dict[str, Callable[[], Any]] = {"ours": ours}
    if isinstance(model, DiffusionModel):
        levels, tables = sampling_levels(100, STEPS), (model.schedule.alpha_T, model.schedule.sigma_T)
        noise_BD = torch.cat([torch.randn(1, DIM, generator=torch.Generator().manual_seed(s)) for s in range(rows)])
        memory_BSE = plain.read(plain.sonar_normalizer(x_BSD))
        runs["plain"] = lambda: plain.next_concepts(x_BSD, noise_BD, levels, *tables)
        runs["plain, context kept"] = lambda: plain.next_concepts(x_BSD, noise_BD, levels, *tables, memory_BSE)
        assert DiffusionSampling().steps == STEPS
    else:
        runs["plain"] = lambda: plain.next_concepts(x_BSD)
    expected = runs["plain"]()
    check_same(ours(), expected, atol=1e-2 * float(expected.std()))
    seconds.clear()
    found = in_turn(runs, rounds)
    found["ours"] = statistics.median(seconds[1:])  # reading the prefix, once a document, is not part of it
    operations = {name: operations_of(run) for name, run in runs.items()}
    operations["ours"] -= operations_of(lambda: model.start(prefixes))
    return [
        {
            "what": f"{variant} next concept, {rows} x {concepts} of context",
            "who": name,
            "cpu_ms_a_concept": 1e3 * value / rows,
            "gflop_a_concept": operations[name] / 1e9 / rows,
            "ours_is_faster": value / found["ours"],
        }
        for name, value in found.items()
    ]


def operations_of(run: Callable[[], Any]) -> int:
    """Operations in products of matrices; PyTorch does not count those of attention on a CPU by itself."""

    def attention(q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
        return sdpa_flop_count(q, k, v)

    on_cpu = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    with FlopCounterMode(display=False, custom_mapping={on_cpu: attention}) as counter:
        run()
    return int(counter.get_total_flops())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--preset", help="30m on a CPU, 1.6b on a GPU")
    parser.add_argument("--rows", type=int, default=8, help="documents in a training step on a CPU")
    parser.add_argument("--concepts", type=int, default=128, help="concepts of a document in training")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--contexts", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--batches", type=int, nargs="+", help="documents at once in generation; 1 8, or 1 64 on a GPU")
    parser.add_argument("--micro-batch", type=int, default=56, help="GPU: documents a training step")
    parser.add_argument("--compile", action="store_true", help="GPU: torch.compile the training step")
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    given = parser.parse_args()
    if given.device == "cuda":
        from benchmarks import models_gpu

        rows = models_gpu.measure(given)
    else:
        rows = []
        for variant in ("base", "two-tower"):
            rows += training(variant, given.preset or "30m", given.rows, given.concepts, given.rounds)
        for variant in ("base", "two-tower"):
            for batch in given.batches or [1, 8]:
                for context in given.contexts:
                    rows += generation(variant, given.preset or "30m", batch, context, given.rounds)
    for row in rows:
        print(
            " | ".join(f"{key} {value:,.3g}" if isinstance(value, float) else f"{value}" for key, value in row.items())
        )
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1), "utf-8")


if __name__ == "__main__":
    main()

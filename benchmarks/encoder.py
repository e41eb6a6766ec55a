"""Sentences per second of the text encoder on this machine, next to the matrix rate it could reach and to its peers.

    python benchmarks/encoder.py --sentences 64 --threads 2
    python benchmarks/encoder.py --small --sentences 512 --peers transformers sonar-space

Weights are random at full size (1024 wide, 24 layers), lengths are log-normal around 28 tokens. All contenders get the
same weights, ids and threads and run in turn, so a busy machine is unfair to none; the median round counts. On a busy
machine read the columns by CPU second, with one thread (waiting threads burn CPU time too). Traps: the embedding has
fewer rows than the real one (a lookup costs nothing, and 1 GB stays free); tokenising and files are left out; peers get
length-sorted padded batches of the size that suits them on a CPU, which is kinder than their defaults; the matrix rate
is the best of a few row counts for the two feed-forward products.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from lcm_data.encode.batching import gather_tokens, token_batches
from lcm_data.encode.native import TOKEN_BUDGETS
from lcm_data.errors import MissingExtraError
from lcm_data.sonar.layers import linear
from lcm_data.sonar.text_encoder import TextEncoder, TextEncoderConfig

VOCAB = 8192
PEER_BATCHES = {"transformers": 32, "sonar-space": 5}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

Runner = Callable[[], np.ndarray]


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
    """A copy whose weights, but not the position table, have another dtype."""
    with torch.device("meta"):
        copy = TextEncoder(network.config)
    copy.load_state_dict({name: tensor.to(dtype) for name, tensor in network.state_dict().items()}, assign=True)
    copy.position_table = network.position_table
    return copy.requires_grad_(False).eval()


def ours(network: TextEncoder, ids: np.ndarray, lengths: np.ndarray, budget: int) -> Runner:
    """Packed batches, as the native backend runs them."""
    device = network.layer_norm.weight.device
    starts = np.cumsum(lengths, dtype=np.int64) - lengths

    def run() -> np.ndarray:
        out = np.empty((len(lengths), network.config.model_dim), np.float32)
        for rows in token_batches(lengths, budget):
            packed = torch.from_numpy(gather_tokens(ids, starts, lengths, rows)).to(device)
            out[rows] = network(packed, lengths[rows].tolist()).cpu().numpy()
        return out

    return run


def padded(
    forward: Callable[[torch.Tensor, list[int]], torch.Tensor], ids: np.ndarray, lengths: np.ndarray, size: int
) -> Runner:
    """Length-sorted batches of ``size`` sentences, padded, for networks that need a rectangle."""
    rows = np.split(ids, np.cumsum(lengths)[:-1])
    order = np.argsort(lengths, kind="stable")

    def run() -> np.ndarray:
        vectors: dict[int, np.ndarray] = {}
        for start in range(0, len(order), size):
            batch = order[start : start + size]
            tensors = [torch.from_numpy(rows[i]).long() for i in batch]
            padded_NL = torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True)
            vectors.update(zip(batch, forward(padded_NL, lengths[batch].tolist()).float().numpy(), strict=True))
        return np.stack([vectors[i] for i in range(len(order))])

    return run


def transformers_forward(network: TextEncoder) -> Callable[[torch.Tensor, list[int]], torch.Tensor]:
    """The same weights in transformers' M2M100Encoder with masked mean pooling."""
    from transformers import M2M100Config
    from transformers.models.m2m_100.modeling_m2m_100 import M2M100Encoder

    c = network.config
    peer = M2M100Encoder(
        M2M100Config(
            vocab_size=c.vocab_size,
            d_model=c.model_dim,
            encoder_layers=c.num_layers,
            encoder_attention_heads=c.num_heads,
            encoder_ffn_dim=c.ffn_dim,
            max_position_embeddings=1024,
            activation_function="relu",
            pad_token_id=1,
        )
    )
    names = {
        "encoder_frontend.embed": "embed_tokens",
        "encoder.layers": "layers",
        "self_attn.output_proj": "self_attn.out_proj",
        "ffn.inner_proj": "fc1",
        "ffn.output_proj": "fc2",
        "ffn_layer_norm": "final_layer_norm",
    }
    state = {}
    for name, tensor in network.state_dict().items():
        for mine, theirs in names.items():
            name = name.replace(mine, theirs)
        state[name] = tensor
    peer.load_state_dict(state)
    peer.eval().to(network.layer_norm.weight.dtype)

    def forward(padded_NL: torch.Tensor, lengths: list[int]) -> torch.Tensor:
        mask_NL = torch.arange(padded_NL.shape[1])[None] < torch.tensor(lengths)[:, None]
        padded_NL = padded_NL.masked_fill(~mask_NL, 1)  # it numbers positions by what is not padding
        hidden = peer(input_ids=padded_NL, attention_mask=mask_NL.long()).last_hidden_state
        means: torch.Tensor = (hidden * mask_NL[..., None]).float().sum(1) / (mask_NL.sum(1, keepdim=True) + 1e-7)
        return means

    return forward


def sonar_space_forward(network: TextEncoder) -> Callable[[torch.Tensor, list[int]], torch.Tensor]:
    """The same weights in sonar-space's own network."""
    from lcm_data.encode.sonar_space import reference_network

    peer = reference_network(network.config, network.state_dict(), network.layer_norm.weight.dtype)
    from fairseq2.nn import BatchLayout

    def forward(padded_NL: torch.Tensor, lengths: list[int]) -> torch.Tensor:
        output: torch.Tensor = peer(padded_NL, BatchLayout.of(padded_NL, lengths)).sentence_embeddings
        return output

    return forward


def matrix_rate(network: TextEncoder) -> float:
    """FLOP per CPU second of the feed-forward products, best of a few row counts."""
    ffn: Any = network.encoder.layers[0]
    first, second = ffn.ffn.inner_proj, ffn.ffn.output_proj
    best = 0.0
    for num_rows in (256, 512, 1024, 2048):
        x = torch.randn(num_rows, network.config.model_dim).to(first.weight)
        times = []
        for _ in range(5):
            started = time.process_time()
            linear(F.relu(linear(x, first)), second)
            times.append(time.process_time() - started)
        best = max(best, 4.0 * num_rows * first.weight.numel() / min(times[1:]))
    return best


def contenders(args: argparse.Namespace, config: TextEncoderConfig) -> tuple[dict[str, Runner], dict[str, TextEncoder]]:
    """Every dtype of ours and of the peers asked for; peers that are not installed are named and left out."""
    base = random_network(config, "cpu")
    ids, lengths = sentence_ids(args.sentences, args.seed)
    runners: dict[str, Runner] = {}
    networks = {name: base if name == "float32" else in_dtype(base, DTYPES[name]) for name in args.dtypes}
    makers = {"transformers": transformers_forward, "sonar-space": sonar_space_forward}
    for dtype, network in networks.items():
        runners[f"lcm-data {dtype}"] = ours(network, ids, lengths, args.token_budget)
        for peer in args.peers:
            try:
                forward = makers[peer](network)
            except (ImportError, MissingExtraError) as error:
                print(f"{peer} is left out: {error}")
                continue
            runners[f"{peer} {dtype}"] = padded(forward, ids, lengths, PEER_BATCHES[peer])
    return runners, networks


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sentences", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--token-budget", type=int, default=TOKEN_BUDGETS["cpu"])
    parser.add_argument("--dtypes", nargs="+", choices=sorted(DTYPES), default=["float32", "bfloat16"])
    parser.add_argument("--peers", nargs="*", choices=sorted(PEER_BATCHES), default=[])
    parser.add_argument("--small", action="store_true", help="4 layers of width 256 instead of 24 of 1024")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="also write the table as JSON")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    small = {"model_dim": 256, "num_layers": 4, "num_heads": 4, "ffn_dim": 1024} if args.small else {}
    config = TextEncoderConfig(vocab_size=VOCAB, **small)

    with torch.inference_mode():
        runners, networks = contenders(args, config)
        rates = {dtype: matrix_rate(network) for dtype, network in networks.items()}
        seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in runners}
        vectors = {name: run() for name, run in runners.items()}  # warm-up
        for _ in range(args.rounds):
            for name, run in runners.items():
                wall, cpu = time.perf_counter(), time.process_time()
                run()
                seconds[name].append((time.perf_counter() - wall, time.process_time() - cpu))

    _, lengths = sentence_ids(args.sentences, args.seed)
    flops = config.flops(int(lengths.sum()))
    exact = vectors[next(iter(vectors))]
    about = f"{args.sentences} sentences of {lengths.mean():.1f} tokens"
    print(f"torch {torch.__version__}, {args.threads} threads, {about}")
    print(f"{'contender':24} {'sent/s':>8} {'sent/CPU-s':>10} {'GFLOP/CPU-s':>12} {'of GEMM':>8} {'max err':>9}")
    table = {}
    for name, times in seconds.items():
        wall, cpu = (statistics.median(values) for values in zip(*times, strict=True))
        row = {
            "sentences_per_second": args.sentences / wall,
            "sentences_per_cpu_second": args.sentences / cpu,
            "gflop_per_cpu_second": flops / cpu / 1e9,
            "share_of_matrix_rate": flops / cpu / rates[name.split()[-1]],
            "max_error": float(np.abs(vectors[name] - exact).max()),
        }
        table[name] = row
        a, b, c, d, e = row.values()
        print(f"{name:24} {a:8.2f} {b:10.2f} {c:12.0f} {d:8.0%} {e:9.1e}")
    if args.out:
        args.out.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()

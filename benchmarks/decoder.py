"""Sentences per second of the text decoder with beam search on this machine, next to its peers.

    python -m benchmarks.decoder --peers transformers            # in an environment with transformers
    python -m benchmarks.decoder --peers sonar-space             # in the one of `make parity`
    python -m benchmarks.decoder --full --sentences 16 --rounds 1 --peers transformers
    python -m benchmarks.decoder --full --device cuda --dtype bfloat16 --sentences 2048 --rows 160 640 2560 \\
        --peer-rows 160 640 --peers transformers

Weights are random (6 layers of width 512 and 32,000 tokens, or with ``--full`` those of the published model). All
contenders get the same weights, vectors, language, beam size and limit, must find the same sentences, and run in turn,
so a busy machine is unfair to none; the median round counts. ``--rows`` and ``--peer-rows`` are hypotheses at once,
several to look for the best; sonar-space also gets its own batch of 5 sentences. Traps: a random network ends its
sentences at once or never, so ``random_decoder`` gives it a clock, and lengths spread as those of real sentences do
(the table gives mean and range); detokenising is left out; transformers divides scores by another length and does not
force an end at the limit, so scores are sums for all (``len_penalty`` 0), it stops by ``early_stopping=True``, and
sentences that ran into the limit may differ.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from lcm_data.errors import MissingExtraError
from lcm_data.sonar.config import TextDecoderConfig
from lcm_data.sonar.decoder_layout import EMBED, OUTPUT
from lcm_data.sonar.generate import generate
from lcm_data.sonar.layers import sinusoid
from lcm_data.sonar.random_model import random_decoder_state
from lcm_data.sonar.settings import Generation
from lcm_data.sonar.text_decoder import TextDecoder

EOS = 3
LANG_FROM_END = 20
_RISING = 31

Runner = Callable[[], list[list[int]]]


def random_decoder(config: TextDecoderConfig, eos_bias: float, pace: float) -> TextDecoder:
    """A network with random weights that ends its sentences after some 10 to 60 tokens.

    Along one direction, in which the position rises steadily at first, layers and tokens add nothing (and the sentence
    vector a little): a clock. It is the embedding of ``</s>``, of norm ``pace``, which
    thus gets likelier as time goes by.
    """
    with torch.device("meta"):
        network = TextDecoder(config)
    state = random_decoder_state(config, 0)
    table = sinusoid(_RISING, config.model_dim)
    clock = torch.where((table.diff(dim=0) > 0).all(0), table[-1] - table[0], 0)
    clock /= clock.norm()
    state[EMBED] -= torch.outer(state[EMBED] @ clock, clock)
    for name, tensor in state.items():
        if "output_proj" in name:
            share = 0.9 if "encoder_decoder_attn" in name else 1.0
            tensor -= share * (torch.outer(clock, clock @ tensor) if tensor.ndim == 2 else clock * (clock @ tensor))
    state[EMBED][EOS] = pace * clock
    state[OUTPUT] = state[EMBED]
    network.load_state_dict({name: state[name] for name in network.state_dict()}, assign=True)
    network.tie()
    network.reset_positions()
    network.decoder.layer_norm.bias.data = eos_bias / pace * clock
    return network.requires_grad_(False).eval()


def batches(emb: torch.Tensor, rows: int, beam_size: int) -> list[torch.Tensor]:
    return list(emb.split(max(1, rows // beam_size)))


def ours(network: TextDecoder, emb: torch.Tensor, how: Generation, lang: int, rows: int) -> Runner:
    """As the native backend runs it."""
    seats = max(1, rows // how.beam_size)
    return lambda: [best[0].ids for best in generate(network, emb, lang, how, seats=seats)]


def sonar_space(network: TextDecoder, emb: torch.Tensor, how: Generation, lang: int, rows: int) -> Runner:
    """The same weights in sonar-space's network and fairseq2's generator."""
    from lcm_data.decode.sonar_space import reference_decoder_network, reference_generator

    dtype = network.decoder_frontend.embed.weight.dtype
    peer = reference_decoder_network(network.config, network.full_state(), dtype).to(emb.device)
    from fairseq2.data.tokenizers import VocabularyInfo
    from fairseq2.nn import BatchLayout
    from sonar.models.sonar_translation.model import DummyEncoderModel, SonarEncoderDecoderModel

    info = VocabularyInfo(size=network.config.vocab_size, unk_idx=1, bos_idx=2, eos_idx=EOS, pad_idx=0)
    generator = reference_generator(
        SonarEncoderDecoderModel(DummyEncoderModel(), peer).eval(), info, how, how.limit(network.config.max_tokens)
    )
    parts = [part.to(dtype) for part in batches(emb, rows, how.beam_size)]

    def run() -> list[list[int]]:
        said = []
        for part in parts:
            prompts = torch.tensor([EOS, lang], device=part.device).expand(len(part), -1)
            output = generator(part, BatchLayout.of(part), prompts, BatchLayout.of(prompts))
            said += [hypotheses[0].seq.tolist() for hypotheses in output.hypotheses]
        return said

    return run


def transformers(network: TextDecoder, emb: torch.Tensor, how: Generation, lang: int, rows: int) -> Runner:
    """The same weights in transformers' M2M100ForConditionalGeneration."""
    from transformers import M2M100Config, M2M100ForConditionalGeneration
    from transformers.modeling_outputs import BaseModelOutput

    c = network.config
    peer = M2M100ForConditionalGeneration(
        M2M100Config(
            vocab_size=c.vocab_size,
            d_model=c.model_dim,
            encoder_layers=1,
            encoder_ffn_dim=8,
            encoder_attention_heads=c.num_heads,
            decoder_layers=c.num_layers,
            decoder_attention_heads=c.num_heads,
            decoder_ffn_dim=c.ffn_dim,
            max_position_embeddings=1024,
            activation_function="relu",
            pad_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=2,
        )
    )
    names = {
        "decoder_frontend.embed": "decoder.embed_tokens",
        "encoder_decoder_attn": "encoder_attn",
        "output_proj.": "out_proj.",
        "ffn.inner_proj": "fc1",
        "ffn.out_proj": "fc2",
        "ffn_layer_norm": "final_layer_norm",
    }
    state = {}
    for name, tensor in network.full_state().items():
        for mine, theirs in names.items():
            name = name.replace(mine, theirs)
        state[f"model.{name}"] = tensor
    # Its ids of the first four rows: <s> <pad> </s> <unk>.
    embed = state.pop("model.final_proj.weight")
    embed = torch.cat([embed[[2, 0, 3, 1]], embed[4:]])
    state |= {"model.decoder.embed_tokens.weight": embed, "model.shared.weight": embed, "lm_head.weight": embed}
    missing = peer.load_state_dict(state, strict=False).missing_keys
    assert all("encoder" in name or "final_logits_bias" in name for name in missing), missing
    peer.eval().to(embed.device, embed.dtype)
    parts = [part.to(embed.dtype) for part in batches(emb, rows, how.beam_size)]

    def run() -> list[list[int]]:
        said = []
        for part in parts:
            output = peer.generate(
                encoder_outputs=BaseModelOutput(last_hidden_state=part[:, None]),
                num_beams=how.beam_size,
                forced_bos_token_id=lang,
                max_length=how.limit(c.max_tokens),
                early_stopping=True,
                length_penalty=0.0,
                suppress_tokens=[1],
                do_sample=False,
            )
            for ids in output[:, 2:].tolist():
                said.append([*ids[: ids.index(2)], EOS] if 2 in ids else ids)
        return said

    return run


def contenders(args: argparse.Namespace) -> tuple[dict[str, Runner], float]:
    """Ours and the peers asked for, and millions of parameters; peers that are not installed are named and left out."""
    config = TextDecoderConfig(
        model_dim=args.dim,
        num_layers=args.layers,
        num_heads=args.dim // 64,
        ffn_dim=args.ffn,
        vocab_size=args.vocab,
    )
    network = random_decoder(config, args.eos, args.pace).to(args.device)
    network.reset_positions()
    emb = 0.2 * torch.nn.functional.normalize(
        torch.randn(args.sentences, args.dim, generator=torch.Generator().manual_seed(args.seed))
    )
    emb = emb.to(args.device)
    if args.dtype != "float32":
        for parameter in network.parameters():
            parameter.data = parameter.data.to(getattr(torch, args.dtype))
        network.tie()
    how = Generation(beam_size=args.beam_size, max_tokens=args.max_tokens, len_penalty=0.0)
    lang = args.vocab - LANG_FROM_END
    runners = {f"lcm-data, {rows} rows": ours(network, emb, how, lang, rows) for rows in args.rows}
    makers = {"transformers": transformers, "sonar-space": sonar_space}
    for peer in args.peers:
        own = [5 * args.beam_size] if peer == "sonar-space" else []
        try:
            for rows in own + args.peer_rows:
                runners[f"{peer}, {rows} rows"] = makers[peer](network, emb, how, lang, rows)
        except (ImportError, MissingExtraError) as error:
            print(f"{peer} is left out: {error}")
    network.pack()  # as the native backend does; the peers have copies of the weights
    return runners, config.num_parameters / 1e6


def timed(run: Runner, device: str) -> tuple[float, float]:
    """Wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - wall, time.process_time() - cpu


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sentences", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rows", type=int, nargs="+", default=[160], help="hypotheses at once, ours")
    parser.add_argument("--peer-rows", type=int, nargs="*", default=[80, 160], help="hypotheses at once, the peers'")
    parser.add_argument("--beam-size", type=int, default=5)
    parser.add_argument("--max-tokens", type=int, default=100)
    parser.add_argument("--eos", type=float, default=20.0, help="added to the logit of </s>")
    parser.add_argument("--pace", type=float, default=60.0, help="how fast </s> gets likelier")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--peers", nargs="*", choices=("transformers", "sonar-space"), default=[])
    parser.add_argument("--full", action="store_true", help="the sizes of the published model")
    for name, value in (("layers", 6), ("dim", 512), ("ffn", 2048), ("vocab", 32_000), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--out", type=Path, help="also write the table as JSON")
    args = parser.parse_args(argv)
    if args.full:
        published = TextDecoderConfig()
        args.layers, args.dim = published.num_layers, published.model_dim
        args.ffn, args.vocab = published.ffn_dim, published.vocab_size
    return args


def main(argv: Sequence[str] | None = None) -> None:
    args = parsed(argv)
    torch.set_num_threads(args.threads)
    said, memory = {}, {}
    with torch.inference_mode():
        runners, millions = contenders(args)
        for name, run in runners.items():  # warm-up
            if args.device != "cpu":
                torch.cuda.reset_peak_memory_stats()
            said[name] = run()
            memory[name] = torch.cuda.max_memory_allocated() / 2**30 if args.device != "cpu" else 0.0
        rounds = [{name: timed(run, args.device) for name, run in runners.items()} for _ in range(args.rounds)]

    first = next(iter(said.values()))
    lengths = [len(ids) for ids in first]
    free = [row for row, length in enumerate(lengths) if length < args.max_tokens - 2]
    print(
        f"torch {torch.__version__}, {args.device}, {args.threads} threads, {millions:.0f} M parameters, {args.dtype}, "
        f"beam {args.beam_size}\n{args.sentences} sentences of {statistics.mean(lengths):.1f} tokens ({min(lengths)} "
        f"to {max(lengths)}), {len(free)} not at the limit"
    )
    print(f"{'contender':24} {'sent/s':>8} {'sent/CPU-s':>10} {'ours is':>8} {'said alike':>10} {'GiB':>6}")
    clock = 0 if args.device != "cpu" else 1  # CPU seconds where the CPU computes: others may use the machine, too
    seconds = {name: [statistics.median(r[name][kind] for r in rounds) for kind in (0, 1)] for name in runners}
    best = min(seconds[name][clock] for name in runners if name.startswith("lcm-data"))
    table: dict[str, Any] = {}
    for name, (wall, cpu) in seconds.items():
        alike = sum(said[name][row] == first[row] for row in free) / max(1, len(free))
        table[name] = {
            "sentences_per_second": args.sentences / wall,
            "sentences_per_cpu_second": args.sentences / cpu,
            "ours_is_faster_by": seconds[name][clock] / best,
            "said_alike": alike,
            "peak_gib": memory[name],
        }
        a, b, c, d, e = table[name].values()
        print(f"{name:24} {a:8.2f} {b:10.2f} {c:7.2f}x {d:10.0%} {e:6.2f}")
        if name.startswith("sonar-space") and args.dtype == "float32" and args.device == "cpu":
            assert alike == 1, "the reference says something else"
    if args.out:
        args.out.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Sentences per second of the text decoder with beam search on this machine, next to its peers.

    python -m benchmarks.decoder --peers transformers            # in an environment with transformers
    python -m benchmarks.decoder --peers sonar-space             # in the one of `make parity`
    python -m benchmarks.decoder --layers 24 --dim 1024 --ffn 8192 --vocab 256206 --sentences 8

Weights are random (6 layers of width 512 and 32,000 tokens unless told otherwise). All contenders get the same weights,
vectors, language, beam size and limit, must find the same sentences, and run in turn, so a busy machine is unfair to
none; the median round counts. Traps: random weights end few sentences early, so ``--eos`` raises the logit of ``</s>``
until they do (the table gives the mean length); detokenising is left out; transformers divides scores by another length
and does not force an end at the limit, so scores are sums for all (``len_penalty`` 0), it stops by
``early_stopping=True``, and sentences that ran into the limit may differ; sonar-space gets its own batch of 5 sentences
and, as a kinder contender, ours.
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
from lcm_data.sonar.random_model import random_decoder_state
from lcm_data.sonar.settings import Generation
from lcm_data.sonar.text_decoder import TextDecoder

EOS = 3
LANG_FROM_END = 20

Runner = Callable[[], list[list[int]]]


def random_decoder(config: TextDecoderConfig, eos_strength: float) -> TextDecoder:
    """A network with random weights that ends its sentences now and then."""
    with torch.device("meta"):
        network = TextDecoder(config)
    state = random_decoder_state(config, 0)
    state[OUTPUT] = state[EMBED]
    network.load_state_dict({name: state[name] for name in network.state_dict()}, assign=True)
    network.tie()
    network.reset_positions()
    eos = state[EMBED][EOS]
    network.decoder.layer_norm.bias.data = eos_strength * eos / eos.square().sum()
    return network.requires_grad_(False).eval()


def batches(emb: torch.Tensor, rows: int, beam_size: int) -> list[torch.Tensor]:
    return list(emb.split(max(1, rows // beam_size)))


def ours(network: TextDecoder, emb: torch.Tensor, how: Generation, lang: int, rows: int) -> Runner:
    """As the native backend runs it."""
    parts = batches(emb, rows, how.beam_size)
    return lambda: [best[0].ids for part in parts for best in generate(network, part, lang, how)]


def sonar_space(network: TextDecoder, emb: torch.Tensor, how: Generation, lang: int, rows: int) -> Runner:
    """The same weights in sonar-space's network and fairseq2's generator."""
    from lcm_data.decode.sonar_space import reference_decoder_network, reference_generator

    dtype = network.decoder_frontend.embed.weight.dtype
    peer = reference_decoder_network(network.config, network.full_state(), dtype)
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
            prompts = torch.tensor([EOS, lang]).expand(len(part), -1)
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
    peer.eval().to(embed.dtype)
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
    """Ours and the peers asked for; peers that are not installed are named and left out. Also the reference width."""
    config = TextDecoderConfig(
        model_dim=args.dim,
        num_layers=args.layers,
        num_heads=args.dim // 64,
        ffn_dim=args.ffn,
        vocab_size=args.vocab,
    )
    network = random_decoder(config, args.eos)
    emb = 0.2 * torch.nn.functional.normalize(
        torch.randn(args.sentences, args.dim, generator=torch.Generator().manual_seed(args.seed))
    )
    if args.dtype != "float32":
        for parameter in network.parameters():
            parameter.data = parameter.data.to(getattr(torch, args.dtype))
    how = Generation(beam_size=args.beam_size, max_tokens=args.max_tokens, len_penalty=0.0)
    lang = args.vocab - LANG_FROM_END
    runners = {"lcm-data": ours(network, emb, how, lang, args.batch_rows)}
    makers = {"transformers": transformers, "sonar-space": sonar_space}
    for peer in args.peers:
        try:
            if peer == "sonar-space":
                runners["sonar-space, 5 sentences"] = sonar_space(network, emb, how, lang, 5 * args.beam_size)
            runners[f"{peer}, our batch"] = makers[peer](network, emb, how, lang, args.batch_rows)
        except (ImportError, MissingExtraError) as error:
            print(f"{peer} is left out: {error}")
    return runners, config.num_parameters / 1e6


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sentences", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--batch-rows", type=int, default=80)
    parser.add_argument("--beam-size", type=int, default=5)
    parser.add_argument("--max-tokens", type=int, default=40)
    parser.add_argument("--eos", type=float, default=13.0, help="added to the logit of </s>")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--peers", nargs="*", choices=("transformers", "sonar-space"), default=[])
    for name, value in (("layers", 6), ("dim", 512), ("ffn", 2048), ("vocab", 32_000), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--out", type=Path, help="also write the table as JSON")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)

    with torch.inference_mode():
        runners, millions = contenders(args)
        said = {name: run() for name, run in runners.items()}  # warm-up
        seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in runners}
        for _ in range(args.rounds):
            for name, run in runners.items():
                wall, cpu = time.perf_counter(), time.process_time()
                run()
                seconds[name].append((time.perf_counter() - wall, time.process_time() - cpu))

    first = next(iter(said.values()))
    lengths = [len(ids) for ids in first]
    free = [row for row, length in enumerate(lengths) if length < args.max_tokens - 2]
    print(
        f"torch {torch.__version__}, {args.threads} threads, {millions:.0f} M parameters, {args.dtype}, beam "
        f"{args.beam_size}, {args.sentences} sentences of {statistics.mean(lengths):.1f} tokens ({min(lengths)} to "
        f"{max(lengths)}), {len(free)} not at the limit"
    )
    print(f"{'contender':28} {'sent/s':>8} {'sent/CPU-s':>10} {'times':>6} {'said alike':>10}")
    table: dict[str, Any] = {}
    base = statistics.median(cpu for _, cpu in seconds["lcm-data"])
    for name, times in seconds.items():
        wall, cpu = (statistics.median(values) for values in zip(*times, strict=True))
        alike = sum(said[name][row] == first[row] for row in free) / max(1, len(free))
        table[name] = {
            "sentences_per_second": args.sentences / wall,
            "sentences_per_cpu_second": args.sentences / cpu,
            "relative": base / cpu,
            "said_alike": alike,
        }
        a, b, c, d = table[name].values()
        print(f"{name:28} {a:8.2f} {b:10.2f} {c:6.2f} {d:10.0%}")
        if name.startswith("sonar-space") and args.dtype == "float32":
            assert alike == 1, "the reference says something else"
    if args.out:
        args.out.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""How much of a sentence survives its codes: said again from the first k levels of a codebook (the paper's Fig. 9).

    python -m benchmarks.space_codes CORPUS TEST.jsonl --model sonar-mini --levels 64 --units 256 --plot codes.png

CORPUS has embeddings of the model to fit the codebook on (``lcm-data encode``), TEST holds held-out sentences
(``test.jsonl`` of ``lcm-data train sonar``). Trap: a codebook fitted on the test's own sentences looks better than it
is; they are never in the corpus here.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from lcm_data.decode import DecoderOptions, load_decoder
from lcm_data.encode import EncoderOptions, load_encoder
from lcm_data.quality.aligned import read_aligned
from lcm_data.quality.textscores import corpus_scores
from lcm_data.quantize.storage import load_codebook
from pipelines import quantize

PIVOT = "eng_Latn"


def main() -> None:
    """Print a row for each number of levels, and draw them if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus")
    parser.add_argument("test")
    parser.add_argument("--model", default="sonar-mini")
    parser.add_argument("--levels", type=int, default=64)
    parser.add_argument("--units", type=int, default=256)
    parser.add_argument("--sample-rows", type=int, default=50_000)
    parser.add_argument("--lang", default=PIVOT)
    parser.add_argument("--sentences", type=int, default=300)
    parser.add_argument("--max-tokens", type=int, default=25, help="longest sentence")
    parser.add_argument("--plot", help="PNG file")
    options = parser.parse_args()
    settings: dict[str, Any] = {name: getattr(options, name) for name in ("corpus", "levels", "units", "sample_rows")}
    quantize.run(quantize.QuantizeConfig(**settings))
    codebook = load_codebook(f"{options.corpus}/codebook")
    encoder = load_encoder(EncoderOptions(model=options.model))
    decoder = load_decoder(DecoderOptions(model=options.model, mode="greedy", max_tokens=64))
    texts = list(dict.fromkeys(read_aligned(options.test, pivot=PIVOT, sample=0).texts[options.lang]))
    lengths = encoder.prepare(texts, options.lang).payload.lengths - 2
    texts = [text for text, length in zip(texts, lengths, strict=True) if length <= options.max_tokens]
    texts = texts[: options.sentences]
    emb_ND = encoder.embed(encoder.prepare(texts, options.lang))
    codes_NL, _ = codebook.encode(emb_ND)
    variance = float(((emb_ND - emb_ND.mean(axis=0)) ** 2).sum())
    wanted = [k for k in (1, 2, 4, 8, 16, 24, 32, 48, 64, 128) if k < options.levels] + [options.levels]
    rows = []
    print("| levels | bits | NMSE | BLEU | chrF |\n|---|---|---|---|---|")
    for levels in wanted:
        sums_ND = codebook.decode(codes_NL, levels)
        nmse = float(((sums_ND - emb_ND) ** 2).sum()) / variance
        scores = corpus_scores(decoder.decode(sums_ND, options.lang).texts, texts, options.lang)
        bits = levels * np.log2(options.units)
        rows.append((levels, nmse, scores.bleu))
        print(f"| {levels} | {bits:.0f} | {nmse:.3f} | {scores.bleu:.1f} | {scores.chrf:.1f} |", flush=True)
    top = corpus_scores(decoder.decode(emb_ND, options.lang).texts, texts, options.lang)
    print(f"| none (the vector itself) | | 0 | {top.bleu:.1f} | {top.chrf:.1f} |")
    if options.plot:
        _draw(rows, top.bleu, options.plot)


def _draw(rows: list[tuple[int, float, float]], top: float, file: str) -> None:
    import matplotlib.pyplot as plt

    levels, errors, bleu = zip(*rows, strict=True)
    figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
    axes.plot(levels, bleu, marker="o", label="auto-encoding through the codes, BLEU")
    axes.axhline(top, linestyle="--", color="gray", label="through the vector itself")
    axes.plot(levels, [100 * error for error in errors], marker="s", label="squared error left, %")
    axes.set_xscale("log", base=2)
    axes.set_xlabel("levels")
    axes.set_ylim(0, 100)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(file, dpi=110)


if __name__ == "__main__":
    main()

"""Is sonar-mini better than nothing? Search across languages and saying again, beside two trivial baselines.

    python -m benchmarks.sonar_space TEST.jsonl --model sonar-mini
    python -m benchmarks.sonar_space TEST.jsonl --plot curves.png --checkpoint runs/{a,b}/checkpoints/step-*

TEST is what ``lcm-data train sonar`` kept apart (``test.jsonl`` of the prepared texts). The baselines are hashed
character n-grams (names, numbers and loan words are the same in many languages, so this is not nothing) and the same
network with random weights. Trap: candidates matter; every search here has the same number, and near copies of a
sentence are held out together, so that none was seen in training.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lcm_data.decode import Decoder, DecoderOptions, load_decoder
from lcm_data.encode import Encoder, EncoderOptions, load_encoder
from lcm_data.quality.aligned import AlignedText, read_aligned
from lcm_data.quality.textscores import corpus_scores
from lcm_data.quality.xsim import xsim
from lcm_data.sonar.files import find_model
from lcm_data.sonar.random_model import write_random_weights
from lcm_models.sonar.export import export
from lcm_models.train.checkpoint import step_of

PIVOT = "eng_Latn"
Embed = Callable[[list[str], str], Any]


def main() -> None:
    """Print the tables, and draw the curves if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("test", help="table of translations")
    parser.add_argument("--model", default="sonar-mini")
    parser.add_argument("--candidates", type=int, default=1000, help="pairs of a language, at most")
    parser.add_argument("--sentences", type=int, default=200, help="sentences of a language that are said again")
    parser.add_argument("--max-tokens", type=int, default=25, help="longest sentence that is said again")
    parser.add_argument("--mode", default="beam", choices=("beam", "greedy"))
    parser.add_argument("--checkpoint", nargs="*", default=[], help="checkpoints of the training, for the curves")
    parser.add_argument("--plot", help="PNG file of the curves")
    options = parser.parse_args()
    text = read_aligned(options.test, pivot=PIVOT, sample=0)
    if options.checkpoint:
        curves(text, options)
        return
    encoder = load_encoder(EncoderOptions(model=options.model))
    decoder = load_decoder(DecoderOptions(model=options.model, mode=options.mode, max_tokens=96))
    methods: dict[str, Embed] = {
        "hashed n-grams": hashed_ngrams,
        "random weights": embedder(load_encoder(EncoderOptions(model=str(random_copy(options.model))))),
        options.model: embedder(encoder),
    }
    searched = {name: search(text, embed, options.candidates) for name, embed in methods.items()}
    said = says_again(text, encoder, decoder, options.sentences, options.max_tokens)
    print(
        "| | pairs | "
        + " | ".join(f"xsim, {name}" for name in methods)
        + " | again: BLEU | chrF | into English: BLEU | chrF |"
    )
    print("|---" * (len(methods) + 6) + "|")
    for lang, num in pairs_of(text, options.candidates).items():
        errors = " | ".join(f"{100 * searched[name][lang]:.1f} %" for name in methods)
        print(f"| {lang} | {num} | {errors} | " + " | ".join(said.get(lang, [""] * 4)) + " |")
    means = " | ".join(f"{100 * np.mean(list(found.values())):.1f} %" for found in searched.values())
    columns = [np.mean([float(row[i]) for row in said.values() if row[i]]) for i in range(4)]
    print(f"| mean | | {means} | " + " | ".join(f"{value:.1f}" for value in columns) + " |")


def pairs_of(text: AlignedText, most: int) -> dict[str, int]:
    """Languages but English, and how many pairs each has here."""
    return {lang: len(_aligned(text, lang, most)[0]) for lang in sorted(text.langs) if lang != PIVOT}


def _aligned(text: AlignedText, lang: str, most: int) -> tuple[list[str], list[str]]:
    """Up to ``most`` pairs with English, no sentence of either side twice."""
    english = dict(zip(text.ids[PIVOT].tolist(), text.texts[PIVOT], strict=True))
    seen: set[str] = set()
    first: list[str] = []
    second: list[str] = []
    for row, sentence in zip(text.ids[lang].tolist(), text.texts[lang], strict=True):
        if row in english and not {english[row], sentence} & seen and len(first) < most:
            seen |= {english[row], sentence}
            first.append(english[row])
            second.append(sentence)
    return first, second


def search(text: AlignedText, embed: Embed, most: int) -> dict[str, float]:
    """The mean of both directions' share of errors, by cosine, for each language with English."""
    found = {}
    for lang in pairs_of(text, most):
        first, second = _aligned(text, lang, most)
        there, back = xsim(embed(first, PIVOT), embed(second, lang), first, second)
        found[lang] = (there.cosine + back.cosine) / 2
    return found


def embedder(encoder: Encoder) -> Embed:
    """Texts of a language to vectors."""
    return lambda texts, lang: encoder.embed(encoder.prepare(texts, lang))


def hashed_ngrams(texts: list[str], lang: str) -> Any:
    """Character n-grams of 2 to 4 within words, hashed to 4,096 counts."""
    from sklearn.feature_extraction.text import HashingVectorizer

    vectorizer = HashingVectorizer(analyzer="char_wb", ngram_range=(2, 4), n_features=4096, alternate_sign=False)
    return np.asarray(vectorizer.transform(texts).todense(), np.float32) + 1e-9


def random_copy(model: str) -> Path:
    """The same network and tokenizer with random weights."""
    files = find_model(model)
    folder = Path(tempfile.mkdtemp())
    for name in ("config.json", files.tokenizer.name):
        (folder / name).write_bytes((files.weights.parent / name).read_bytes())
    write_random_weights(folder / "model.safetensors", files.layout("encoder").config)
    return folder


def says_again(
    text: AlignedText, encoder: Encoder, decoder: Decoder, num: int, max_tokens: int
) -> dict[str, list[str]]:
    """BLEU and chrF of sentences that came back in their own language, and of those that came back in English."""
    found = {}
    for lang in sorted(text.langs):
        first, second = (text.texts[lang],) * 2 if lang == PIVOT else _aligned(text, lang, 1 << 30)
        lengths = encoder.prepare(second, lang).payload.lengths - 2
        rows = [row for row, length in enumerate(lengths.tolist()) if length <= max_tokens][:num]
        sentences, english = [second[row] for row in rows], [first[row] for row in rows]
        vectors = encoder.embed(encoder.prepare(sentences, lang))
        again = corpus_scores(decoder.decode(vectors, lang).texts, sentences, lang)
        found[lang] = [f"{again.bleu:.1f}", f"{again.chrf:.1f}", "", ""]
        if lang != PIVOT:
            translated = corpus_scores(decoder.decode(vectors, PIVOT).texts, english, PIVOT)
            found[lang][2:] = [f"{translated.bleu:.1f}", f"{translated.chrf:.1f}"]
    return found


def curves(text: AlignedText, options: argparse.Namespace) -> None:
    """The means over languages at every checkpoint, in the order given; a run goes on where the one before stopped."""
    rows = []
    counts = tokens_of(options.checkpoint)
    for checkpoint, tokens in zip(map(Path, options.checkpoint), counts, strict=True):
        with tempfile.TemporaryDirectory() as folder:
            model = str(export(str(checkpoint), Path(folder, "model"), space="curve"))
            encoder = load_encoder(EncoderOptions(model=model))
            decoder = load_decoder(DecoderOptions(model=model, mode="greedy", max_tokens=64))
            errors = np.mean(list(search(text, embedder(encoder), options.candidates).values()))
            said = says_again(text, encoder, decoder, options.sentences, options.max_tokens)
            again = np.mean([float(row[0]) for row in said.values()])
        rows.append((tokens / 1e6, 100 * float(errors), float(again)))
        print(
            f"| {checkpoint.parts[-3]}, step {step_of(checkpoint)} | {rows[-1][0]:.1f} M | {rows[-1][1]:.1f} % | "
            f"{rows[-1][2]:.1f} |",
            flush=True,
        )
    if options.plot:
        _draw(rows, options.plot)


def tokens_of(checkpoints: list[str]) -> list[int]:
    """Tokens decoded up to each checkpoint, with all those of the runs before it in the list."""
    counts, runs = [], list(dict.fromkeys(Path(each).parents[1] for each in checkpoints))
    whole = {run: _tokens(sorted((run / "checkpoints").glob("step-*"))[-1]) for run in runs}
    for each in map(Path, checkpoints):
        before = runs[: runs.index(each.parents[1])]
        counts.append(_tokens(each) + sum(whole[run] for run in before))
    return counts


def _tokens(checkpoint: Path) -> int:
    return int(json.loads((checkpoint / "progress.json").read_text("utf-8"))["concepts"])


def _draw(rows: list[tuple[float, float, float]], file: str) -> None:
    import matplotlib.pyplot as plt

    tokens, errors, again = zip(*rows, strict=True)
    figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
    axes.plot(tokens, errors, marker="o", label="search errors across languages, %")
    axes.plot(tokens, again, marker="s", label="auto-encoding, BLEU")
    axes.set_xlabel("million tokens decoded in training")
    axes.set_ylim(0, 70)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(file, dpi=110)


if __name__ == "__main__":
    main()

"""``lcm-data demo``: the main job on the corpus that ships with the package, and a look at what came out.

The texts are real; the encoder is not trained. It has SONAR's architecture at a small size and seeded random weights,
so everything about the result is as it will be with real weights, except what the numbers mean.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import as_file, files
from typing import Any

from lcm_data.corpus import open_corpus
from lcm_data.errors import UsageError
from lcm_data.store.files import LocalFiles, open_files
from pipelines import encode, normalize, quantize, segment
from pipelines.stage import Report

MODEL_FOLDER = "untrained-model"
LEVELS, UNITS = 8, 16


@dataclass(frozen=True)
class DemoResult:
    """Reports of the stages, one row a language, and one sentence on its way through the stages."""

    reports: list[Report]
    languages: list[dict[str, Any]]
    example: dict[str, Any]
    corpus: str


def run(corpus: str, overwrite: bool = False, say: Callable[[str], None] = print) -> DemoResult:
    """Segment, encode and quantize the embedded documents into ``corpus`` (a local folder).

    Raises:
        UsageError: ``corpus`` is not a local folder.
    """
    target = open_files(corpus)
    if not isinstance(target, LocalFiles):
        raise UsageError(f"the demo writes to a local folder, got {corpus!r}.")
    with as_file(files("lcm_data") / "assets" / "demo") as documents:
        say("1/5  segment: documents to sentences")
        reports = [
            segment.run(
                segment.SegmentConfig(
                    inputs=[str(documents)], corpus=corpus, validation=0, test=0.2, overwrite=overwrite
                )
            )
        ]
    model = f"{target.root}/{MODEL_FOLDER}"
    say("2/5  a small SONAR encoder with random weights, NOT trained: its vectors carry no meaning")
    _write_model(corpus, model)
    say("3/5  encode: sentences to embeddings")
    reports.append(encode.run(encode.EncodeConfig(corpus=corpus, model=model, overwrite=overwrite)))
    say("4/5  normalize: the scale of the space")
    normalize.run(normalize.NormalizeConfig(corpus=corpus, overwrite=overwrite))
    say(f"5/5  quantize: embeddings to {LEVELS} codes of {UNITS} units each")
    reports.append(
        quantize.run(quantize.QuantizeConfig(corpus=corpus, levels=LEVELS, units=UNITS, overwrite=overwrite))
    )
    return DemoResult(reports, _languages(corpus), _example(corpus), corpus)


def _write_model(corpus: str, folder: str) -> None:
    from lcm_data.sonar.random_model import write_random_checkpoint

    texts = [text for batch in open_corpus(corpus).segments.batches(columns=["text"]) for text in batch["text"]]
    write_random_checkpoint(folder, texts, model_dim=64, num_layers=2, vocab_size=4000, seed=0)


def _languages(corpus: str) -> list[dict[str, Any]]:
    data = open_corpus(corpus).embeddings
    rows = []
    for lang in data.langs:
        batches = list(data.batches(langs=[lang], columns=["doc_id", "text", "n_tokens"]))
        texts = [text for batch in batches for text in batch["text"]]
        tokens = [count for batch in batches for count in batch["n_tokens"]]
        documents = {doc_id for batch in batches for doc_id in batch["doc_id"]}
        rows.append(
            {
                "language": lang,
                "documents": len(documents),
                "sentences": len(texts),
                "mean chars": round(sum(map(len, texts)) / len(texts)),
                "mean tokens": round(sum(tokens) / len(tokens)),
                "first sentence": texts[0],
            }
        )
    return rows


def _example(corpus: str) -> dict[str, Any]:
    """One sentence in the three forms it takes."""
    opened = open_corpus(corpus)
    sentence = next(opened.segments.batches(1, langs=["eng_Latn"]))
    sid = sentence["sid"][0]
    vector = next(b for b in opened.embeddings.batches(1, langs=["eng_Latn"]) if b["sid"][0] == sid).vectors("emb")[0]
    code = next(b for b in opened.codes.batches(1, langs=["eng_Latn"]) if b["sid"][0] == sid).vectors("codes")[0]
    return {
        "sentence": sentence["text"][0],
        "characters": f"{sentence['char_start'][0]} to {sentence['char_end'][0]} of document {sentence['doc_id'][0]!r}",
        "embedding": f"[{', '.join(f'{value:.3f}' for value in vector[:4])}, ...] of {len(vector)} half floats",
        "codes": json.dumps(code.tolist()),
    }

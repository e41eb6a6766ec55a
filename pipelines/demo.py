"""``lcm-data demo``: the whole road on the texts and the small space that come with the package.

Documents (six stories, and six pages of help of the kind that the space knows) become sentences, vectors and codes; a
small concept model learns them in all languages but one, and goes on with those of that one; decoders say what it wrote
in two others. Nothing is downloaded.
"""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import as_file, files
from typing import Any

from lcm_data.corpus import open_corpus
from lcm_data.decode import DecoderOptions, load_decoder
from lcm_data.encode import EncoderOptions, load_encoder
from lcm_data.errors import UsageError
from lcm_data.search import CorpusSearch
from lcm_data.sonar.files import find_model
from lcm_data.sonar.hub import MINI
from lcm_data.store.files import LocalFiles, open_files
from pipelines import decode, encode, generate, normalize, quantize, segment
from pipelines.stage import Report

LEVELS, UNITS = 8, 32
UNSEEN = "fra_Latn"
"""The language the concept model does not learn from, and continues."""
SAID_IN = ("eng_Latn", "deu_Latn")
QUERY = "Print just a few pages of the document."
SAID = "Click the button to open the file."
STEPS = 200

_PAGE, _PREFIX, _SHOWN = "wireless", 4, 3


@dataclass(frozen=True)
class DemoResult:
    """Reports of the stages, a row a language, a sentence on its way, a page written on, what a search finds, and one
    vector said in all languages.
    """

    reports: list[Report]
    languages: list[dict[str, Any]]
    example: dict[str, Any]
    page: list[dict[str, Any]]
    neighbours: list[dict[str, Any]]
    said: list[dict[str, Any]]
    corpus: str


def run(
    corpus: str, overwrite: bool = False, say: Callable[[str], None] | None = print, steps: int = STEPS
) -> DemoResult:
    """Go the whole road from the embedded documents to ``corpus`` and, beside it, to what a model wrote.

    ``say`` is told what begins; with None nothing reports progress. ``steps`` are those of the model's training.

    Raises:
        UsageError: ``corpus`` is not a local folder.
    """
    quiet, say = say is None, say or (lambda line: None)
    target = open_files(corpus)
    if not isinstance(target, LocalFiles):
        raise UsageError(f"the demo writes to a local folder, got {corpus!r}.")
    how: dict[str, Any] = {"corpus": corpus, "overwrite": overwrite}
    say("1/7  segment: documents to sentences")
    with as_file(files("lcm_data") / "assets") as assets:
        inputs = [str(assets / "demo"), str(assets / "help")]
        reports = [segment.run(segment.SegmentConfig(inputs=inputs, validation=0, test=0, **how))]
    say(f"2/7  encode: sentences to embeddings, by {MINI}, the small SONAR space that comes with the package")
    reports.append(encode.run(encode.EncodeConfig(model=MINI, **how)))
    say("3/7  normalize: the scale of the space")
    normalize.run(normalize.NormalizeConfig(**how))
    say(f"4/7  quantize: embeddings to {LEVELS} codes of {UNITS} units each")
    reports.append(quantize.run(quantize.QuantizeConfig(levels=LEVELS, units=UNITS, **how)))
    say(f"5/7  train: a small Two-Tower model learns the documents in every language but {UNSEEN}")
    _train(corpus, overwrite, steps, quiet)
    say(f"6/7  generate: it goes on with those of {UNSEEN}, from their first {_PREFIX} sentences")
    written = f"{corpus}-written"
    how = {"prefixes": corpus, "prefix_sentences": _PREFIX, "max_new": _SHOWN, "min_new": _SHOWN, "langs": [UNSEEN]}
    how |= {"splits": None, "repetition_cosine": None}
    generate.run(generate.GenerateConfig(checkpoint=_run_of(corpus), corpus=written, overwrite=overwrite, **how))
    say(f"7/7  decode: what it wrote, said in {' and '.join(SAID_IN)}")
    for lang in SAID_IN:
        decode.run(
            decode.DecodeConfig(
                embeddings=written, corpus=f"{written}-{lang}", lang=lang, max_tokens=64, overwrite=overwrite
            )
        )
    return DemoResult(
        reports, _languages(corpus), _example(corpus), _page(corpus), _neighbours(corpus), _said(), corpus
    )


def _run_of(corpus: str) -> str:
    return f"{corpus}-model"


def _train(corpus: str, overwrite: bool, steps: int, quiet: bool) -> None:
    from pipelines.train import TrainJob
    from pipelines.train import run as train

    langs = [lang for lang in open_corpus(corpus).embeddings.langs if lang != UNSEEN]
    settings: dict[str, dict[str, Any]] = {
        "model": {"dropout": 0.0},
        "data": {"sources": [{"path": corpus, "langs": langs}], "batch_concepts": 512, "max_len": 64},
        "optim": {"lr": 2e-3},
        "train": {"max_steps": steps, "valid_every": 0, "checkpoint_every": steps, "metrics": ["jsonl"]},
    }
    logging.getLogger("lcm_data.train").setLevel(logging.ERROR)
    how: dict[str, Any] = {"preset": "tiny", "overwrite": overwrite, "quiet": quiet}
    train(TrainJob(variant="two-tower", out=_run_of(corpus), settings=settings, **how))


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


def _page(corpus: str) -> list[dict[str, Any]]:
    """The end of a prefix, and what came next: as its author wrote it, and what the model wrote, said elsewhere."""
    (page,) = (d for d in open_corpus(corpus).embeddings.documents(langs=[UNSEEN]) if d.doc_id == _PAGE)
    read, follows = page["text"][_PREFIX - 2 : _PREFIX], page["text"][_PREFIX : _PREFIX + _SHOWN]
    said = []
    for lang in SAID_IN:
        documents = open_corpus(f"{corpus}-written-{lang}").segments.documents(langs=[lang])
        said.append(next((d["text"] for d in documents if d.doc_id == _PAGE), []))
    rows = [{"": "read", UNSEEN: text, **dict.fromkeys(SAID_IN, "")} for text in read]
    rows += [
        {"": "next", UNSEEN: text, **dict(zip(SAID_IN, texts, strict=True))}
        for text, *texts in itertools.zip_longest(follows, *said, fillvalue="")
    ]
    return rows


def _neighbours(corpus: str) -> list[dict[str, Any]]:
    """For each language the sentence nearest to a query, by cosine."""
    encoder = load_encoder(EncoderOptions(model=MINI))
    query_D = encoder.embed(encoder.prepare([QUERY], "eng_Latn"))[0]
    search = CorpusSearch(corpus)
    best = [search.search(query_D, 1, langs=[lang]).hits[0] for lang in search.data.langs]
    rows = [{"language": hit.lang, "cosine": round(hit.score, 2), "nearest sentence": hit.text} for hit in best]
    return sorted(rows, key=lambda row: -row["cosine"])


def _said() -> list[dict[str, Any]]:
    """The vector of a sentence, said in every language of the space."""
    encoder = load_encoder(EncoderOptions(model=MINI))
    decoder = load_decoder(DecoderOptions(model=MINI, max_tokens=48))
    emb_ND = encoder.embed(encoder.prepare([SAID], "eng_Latn"))
    langs = find_model(MINI).languages
    return [{"language": lang, "sentence": decoder.decode(emb_ND, lang).texts[0]} for lang in langs]

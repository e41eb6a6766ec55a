"""Texts to what a SONAR model trains on: a tokenizer, and arrays of sentences as tokens and of who translates whom.

The prepared folder is all that training needs, so it can be copied to another machine; ``lcm_models.sonar.prepared``
reads it. A sentence is stored once however many translations it has. Pairs whose English (or first) side is the same up
to case, digits and punctuation are held out together, or a test would hold near copies of what was learned.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import orjson

from lcm_data.corpus import open_corpus
from lcm_data.documents.inputs import file_format
from lcm_data.errors import InputError, UsageError
from lcm_data.quality.rows import line_rows, table_rows
from lcm_data.sonar.fingerprint import file_sha256
from lcm_data.sonar.tokenizer import SonarTokenizer
from lcm_data.sonar.train_tokenizer import train_tokenizer
from lcm_data.store.manifest import MANIFEST_PATH
from lcm_models.sonar.config import PrepareConfig
from lcm_models.sonar.prepared import ABOUT, TEST, TOKENIZER, Prepared, open_prepared

log = logging.getLogger("lcm_data.train")

_PIVOT = "eng_Latn"
_BLOCK = 10_000
_IRRELEVANT = re.compile(r"[\W\d_]+")


def prepare(config: PrepareConfig, folder: str | Path) -> Prepared:
    """Make the folder, or open it if it was made of the same texts and settings.

    Raises:
        InputError: the texts cannot be read, or hold nothing that can be trained on.
        UsageError: the folder was made of something else.
    """
    target = Path(folder)
    identity = {
        "settings": config.model_dump(mode="json"),
        "inputs": {uri: input_fingerprint(uri) for uri in _inputs(config)},
    }
    if (target / ABOUT).is_file():
        stored = json.loads((target / ABOUT).read_text("utf-8"))
        if {name: stored.get(name) for name in identity} != identity:
            raise UsageError(f"{target} was prepared from other texts or settings. Give another folder, or delete it.")
        return open_prepared(target)
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    texts = _read(config)
    if not texts.pairs and not texts.alone:
        raise InputError(
            "the texts hold no pair of the languages asked for, and no plain sentence: nothing to train on."
        )
    _write_tokenizer(config, texts, partial / TOKENIZER)
    counts = _write_arrays(config, texts, partial)
    about = {
        **identity,
        "languages": texts.langs,
        "counts": counts,
        "tokenizer_sha256": file_sha256(partial / TOKENIZER),
    }
    (partial / ABOUT).write_text(json.dumps(about, indent=1), "utf-8")
    partial.rename(target)
    return open_prepared(target)


@dataclass
class _Texts:
    """Every sentence once, and pairs and single sentences as numbers of them, by split."""

    langs: list[str]
    numbers: dict[tuple[str, str], int] = field(default_factory=dict)
    pairs: dict[tuple[int, int], str] = field(default_factory=dict)
    """In their order, with their split."""
    alone: dict[int, None] = field(default_factory=dict)

    def number(self, lang: str, text: str) -> int:
        return self.numbers.setdefault((lang, text), len(self.numbers))


def _inputs(config: PrepareConfig) -> tuple[str, ...]:
    return (*config.pairs, *config.text, *((config.tokenizer,) if config.tokenizer else ()))


def input_fingerprint(uri: str) -> str:
    """The sha256 of a local file, or of what names the shards of a corpus; nothing of a URL or a glob."""
    path = Path(uri)
    if path.is_dir():  # a corpus: its manifest names every shard with its hash
        path = path / "segments" / MANIFEST_PATH
    return file_sha256(path) if path.is_file() else ""


def _read(config: PrepareConfig) -> _Texts:
    texts, seen = _Texts([]), Counter[str]()
    wanted = None if config.langs is None else set(config.langs)
    for uri in config.pairs:
        rows = line_rows(uri) if "*" in uri or file_format(uri) is None else table_rows(uri)
        for row in rows:
            sides = {lang: " ".join(text.split()) for lang, text in row.items() if text and text.strip()}
            sides = {lang: text for lang, text in sides.items() if wanted is None or lang in wanted}
            for first, second in _combinations(sides):
                numbers = texts.number(first, sides[first]), texts.number(second, sides[second])
                texts.pairs.setdefault(numbers, _split(config, sides[first]))
                seen[first] += 1
                seen[second] += 1
    held_out = {number for pair, split in texts.pairs.items() if split != "train" for number in pair}
    for uri in config.text:
        segments = open_corpus(uri).segments
        langs = [lang for lang in segments.langs if wanted is None or lang in wanted]
        for batch in segments.batches(langs=langs, columns=["text"]):
            for text in batch["text"]:
                number = texts.number(batch.lang, " ".join(text.split()))
                if number not in held_out:
                    texts.alone[number] = None
            seen[batch.lang] += len(batch)
    if wanted is not None and (missing := sorted(wanted - seen.keys())):
        raise UsageError(f"no text in {', '.join(missing)}. There is: {', '.join(sorted(seen))}.")
    texts.langs = sorted(seen)
    return texts


def _combinations(sides: dict[str, str]) -> Iterator[tuple[str, str]]:
    """The pairs of a row: English with every other language, without English neighbours."""
    langs = sorted(sides)
    if _PIVOT in sides:
        yield from ((_PIVOT, lang) for lang in langs if lang != _PIVOT)
    else:
        yield from itertools.pairwise(langs)


def place_of(text: str) -> float:
    """A number from 0 to 1 that a text has up to case, digits and punctuation: near copies are held out together."""
    key = _IRRELEVANT.sub(" ", text.casefold()).strip() or text
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little") / 2**64


def _split(config: PrepareConfig, text: str) -> str:
    place = place_of(text)
    if place < config.test_share:
        return "test"
    return "valid" if place < config.test_share + config.valid_share else "train"


def _write_tokenizer(config: PrepareConfig, texts: _Texts, path: Path) -> None:
    if config.tokenizer:
        shutil.copyfile(config.tokenizer, path)
        return
    by_lang: dict[str, list[str]] = {lang: [] for lang in texts.langs}
    for lang, text in texts.numbers:
        by_lang[lang].append(text)
    shares = {lang: len(found) ** (1 / config.temperature) for lang, found in by_lang.items() if found}
    total = sum(shares.values())
    chosen: list[str] = []
    for lang, share in shares.items():
        num = min(len(by_lang[lang]), round(config.tokenizer_texts * share / total))
        order = np.random.default_rng(0).permutation(len(by_lang[lang]))[:num]
        chosen += [by_lang[lang][row] for row in order]
    log.info("training a tokenizer of %d pieces on %d sentences", config.vocab_size, len(chosen))
    path.write_bytes(train_tokenizer(chosen, config.vocab_size, normalization="identity", num_threads=1))


def _write_arrays(config: PrepareConfig, texts: _Texts, folder: Path) -> dict[str, int]:
    """Tokens of the sentences that are not too long, by language, and the pairs of each split."""
    tokenizer = SonarTokenizer(folder / TOKENIZER, languages=texts.langs, max_tokens=1 << 30, threads=2)
    small = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32
    order = sorted(texts.numbers, key=lambda key: key[0])
    place_S = np.full(len(order), -1, np.int64)  # where each sentence is stored, by its number; -1: too long
    ids, lengths, stored = [], [], 0
    for lang, group in itertools.groupby(order, key=lambda key: key[0]):
        while block := list(itertools.islice(group, _BLOCK)):
            tokens = tokenizer.encode([text for _, text in block], lang)
            fits = tokens.lengths <= config.max_tokens
            numbers = np.array([texts.numbers[key] for key in block])[fits]
            place_S[numbers] = stored + np.arange(len(numbers))
            stored += len(numbers)
            ids.append(tokens.ids[np.repeat(fits, tokens.lengths)].astype(small))
            lengths.append(tokens.lengths[fits])
    np.save(folder / "tokens.npy", np.concatenate(ids))
    np.save(folder / "ends.npy", np.cumsum(np.concatenate(lengths), dtype=np.int64))
    counts = {"sentences": stored, "tokens": sum(map(len, ids)), "too_long": len(order) - stored}
    for split in ("train", "valid"):
        found = [pair for pair, its in texts.pairs.items() if its == split]
        pairs_N2 = place_S[np.array(found, np.int64).reshape(-1, 2)]
        pairs_N2 = pairs_N2[(pairs_N2 >= 0).all(axis=1)].astype(np.uint32)
        np.save(folder / f"{split}.npy", pairs_N2)
        counts[f"{split}_pairs"] = len(pairs_N2)
    alone_N = np.sort(place_S[np.array(list(texts.alone), np.int64)])
    np.save(folder / "alone.npy", alone_N[alone_N >= 0].astype(np.uint32))
    counts["alone"] = int((alone_N >= 0).sum())
    return counts | {"test_pairs": _write_test(texts, folder / TEST)}


def _write_test(texts: _Texts, path: Path) -> int:
    """The held-out translations as a table with a column for each language, a row for each first side; how many."""
    keys = list(texts.numbers)
    rows: dict[tuple[str, str], dict[str, str]] = {}
    pairs = [pair for pair, split in texts.pairs.items() if split == "test"]
    for first, second in pairs:
        rows.setdefault(keys[first], dict([keys[first]])).setdefault(*keys[second])
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows.values()))
    return len(pairs)

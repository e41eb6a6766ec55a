"""The embedded sentences of one language: made from texts by an encoder, or sampled from the embeddings of a corpus.

Which texts belong together is known by their ``ids``: equal ids in two languages are translations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lcm_data import schema
from lcm_data.corpus import StageData
from lcm_data.encode.base import Encoder
from lcm_data.quantize.sample import splitmix64
from lcm_data.quantize.vectors import valid_rows
from lcm_data.store.shard import open_shard

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Sentences:
    """N sentences of one language with their vectors, all finite and not zero.

    Attributes:
        lang: FLORES-200 code.
        ids: uint64 [N], ascending, each once.
        texts: None if the corpus does not keep them.
        emb_ND: float32, or float16 from a corpus that stores so.
        num_tokens, truncated, num_unknown: as in ``lcm_data.encode.Prepared``; ``num_unknown`` is None where a corpus
            does not say.
        num_invalid: sentences left out because their vector was not finite, or zero.
    """

    lang: str
    ids: Array
    texts: tuple[str, ...] | None
    emb_ND: Array
    num_tokens: Array
    truncated: Array
    num_unknown: Array | None
    num_invalid: int = 0

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Array) -> Sentences:
        """Some of the sentences, in the order of ``rows`` (indices), which must be ascending."""
        return Sentences(
            self.lang,
            self.ids[rows],
            None if self.texts is None else tuple(self.texts[row] for row in rows),
            self.emb_ND[rows],
            self.num_tokens[rows],
            self.truncated[rows],
            None if self.num_unknown is None else self.num_unknown[rows],
        )

    def first(self, num: int, seed: int) -> Sentences:
        """Up to ``num`` sentences (0: all) by a hash of their ids: of translations the same ones in every language."""
        return self.take(lowest(self.ids, num, seed))


def priorities(ids: Array, seed: int) -> Array:
    """A random uint64 [N] for each id, always the same."""
    start = splitmix64(np.array([seed % 2**64], np.uint64))
    return splitmix64(ids.astype(np.uint64) ^ start)


def lowest(ids: Array, num: int, seed: int) -> Array:
    """Indices, ascending, of the ``num`` ids (0: all) with the smallest priority."""
    order = np.argsort(priorities(ids, seed), kind="stable")
    return np.sort(order[:num] if num else order)


def embed_texts(encoder: Encoder, lang: str, ids: Array, texts: Sequence[str]) -> Sentences:
    """Encode texts; equal ones once.

    Raises:
        UnknownNameError: the encoder does not know the language.
    """
    numbers: dict[str, int] = {}
    inverse = np.array([numbers.setdefault(text, len(numbers)) for text in texts], np.int64)
    prepared = encoder.prepare(list(numbers), lang)
    emb_ND = encoder.embed(prepared)[inverse]
    valid = np.flatnonzero(valid_rows(emb_ND))
    every = Sentences(
        lang,
        np.asarray(ids, np.uint64),
        tuple(texts),
        emb_ND,
        prepared.num_tokens[inverse],
        prepared.truncated[inverse],
        prepared.num_unknown[inverse],
    )
    if len(valid) == len(texts):
        return every
    kept = every.take(valid)
    return Sentences(**{**vars(kept), "num_invalid": len(texts) - len(valid)})


def corpus_sentences(data: StageData, lang: str, num: int, seed: int) -> Sentences:
    """Up to ``num`` sentences (0: all) of one language of an ``embeddings`` stage, chosen by a hash of their ids.

    The ids of all rows are read, vectors only from row groups that hold a chosen one.
    """
    tokens, unknown = schema.TOKEN_COLUMNS
    names = [name for name in ("sid", "text", "emb", "truncated", tokens, unknown) if name in data.schema.names]
    places, ids = _row_groups(data, lang)
    all_ids = np.concatenate(ids)
    chosen = np.zeros(len(all_ids), bool)
    chosen[lowest(all_ids, num, seed)] = True
    tables, start = [], 0
    for (path, group), group_ids in zip(places, ids, strict=True):
        rows = np.flatnonzero(chosen[start : start + len(group_ids)])
        start += len(group_ids)
        if len(rows):
            with open_shard(data.files, path) as shard:
                tables.append(shard.read_row_group(group, columns=names).take(rows))
    columns = {
        name: [value for table in tables for value in table[name].to_pylist()] for name in names if name != "emb"
    }
    sids = np.array(columns["sid"], np.int64).view(np.uint64)
    order = np.argsort(sids)
    every = Sentences(
        lang,
        sids,
        tuple(columns["text"]) if "text" in columns else None,
        np.concatenate([schema.vectors(table["emb"]) for table in tables]),
        np.array(columns[tokens], np.int32),
        np.array(columns["truncated"], bool),
        np.array(columns[unknown], np.int32) if unknown in columns else None,
    )
    return every.take(order)


def _row_groups(data: StageData, lang: str) -> tuple[list[tuple[str, int]], list[Array]]:
    """Where the row groups of a language are (shard and number), and the ids in each."""
    places, ids = [], []
    for path in data.shards([lang]):
        with open_shard(data.files, path) as shard:
            for group in range(shard.num_row_groups):
                places.append((path, group))
                ids.append(shard.read_row_group(group, columns=["sid"])["sid"].to_numpy().view(np.uint64))
    return places, ids

"""Prompt and answer documents of two corpora that share ids, as one document each.

Where the answers are is found once, from their ids alone, and held as a dict: about 200 bytes an answer.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lcm_data.errors import UsageError
from lcm_data.space import check_same_space, has_other_weights
from lcm_data.store.reader import Kept
from lcm_data.store.shard import parse_shard_path
from lcm_models.data.config import SourceConfig
from lcm_models.data.corpus import CorpusSource
from lcm_models.data.documents import Array, Documents, Source, SourceFacts, digest
from lcm_models.data.nested import join
from lcm_models.data.warn import log

_BLOCKS_HELD = 8
"""Blocks of answers held. Corpora made from the same files need one or two at a time."""


class PairSource:
    """Documents of a corpus of prompts, each followed by the document of the same id of a corpus of answers.

    Prompt and answer are of the same language unless ``answer_langs`` says in which the answers are.

    Raises:
        UsageError: a prompt has no answer or several, or the corpora differ in width or codebook.
        SpaceError: the corpora are of two embedding spaces.
    """

    def __init__(self, config: SourceConfig, with_codes: bool = False) -> None:
        assert config.answers is not None
        self._prompts = CorpusSource(config, with_codes)
        of_answers = config.model_copy(update={"path": config.answers, "langs": config.answer_langs or config.langs})
        self._answers = CorpusSource(of_answers, with_codes)
        check_same_source(self._prompts.facts, self._answers.facts)
        self._by_lang = config.answer_langs is None
        self._place = self._index(config)
        self._blocks: Kept[tuple[int, int], Documents] = Kept(_BLOCKS_HELD, lambda key: self._answers.read(*key))
        self._check_all_answered(config)
        self.facts = self._joined_facts()

    @property
    def num_shards(self) -> int:
        return self._prompts.num_shards

    def num_blocks(self, shard: int) -> int:
        return self._prompts.num_blocks(shard)

    def read(self, shard: int, block: int) -> Documents:
        prompts, ids = self._prompts.read_with_ids(shard, block)
        lang = self._lang(self._prompts, shard)
        keys = [self._key(lang, doc_id) for doc_id in ids]
        answered = [index for index, key in enumerate(keys) if key in self._place]
        found: list[tuple[Array, Array | None]] = []
        for index in answered:
            answer_shard, answer_block, place = self._place[keys[index]]
            documents = self._blocks[answer_shard, answer_block]
            start, stop = documents.span(place)
            codes_NL = None if documents.codes_NL is None else documents.codes_NL[start:stop]
            found.append((documents.x_ND[start:stop], codes_NL))
        return join(_subset(prompts, answered), _concatenated(found, prompts))

    def _index(self, config: SourceConfig) -> dict[str, tuple[int, int, int]]:
        """Shard, block and number in it of each answer."""
        place: dict[str, tuple[int, int, int]] = {}
        source = self._answers
        for shard in range(source.num_shards):
            lang = self._lang(source, shard)
            for block in range(source.num_blocks(shard)):
                for number, doc_id in enumerate(source.ids(shard, block)):
                    key = self._key(lang, doc_id)
                    if key in place:
                        raise UsageError(
                            f"{config.answers} has several answers with the id {doc_id!r}. Choose one language with "
                            "answer_langs, or give the answers ids of their own."
                        )
                    place[key] = (shard, block, number)
        return place

    def _check_all_answered(self, config: SourceConfig) -> None:
        missing, total, first = 0, 0, ""
        for shard in range(self._prompts.num_shards):
            lang = self._lang(self._prompts, shard)
            for block in range(self._prompts.num_blocks(shard)):
                for doc_id in self._prompts.ids(shard, block):
                    total += 1
                    if self._key(lang, doc_id) not in self._place:
                        missing, first = missing + 1, first or doc_id
        if missing == total or (missing and config.unmatched == "refuse"):
            raise UsageError(
                f"{missing:,} of {total:,} prompts of {config.path} have no answer in {config.answers} (the first is "
                f"{first!r}). Answers need the same ids and splits; set answer_langs for another language, or "
                "unmatched to 'skip'."
            )
        if missing:
            log.warning("%s: %d of %d prompts have no answer and are left out", config.path, missing, total)

    def _joined_facts(self) -> SourceFacts:
        prompts, answers = self._prompts.facts, self._answers.facts
        return replace(
            prompts,
            dtype=np.result_type(prompts.dtype, answers.dtype),
            num_concepts=prompts.num_concepts + answers.num_concepts,
            identity=digest(prompts.identity, answers.identity),
            is_pairs=True,
        )

    def _lang(self, source: CorpusSource, shard: int) -> str:
        return parse_shard_path(source.shards[shard])[1] if self._by_lang else ""

    def _key(self, lang: str, doc_id: str) -> str:
        return f"{lang}\x1f{doc_id}"


def check_same_source(first: SourceFacts, second: SourceFacts) -> None:
    """Refuse to bring sources together whose vectors or codes do not mean the same, and warn where they may not.

    Raises:
        UsageError: they differ in width or codebook.
        SpaceError: they are of two embedding spaces.
    """
    advice = "Encode one of them again with the encoder of the other."
    check_same_space(first.provenance, second.provenance, first.name, second.name, advice)
    if first.dim != second.dim:
        raise UsageError(
            f"{first.name} has concepts of {first.dim} dimensions, {second.name} of {second.dim}. {advice}"
        )
    if first.codebook != second.codebook or first.num_levels != second.num_levels:
        raise UsageError(
            f"the codes of {first.name} and {second.name} are of two codebooks. Make both with one: "
            f"'lcm-data quantize {second.name} --codebook {first.name}/codebook --overwrite'."
        )
    if has_other_weights(first.provenance, second.provenance):
        log.warning(
            "%s and %s were encoded with different weights under the name of one space: unless one encoder was made "
            "for the space of the other, %s", first.name, second.name, advice[0].lower() + advice[1:],
        )  # fmt: skip


def _subset(documents: Documents, chosen: list[int]) -> Documents:
    if len(chosen) == len(documents):
        return documents
    spans = [documents.span(index) for index in chosen]
    rows = np.concatenate([np.arange(*span) for span in spans] or [np.zeros(0, np.int64)])
    codes_NL = None if documents.codes_NL is None else documents.codes_NL[rows]
    ends = np.cumsum([stop - start for start, stop in spans], dtype=np.int64)
    return Documents(documents.x_ND[rows], ends, codes_NL)


def _concatenated(found: list[tuple[Array, Array | None]], like: Documents) -> Documents:
    if not found:
        codes_NL = None if like.codes_NL is None else like.codes_NL[:0]
        return Documents(like.x_ND[:0], np.zeros(0, np.int64), codes_NL)
    x_ND = np.concatenate([x for x, _ in found])
    codes = [codes for _, codes in found if codes is not None]
    ends = np.cumsum([len(x) for x, _ in found], dtype=np.int64)
    return Documents(x_ND, ends, np.concatenate(codes) if codes else None)


class WithPromptEnd:
    """A source of pairs with a special concept, such as that of "[MODEL]:", after each prompt."""

    def __init__(self, source: Source, vector: Array, codes: Array | None) -> None:
        self._source, self._vector, self._codes = source, vector, codes
        self.facts = replace(source.facts, identity=digest(source.facts.identity, vector.tolist()))

    @property
    def num_shards(self) -> int:
        return self._source.num_shards

    def num_blocks(self, shard: int) -> int:
        return self._source.num_blocks(shard)

    def read(self, shard: int, block: int) -> Documents:
        read = self._source.read(shard, block)
        assert read.num_prompt is not None
        starts = np.concatenate([[0], read.ends[:-1]]).astype(np.int64)
        places = (starts + read.num_prompt)[: len(read)]
        x_ND = np.insert(read.x_ND, places, self._vector.astype(read.x_ND.dtype), axis=0)
        codes_NL = None
        if read.codes_NL is not None and self._codes is not None:
            codes_NL = np.insert(read.codes_NL, places, self._codes, axis=0)
        return Documents(x_ND, read.ends + np.arange(1, len(read) + 1), codes_NL, read.num_prompt + 1)

"""The loader a trainer iterates: batches from a mixture of corpora, made ahead by a thread, resumed exactly.

A batch is a function of the config, the rows of the corpora and its number. The state of a loader is where its group
of batches begins and how many of them were given: a few numbers, whatever is under way in the thread.

Shapes: B rows, S concepts (columns of a row), D concept width, L code levels.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch

from lcm_data.end_of_text import Concept
from lcm_data.errors import InputError, UsageError
from lcm_data.normalize import Normalizer
from lcm_data.quantize.codebook import Codebook
from lcm_data.tables import resolve
from lcm_models.data.ahead import ahead
from lcm_models.data.artefacts import check_concept, codes_of, find_codebook, find_end_of_text, find_normalizer
from lcm_models.data.config import DataConfig
from lcm_models.data.documents import Array, Source, digest
from lcm_models.data.mixture import Mixture
from lcm_models.data.order import Order, Stream
from lcm_models.data.pairs import WithPromptEnd, check_same_source
from lcm_models.data.windows import Limits, Window
from lcm_models.model import PADDING, Batch

SOURCES = {
    "corpus": "lcm_models.data.corpus:CorpusSource",
    "nested": "lcm_models.data.nested:NestedSource",
    "pairs": "lcm_models.data.pairs:PairSource",
}
"""Kinds of sources: classes with the members of ``lcm_models.data.documents.Source``, made of (config, with_codes)."""

_VERSION = 1

Item: TypeAlias = tuple[Batch, dict[str, Any]]
"""A batch, and the state after it."""


class ConceptLoader:
    """Batches of concepts for process ``rank`` of ``world_size``.

    Iterating an endless loader goes on where the last batch was given; otherwise each ``iter`` is one pass. Concepts
    are raw: the model normalises. Only one iterator at a time.

    Raises:
        InputError: a source is no corpus, unfinished, or has no rows of the languages and splits.
        UsageError: settings or sources do not fit (width, codes, end of text).
        SpaceError: sources of two embedding spaces.
    """

    def __init__(self, config: DataConfig, rank: int = 0, world_size: int = 1) -> None:
        if not 0 <= rank < world_size:
            raise UsageError(f"rank {rank} of {world_size} processes: allowed are 0 to {world_size - 1}.")
        self.config, self._rank, self._world_size = config, rank, world_size
        self._sources = open_sources(config)
        facts = [source.facts for source in self._sources]
        self.dim: int = facts[0].dim
        """Width D of the concepts."""
        self.provenance: Mapping[str, str] = facts[0].provenance
        """Who made the concepts: ``encoder``, ``encoder_revision``, ``space``, ``dim``."""
        self.space: str = facts[0].provenance.get("space", "")
        """Embedding space of the concepts, "" if unknown."""
        self.num_levels: int = facts[0].num_levels
        """Levels L of the codes, 0 without."""
        self.num_concepts: int = sum(each.num_concepts for each in facts)
        """Sentences of all sources: of one epoch of all processes."""
        self._end = find_end_of_text(config.end_of_text, facts)
        self._end_codes = codes_of(self._end, self.codebook()) if self._end and config.with_codes else None
        self._stored = np.result_type(*(each.dtype for each in facts))
        self._has_targets = any(each.is_pairs for each in facts)
        self._identity = self._make_identity()
        self._mixture = self._new_mixture()
        self._state = self._first_state()
        self._iterating = False

    def _new_mixture(self) -> Mixture:
        config = self.config
        orders = [
            Order(
                config.seed, number, self._rank, self._world_size, config.shuffle, config.shuffle_shards,
                config.shuffle_blocks,
            )
            for number in range(len(self._sources))
        ]  # fmt: skip
        streams = [Stream(source, order, config.endless) for source, order in zip(self._sources, orders, strict=True)]
        pairs = zip(config.sources, self._sources, strict=True)
        weights = [own.weight or float(max(1, source.facts.num_concepts)) for own, source in pairs]
        return Mixture(config, streams, weights, Limits(config.max_len, config.min_len, self._end is not None))

    def normalizer(self, file: str | None = None) -> Normalizer:
        """The normaliser in ``file``, or that of the first source.

        Raises:
            UsageError: there is none, or it is for another width.
            SpaceError: it was fitted in another embedding space.
        """
        return find_normalizer(self._sources[0].facts, file)

    def codebook(self, folder: str | None = None) -> Codebook:
        """The codebook in ``folder``, or that of the first source, if the codes were made with it.

        Raises:
            CheckpointError, UsageError: there is none, or it is another.
        """
        return find_codebook(self._sources[0].facts, folder)

    # -- state -----------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Where the next batch begins: small, JSON values, of this process."""
        return {"version": _VERSION, "identity": self._identity, **self._state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another loader stood; the next ``iter`` begins there.

        Raises:
            UsageError: it read other data or with other settings, or there were more or fewer processes.
        """
        if state.get("version") != _VERSION:
            raise UsageError(f"the loader's state has version {state.get('version')}, this program reads {_VERSION}.")
        theirs = dict(state["identity"])
        for name, own in self._identity.items():
            if theirs.get(name) != own:
                raise UsageError(
                    f"the run to resume had data.{name} = {theirs.get(name)}, now it is {own}. Resume with what "
                    "it had, or begin a new run from its weights."
                )
        self._state = {"begin": dict(state["begin"]), "batch": int(state["batch"])}

    @property
    def counts(self) -> dict[str, list[int]]:
        """Up to the present group, of each source: concepts given and documents left out as too short."""
        begin = self._state["begin"]
        return {name: list(begin[name]) for name in ("concepts", "short_documents")}

    def _first_state(self) -> dict[str, Any]:
        return {"begin": self._new_mixture().state(), "batch": 0}

    def _make_identity(self) -> dict[str, Any]:
        """What decides the batches, by the name of the setting."""
        specials = digest(*(None if each is None else each.vector.tolist() for each in [self._end]))
        return {
            **self.config.identity(),
            "end_of_text": specials if self._end else None,
            "sources": digest(self.config.identity()["sources"], [source.facts.identity for source in self._sources]),
            "world_size": self._world_size,
            "rank": self._rank,
        }

    # -- batches ---------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Batch]:
        if self._iterating:
            raise UsageError("this loader has an open iterator: close it, or make another loader.")
        begin, self._iterating = self._state, True
        try:
            with contextlib.closing(ahead(self._produce(begin), self.config.prefetch)) as items:
                for batch, state in items:
                    self._state = state
                    yield batch
        finally:
            self._iterating = False
            if not self.config.endless:
                self._state = self._first_state()

    def _produce(self, state: dict[str, Any]) -> Iterator[Item]:
        """Batches from a state on, each with the state after it."""
        mixture, given = self._mixture, state["batch"]
        mixture.restore(state["begin"])
        while (group := mixture.group()) is not None:
            for number, rows in enumerate(group.plans):
                if number >= given:
                    yield self._assemble(rows), {"begin": group.begin, "batch": number + 1}
            given = 0

    def _assemble(self, rows: list[list[Window]]) -> Batch:
        """Copy the concepts of a batch from the blocks they are in."""
        lengths = [sum(len(window) for window in row) for row in rows]
        num_columns = self.config.max_len if self.config.pack else max(lengths)
        shape = (len(rows), num_columns)
        x_BSD = self._empty(shape)
        doc_BS = np.full(shape, PADDING, np.int64)
        target_BS = np.zeros(shape, bool) if self._has_targets else None
        codes_BSL = np.zeros((*shape, self.num_levels), np.int32) if self.config.with_codes else None
        for row, windows in enumerate(rows):
            column = 0
            for number, window in enumerate(windows):
                stop = column + len(window)
                self._copy(window, x_BSD[row, column:stop], None if codes_BSL is None else codes_BSL[row, column:stop])
                doc_BS[row, column:stop] = number
                if target_BS is not None:
                    target_BS[row, column + window.num_prompt : stop] = True
                column = stop
            x_BSD[row, column:] = 0
        arrays = (x_BSD, doc_BS, target_BS, codes_BSL)
        return Batch(*(None if array is None else self._tensor(array) for array in arrays))  # type: ignore[arg-type]

    def _copy(self, window: Window, x_SD: Array, codes_SL: Array | None) -> None:
        num = window.stop - window.start
        documents = window.documents
        x_SD[:num] = documents.x_ND[window.start : window.stop]
        if codes_SL is not None:
            assert documents.codes_NL is not None
            codes_SL[:num] = documents.codes_NL[window.start : window.stop]
        if window.has_end:
            assert self._end is not None
            x_SD[num] = self._end.vector
            if codes_SL is not None:
                codes_SL[num] = self._end_codes

    def _empty(self, shape: tuple[int, int]) -> Array:
        """Concepts to fill, as they are stored, in pinned memory if they can stay there."""
        if not self.config.pin_memory or self._converts:
            return np.empty((*shape, self.dim), self._stored)
        kind = torch.float16 if self._stored == np.float16 else torch.float32
        array: Array = torch.empty((*shape, self.dim), dtype=kind, pin_memory=True).numpy()
        return array

    @property
    def _converts(self) -> bool:
        return self.config.dtype not in ("stored", self._stored.name)

    def _tensor(self, array: Array) -> torch.Tensor:
        tensor = torch.from_numpy(array)
        if array.dtype == self._stored and self._converts:
            tensor = tensor.to(getattr(torch, self.config.dtype))  # PyTorch is twice as fast at this as numpy
        return tensor.pin_memory() if self.config.pin_memory and not tensor.is_pinned() else tensor


def open_sources(config: DataConfig) -> Sequence[Source]:
    """The sources of a mixture, which belong together.

    Raises:
        InputError, UsageError, SpaceError: one cannot be read, or they do not fit each other.
    """
    sources: list[Source] = []
    for own in config.sources:
        kind = "pairs" if own.kind == "corpus" and own.answers else own.kind
        source: Source = resolve(SOURCES, kind, "kind of source")(own, config.with_codes)
        if sources:
            check_same_source(sources[0].facts, source.facts)
        if not source.facts.num_concepts:
            raise InputError(f"{own.path} holds no concepts of the split {', '.join(own.splits or ('(all)',))}.")
        sources.append(source)
    if config.end_of_prompt is None:
        return sources
    marker = Concept.load(config.end_of_prompt)
    check_concept(marker, config.end_of_prompt, sources[0].facts)
    codes = codes_of(marker, find_codebook(sources[0].facts)) if config.with_codes else None
    return [WithPromptEnd(source, marker.vector, codes) if source.facts.is_pairs else source for source in sources]

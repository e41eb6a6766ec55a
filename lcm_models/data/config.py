"""Settings of training data: which sources in which mixture, how documents become rows, how rows become batches."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from lcm_data.errors import UnknownNameError
from lcm_data.languages import parse_language
from lcm_data.store.files import absolute
from lcm_models.config import Frozen


def _code(name: str) -> str:
    """The FLORES-200 code of a language by any of its names; a name that is none may be known to the source."""
    try:
        return parse_language(name)
    except UnknownNameError:
        return name


class SourceConfig(Frozen):
    """One corpus (or folder of Parquet files in the official nested layout) of a mixture.

    It holds prompt and answer pairs if ``answers`` (corpus) or ``prompt_column`` (nested) is set.
    """

    path: str = Field(description="Corpus folder, or folder of Parquet files (nested); a path or fsspec URL.")
    kind: str = Field(
        "corpus",
        description="corpus: as 'lcm-data encode' writes; nested: a document a row, lists of vectors; or module:Class.",
    )
    weight: float | None = Field(
        None, gt=0, description="Share of the concepts relative to the other sources; default: its size."
    )
    langs: tuple[str, ...] | None = Field(None, min_length=1, description="Languages to read (all).")
    splits: tuple[str, ...] | None = Field(("train",), min_length=1, description="Splits to read; null: all.")
    answers: str | None = Field(None, description="Corpus whose documents answer those of 'path' with the same id.")
    answer_langs: tuple[str, ...] | None = Field(
        None, min_length=1, description="Languages of answers; default: that of the prompt."
    )
    unmatched: Literal["refuse", "skip"] = Field("refuse", description="What to do with prompts without an answer.")
    column: str = Field("text_sentences_sonar_emb", description="Nested: column of the vectors (of the answers).")
    prompt_column: str | None = Field(None, description="Nested: column of the vectors of the prompts.")

    @field_validator("langs", "answer_langs")
    @classmethod
    def _codes(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return None if names is None else tuple(map(_code, names))

    @property
    def is_pairs(self) -> bool:
        """Does only a part of each document, the answer, count in the loss?"""
        return self.answers is not None or self.prompt_column is not None

    @model_validator(mode="after")
    def _kinds_fit(self) -> Self:
        if self.kind == "pairs" and not self.answers:
            raise ValueError("kind 'pairs' needs answers, a corpus with the same ids")
        if self.kind == "nested" and (self.answers or self.langs or self.answer_langs):
            raise ValueError("answers and langs are for kind 'corpus'; nested sources have prompt_column")
        if self.kind in ("corpus", "pairs") and self.prompt_column:
            raise ValueError("prompt_column is for kind 'nested'; for a corpus set answers")
        return self


class DataConfig(Frozen):
    """What a ``ConceptLoader`` reads and gives.

    A batch has either ``batch_rows`` rows or as many as ``batch_concepts`` columns allow, padding included.
    """

    sources: tuple[SourceConfig, ...] = Field(min_length=1, description="What to read.")
    max_len: int = Field(128, ge=1, description="Columns of a row; longer documents are cut into several windows.")
    min_len: int = Field(2, ge=1, description="Documents of fewer concepts, end of text included, are left out.")
    batch_concepts: int | None = Field(None, ge=1, description="Most columns of a batch of one process.")
    batch_rows: int | None = Field(None, ge=1, description="Rows of a batch of one process.")
    pack: bool = Field(True, description="Put several documents into a row; they do not see each other.")
    end_of_text: str | None = Field(
        "auto", description="Concept after each document: a .safetensors or .npy file; auto: the corpus's; null: none."
    )
    end_of_prompt: str | None = Field(None, description="Concept after each prompt: a .safetensors or .npy file.")
    with_codes: bool = Field(False, description="Read codes, too (for Quant-LCM).")
    dtype: Literal["stored", "float16", "float32"] = Field("stored", description="Type of the concepts in a batch.")
    shuffle: bool = Field(True, description="Another order of documents in every epoch.")
    shuffle_shards: int = Field(8, ge=1, description="Shards of a source that are mixed with each other.")
    shuffle_blocks: int = Field(
        16, ge=1, description="Row groups (1-2 thousand concepts each) whose documents are mixed, held in memory."
    )
    seed: int = Field(0, ge=0, description="Of the order.")
    endless: bool = Field(True, description="Begin again after the last document; else one pass each time.")
    prefetch: int = Field(4, ge=0, description="Batches made ahead by a thread; 0: no thread.")
    pin_memory: bool = Field(False, description="Put batches into pinned memory (needs CUDA).")

    @field_validator("end_of_text", mode="before")
    @classmethod
    def _none_is_null(cls, value: Any) -> Any:
        return None if value == "none" else value  # the word of ``generate`` and ``evaluate``

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        if (self.batch_rows is None) == (self.batch_concepts is None):
            raise ValueError("set one of batch_concepts and batch_rows")
        if self.batch_concepts is not None and self.batch_concepts < self.max_len:
            raise ValueError(f"batch_concepts {self.batch_concepts} is less than one row: max_len is {self.max_len}")
        if 2 * self.min_len > self.max_len + 1:
            raise ValueError(f"min_len {self.min_len} must be at most half of max_len {self.max_len}")
        weights = [source.weight is None for source in self.sources]
        if any(weights) and not all(weights):
            raise ValueError("give all sources a weight, or none")
        return self

    def held_out(self, split: str = "validation") -> DataConfig:
        """The same data of another split, in one pass: for validation.

        Shuffled, the same every time and for every ``seed``, because in the order of the files the first batches,
        which may be all that is validated on, would be of the first languages alone.
        """
        sources = [source.model_copy(update={"splits": (split,)}) for source in self.sources]
        return self.model_copy(update={"sources": tuple(sources), "endless": False, "shuffle": True, "seed": 0})

    def absolute(self) -> DataConfig:
        """The same with absolute paths, for processes that start elsewhere."""
        sources = [
            source.model_copy(
                update={"path": absolute(source.path), "answers": source.answers and absolute(source.answers)}
            )
            for source in self.sources
        ]
        ends = {name: getattr(self, name) for name in ("end_of_text", "end_of_prompt")}
        files = {name: absolute(file) for name, file in ends.items() if file not in (None, "auto")}
        return self.model_copy(update={"sources": tuple(sources), **files})

    def identity(self) -> dict[str, Any]:
        """What decides the batches, apart from the rows of the sources: may not change when a run is resumed."""
        return self.model_dump(mode="json", exclude={"sources": {"__all__": {"path", "answers"}}} | _FREE)


_FREE: dict[str, Any] = {"end_of_text": True, "end_of_prompt": True, "prefetch": True, "pin_memory": True}

"""The prepared data of a SONAR model: sentences as tokens, and who translates whom (``lcm_models.sonar.prepare``)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lcm_data.errors import UsageError
from lcm_data.sonar.config import NUM_DATA_TAGS
from lcm_data.sonar.fingerprint import file_sha256

ABOUT, TOKENIZER, TEST = "prepared.json", "sentencepiece.model", "test.jsonl"

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Prepared:
    """S sentences; arrays are mapped, not read.

    Attributes:
        tokens: ids of all sentences one after the other, each ``[language, pieces..., </s>]``.
        ends_S: where each ends in ``tokens``.
        train_N2, valid_N2: translations, as numbers of sentences; English first.
        alone_N: sentences without a translation.
    """

    folder: Path
    about: dict[str, Any]
    tokens: Array
    ends_S: Array
    train_N2: Array
    valid_N2: Array
    alone_N: Array

    @property
    def languages(self) -> tuple[str, ...]:
        """In the order of their ids."""
        return tuple(self.about["languages"])

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding."""
        return self.first_lang + len(self.languages) + NUM_DATA_TAGS

    @property
    def first_lang(self) -> int:
        """The id of the first language."""
        import sentencepiece

        model: Any = sentencepiece.SentencePieceProcessor()
        model.Load(str(self.folder / TOKENIZER))
        return int(model.GetPieceSize()) + 1

    @property
    def fingerprint(self) -> str:
        """The sha256 of what says which texts and settings it was made of."""
        return file_sha256(self.folder / ABOUT)

    def starts(self) -> Array:
        """Where each sentence begins [S]."""
        return np.concatenate([np.zeros(1, np.int64), self.ends_S[:-1]])


def open_prepared(folder: str | Path) -> Prepared:
    """Open a prepared folder.

    Raises:
        UsageError: it is none.
    """
    path = Path(folder)
    try:
        about = json.loads((path / ABOUT).read_text("utf-8"))
        names = ("tokens", "ends", "train", "valid", "alone")
        arrays = [np.load(path / f"{name}.npy", mmap_mode="r") for name in names]
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} holds no prepared texts ({error}): make them with --pairs or --text.") from error
    return Prepared(path, about, *arrays)

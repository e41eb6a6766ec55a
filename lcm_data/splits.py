"""Which of train, validation and test a document belongs to, decided by a hash of its id alone.

The same document, and every translation that shares its id, lands in the same split in every run and every corpus.
"""

from __future__ import annotations

from dataclasses import dataclass

import xxhash

from lcm_data.errors import UsageError

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class SplitRule:
    """Shares of documents held out; the rest is ``train``. Another ``seed`` gives another choice."""

    validation: float = 0.01
    test: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.validation, self.test) < 0 or self.validation + self.test > 1:
            raise UsageError(
                f"the shares of validation ({self.validation}) and test ({self.test}) must be 0 or more and add up to "
                "at most 1."
            )

    def split_of(self, doc_id: str) -> str:
        """The split of a document."""
        point = xxhash.xxh64_intdigest(doc_id.encode(), seed=self.seed) / 2**64
        if point < self.validation:
            return "validation"
        return "test" if point < self.validation + self.test else "train"

"""What sources hand to the loader: blocks of whole documents, and the protocol a source keeps.

A source is a list of shards, a shard a list of blocks, a block some documents whose concepts lie one after the other.
Any block can be read at any time, so the order is the business of ``lcm_models.data.order``.

Shapes: N concepts of a block, D concept width, L code levels.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Documents:
    """The documents of a block: document i has the concepts ``x_ND[ends[i-1]:ends[i]]``, raw, float16 or float32."""

    x_ND: Array
    ends: npt.NDArray[np.int64]
    codes_NL: Array | None = None
    num_prompt: npt.NDArray[np.int64] | None = None
    """Concepts at the beginning of each document that are its prompt; None: no prompts."""

    def __len__(self) -> int:
        return len(self.ends)

    def span(self, index: int) -> tuple[int, int]:
        """First row of a document, and the row after its last."""
        return (int(self.ends[index - 1]) if index else 0), int(self.ends[index])


@dataclass(frozen=True)
class SourceFacts:
    """What is known of a source before any of its vectors is read.

    ``name`` is its path, ``provenance`` says the embedding space, ``codebook`` is the fingerprint of the one its codes
    were made with ("" without codes), ``identity`` changes with its rows.
    """

    name: str
    dim: int
    dtype: np.dtype[Any]
    num_concepts: int
    provenance: Mapping[str, str]
    identity: str
    codebook: str = ""
    num_levels: int = 0
    is_pairs: bool = False


class Source(Protocol):
    """Random access to the documents of one corpus."""

    facts: SourceFacts

    @property
    def num_shards(self) -> int:
        """At least 1."""
        ...

    def num_blocks(self, shard: int) -> int:
        """Blocks of a shard; may open the file."""
        ...

    def read(self, shard: int, block: int) -> Documents:
        """The documents of a block."""
        ...


def digest(*parts: Any) -> str:
    """A short hash of JSON values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

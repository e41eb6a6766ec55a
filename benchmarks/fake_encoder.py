"""An encoder that costs almost nothing, so that a benchmark measures what moves the rows and not the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lcm_data.encode.base import EncoderOptions, Prepared

DIM = 1024
_TABLE = (np.random.default_rng(0).standard_normal((256, DIM)) * 0.007).astype(np.float32)


def fake_vectors(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """A vector a sentence, [N, 1024], picked by its length: what both sides of a comparison compute."""
    return _TABLE[np.fromiter((len(text) % 256 for text in texts), np.int64, len(texts))]


class FakeEncoder:
    """``fake_vectors`` behind the protocol of ``lcm_data.encode``."""

    def __init__(self, options: EncoderOptions) -> None:
        self.dim = DIM
        self.provenance = self.describe(options)
        self.busy_seconds = 0.0
        self.num_ooms = 0

    @staticmethod
    def describe(options: EncoderOptions) -> dict[str, str]:
        return {"encoder": "fake", "encoder_revision": "1", "dim": str(DIM)}

    def prepare(self, texts: Sequence[str], lang: str) -> Prepared:
        lengths = np.fromiter((len(text) for text in texts), np.int32, len(texts))
        return Prepared(lengths, np.zeros(len(texts), bool), np.zeros(len(texts), np.int32), list(texts))

    def embed(self, prepared: Prepared, rows: npt.NDArray[np.integer[Any]] | None = None) -> npt.NDArray[np.float32]:
        texts = prepared.payload if rows is None else [prepared.payload[row] for row in rows]
        return fake_vectors(texts)

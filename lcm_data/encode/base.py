"""What every encoder backend offers, and the options one is made from. No backend is imported here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from lcm_data.errors import UnknownNameError, UsageError

DTYPES = ("float32", "bfloat16", "float16")
ENCODER_DTYPES = (*DTYPES, "int8")


@dataclass(frozen=True, kw_only=True)
class EncoderOptions:
    """Which encoder, and how it runs.

    Attributes:
        model: a folder, a weights file, or a name such as ``text_sonar_basic_encoder`` or ``hf:owner/repo``.
        backend: a key of ``lcm_data.encode.ENCODERS``.
        dtype: of weights and computation: float32, bfloat16, float16, or int8 (native backend, CPU). Vectors come back
            as float32 in any case.
        device: "auto" (a GPU when there is one), "cpu", "cuda" or "cuda:1".
        token_budget: most tokens in one batch; None takes what is fastest for the kind of device.
        threads: CPU threads of this process for the network and the tokenizer; None leaves torch's default, and one for
            the tokenizer.
        prompt: text put before every sentence, for models trained with one ("query: "); None is the model's own.
    """

    model: str
    backend: str = "native"
    dtype: str = "float32"
    device: str = "auto"
    token_budget: int | None = None
    threads: int | None = None
    prompt: str | None = None

    def __post_init__(self) -> None:
        if self.dtype not in ENCODER_DTYPES:
            raise UnknownNameError("dtype", self.dtype, ENCODER_DTYPES)
        if self.dtype == "int8" and self.backend != "native" and ":" not in self.backend:
            raise UsageError(f"the backend {self.backend} has no int8. Use --backend native, or bfloat16 or float32.")
        for name in ("token_budget", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} must be at least 1, got {value}. Leave it out for the default.")


@dataclass(frozen=True)
class Prepared:
    """Tokenised sentences of one language.

    Attributes:
        num_tokens: int32 [N], tokens the network sees, after truncation, language token and ``</s>`` included.
        truncated: bool [N], whether the sentence was longer than the network takes.
        num_unknown: int32 [N], how many of these tokens stand for characters that the vocabulary does not know.
        payload: whatever the backend's ``embed`` needs.
    """

    num_tokens: npt.NDArray[np.int32]
    truncated: npt.NDArray[np.bool_]
    num_unknown: npt.NDArray[np.int32]
    payload: Any

    def __len__(self) -> int:
        return len(self.num_tokens)


class Encoder(Protocol):
    """Sentences to vectors, in two steps so that tokenising overlaps with the network.

    Attributes:
        dim: width D of the vectors.
        provenance: what made the vectors, for the metadata of shards; text to text. Keys: encoder, encoder_revision
            (sha256 of the weights), encoder_backend, tokenizer_revision, compute_dtype, device, pooling, normalized,
            max_seq_len, token_budget, trained, dim.
        busy_seconds: seconds spent inside the network since loading; divided by wall time it is the busy share.
    """

    dim: int
    provenance: dict[str, str]
    busy_seconds: float

    def __init__(self, options: EncoderOptions) -> None: ...

    @staticmethod
    def describe(options: EncoderOptions) -> dict[str, str]:
        """The machine-independent part of ``provenance``, without loading weights."""
        ...

    def prepare(self, texts: Sequence[str], lang: str) -> Prepared:
        """Tokenise; safe on any thread, also while ``embed`` runs.

        Raises:
            UnknownNameError: the model does not know the language.
        """
        ...

    def embed(self, prepared: Prepared, rows: npt.NDArray[np.integer[Any]] | None = None) -> npt.NDArray[np.float32]:
        """Vectors float32 [N, D] in the order of the sentences, or of ``rows`` (indices of a subset).

        Numbers that are not finite are returned as they are; rejecting them is the caller's. One call at a time.
        """
        ...

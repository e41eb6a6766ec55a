"""What every decoder backend offers, and the options one is made from. No backend is imported here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from lcm_data.encode.base import DTYPES
from lcm_data.errors import UnknownNameError, UsageError
from lcm_data.sonar.settings import Generation

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class DecoderOptions:
    """Which decoder, how it chooses words, and how it runs.

    Attributes:
        model: a folder, a weights file, or a name such as ``text_sonar_basic_decoder`` or ``hf:owner/repo``.
        backend: a key of ``lcm_data.decode.DECODERS``.
        dtype: of weights and computation: float32, bfloat16 or float16. Scores are float32 in any case.
        device: "auto" (a GPU when there is one), "cpu", "cuda" or "cuda:1".
        mode, beam_size, max_tokens, temperature, top_p, top_k, seed: see ``lcm_data.sonar.settings.Generation``.
        batch_rows: most hypotheses in one batch (sentences times beams); None takes what suits the kind of device.
        threads: CPU threads of this process for the network; None leaves torch's default.
    """

    model: str
    backend: str = "native"
    dtype: str = "float32"
    device: str = "auto"
    mode: str = "beam"
    beam_size: int = 5
    max_tokens: int | None = None
    temperature: float = 1.0
    top_p: float | None = None
    top_k: int | None = None
    seed: int = 0
    batch_rows: int | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise UnknownNameError("dtype", self.dtype, DTYPES)
        for name in ("batch_rows", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} must be at least 1, got {value}. Leave it out for the default.")
        _ = self.generation  # checks the rest

    @property
    def generation(self) -> Generation:
        """The part that says how words are chosen."""
        names = ("mode", "beam_size", "max_tokens", "temperature", "top_p", "top_k", "seed")
        return Generation(**{name: getattr(self, name) for name in names})

    def describe(self) -> dict[str, str]:
        """The settings that determine the texts, as text."""
        how = self.generation
        names = ["mode", "temperature"]
        names += {"beam": ["beam_size"], "greedy": [], "sample": ["top_p", "top_k", "seed"]}[how.mode]
        limit = {} if how.max_tokens is None else {"max_tokens": str(how.max_tokens)}
        return {name: str(value) for name in names if (value := getattr(how, name)) is not None} | limit


@dataclass(frozen=True)
class Decoded:
    """The texts of N vectors.

    Attributes:
        texts: the best sentence for each vector.
        scores: float32 [N], its log probability per token; NaN where the vector or the score is not finite, and then
            the text is empty.
        num_tokens: int32 [N], tokens generated, ``</s>`` included and the prompt not; 0 where the score is NaN.
        truncated: bool [N], whether the text was ended by ``max_tokens`` (or the network's maximum) and may be cut.
    """

    texts: list[str]
    scores: Float32
    num_tokens: npt.NDArray[np.int32]
    truncated: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.texts)


class Decoder(Protocol):
    """Vectors to sentences.

    Attributes:
        dim: width D of the vectors.
        provenance: what made the texts; text to text. Keys: decoder, decoder_revision (sha256 of the weights),
            decoder_backend, tokenizer_revision, compute_dtype, device, max_seq_len, trained, dim, mode, temperature and
            the other settings of the mode.
        busy_seconds: seconds spent generating since loading.
        num_ooms: batches that did not fit into memory and were halved.
    """

    dim: int
    provenance: dict[str, str]
    busy_seconds: float
    num_ooms: int

    def __init__(self, options: DecoderOptions) -> None: ...

    @staticmethod
    def describe(options: DecoderOptions) -> dict[str, str]:
        """The machine-independent part of ``provenance``, without loading weights."""
        ...

    def decode(
        self, emb: npt.NDArray[np.floating[Any]], lang: str, keys: npt.NDArray[np.int64] | None = None
    ) -> Decoded:
        """Say vectors [N, D] in a language, in the order given. One call at a time.

        ``keys`` int64 [N] name the vectors for the draws of mode "sample": a key gets the same text in any batch and
        any order. None is 0, 1, 2, ... Other modes ignore them. N may be 0: that asks whether the language is known.

        Raises:
            UnknownNameError: the model does not know the language.
            UsageError: vectors of another width, or keys of another number.
        """
        ...


def check_vectors(emb: npt.NDArray[Any], keys: npt.NDArray[np.int64] | None, dim: int) -> tuple[Float32, Any]:
    """The vectors as float32 [N, D] and one key for each.

    Raises:
        UsageError: vectors of another width, or keys of another number.
    """
    if emb.ndim != 2 or emb.shape[1] != dim:
        raise UsageError(
            f"vectors must have shape [N, {dim}], got {list(emb.shape)}. They may come from another model."
        )
    if keys is None:
        keys = np.arange(len(emb))
    elif keys.shape != (len(emb),):
        raise UsageError(f"keys of shape {list(keys.shape)} for {len(emb)} vectors; give one each.")
    with np.errstate(over="ignore"):  # what float32 cannot hold gets no text
        return np.ascontiguousarray(emb, dtype=np.float32), keys

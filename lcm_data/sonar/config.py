"""The sizes of a SONAR text encoder and decoder; needs no torch. ``lcm_data.sonar.layout`` reads them off a file."""

from __future__ import annotations

from dataclasses import dataclass

from lcm_data.errors import UsageError

NUM_DATA_TAGS = 3
"""``<MINED_DATA>``, ``<MMT_BT_DATA>`` and ``<SMT_BT_DATA>`` follow the languages in the NLLB vocabulary."""


@dataclass(frozen=True, kw_only=True)
class _Sizes:
    """What encoder and decoder have in common, with the values of the published models."""

    model_dim: int = 1024
    num_layers: int = 24
    num_heads: int = 16
    ffn_dim: int = 8192
    vocab_size: int = 256206
    max_tokens: int = 514

    def __post_init__(self) -> None:
        for name in ("model_dim", "num_layers", "num_heads", "ffn_dim", "vocab_size", "max_tokens"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise UsageError(f"{name} must be a positive integer, got {value!r}.")
        if self.model_dim % self.num_heads or self.model_dim % 2 or self.model_dim < 4:
            raise UsageError(
                f"model_dim must be even, at least 4 and a multiple of num_heads, got model_dim={self.model_dim} "
                f"with num_heads={self.num_heads}."
            )

    @property
    def embedding_dim(self) -> int:
        """Width of the vectors, here that of the network."""
        return self.model_dim


@dataclass(frozen=True, kw_only=True)
class TextEncoderConfig(_Sizes):
    """Sizes of the network; the defaults are those of ``text_sonar_basic_encoder`` (766.1 M parameters).

    ``max_tokens`` counts the language token and ``</s>``: 512 plus the padding index plus 1, as in fairseq2.
    """

    @property
    def num_parameters(self) -> int:
        """How many numbers the checkpoint holds (the position table is computed, not stored)."""
        d, f = self.model_dim, self.ffn_dim
        layer = 4 * (d * d + d) + 2 * d * f + f + d + 4 * d
        return self.vocab_size * d + self.num_layers * layer + 2 * d

    def flops(self, num_tokens: int) -> float:
        """Multiply-adds of the projections and feed-forward times two for ``num_tokens`` tokens, attention left out."""
        return 2.0 * num_tokens * self.num_layers * (4 * self.model_dim**2 + 2 * self.model_dim * self.ffn_dim)


@dataclass(frozen=True, kw_only=True)
class TextDecoderConfig(_Sizes):
    """Sizes of the network; the defaults are those of ``text_sonar_basic_decoder`` (866.9 M parameters).

    ``max_tokens`` counts the two tokens of the prompt and the last ``</s>``.
    """

    max_tokens: int = 512

    @property
    def num_parameters(self) -> int:
        """How many numbers the checkpoint holds, the output projection (tied to the embedding) counted once."""
        d, f = self.model_dim, self.ffn_dim
        layer = 8 * (d * d + d) + 2 * d * f + f + d + 6 * d
        return self.vocab_size * d + self.num_layers * layer + 2 * d

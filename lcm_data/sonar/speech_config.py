"""The sizes of a SONAR speech encoder, and how long a clip is to it; needs no torch.

``lcm_data.sonar.speech_layout`` reads the sizes off a file.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from lcm_data.errors import UsageError

SAMPLE_RATE = 16_000
FRAME_LENGTH, FRAME_SHIFT = 400, 160
"""Of the filter bank, in samples: 25 ms every 10 ms."""

NUM_CHANNELS = 80
"""Of the filter bank."""

STACK = 2
"""Neighbouring frames that the network takes as one position, 50 a second."""

MIN_SAMPLES = FRAME_LENGTH + (STACK - 1) * FRAME_SHIFT
"""The shortest clip, one position: 35 ms."""


def num_positions(num_samples: int) -> int:
    """How many positions the network sees of a clip of so many samples; 0 if it is too short for one."""
    return (1 + (num_samples - FRAME_LENGTH) // FRAME_SHIFT) // STACK if num_samples >= FRAME_LENGTH else 0


def most_samples(positions: int) -> int:
    """The longest clip, in samples, whose frames are just so many positions (at least 1), without an odd one."""
    return FRAME_LENGTH + STACK * positions * FRAME_SHIFT - 1


@dataclass(frozen=True, kw_only=True)
class SpeechEncoderConfig:
    """Sizes of the network; the defaults are those of ``sonar_speech_encoder_eng`` (658.1 M parameters).

    The models of other languages have six pooler layers (708.5 M parameters).

    Attributes:
        kernel_size: positions that the convolution of a layer looks at, odd.
        pooler_vocab: rows of the pooler's embedding, of which it uses one.
        embedding_dim: width of the vectors.
        max_positions: the longest clip, 50 positions a second; 4,096 (82 seconds) in the reference.
    """

    model_dim: int = 1024
    num_layers: int = 24
    num_heads: int = 16
    ffn_dim: int = 4096
    kernel_size: int = 31
    num_features: int = 160
    pooler_layers: int = 3
    pooler_heads: int = 16
    pooler_ffn_dim: int = 4096
    pooler_vocab: int = 1024
    embedding_dim: int = 1024
    max_positions: int = 4096

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, int) or value < 1:
                raise UsageError(f"{field.name} must be a positive integer, got {value!r}.")
        for name in ("num_heads", "pooler_heads"):
            if self.model_dim % getattr(self, name) or self.model_dim % 2:
                raise UsageError(
                    f"model_dim must be even and a multiple of {name}, got model_dim={self.model_dim} with "
                    f"{name}={getattr(self, name)}."
                )
        if self.kernel_size % 2 == 0:
            raise UsageError(f"kernel_size must be odd, got {self.kernel_size}.")
        if self.pooler_vocab < 3:
            raise UsageError(f"pooler_vocab must be at least 3, got {self.pooler_vocab}.")

    @property
    def num_parameters(self) -> int:
        """How many numbers the checkpoint holds that training made, running means of batch norms left out."""
        d, f, p = self.model_dim, self.ffn_dim, self.pooler_ffn_dim
        feed_forward = 2 * (2 * d * f + f + d)
        attention = 4 * (d * d + d) + d * d + 2 * d
        convolution = 3 * d * d + self.kernel_size * d + 2 * d
        layer = feed_forward + attention + convolution + 10 * d
        pooler_layer = 8 * (d * d + d) + 2 * d * p + p + d + 6 * d
        frontend = 2 * self.num_features + self.num_features * d + d
        pooler = self.pooler_vocab * d + self.pooler_layers * pooler_layer + self.embedding_dim * d
        return frontend + self.num_layers * layer + 2 * d + pooler

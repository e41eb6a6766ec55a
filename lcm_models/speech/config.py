"""Settings of a speech encoder to train: sizes and losses, the clips and their teacher, and how batches are drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from lcm_data.sonar.speech_config import SpeechEncoderConfig
from lcm_models.config import Frozen


class SpeechConfig(Frozen):
    """Sizes of the network, and the weights of the losses.

    SONAR has the squared error alone, and begins with a pretrained w2v-BERT. A network that begins with nothing must be
    told more of what it hears: ``ctc`` spells the transcript, ``contrast`` tells clips apart. 0 leaves them out.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "tiny": {"width": 64, "layers": 1, "ffn": 128, "pooler_layers": 1, "kernel_size": 7},
        "mini": {},  # the sizes that ship with the package
        "base": {"width": 512, "layers": 12, "ffn": 2048, "pooler_layers": 3},
        "sonar": {"width": 1024, "layers": 24, "ffn": 4096, "pooler_layers": 3},
    }

    width: int = Field(128, ge=64, multiple_of=64, description="Width of the network.")
    layers: int = Field(5, ge=1, description="Conformer layers.")
    ffn: int = Field(512, ge=1, description="Inner width of the feed-forwards.")
    kernel_size: int = Field(31, ge=1, description="Positions that the convolution of a layer looks at, odd.")
    pooler_layers: int = Field(2, ge=1, description="Layers of the pooler.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout on what each sublayer adds.")
    mse: float = Field(
        1.0, ge=0, description="Weight of the squared distance to the target, in units of the targets' variance."
    )
    contrast: float = Field(1.0, ge=0, description="Weight of telling a clip's target from the others of the batch.")
    contrast_scale: float = Field(20.0, gt=0, description="Factor of the cosines that are told apart.")
    ctc: float = Field(0.5, ge=0, description="Weight of spelling the transcript from the positions (CTC).")

    def encoder(self, embedding_dim: int) -> SpeechEncoderConfig:
        """The network, with 64 numbers a head as everywhere in SONAR."""
        return SpeechEncoderConfig(
            model_dim=self.width, num_layers=self.layers, num_heads=self.width // 64, ffn_dim=self.ffn,
            kernel_size=self.kernel_size, pooler_layers=self.pooler_layers, pooler_heads=self.width // 64,
            pooler_ffn_dim=self.ffn, pooler_vocab=3, embedding_dim=embedding_dim,
        )  # fmt: skip


class ClipsConfig(Frozen):
    """Which clips, and whose space. All of it decides the prepared data."""

    speech: tuple[str, ...] = Field(
        min_length=1, description="Tables of clips, or corpora with segments of speech; docs/speech.md has the columns."
    )
    teacher: str = Field("sonar-mini", description="Text encoder of the space: a name, hf:owner/repo or path.")
    langs: tuple[str, ...] | None = Field(None, min_length=1, description="Spoken languages; by default all.")
    max_seconds: float = Field(12.0, gt=0, le=80, description="Leave out longer clips.")
    valid_share: float = Field(0.02, ge=0, lt=0.5, description="Share of the texts to validate on.")


class SpeechBatchConfig(Frozen):
    """How batches are drawn from prepared data."""

    path: str = Field(description="Folder of the prepared data.")
    batch_seconds: float = Field(
        60.0, gt=0, description="Seconds of sound in a batch of one process, padding included."
    )
    negatives: int = Field(
        1024, ge=0, description="Targets of other clips that those of a batch are told apart from, for model.contrast."
    )
    temperature: float = Field(
        2.0, ge=1, description="Flattens the shares of inputs and languages: size ** (1 / temperature)."
    )
    speed: float = Field(0.15, ge=0, lt=0.5, description="Clips are made faster or slower by up to this share.")
    voice: float = Field(0.12, ge=0, lt=0.5, description="Voices are made higher or lower by up to this share.")
    noise_share: float = Field(0.5, ge=0, le=1, description="Share of the clips that get noise, 0 to 30 dB below them.")
    mask_channels: int = Field(15, ge=0, le=40, description="Widest band of the filter bank that is left out, twice.")
    mask_time: float = Field(0.1, ge=0, lt=0.5, description="Longest share of a clip that is left out, twice.")
    seed: int = Field(0, ge=0, description="Of the order and the variations.")

    def identity(self) -> dict[str, Any]:
        """What decides the batches besides the prepared data."""
        return self.model_dump(mode="json", exclude={"path"})

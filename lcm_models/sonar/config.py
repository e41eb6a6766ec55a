"""Settings of a SONAR space to train: sizes and losses, the texts and their tokenizer, and how batches are drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from lcm_data.sonar.config import TextDecoderConfig, TextEncoderConfig
from lcm_models.config import Frozen


class SonarConfig(Frozen):
    """Sizes of both networks, and the weights of the losses (arXiv 2308.11466, §4.1, but for ``contrast``).

    Encoder, decoder and output share one embedding, as in NLLB, where SONAR's weights come from.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "tiny": {"width": 64, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn": 128, "decoder_ffn": 128},
        "mini": {},  # the sizes that ship with the package
        "base": {"width": 512, "encoder_layers": 6, "decoder_layers": 6, "encoder_ffn": 2048, "decoder_ffn": 2048},
        "sonar": {"width": 1024, "encoder_layers": 24, "decoder_layers": 24, "encoder_ffn": 8192, "decoder_ffn": 8192},
    }

    width: int = Field(256, ge=64, multiple_of=64, description="Width of both networks and of the embeddings.")
    encoder_layers: int = Field(3, ge=1, description="Layers of the encoder.")
    decoder_layers: int = Field(3, ge=1, description="Layers of the decoder.")
    encoder_ffn: int = Field(1024, ge=1, description="Inner width of the encoder's feed-forward.")
    decoder_ffn: int = Field(1024, ge=1, description="Inner width of the decoder's feed-forward.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout on what each sublayer adds.")
    mse: float = Field(1.0, ge=0, description="Weight of the squared distance of translations, mean over the width.")
    contrast: float = Field(
        0.0, ge=0, description="Weight of telling a sentence's translation from the others of the batch."
    )
    contrast_scale: float = Field(20.0, gt=0, description="Factor of the cosines that are told apart.")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Share of the target spread over the vocabulary.")
    sampled_softmax: int = Field(
        0, ge=0, description="In training compare with the tokens of the batch and others up to so many; 0: with all."
    )
    freeze_encoder: bool = Field(False, description="Train the decoder alone: for fine-tuning it on disturbed vectors.")
    noise: float = Field(
        0.0, ge=0, le=1, description="Disturb decoder inputs by a level drawn from 0 to this (arXiv 2412.08821, eq 27)."
    )
    noise_share: float = Field(0.5, ge=0, le=1, description="Share of the vectors that are disturbed.")
    quantized_share: float = Field(
        0.0, ge=0, le=1, description="Share of the vectors that are replaced by their codes (needs a codebook)."
    )
    partial_share: float = Field(
        0.3, ge=0, le=1, description="Share of those that keep the first 2/3 or more of the levels only (§7.1)."
    )

    def encoder(self, vocab_size: int, max_tokens: int = 514) -> TextEncoderConfig:
        """The encoder, with 64 numbers a head as everywhere in SONAR."""
        return TextEncoderConfig(
            model_dim=self.width, num_layers=self.encoder_layers, num_heads=self.width // 64,
            ffn_dim=self.encoder_ffn, vocab_size=vocab_size, max_tokens=max_tokens,
        )  # fmt: skip

    def decoder(self, vocab_size: int, max_tokens: int = 512) -> TextDecoderConfig:
        """The decoder."""
        return TextDecoderConfig(
            model_dim=self.width, num_layers=self.decoder_layers, num_heads=self.width // 64,
            ffn_dim=self.decoder_ffn, vocab_size=vocab_size, max_tokens=max_tokens,
        )  # fmt: skip


class PrepareConfig(Frozen):
    """Which texts, in which languages, cut into which tokens. All of it decides the prepared data."""

    pairs: tuple[str, ...] = Field((), description="Tables of translations; docs/quality.md has the layouts.")
    text: tuple[str, ...] = Field((), description="Corpora with segments: plain text, to be said again.")
    langs: tuple[str, ...] | None = Field(None, min_length=1, description="Languages; by default all of the pairs.")
    tokenizer: str | None = Field(None, description="SentencePiece model to use; by default one is trained.")
    vocab_size: int = Field(24_000, ge=300, description="Pieces of a tokenizer that is trained.")
    tokenizer_texts: int = Field(400_000, ge=1, description="Sentences it is trained on, at most.")
    temperature: float = Field(2.0, ge=1, description="Flattens the shares of languages: size ** (1 / temperature).")
    max_tokens: int = Field(48, ge=4, description="Leave out sentences of more tokens (language and end included).")
    valid_share: float = Field(0.005, ge=0, lt=0.5, description="Share of the pairs to validate on.")
    test_share: float = Field(0.02, ge=0, lt=0.5, description="Share of the pairs to keep apart, in test.jsonl.")

    @model_validator(mode="after")
    def _has_texts(self) -> Self:
        if not self.pairs and not self.text:
            raise ValueError("nothing to train on: give pairs, text or both")
        return self


class BatchConfig(Frozen):
    """How batches are drawn from prepared data."""

    path: str = Field(description="Folder of the prepared data.")
    batch_tokens: int = Field(8192, ge=64, description="Tokens to decode in a batch of one process.")
    max_tokens: int | None = Field(None, ge=4, description="Leave out longer sentences; by default none.")
    temperature: float = Field(2.0, ge=1, description="Flattens the shares of languages: size ** (1 / temperature).")
    autoencode: float = Field(
        0.5, ge=0, le=1, description="Share of the sentences decoded from their own vector, not from a translation's."
    )
    pivot: float = Field(
        0.2, ge=0, le=1, description="Share of the pairs whose English side gives way to a third language's."
    )
    noised: float = Field(0.3, ge=0, le=1, description="Share of the encoded sentences that lose and swap tokens.")
    drop_tokens: float = Field(0.1, ge=0, lt=1, description="Share of the tokens that a noised sentence loses.")
    swap_distance: int = Field(3, ge=0, description="How far the tokens of a noised sentence move.")
    seed: int = Field(0, ge=0, description="Of the order and the noise.")

    def identity(self) -> dict[str, Any]:
        """What decides the batches besides the prepared data."""
        return self.model_dump(mode="json", exclude={"path"})

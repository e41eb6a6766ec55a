"""The models and the corpus of one run of ``evaluate-space``: loaded, known to belong together, and described."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lcm_data.corpus import StageData
from lcm_data.decode import Decoder, DecoderOptions, load_decoder
from lcm_data.encode import Encoder, EncoderOptions, load_encoder
from lcm_data.errors import UsageError
from lcm_data.normalize import Normalizer
from lcm_data.sonar import hub
from lcm_data.space import check_same_space
from lcm_data.store.files import absolute, open_files
from pipelines.encode import default_encoder

if TYPE_CHECKING:
    from pipelines.evaluate_space import EvaluateSpaceConfig


@dataclass(frozen=True)
class Models:
    """What the vectors come from, an encoder or a corpus (then the encoder may be missing), and what reads them."""

    corpus: StageData | None
    encoder: Encoder | None
    decoder: Decoder | None
    judge: Encoder | None

    @property
    def source(self) -> Mapping[str, str]:
        """Provenance of the vectors."""
        if self.corpus is not None:
            return self.corpus.metadata
        assert self.encoder is not None
        return self.encoder.provenance

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        if self.corpus is not None:
            return self.corpus.dim
        assert self.encoder is not None
        return self.encoder.dim

    def provenance(self, normalizer: Normalizer | None, normalizer_file: str | None) -> dict[str, dict[str, str]]:
        """Of everything that had a part in the figures, with fingerprints."""
        found: dict[str, dict[str, str]] = {}
        if self.corpus is not None:
            found["corpus"] = {**self.corpus.metadata, "digest": self.corpus.manifest.digest}
        for name, model in (("encoder", self.encoder), ("decoder", self.decoder), ("judge", self.judge)):
            if model is not None:
                found[name] = model.provenance
        if normalizer is not None:
            found["normalizer"] = {
                "file": normalizer_file or "fitted on the sample",
                "fingerprint": normalizer.fingerprint,
                "method": normalizer.info.method,
                "rows": str(normalizer.info.num_rows),
            }
        return found


def load_models(config: EvaluateSpaceConfig) -> Models:
    """Load what ``config`` names.

    Raises:
        UsageError: settings that need a decoder without one, or widths or weights that do not fit.
        SpaceError: a decoder or normaliser of another space.
    """
    if not config.decoder and (config.to or config.judge_model or config.normalizer):
        raise UsageError("--to, --judge-model and --normalizer are about decoded text: give a --decoder, too.")
    source = open_files(config.source)
    corpus = None
    if "*" not in config.source and source.size("embeddings/_lcm/plan.json") is not None:
        corpus = StageData(source.child("embeddings"), allow_partial=True)
    how: dict[str, Any] = {"dtype": config.dtype, "device": config.device, "threads": config.threads or None}
    search: dict[str, Any] = {"beam_size": config.beam_size, "max_tokens": config.max_tokens}
    encoder = decoder = judge = None
    if config.model or corpus is None:
        name = absolute(config.model or default_encoder(config.backend))
        if not config.model:
            hub.tell_default(name)
        encoder = load_encoder(EncoderOptions(model=name, backend=config.backend, prompt=config.prompt, **how))
    if config.decoder:
        name = absolute(config.decoder)
        decoder = load_decoder(DecoderOptions(model=name, backend=config.decoder_backend, **search, **how))
    if config.judge_model:
        name = absolute(config.judge_model)
        judge = load_encoder(EncoderOptions(model=name, backend=config.judge_backend, **how))
    models = Models(corpus, encoder, decoder, judge)
    _check(models)
    return models


def load_normalizer(file: str, models: Models) -> Normalizer:
    """The normaliser in ``file``, known to be of the space of the vectors."""
    normalizer = Normalizer.load(file)
    own = {"space": normalizer.info.space, "encoder": normalizer.info.encoder, "dim": str(normalizer.dim)}
    check_same_space(own, models.source, f"the normaliser {file}", _whose(models), "Give the one fitted in this space.")
    if normalizer.dim != models.dim:
        raise UsageError(f"{file} is for {normalizer.dim} dimensions, the vectors have {models.dim}.")
    return normalizer


def _check(models: Models) -> None:
    encoder, decoder = models.encoder, models.decoder
    if models.corpus is not None and encoder is not None:
        made_with = models.corpus.metadata.get("encoder_revision")
        if encoder.provenance["encoder_revision"] != made_with:
            raise UsageError(
                f"the corpus was made with the encoder {models.corpus.metadata.get('encoder', 'of another kind')}, and "
                "--model has other weights. Leave --model out, or give it as --judge-model."
            )
    if decoder is None:
        return
    advice = "Give the decoder that belongs to the encoder."
    check_same_space(decoder.provenance, models.source, "the decoder", _whose(models), advice)
    if decoder.dim != models.dim:
        raise UsageError(f"the decoder is for {decoder.dim} dimensions, the vectors have {models.dim}. {advice}")


def _whose(models: Models) -> str:
    return "the encoder" if models.corpus is None else "the corpus"

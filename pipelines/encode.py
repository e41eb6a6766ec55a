"""``lcm-data encode``: the sentences and the speech of a corpus to embeddings, shard for shard."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from pydantic import Field

from lcm_data.encode import SPEECH_ENCODERS, EncoderOptions, describe_encoder
from lcm_data.errors import UnknownNameError
from lcm_data.progress import Show, silent
from lcm_data.schema import StoreDtype
from lcm_data.sonar import hub, speech_models
from lcm_data.sonar.speech_checkpoint import find_speech_model
from lcm_data.store.files import absolute, open_files
from lcm_data.store.manifest import Manifest, load_manifest
from lcm_data.store.plan import Plan, Unit
from lcm_data.workers.encode import EncodeWorker
from pipelines.config import VerbConfig
from pipelines.speech_encoders import (
    check_together,
    describe_speech_encoders,
    rows_by_language,
    speech_alone,
    speech_facts,
)
from pipelines.stage import Report, Stage, provenance_metadata, refuse_other_space, run_stage, shard_inputs

log = logging.getLogger("lcm_data.encode")


def default_encoder(backend: str) -> str:
    """The encoder of a verb that is told none; only our own backend can read the one that ships."""
    return hub.default_model() if backend == "native" else "text_sonar_basic_encoder"


def default_speech_model(text_model: str, lang: str, *, asked: bool) -> str:
    """The speech encoder of a language for a verb that is told none; that of sonar-mini with sonar-mini.

    ``asked``: the text encoder was asked for. If not, a published speech encoder in the cache comes first.

    Raises:
        UnknownNameError: none is published for the language, or the small one that ships did not learn it.
    """
    if text_model != hub.MINI:
        return speech_models.speech_model(lang)
    if not asked and lang in speech_models.spoken_languages():
        published = speech_models.speech_model(lang)
        if hub.cached_weights(published) is not None:
            return published
    spoken = find_speech_model(hub.MINI_SPEECH).hints["languages"]
    if lang not in spoken:
        raise UnknownNameError(f"language of {hub.MINI_SPEECH}", lang, spoken)
    return hub.MINI_SPEECH


class EncodeConfig(VerbConfig):
    """Settings of ``lcm-data encode``."""

    backend: str = Field("native", description="native, sonar-space, sentence-transformers, or package.module:Class.")
    model: str = Field(
        default_factory=lambda known: default_encoder(known["backend"]),
        description="Encoder: a name, hf:owner/repo, or a folder or file.",
    )
    dtype: str = Field("float32", description="Precision of the network: float32, bfloat16 or float16.")
    store_dtype: StoreDtype = Field("float16", description="Precision of the stored vectors: float16 or float32.")
    device: str = Field("auto", description="auto, cpu or cuda.")
    token_budget: int | None = Field(None, ge=1, description="Tokens in a batch; by default chosen for the device.")
    prompt: str | None = Field(None, description="Text put before every sentence, for models that want one.")
    text: bool = Field(True, description="Keep the sentences beside their vectors.")
    speech_model: str | None = Field(
        None,
        description="Speech encoder: a name, hf:owner/repo, folder or file; {lang} in it stands for the language. By "
        "default the published one of each language, with sonar-mini the one that ships.",
    )
    speech_backend: str | None = Field(
        None, description="native, sonar-space, or package.module:Class; by default as backend, else native."
    )
    speech_budget: int | None = Field(
        None, ge=1, description="Positions in a batch of speech, 50 a second; by default chosen for the device."
    )
    storage_options: dict[str, Any] = Field(
        default_factory=dict,
        exclude=True,
        repr=False,
        description="Of fsspec, for recordings.",
    )

    @property
    def encoder(self) -> EncoderOptions:
        """The options of the encoder on a worker."""
        return EncoderOptions(
            model=absolute(self.model),
            backend=self.backend,
            dtype=self.dtype,
            device=self.device,
            token_budget=self.token_budget,
            threads=self.threads or None,
            prompt=self.prompt,
        )

    def speaker(self, lang: str) -> EncoderOptions:
        """The options of the speech encoder of a language.

        Raises:
            UnknownNameError: no model is given, and none is published for the language.
        """
        own = self.backend if self.backend in SPEECH_ENCODERS else "native"
        model = self.speech_model
        if model is None:
            model = default_speech_model(self.model, lang, asked="model" in self.model_fields_set)
        return EncoderOptions(
            model=absolute(model.replace("{lang}", lang)),
            backend=self.speech_backend or own,
            dtype=self.dtype,
            device=self.device,
            token_budget=self.speech_budget,
            threads=self.threads or None,
        )


def make_stage(config: EncodeConfig) -> Stage:
    """Describe the stage; raises if the segments are not finished or the model is not to be had."""
    corpus = open_files(config.corpus)
    segments = load_manifest(corpus.child("segments"))
    rows = rows_by_language(corpus.child("segments"), segments)
    speakers = {lang: config.speaker(lang) for lang, count in rows.items() if count.speech}
    spoken = describe_speech_encoders(speakers)
    encoder = config.encoder if _wants_text(config, not spoken or any(count.text for count in rows.values())) else None
    described = _describe(encoder, spoken)
    settings: dict[str, Any] = {
        # The weights count, not where they lie.
        "encoder": _without_name(described),
        "dtype": config.dtype,
        "store_dtype": config.store_dtype,
        "token_budget": config.token_budget or "auto",
        "text": config.text,
    }
    if spoken:
        settings["speech"] = {lang: _without_name(each) for lang, each in spoken.items()}
        settings["speech_budget"] = config.speech_budget or "auto"
    provenance = {**segments.provenance, **described, **speech_facts(spoken)}
    if any(each.get("trained") == "false" for each in spoken.values()):
        provenance["trained"] = "false"
    provenance |= {"compute_dtype": config.dtype, "store_dtype": config.store_dtype}
    inputs = shard_inputs(segments.shards)
    if not config.overwrite:
        refuse_other_space(corpus.child("embeddings"), provenance)

    def make_plan() -> Plan:
        notes = {"provenance": provenance_metadata(provenance), "upstream": segments.plan_hash}
        return Plan("embeddings", settings, inputs, shard_units(segments), notes)

    def make_worker(plan: Plan) -> EncodeWorker:
        return EncodeWorker(
            source=corpus.child("segments").root,
            target=corpus.child("embeddings").root,
            encoder=encoder,
            plan_hash=plan.hash,
            store_dtype=config.store_dtype,
            with_text=config.text,
            metadata=provenance_metadata(provenance),
            corpus=corpus.root,
            speech=speakers,
            storage_options=config.storage_options or None,
        )

    return Stage("embeddings", corpus.child("embeddings"), settings, inputs, make_plan, make_worker)


def _wants_text(config: EncodeConfig, has_text: bool) -> bool:
    """Whether an encoder of text is loaded: for rows of text, or since one was asked for."""
    given = "model" in config.model_fields_set
    if has_text and not given:
        hub.tell_default(config.model)
    if not has_text and not given:
        log.warning(
            "the corpus holds nothing but speech: no encoder of text is loaded, so it gets no embedding of the end of "
            "a text; --model of the same space adds it"
        )
    return has_text or given


def _describe(encoder: EncoderOptions | None, spoken: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """What identifies the vectors of a corpus: the encoder of text, if there is one.

    Raises:
        SpaceError: those of speech are of another space.
    """
    if encoder is None:
        return speech_alone(spoken)
    described = describe_encoder(encoder)
    for lang, each in spoken.items():
        check_together(described, each, "the encoder of text", f"the speech encoder of {lang}")
    return described


def _without_name(described: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in described.items() if name != "encoder"}


def shard_units(manifest: Manifest) -> tuple[Unit, ...]:
    """One unit for each shard of the stage before, numbered in path order, largest first to keep the tail short."""
    units = [Unit(number, shard.rows, {"shard": shard.path}) for number, shard in enumerate(manifest.shards)]
    return tuple(sorted(units, key=lambda unit: (-unit.rows, unit.id)))


def run(config: EncodeConfig, show: Show = silent) -> Report:
    """Encode all sentences that have no embedding yet."""
    return run_stage(make_stage(config), config.run_options, overwrite=config.overwrite, show=show)

"""``lcm-data decode``: the embeddings of a corpus to sentences in one language, a corpus of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import Field, model_validator

from lcm_data.corpus import StageData
from lcm_data.decode import DecoderOptions, describe_decoder
from lcm_data.errors import UsageError
from lcm_data.progress import Show, silent
from lcm_data.sonar import hub
from lcm_data.sonar.files import find_model
from lcm_data.space import check_same_space, space_of
from lcm_data.speak import load_speaker
from lcm_data.speak.files import SoundFormat
from lcm_data.store.files import Files, absolute, open_files
from lcm_data.store.plan import Plan, Unit
from lcm_data.store.shard import ShardInfo, document_groups
from lcm_data.workers.decode import COLUMNS, DecodeWorker, decoder_metadata
from pipelines.config import Language, Languages, VerbConfig
from pipelines.derived import check_place, chosen_shards, document_units
from pipelines.speak import SPEECH, say_corpus
from pipelines.stage import Report, Stage, provenance_metadata, refuse_outdated, run_stage, shard_inputs

_ONLY_WITH_MODE = {"beam_size": "beam", "top_p": "sample", "top_k": "sample", "seed": "sample"}


def default_decoder(provenance: Mapping[str, Any]) -> str:
    """The decoder for vectors of some provenance: that of the space which ships, or the published one."""
    ships = space_of(provenance) == find_model(hub.MINI, "decoder").space
    return hub.MINI if ships else "text_sonar_basic_decoder"


class DecodeConfig(VerbConfig):
    """Settings of ``lcm-data decode``; ``corpus`` is the one to make."""

    embeddings: str = Field(description="Corpus folder or fsspec URL whose embeddings are decoded.")
    lang: Language = Field(description="Language of the sentences: fra_Latn, fr, ...")
    model: str | None = Field(
        None, description="Decoder: a name, hf:owner/repo, or a folder or file; by default that of the corpus's space."
    )
    backend: str = Field("native", description="native or sonar-space.")
    dtype: str = Field("float32", description="Precision of the network: float32, bfloat16 or float16.")
    device: str = Field("auto", description="auto, cpu or cuda.")
    mode: str = Field("beam", description="beam, greedy or sample.")
    beam_size: int = Field(5, ge=1, description="Hypotheses of a beam search.")
    max_tokens: int | None = Field(None, ge=3, description="Longest sentence; by default what the network can say.")
    temperature: float = Field(1.0, gt=0, description="Divides the logits.")
    top_p: float | None = Field(None, gt=0, le=1, description="Draw from the likeliest tokens of this probability.")
    top_k: int | None = Field(None, ge=1, description="Draw from so many likeliest tokens.")
    seed: int = Field(0, description="Of the draws.")
    batch_rows: int | None = Field(None, ge=1, description="Hypotheses in a batch; by default chosen for the device.")
    from_langs: Languages = Field(None, description="Decode only vectors of these languages.")
    splits: list[str] | None = Field(None, description="Decode only these splits.")
    speech: str | None = Field(
        None, description="Say the sentences aloud, too: espeak-ng, or the folder of a VITS model."
    )
    speech_format: SoundFormat = Field("wav", description="Sound files: wav or flac.")
    unit_rows: int = Field(1024, ge=1, description="Sentences of a unit, about: it ends where a row group does.")

    @model_validator(mode="after")
    def _no_idle_settings(self) -> DecodeConfig:
        """Settings of another mode would do nothing; the defaults stand in every printed settings file."""
        for name, mode in _ONLY_WITH_MODE.items():
            if self.mode != mode and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} only has a meaning with mode {mode}, and mode is {self.mode}. Leave one out.")
        return self

    @property
    def decoder(self) -> DecoderOptions:
        """The options of the decoder on a worker."""
        names = ("backend", "dtype", "device", "mode", "beam_size", "max_tokens", "temperature", "top_p", "top_k")
        assert self.model is not None
        return DecoderOptions(
            model=absolute(self.model),
            seed=self.seed,
            batch_rows=self.batch_rows,
            threads=self.threads or None,
            **{name: getattr(self, name) for name in names},
        )


def make_stage(config: DecodeConfig) -> Stage:
    """Describe the stage; raises if the embeddings are not finished, or the decoder does not fit them."""
    origin, corpus = open_files(config.embeddings), open_files(config.corpus)
    check_place(origin, corpus, "segments", "decoder", "decoded sentences")
    data = StageData(origin.child("embeddings"))
    refuse_outdated(origin, "embeddings")
    data.check_columns(COLUMNS)
    shards = chosen_shards(data, config.from_langs, config.splits)
    model = config.model or default_decoder(data.manifest.provenance)
    options = config.model_copy(update={"model": model}).decoder
    described = describe_decoder(options)
    _check_fits(described, data, model)
    settings: dict[str, Any] = {
        "lang": config.lang,
        # The weights count, not where they lie.
        "decoder": {name: value for name, value in described.items() if name != "decoder"},
        "batch_rows": config.batch_rows or "auto",
        "unit_rows": config.unit_rows,
    }
    inputs = shard_inputs(shards)
    # What made the vectors is one step back now: the sentences may get an encoder of their own.
    provenance = {f"source_{name}": value for name, value in data.manifest.provenance.items()}
    provenance |= decoder_metadata(described)
    target = corpus.child("segments")

    def make_plan() -> Plan:
        notes = {"provenance": provenance_metadata(provenance)}
        return Plan("segments", settings, inputs, decode_units(data.files, shards, config.unit_rows), notes)

    def make_worker(plan: Plan) -> DecodeWorker:
        return DecodeWorker(
            source=data.files.root,
            target=target.root,
            decoder=options,
            lang=config.lang,
            plan_hash=plan.hash,
            metadata=provenance_metadata(provenance),
        )

    # Few rows: on a CPU a decoder says one or two sentences a second.
    return Stage("segments", target, settings, inputs, make_plan, make_worker, calibration_rows=64)


def decode_units(files: Files, shards: Sequence[ShardInfo], unit_rows: int) -> tuple[Unit, ...]:
    """Units of about ``unit_rows`` sentences; a shard that has no more is one, and its footer is not read."""
    return document_units(
        shards, unit_rows, lambda shard: document_groups(files, shard.path) if shard.rows > unit_rows else None
    )


def _check_fits(described: Mapping[str, str], data: StageData, model: str) -> None:
    """Vectors of another encoder's space would give fluent sentences that mean nothing."""
    source = data.manifest.provenance
    if int(described["dim"]) != data.dim:
        raise UsageError(
            f"the decoder {model} takes vectors of {described['dim']} dimensions, those of {data.files.root} have "
            f"{data.dim} (encoder {source.get('encoder', 'unknown')}). Give the decoder that belongs to it."
        )
    advice = "give the decoder that belongs to the encoder."
    check_same_space(source, described, data.files.root, f"the decoder {model}", advice)


def run(config: DecodeConfig, show: Show = silent) -> Report:
    """Decode all embeddings that have no sentence yet; then say aloud those that have no sound yet, if asked."""
    speaker = None if config.speech is None else load_speaker(config.speech, config.lang)
    report = run_stage(make_stage(config), config.run_options, overwrite=config.overwrite, show=show)
    stats = report.manifest.stats
    extra: dict[str, Any] = {"empty sentences": int(stats["empty"]) or None}
    extra["mean score"] = f"{stats['score_sum'] / stats['sentences']:.3f} (log probability a token)"
    if speaker is not None:
        said = say_corpus(config.corpus, speaker, config.speech_format, overwrite=config.overwrite)
        extra["speech"] = f"{said.files:,} files in {config.corpus}/{SPEECH}, {said.seconds / 60:.1f} minutes this run"
        extra["voice"] = speaker.name
        extra["nothing to say"] = said.silent or None
    return replace(report, extra=extra)

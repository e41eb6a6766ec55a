"""``lcm-data decode``: the embeddings of a corpus to sentences in one language, a corpus of their own."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import yaml
from pydantic import Field, field_validator, model_validator

from lcm_data.corpus import StageData
from lcm_data.decode import DecoderOptions, describe_decoder
from lcm_data.errors import UsageError
from lcm_data.languages import parse_language
from lcm_data.progress import Show, silent
from lcm_data.space import check_same_space
from lcm_data.store.files import Files, LocalFiles, absolute, open_files
from lcm_data.store.plan import CONFIG_PATH, PLAN_PATH, Plan, Unit
from lcm_data.store.shard import ShardInfo, document_groups
from lcm_data.workers.decode import COLUMNS, DecodeWorker, decoder_metadata
from pipelines.config import VerbConfig
from pipelines.stage import Report, Stage, provenance_metadata, refuse_outdated, run_stage

DEFAULT_MODEL = "text_sonar_basic_decoder"

_ONLY_WITH_MODE = {"beam_size": "beam", "top_p": "sample", "top_k": "sample", "seed": "sample"}


class DecodeConfig(VerbConfig):
    """Settings of ``lcm-data decode``; ``corpus`` is the one to make."""

    embeddings: str = Field(description="Corpus folder or fsspec URL whose embeddings are decoded.")
    lang: str = Field(description="Language of the sentences: fra_Latn, fr, ...")
    model: str = Field(DEFAULT_MODEL, description="Decoder: a name, hf:owner/repo, or a folder or file.")
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
    from_langs: list[str] | None = Field(None, description="Decode only vectors of these languages.")
    splits: list[str] | None = Field(None, description="Decode only these splits.")
    unit_rows: int = Field(1024, ge=1, description="Sentences of a unit, about: it ends where a row group does.")

    @field_validator("lang")
    @classmethod
    def _known_language(cls, name: str) -> str:
        return parse_language(name)

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
        return DecoderOptions(
            model=absolute(self.model),
            seed=self.seed,
            batch_rows=self.batch_rows,
            threads=self.threads or None,
            **{name: getattr(self, name) for name in names},
        )


def make_stage(config: DecodeConfig) -> Stage:
    """Describe the stage; raises if the embeddings are not finished, or the decoder does not fit them."""
    origin, target = open_files(config.embeddings), open_files(config.corpus).child("segments")
    _check_place(origin, open_files(config.corpus), target)
    data = StageData(origin.child("embeddings"))
    refuse_outdated(origin, "embeddings")
    data.check_columns(COLUMNS)
    shards = _chosen(data, config)
    options = config.decoder
    described = describe_decoder(options)
    _check_fits(described, data, config.model)
    settings: dict[str, Any] = {
        "lang": config.lang,
        # The weights count, not where they lie.
        "decoder": {name: value for name, value in described.items() if name != "decoder"},
        "batch_rows": config.batch_rows or "auto",
        "unit_rows": config.unit_rows,
    }
    inputs = {shard.path: f"{shard.rows} rows, sha256 {shard.sha256}" for shard in shards}
    # What made the vectors is one step back now: the sentences may get an encoder of their own.
    provenance = {f"source_{name}": value for name, value in data.manifest.provenance.items()}
    provenance |= decoder_metadata(described)

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
    """Units of whole documents, numbered in the order of the rows, largest first to keep the tail short.

    A shard is cut at row groups into units of at most ``unit_rows``, or of one row group if that is larger.
    """
    large = [shard.path for shard in shards if shard.rows > unit_rows]
    with ThreadPoolExecutor(16) as pool:  # an object store answers each in tens of milliseconds
        runs = dict(zip(large, pool.map(lambda path: document_groups(files, path), large), strict=True))
    specs: list[tuple[int, dict[str, Any]]] = []
    for shard in shards:
        if shard.path not in runs:
            specs += [(shard.rows, {"shard": shard.path})]
            continue
        start = stop = rows = 0
        for groups, num in runs[shard.path]:
            if rows and rows + num > unit_rows:
                specs.append((rows, {"shard": shard.path, "groups": [start, stop]}))
                start, rows = stop, 0
            stop, rows = groups.stop, rows + num
        specs.append((rows, {"shard": shard.path, "groups": [start, stop]}))
    units = [Unit(number, rows, spec) for number, (rows, spec) in enumerate(specs)]
    return tuple(sorted(units, key=lambda unit: (-unit.rows, unit.id)))


def _chosen(data: StageData, config: DecodeConfig) -> list[ShardInfo]:
    langs = config.from_langs and [parse_language(lang) for lang in config.from_langs]
    paths = set(data.shards(langs, config.splits))
    return [shard for shard in data.manifest.shards if shard.path in paths and shard.rows]


def _check_place(origin: Files, corpus: Files, target: Files) -> None:
    """Sentences go to a corpus of their own; what another one was segmented from documents is never replaced."""
    source, out = _location(origin), _location(corpus)
    if source == out:
        raise UsageError(
            f"the decoded sentences would take the place of those of {origin.root}. Give another folder for them."
        )
    if f"{source}/".startswith(f"{out}/") or f"{out}/".startswith(f"{source}/"):
        raise UsageError(
            f"one of {origin.root} and {corpus.root} lies inside the other. Give a folder for the decoded sentences "
            "that is neither in the corpus nor around it."
        )
    if target.size(PLAN_PATH) is not None and "decoder" not in _settings(target):
        raise UsageError(
            f"{target.root} holds sentences that no decoder said. Give another folder for the decoded ones."
        )


def _location(files: Files) -> str:
    return (os.path.realpath(files.root) if isinstance(files, LocalFiles) else files.root).rstrip("/")


def _settings(stage: Files) -> Mapping[str, Any]:
    """What a stage was made with, for a first look: its plan may be damaged or of an older layout."""
    try:
        settings = yaml.safe_load(stage.read(CONFIG_PATH))
    except (FileNotFoundError, yaml.YAMLError):
        return {}
    return settings if isinstance(settings, dict) else {}


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
    """Decode all embeddings that have no sentence yet."""
    report = run_stage(make_stage(config), config.run_options, overwrite=config.overwrite, show=show)
    stats = report.manifest.stats
    extra: dict[str, Any] = {"empty sentences": int(stats["empty"]) or None}
    extra["mean score"] = f"{stats['score_sum'] / stats['sentences']:.3f} (log probability a token)"
    return replace(report, extra=extra)

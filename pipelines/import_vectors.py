"""``lcm-data import``: files of vectors, of any encoder and modality, to the segments and embeddings of a corpus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from pydantic import Field, field_validator

from lcm_data.end_of_text import END_OF_TEXT
from lcm_data.errors import InputError, SpaceError, UsageError
from lcm_data.exchange.columns import FoundColumns, Shape, WantedColumns, check_same_columns, find_columns, shape_of
from lcm_data.exchange.inputs import SourceFile, list_sources, place_of
from lcm_data.exchange.planning import SourceFacts, plan_slices
from lcm_data.exchange.slices import Defaults
from lcm_data.exchange.sources import open_source, provenance_of
from lcm_data.progress import Show, silent
from lcm_data.schema import StoreDtype
from lcm_data.splits import SplitRule
from lcm_data.store.files import Files, open_files
from lcm_data.store.lock import stage_lock
from lcm_data.store.manifest import Manifest, load_manifest
from lcm_data.store.plan import Plan, Unit, load_plan
from lcm_data.store.shard import parse_shard_path
from lcm_data.workers.imported import ImportSegmentsWorker, ImportTrialWorker, ImportVectorsWorker
from pipelines.config import Language, VerbConfig
from pipelines.derived import check_place
from pipelines.stage import Report, Stage, clear_stage, provenance_metadata, run_stage, shard_inputs

_OF_FILES = {"stage", "unit", "plan_hash", "split", "lang"}
"""What the metadata of a file of ours says of this file alone."""


class ImportConfig(VerbConfig):
    """Settings of ``lcm-data import``."""

    source: str = Field(description="File, folder, pattern or fsspec URL of Parquet, .npy, .arrow or Lance.")
    embedding_column: str | None = Field(None, description="Column of the vectors; by default the one there is.")
    text_column: str | None = Field(None, description="Column of the sentences; by default one of the usual names.")
    id_column: str | None = Field(None, description="Column of the document's id; by default doc_id or id.")
    lang_column: str | None = Field(None, description="Column of the language; by default lang.")
    split_column: str | None = Field(None, description="Column of the split; by default split.")
    position_column: str | None = Field(None, description="Place of a sentence in its document; by default sent_idx.")
    metadata: str | None = Field(None, description="Parquet or JSON Lines file with the rows of a .npy.")
    lang: Language | None = Field(None, description="Language of rows that do not say; zxx_Zxxx for none.")
    space: str | None = Field(None, description="Name of the embedding space: sonar for SONAR's, or a name of yours.")
    encoder: str | None = Field(None, description="Name of what made the vectors, for people.")
    modality: str = Field("text", min_length=1, description="What the vectors are of: text, speech, sign, image, ...")
    dim: int | None = Field(None, ge=1, description="Numbers of a vector; by default as the first has.")
    store_dtype: StoreDtype | None = Field(
        None, description="Stored vectors: float16 or float32; by default float16, or what files of ours say."
    )
    validation: float = Field(0.01, ge=0, le=1, description="Share of documents that do not say their split.")
    test: float = Field(0.01, ge=0, le=1, description="Share of documents that do not say their split.")
    split_seed: int = Field(0, ge=0, description="Another seed holds out other documents.")
    unit_rows: int = Field(16_384, ge=1, description="Vectors of a unit, about: it ends where a document does.")

    @field_validator("space")
    @classmethod
    def _no_blank(cls, name: str | None) -> str | None:
        if name is not None and not name.strip():
            raise ValueError("a space needs a name")
        return name

    @property
    def wanted(self) -> WantedColumns:
        """The columns as given."""
        return WantedColumns(
            *(getattr(self, f"{name}_column") for name in ("embedding", "text", "id", "lang", "split", "position"))
        )

    @property
    def defaults(self) -> Defaults:
        """What holds for rows that do not say themselves."""
        return Defaults(self.lang, SplitRule(self.validation, self.test, self.split_seed))


@dataclass(frozen=True)
class Found:
    """All that is known of the sources before any row is read."""

    sources: tuple[SourceFacts, ...]
    dim: int
    columns: FoundColumns
    provenance: dict[str, str]
    store_dtype: StoreDtype

    @property
    def inputs(self) -> dict[str, str]:
        """Fingerprints by name."""
        return {source.file.name: source.file.fingerprint for source in self.sources}


def look(config: ImportConfig) -> Found:
    """Open every source: columns, width of the vectors, what files of ours say of their encoder.

    Raises:
        InputError, UsageError: they do not fit together, or nothing says the language.
        SpaceError: files of several embedding spaces, or of another than ``space``.
    """
    files = list_sources(config.source, config.metadata)
    sources: list[SourceFacts] = []
    shapes: list[tuple[SourceFile, Shape]] = []
    provenance: dict[str, str] = {}
    named: list[str] = []
    unnamed: list[str] = []
    for file in files:
        with open_source(file) as opened:
            schema, num_rows = opened.schema, opened.num_rows
        facts = provenance_of(schema)
        if facts.get("stage", "embeddings") != "embeddings":
            continue  # sentences or codes that an export put beside the vectors
        columns = find_columns(schema, config.wanted, file.uri)
        if sources:
            check_same_columns(sources[0].columns, columns, sources[0].file.uri, file.uri)
        (named if "space" in facts else unnamed).append(file.uri)
        _add_provenance(provenance, facts, file)
        shape = shape_of(file, schema, columns, num_rows) if num_rows else None
        if shape is not None:
            shapes.append((file, shape))
        sources.append(SourceFacts(file, columns, num_rows, shape.a_row if shape else 1.0))
    if not sources:
        raise InputError(f"{config.source} holds sentences or codes, but no vectors. Export the stage embeddings.")
    if not shapes:
        raise InputError(f"{config.source} holds no vectors: its files are empty, or begin with nulls. Give others.")
    if named and unnamed and config.space is None:
        raise SpaceError(
            f"{named[0]} says that its vectors are of the space {provenance['space']}, {unnamed[0]} says nothing. If "
            f"they are of one, say so: --space {provenance['space']}. Else import them into corpora of their own."
        )
    dim = _common_width(config.dim, shapes)
    provenance = _named(config, provenance, dim)
    return Found(tuple(sources), dim, sources[0].columns, provenance, _store_dtype(config, provenance))


def _add_provenance(known: dict[str, str], facts: dict[str, str], file: SourceFile) -> None:
    for name, value in facts.items():
        if name in ("space", "encoder_revision") and known.get(name, value) != value:
            raise SpaceError(
                f"{file.uri} has vectors of {name} {value}, the files before of {known[name]}. Two spaces are never "
                "mixed: import them into corpora of their own."
            )
        if name not in _OF_FILES:
            known[name] = value


def _common_width(given: int | None, shapes: Sequence[tuple[SourceFile, Shape]]) -> int:
    """The width of the vectors, which must be one.

    Raises:
        InputError: files differ, or are not as given.
    """
    first, dim = shapes[0][0].uri, given or shapes[0][1].dim
    for file, shape in shapes:
        if shape.dim != dim and (shape.is_fixed or not given):  # of lists of any size, single rows may differ
            before = "--dim says" if given else f"{first} has"
            raise InputError(
                f"{file.uri} has vectors of {shape.dim} numbers, {before} {dim}. A corpus has one width: name the "
                "right column with --embedding-column, or import the files into corpora of their own."
            )
    return dim


def _named(config: ImportConfig, known: dict[str, str], dim: int) -> dict[str, str]:
    """Provenance with the name of the space.

    Raises:
        UsageError: nothing names it. SpaceError: the files name another.
    """
    space = known.get("space") or config.space
    if space is None:
        raise UsageError(
            "nothing says in which embedding space these vectors are, and two spaces must never mix. Add --space: "
            "sonar for vectors of SONAR encoders, else a name of your own for this encoder, such as --space signs-1."
        )
    if config.space not in (None, space):
        raise SpaceError(
            f"the files say that their vectors are of the space {space}, --space says {config.space}. Leave it out."
        )
    encoder = config.encoder or known.get("encoder") or "imported"
    return {**known, "space": space, "encoder": encoder, "dim": str(dim)}


def _store_dtype(config: ImportConfig, provenance: dict[str, str]) -> StoreDtype:
    if config.store_dtype is not None:
        return config.store_dtype
    return "float32" if provenance.get("store_dtype") == "float32" else "float16"


def make_stage(config: ImportConfig) -> Stage:
    """The stage of segments, for a dry run of the whole: its trial makes the embeddings, too."""
    found = look(config)
    stage = segments_stage(config, found)

    def try_worker(plan: Plan) -> ImportTrialWorker:
        return ImportTrialWorker(
            stage.files.root, config.defaults, config.modality, plan.hash, dim=found.dim, store_dtype=found.store_dtype
        )

    return replace(stage, try_worker=try_worker)


def segments_stage(config: ImportConfig, found: Found) -> Stage:
    """Sentences of the sources; raises if they are not usable or the place is taken."""
    corpus = open_files(config.corpus)
    check_place(open_files(config.source), corpus, "segments", "embedding_column", "imported sentences")
    _check_language(config, found)
    target = corpus.child("segments")
    settings: dict[str, Any] = {
        "embedding_column": found.columns.embedding,
        "columns": {name: value for name, value in asdict(found.columns).items() if name != "embedding"},
        "lang": config.lang,
        "splits": asdict(config.defaults.splits),
        "modality": config.modality,
        "unit_rows": config.unit_rows,
    }
    provenance = {
        "segmenter": "imported",
        **{k: v for k, v in found.provenance.items() if k in ("segmenter", "max_chars")},
    }

    def make_plan() -> Plan:
        slices = plan_slices(found.sources, config.defaults, config.unit_rows)
        units = tuple(Unit(n, part.stop - part.start, part.to_json()) for n, part in enumerate(slices))
        return Plan("segments", settings, found.inputs, units, {"provenance": provenance})

    def make_worker(plan: Plan) -> ImportSegmentsWorker:
        return ImportSegmentsWorker(target.root, config.defaults, config.modality, plan.hash, provenance)

    def begin() -> None:
        if config.overwrite:  # embeddings of sentences that are no more
            with stage_lock(corpus.child("embeddings")):
                clear_stage(corpus.child("embeddings"))
            corpus.remove(END_OF_TEXT)  # it may be of another space

    return Stage("segments", target, settings, found.inputs, make_plan, make_worker, begin=begin)


def _check_language(config: ImportConfig, found: Found) -> None:
    silent_files = [each.file for each in found.sources if place_of(each.file.name).lang is None]
    if config.lang is None and found.columns.lang is None and silent_files:
        raise UsageError(
            f"nothing says the language of {silent_files[0].uri}. Add --lang (eng_Latn, en, ...; for what is not "
            "written a code with Zxxx: ase_Zxxx is American Sign Language, zxx_Zxxx no language, as of images), or "
            "name the column with --lang-column."
        )


def embeddings_stage(config: ImportConfig, found: Found, segments: Manifest) -> Stage:
    """The vectors of finished segments."""
    corpus = open_files(config.corpus)
    source, target = corpus.child("segments"), corpus.child("embeddings")
    with_text = found.columns.text is not None
    settings = {
        "embedding_column": found.columns.embedding,
        "dim": found.dim,
        "store_dtype": found.store_dtype,
        "text": with_text,
        "provenance": {k: v for k, v in found.provenance.items() if k not in ("encoder", "store_dtype")},
    }
    inputs = {**shard_inputs(segments.shards), **found.inputs}
    provenance = provenance_metadata({**segments.provenance, **found.provenance, "store_dtype": found.store_dtype})

    def make_plan() -> Plan:
        notes = {"provenance": provenance, "upstream": segments.plan_hash}
        return Plan("embeddings", settings, inputs, vector_units(source, segments), notes)

    def make_worker(plan: Plan) -> ImportVectorsWorker:
        return ImportVectorsWorker(
            source.root, target.root, config.defaults, found.dim, plan.hash, found.store_dtype, with_text, provenance
        )

    return Stage("embeddings", target, settings, inputs, make_plan, make_worker)


def vector_units(segments: Files, manifest: Manifest) -> tuple[Unit, ...]:
    """One unit for each of the segments that left rows: its slice of the source and its shards."""
    plan = load_plan(segments)
    assert plan is not None
    shards: dict[int, list[str]] = {}
    rows: dict[int, int] = {}
    for shard in manifest.shards:
        part = parse_shard_path(shard.path)[2]
        shards.setdefault(part, []).append(shard.path)
        rows[part] = rows.get(part, 0) + shard.rows
    slices = {unit.id: unit.spec for unit in plan.units}
    return tuple(
        Unit(part, rows[part], {"slice": slices[part], "shards": sorted(shards[part])}) for part in sorted(shards)
    )


def run(config: ImportConfig, show: Show = silent) -> Report:
    """Import all sentences, then all vectors, that are not there yet."""
    found = look(config)
    stage = segments_stage(config, found)
    first = run_stage(stage, config.run_options, overwrite=config.overwrite, show=show)
    corpus = open_files(config.corpus)
    segments = load_manifest(corpus.child("segments"))
    stage = embeddings_stage(config, found, segments)
    report = run_stage(stage, config.run_options, overwrite=config.overwrite, show=show)
    _bring_end_of_text(config, corpus)
    extra = {
        "documents": int(first.manifest.stats["documents"]),
        "rows in": first.manifest.rows_in,
        "rows rejected": _listed(first.manifest.rejects),
        "without text": int(first.manifest.stats["without_text"]) or None,
        "splits": _listed(_by_split(report.manifest.partitions)),
        "space": found.provenance["space"],
        "dim": found.dim,
    }
    return replace(report, extra=extra)


def _by_split(partitions: dict[str, int]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for place, rows in partitions.items():
        counts[place.split("/")[0]] += rows
    return dict(counts)


def _listed(counts: dict[str, int]) -> str | None:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items()) or None


def _bring_end_of_text(config: ImportConfig, corpus: Files) -> None:
    """Exports carry the embedding of the end of a text, which training needs."""
    source = open_files(config.source)
    if source.size(END_OF_TEXT) is not None and corpus.size(END_OF_TEXT) is None:
        corpus.write(END_OF_TEXT, source.read(END_OF_TEXT))

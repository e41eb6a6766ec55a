"""``lcm-data evaluate-codes``: how much of a corpus its codes keep, level by level and language by language.

Reads embeddings and codes of a corpus side by side, puts the measurements of ``lcm_data.quality.codes`` in order, and
writes a report with plots. What cannot be measured with what was given is left out, and the report says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from lcm_data import schema
from lcm_data.corpus import StageData
from lcm_data.decode import DecoderOptions, load_decoder
from lcm_data.errors import InputError, PlanMismatchError, UsageError
from lcm_data.quality.codes import (
    CodesReport,
    Usage,
    check_gates,
    make_levels,
    measure_errors,
    shared_codes,
    yardstick,
)
from lcm_data.quality.roundtrip import RoundTrip, round_trip
from lcm_data.quantize.codebook import Codebook
from lcm_data.quantize.sample import splitmix64
from lcm_data.quantize.storage import load_codebook
from lcm_data.space import check_same_space
from lcm_data.store.files import absolute, open_files
from lcm_data.store.shard import parse_shard_path, read_shard
from pipelines.config import Dtype, Languages
from pipelines.report_folder import new_report, write_report
from pipelines.space_figures import Show, silent
from pipelines.stage import refuse_outdated

_HELD_OUT = ("validation", "test")


class EvaluateCodesConfig(BaseModel):
    """Settings of ``lcm-data evaluate-codes``."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    corpus: str = Field(description="Corpus with embeddings and codes.")
    out: str = Field(description="Folder or fsspec URL for the report and the plots.")
    splits: list[str] | None = Field(None, description="Splits; by default those no codebook was fitted on.")
    lang: Languages = Field(None, description="Languages; by default all.")
    sample: int = Field(1000, ge=0, description="Sentences of a language whose errors are measured; 0 for all.")
    seed: int = Field(0, ge=0, description="Of the sample.")
    codebook: str | None = Field(None, description="Folder of the codebook; by default the one beside the codes.")
    decoder: str | None = Field(None, description="Decoder: a name, hf:owner/repo, or a folder or file.")
    decoder_backend: str = Field("native", description="Of the decoder.")
    decode_sample: int = Field(50, ge=1, description="Sentences of a language that are decoded.")
    beam_size: int = Field(5, ge=1, description="Hypotheses a sentence.")
    max_tokens: int | None = Field(None, ge=3, description="Longest decoded text in tokens.")
    dtype: Dtype = Field("float32", description="Precision of the decoder: float32, bfloat16 or float16.")
    device: str = Field("auto", description="auto, cpu or cuda.")
    threads: int = Field(0, ge=0, description="CPU threads; 0 for torch's default.")
    min_usage: float = Field(0.5, ge=0, le=1, description="Least perplexity of a level, as a share of its units.")
    min_gain: float = Field(0.001, ge=0, lt=1, description="Least share of the error that a level takes away.")
    gate: Literal["fail", "warn"] = Field("fail", description="fail or warn if a level is below a limit.")
    plots: bool = Field(True, description="Draw plots.")
    overwrite: bool = Field(False, description="Replace an earlier report.")


@dataclass(frozen=True)
class _Rows:
    """The sampled rows, and the usage of all codes that were read."""

    emb_ND: np.ndarray[Any, Any]
    codes_NM: np.ndarray[Any, Any]
    langs: list[str]
    texts: list[str] | None
    usage: Usage


def run(config: EvaluateCodesConfig, show: Show = silent) -> CodesReport:
    """Measure, write ``report.json`` and the plots, and return the report; whether gates fail is for the caller.

    Raises:
        UsageError: the folder has a report and ``overwrite`` is not set, or settings that do not fit.
        PlanMismatchError: the codebook is not the one of the codes.
        InputError: no sentence to measure.
        MissingExtraError: sacrebleu or matplotlib is wanted and not installed.
    """
    out = new_report(config.out, overwrite=config.overwrite, plots=config.plots, decodes=bool(config.decoder))
    report = _measure(config, show)
    figures = {}
    if config.plots:
        from lcm_data.quality.code_plots import draw_codes

        figures = draw_codes(report)
    write_report(out, report.to_json(), figures)
    return report


def _measure(config: EvaluateCodesConfig, show: Show) -> CodesReport:
    corpus = open_files(config.corpus)
    refuse_outdated(corpus, "codes")
    data, embeddings = StageData(corpus.child("codes")), StageData(corpus.child("embeddings"))
    where = absolute(config.codebook) if config.codebook else corpus.child("codebook").root
    codebook = load_codebook(where)
    made_with = data.metadata.get("codebook", codebook.fingerprint)
    if made_with != codebook.fingerprint:
        raise PlanMismatchError(
            f"the codes of {config.corpus} were made with the codebook {made_with[:12]}, {where} is "
            f"{codebook.fingerprint[:12]}. Give theirs with --codebook."
        )
    skipped: list[str] = []
    held_out = [split for split in _HELD_OUT if split in data.splits]
    splits = config.splits or held_out or data.splits
    if not config.splits and not held_out:
        skipped.append("held-out errors: the corpus has no split but those the codebook may have been fitted on")
    rows = _read(config, data, embeddings, codebook, splits, show)
    overall, languages = measure_errors(codebook, rows.emb_ND, rows.codes_NM, rows.langs)
    if alike := sorted({*rows.langs} - {*languages}):
        skipped.append(f"errors of {', '.join(alike)}: one sentence, or sentences all alike, have no variance")
    bits = [(level + 1) * float(np.log2(codebook.num_units)) for level in range(data.dim)]
    levels = make_levels(overall, rows.usage, yardstick(rows.emb_ND, bits), bits)
    if len(rows.emb_ND) < codebook.dim + 1000:
        skipped.append(f"a sound yardstick: {len(rows.emb_ND):,} sentences are few for {codebook.dim} dimensions")
    gates = check_gates(
        levels, codebook.num_units, rows.usage.rows, min_usage=config.min_usage, min_gain=config.min_gain
    )
    if any(gate.passed is None for gate in gates):
        skipped.append(f"the gate on usage: {rows.usage.rows:,} codes are few for {codebook.num_units:,} units")
    return CodesReport(
        corpus=config.corpus,
        out=config.out,
        settings=config.model_dump(mode="json"),
        provenance={
            **data.manifest.provenance,
            "codebook": codebook.fingerprint,
            "beam": data.metadata.get("beam", "1"),
        },
        splits=list(splits),
        sentences=len(rows.emb_ND),
        codes_read=rows.usage.rows,
        duplicates=shared_codes(rows.emb_ND, rows.codes_NM),
        levels=levels,
        languages=languages,
        fit=codebook.manifest.get("quality", []),
        text=_say(config, data, codebook, rows, skipped, show),
        gates=gates,
        skipped=skipped,
    )


def _read(
    config: EvaluateCodesConfig,
    data: StageData,
    embeddings: StageData,
    codebook: Codebook,
    splits: list[str],
    show: Show,
) -> _Rows:
    """All codes for the usage, and of each language the vectors of the rows with the smallest hashes."""
    shards = data.shards(config.lang, splits)
    chosen = _choose(config, data, shards)
    names = ["sid", "emb", *(["text"] if "text" in embeddings.schema.names else [])]
    usage = Usage(data.dim, codebook.num_units)
    emb, codes, langs, texts = [], [], [], []
    for number, path in enumerate(shards):
        show("reading", number, len(shards))
        _, lang, _ = parse_shard_path(path)
        table = read_shard(data.files, path, ("sid", "codes"))
        numbers = schema.vectors(table["codes"])
        usage.add(numbers)
        sids = table["sid"].to_numpy()
        wanted = np.flatnonzero(np.isin(sids, chosen[lang]))
        if not len(wanted):
            continue
        source = read_shard(embeddings.files, path, names)
        place = {sid: row for row, sid in enumerate(source["sid"].to_pylist())}
        rows = [place[sid] for sid in sids[wanted].tolist()]
        emb.append(schema.vectors(source["emb"])[rows].astype(np.float32))
        codes.append(numbers[wanted])
        langs += [lang] * len(rows)
        if "text" in names:
            texts += source["text"].take(pa.array(rows, pa.int64())).to_pylist()
    if not emb:
        raise InputError(f"{config.corpus} has no codes in the splits {', '.join(splits)} to measure.")
    return _Rows(np.concatenate(emb), np.concatenate(codes), langs, texts if "text" in names else None, usage)


def _choose(config: EvaluateCodesConfig, data: StageData, shards: list[str]) -> dict[str, np.ndarray[Any, Any]]:
    """Ids of the rows to measure, by language: the same ones however the corpus is cut into shards."""
    ids: dict[str, list[np.ndarray[Any, Any]]] = {}
    for path in shards:
        sids = read_shard(data.files, path, ("sid",))["sid"].to_numpy()
        ids.setdefault(parse_shard_path(path)[1], []).append(sids)
    chosen = {}
    for lang, parts in ids.items():
        every = np.concatenate(parts)
        order = np.argsort(splitmix64(every.view(np.uint64) ^ np.uint64(config.seed)), kind="stable")
        chosen[lang] = every[order[: config.sample or None]]
    return chosen


def _say(
    config: EvaluateCodesConfig, data: StageData, codebook: Codebook, rows: _Rows, skipped: list[str], show: Show
) -> dict[str, dict[int, RoundTrip]]:
    """Decoded text from growing numbers of levels, and from the vector itself under 0."""
    if config.decoder is None or rows.texts is None:
        reason = "no --decoder was given" if config.decoder is None else "the corpus keeps no text"
        skipped.append(f"decoded text: {reason}")
        return {}
    decoder = load_decoder(
        DecoderOptions(
            model=absolute(config.decoder),
            backend=config.decoder_backend,
            dtype=config.dtype,
            device=config.device,
            threads=config.threads or None,
            beam_size=config.beam_size,
            max_tokens=config.max_tokens,
        )
    )
    advice = "Give the decoder that belongs to the encoder."
    check_same_space(decoder.provenance, data.manifest.provenance, "the decoder", "the corpus", advice)
    if decoder.dim != codebook.dim:
        raise UsageError(f"the decoder is for {decoder.dim} dimensions, the vectors have {codebook.dim}. {advice}")
    counts = [levels for levels in (1, 2, 4, 8, 16, 24, 32, 48) if levels < data.dim] + [data.dim, 0]
    found: dict[str, dict[int, RoundTrip]] = {}
    langs = sorted(set(rows.langs))
    for number, lang in enumerate(langs):
        picked = [
            row for row, own in enumerate(rows.langs) if own == lang and rows.texts[row].strip()
        ][: config.decode_sample]  # fmt: skip
        references = [rows.texts[row] for row in picked]
        for levels in counts if picked else []:
            show(f"decoding {lang}", number, len(langs))
            vectors = codebook.decode(rows.codes_NM[picked], levels) if levels else rows.emb_ND[picked]
            found.setdefault(lang, {})[levels] = round_trip(decoder, vectors, references, lang)[0]
    return found

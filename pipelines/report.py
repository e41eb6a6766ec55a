"""``lcm-data report``: everything worth knowing about a corpus, collected and written as one HTML page.

Counts come from ``pipelines.statistics``; samples, drawings and the page from ``lcm_data.report``. What a corpus does
not have (embeddings, codes, texts, speech) the page leaves out.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from lcm_data.corpus import Corpus, StageData, open_corpus
from lcm_data.errors import UsageError
from lcm_data.quality.distribution import Distribution
from lcm_data.report import space, svg
from lcm_data.report.page import Drawing, language, render
from lcm_data.report.sample import Part, draw, looked_at, nearest
from lcm_data.search.rows import Rows
from lcm_data.store.files import open_files
from lcm_data.store.shard import parse_shard_path
from lcm_data.version import __version__
from pipelines.provenance import codebook_facts, stage_provenance
from pipelines.statistics import RESIDUAL, SECONDS, StageCount, count_stage

Say = Callable[[str], None]

_COMPARED, _COMPARED_ALL = 500, 8000
"""Sentences of a language that are compared with all others, and of all languages together."""
_QUERIES, _ANSWERS = 6, 4
_BINS, _SPARK_BINS = 48, 30
_MOST_LANGUAGES = 40
"""Languages that map and matrix show; the tables have all."""
_UNITS = {
    "chars": ("Length in characters", "characters"),
    "tokens": ("Length in tokens", "tokens, as the encoder sees them"),
    "norm": ("Norms of the vectors", "length of a vector"),
    RESIDUAL: ("What the codes leave unexplained", "length of the residual"),
    SECONDS: ("Length of the segments of speech", "seconds"),
}


class ReportConfig(BaseModel):
    """Settings of ``lcm-data report``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    corpus: str = Field(description="Corpus folder or fsspec URL.")
    out: str = Field("report.html", description="File to write.")
    title: str | None = Field(None, description="Heading; by default the name of the corpus.")
    points: int = Field(6000, ge=100, description="Sentences on the map.")
    seed: int = Field(0, ge=0, description="Of the samples.")
    overwrite: bool = Field(False, description="Replace the file if there is one.")


def run(config: ReportConfig, say: Say = lambda line: None) -> dict[str, Any]:
    """Write the page; gives its path, its size and the seconds it took.

    Raises:
        UsageError: the file exists and ``overwrite`` is not set.
        InputError: no corpus, or one without rows.
        MissingExtraError: jinja2 is not installed.
    """
    begun = time.monotonic()
    folder, _, name = config.out.rpartition("/")
    out = open_files(folder or ("/" if config.out.startswith("/") else "."))
    if not name:
        raise UsageError(f"{config.out!r} is a folder. Name a file for the report.")
    if out.size(name) is not None and not config.overwrite:
        raise UsageError(f"{config.out} exists. Name another file, or add --overwrite to replace it.")
    render({"probe": True, **_EMPTY})  # finds out what is missing before the work, not after it
    page = render(collect(config, say)).encode()
    out.write(name, page)
    return {"corpus": config.corpus, "out": config.out, "bytes": len(page), "seconds": time.monotonic() - begun}


_EMPTY: dict[str, Any] = {
    "title": "", "made": "", "version": "", "facts": [], "languages": [], "has": {}, "figures": [], "rejects": [],
    "lost": [], "map": None, "nearness": None, "examples": [], "codebook": None, "stages": [], "sampled": "",
    "unfinished": [],
}  # fmt: skip


def collect(config: ReportConfig, say: Say) -> dict[str, Any]:
    """The values that the template shows."""
    corpus = open_corpus(config.corpus, allow_partial=True)
    counted: dict[str, StageCount] = {}
    for name in corpus.stages:
        say(f"counting {name}")
        data = StageData(corpus.files.child(name), allow_partial=True)
        if data.manifest.shards:
            counted[name] = count_stage(data)
    if not counted:
        raise UsageError(f"{config.corpus} holds no rows yet. 'lcm-data status {config.corpus}' says how far it is.")
    values = {
        **_EMPTY,
        "title": config.title or PurePosixPath(corpus.files.root).name,
        "made": datetime.now(UTC).strftime("%-d %B %Y"),
        "version": __version__,
        "facts": _headline(corpus, counted),
        "languages": _languages(counted),
        "has": {stage: stage in counted for stage in ("segments", "embeddings", "codes")},
        "figures": _figures(counted),
        "rejects": [
            {"stage": name, "reason": reason.replace("_", " "), "num": num}
            for name, each in counted.items()
            for reason, num in sorted(each.rejects.items(), key=lambda item: -item[1])
        ],
        "lost": _lost(counted),
        "unfinished": [name for name, each in counted.items() if not each.complete],
        "stages": [stage_provenance(corpus, name) for name in corpus.stages],
    }
    if "embeddings" in counted:
        values |= _space(corpus, config, say)
    if "codes" in counted:
        say("counting codes")
        values["codebook"] = _codebook(corpus)
    return values


def _headline(corpus: Corpus, counted: dict[str, StageCount]) -> list[dict[str, str]]:
    first = next(iter(counted.values()))
    total = first.total()
    facts = [
        {"name": "languages", "value": f"{len(first.langs):,}"},
        {"name": "documents", "value": f"{total.documents:,}"},
        {"name": "sentences", "value": f"{total.sentences:,}"},
    ]
    if total.speech:
        facts.append({"name": "hours of speech", "value": f"{total.hours:,.1f}"})
    if "embeddings" in counted:
        data = corpus.embeddings if counted["embeddings"].complete else None
        facts.append({"name": "vectors", "value": f"{counted['embeddings'].total().sentences:,}"})
        if data is not None:
            facts.append({"name": "dimensions", "value": f"{data.dim:,}"})
    facts.append({"name": "gigabytes", "value": f"{sum(each.bytes for each in counted.values()) / 1e9:,.2f}"})
    return facts


def _languages(counted: dict[str, StageCount]) -> list[dict[str, Any]]:
    """A row a language, the largest first, with its distributions as small drawings on common scales."""
    first = next(iter(counted.values()))
    most = max(first.total(lang=lang).sentences for lang in first.langs)
    edges = {
        name: _edges(each.total().measures[name], _SPARK_BINS)
        for each in counted.values()
        for name in each.total().measures
        if name in _UNITS and each.total().measures[name].num
    }
    rows = []
    for lang in first.langs:
        count = first.total(lang=lang)
        row: dict[str, Any] = {"lang": lang, "documents": count.documents, "sentences": count.sentences}
        row |= {"share": count.sentences / most, "hours": count.hours, "sparks": {}, "truncated": None, "vectors": 0}
        for name, each in counted.items():
            part = each.total(lang=lang) if lang in each.langs else None
            if part is None or not part.sentences:
                continue
            if name == "embeddings":
                row |= {"truncated": part.truncated, "vectors": part.sentences}
            for measure, spread in part.measures.items():
                if measure in edges and spread.num:
                    row["sparks"].setdefault(measure, _spark(lang, measure, spread, edges[measure]))
        rows.append(row)
    return sorted(rows, key=lambda row: (-row["sentences"], row["lang"]))


def _spark(lang: str, measure: str, spread: Distribution, edges: Any) -> dict[str, Any]:
    middle = spread.percentile(50)
    label = f"{_UNITS[measure][0]} in {language(lang)}: median {svg.number(middle)}"
    return {"drawing": Drawing(svg.spark(spread.histogram(edges), label)), "median": svg.number(middle)}


def _figures(counted: dict[str, StageCount]) -> list[dict[str, Any]]:
    """The distributions over the whole corpus, with their numbers."""
    found = {}
    for name, each in counted.items():
        for measure, spread in each.total().measures.items():
            if measure in _UNITS and spread.num and measure not in found:
                title, unit = _UNITS[measure]
                marks = {"median": spread.percentile(50)}
                label = f"{title}: median {svg.number(marks['median'])}, 95 % up to {svg.number(spread.percentile(95))}"
                edges = _edges(spread, _BINS)
                drawing = Drawing(svg.histogram(spread.histogram(edges), edges, unit, label, marks))
                facts = {key: svg.number(value) for key, value in spread.facts().items() if key != "count"}
                found[measure] = {"title": title, "stage": name, "drawing": drawing, "facts": facts}
    return list(found.values())


def _edges(spread: Distribution, bins: int) -> Any:
    """Equal steps from the least to the 99.5th percentile; what is above belongs to the last."""
    low, high = spread.least, spread.percentile(99.5)
    if spread.whole:
        low, high = min(low, 0) if low < 10 else low, high + 1
        step = max(1, int(np.ceil((high - low) / bins)))
        return np.arange(low, high + step, step, dtype=float) if high > low else np.array([low, low + 1.0])
    margin = max((high - low) * 0.01, abs(high) * 1e-3, 1e-9)
    return np.linspace(low - margin, high + margin, bins + 1)


def _lost(counted: dict[str, StageCount]) -> list[dict[str, Any]]:
    """Rejects by language, where a stage knows it, the most first."""
    rows = []
    for name, each in counted.items():
        by_lang: dict[str, int] = {}
        for (_, lang), reasons in each.rejects_by_part.items():
            by_lang[lang] = by_lang.get(lang, 0) + sum(reasons.values())
        rows += [{"stage": name, "lang": lang, "num": num} for lang, num in by_lang.items()]
    return sorted(rows, key=lambda row: (-row["num"], row["lang"]))


def _space(corpus: Corpus, config: ReportConfig, say: Say) -> dict[str, Any]:
    """The map, the nearness of languages, and examples of neighbours."""
    rows = Rows(corpus)
    say("sampling vectors")
    langs = {parse_shard_path(path)[1] for path in rows.paths}
    per_map = max(20, config.points // len(langs))
    compared = min(_COMPARED, max(20, _COMPARED_ALL // len(langs)))
    sample = draw(rows, max(per_map, compared), config.seed)
    sizes = {lang: sum(rows.data.manifest.partitions.get(f"{split}/{lang}", 0) for split in rows.data.splits) for lang in sample}  # fmt: skip  # noqa: E501
    shown = {lang: sample[lang] for lang in sorted(sorted(sample), key=lambda lang: -sizes[lang])[:_MOST_LANGUAGES]}
    found = space.pca_map(shown, per_map)
    placed = svg.scale(found.points)
    say("comparing languages")
    near = space.nearness(shown, compared)
    names = [language(lang) for lang in near.langs]
    codes = [lang.partition("_")[0] for lang in near.langs]
    label = (
        f"Nearness of {len(names)} languages, from {np.nanmin(near.matrix_LL):.2f} to {np.nanmax(near.matrix_LL):.2f}"
    )
    share = looked_at(rows)
    say("looking for neighbours")
    return {
        "map": {
            "box": svg.box(placed),
            "groups": [{"lang": lang, "dots": svg.dots(x_N2), "num": len(x_N2)} for lang, x_N2 in placed.items()],
            "shares": list(found.shares),
            "per_language": per_map,
            "left_out": len(sample) - len(shown),
        },
        "nearness": {
            "drawing": Drawing(svg.heat(near.matrix_LL, names, codes, label)),
            "langs": near.langs,
            "rows": near.matrix_LL.round(3).tolist(),
            "own": [{"lang": lang, "share": value} for lang, value in near.own_share.items()],
            "num": near.num,
        },
        "examples": _examples(rows, shown, config.seed) if len(shown) > 1 and "text" in rows.schema.names else [],
        "sampled": "" if share >= 1 else f"a random {share:.1%} of the row groups",
    }


def _examples(rows: Rows, sample: dict[str, Part], seed: int) -> list[dict[str, Any]]:
    """One sentence of each of some languages, drawn at random, with the nearest ones of others."""
    queries, vectors = [], []
    for lang, part in list(sample.items())[:_QUERIES]:
        texts = rows.take(part.rows[:200], ["text", "doc_id", "lang"]).to_pylist()
        good = [number for number, row in enumerate(texts) if 30 <= len(row["text"] or "") <= 140]
        if good:
            queries.append({**texts[good[0]], "lang": lang})
            vectors.append(part.emb_ND[good[0]])
    if not queries:
        return []
    best = nearest(rows, np.stack(vectors), seed)
    numbers = np.unique(np.concatenate([found.ravel() for _, found in best.values()]))
    table = rows.take(numbers, ["text", "doc_id", "lang"]).to_pylist()
    known = dict(zip(numbers.tolist(), table, strict=True))
    for place, query in enumerate(queries):
        answers = []
        for lang, (scores, found) in best.items():
            if lang != query["lang"]:
                each = [
                    {**known[number], "score": float(score)}
                    for score, number in zip(scores[place].tolist(), found[place].tolist(), strict=True)
                    if known[number]["text"] and known[number]["text"] != query["text"]
                ]
                answers += each[:1]
        query["answers"] = sorted(answers, key=lambda answer: -answer["score"])[:_ANSWERS]
    return queries


def _codebook(corpus: Corpus) -> dict[str, Any]:
    facts = codebook_facts(corpus)
    errors = [level["nmse"] for level in facts["levels"] if level["nmse"] is not None]
    if errors:
        label = f"Share of the variance left after each level: from {errors[0]:.2f} to {errors[-1]:.2f}"
        facts["drawing"] = Drawing(svg.curve(errors, label, "level"))
    return facts

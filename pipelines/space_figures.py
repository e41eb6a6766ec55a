"""The order of the work of ``evaluate-space``: embed or read sentences, then measure language by language.

The measurements themselves are in ``lcm_data.quality``, models in ``pipelines.space_models``, settings and files in
``pipelines.evaluate_space``.
"""

from __future__ import annotations

import contextlib
import itertools
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from lcm_data.errors import InputError, UnknownNameError
from lcm_data.normalize import Normalizer
from lcm_data.quality.aligned import read_aligned
from lcm_data.quality.fragility import Fragility, Likeness, noise_levels
from lcm_data.quality.fragility import measure as measure_fragility
from lcm_data.quality.report import LanguageReport, Report, figures
from lcm_data.quality.roundtrip import Points, RoundTrip, likeness, round_trip
from lcm_data.quality.sentences import Sentences, corpus_sentences, embed_texts
from lcm_data.quality.statistics import space_statistics, token_statistics
from lcm_data.quality.textscores import signatures
from lcm_data.quality.xsim import XsimScore, xsim
from lcm_data.store.files import open_files
from lcm_data.version import __version__
from pipelines.space_models import Models, load_models, load_normalizer

if TYPE_CHECKING:
    from pipelines.evaluate_space import EvaluateSpaceConfig

Show = Callable[[str, int, int], None]
"""Told a job, how much of it is done, and how much there is."""

_PACKAGES = ("numpy", "torch", "sacrebleu")


def silent(job: str, done: int, total: int) -> None:
    """Show nothing."""


@dataclass
class _Work:
    """One run: its models, what it has found so far, and what it could not do."""

    config: EvaluateSpaceConfig
    models: Models
    show: Show
    blank: dict[str, int] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    points: dict[str, Points] = field(default_factory=dict)

    @contextlib.contextmanager
    def timed(self, job: str) -> Iterator[None]:
        begun = time.monotonic()
        yield
        self.seconds[job] = self.seconds.get(job, 0.0) + time.monotonic() - begun


def measure(config: EvaluateSpaceConfig, show: Show) -> Report:
    """Everything that can be measured with what ``config`` names; writes nothing."""
    begun = time.monotonic()
    show("loading models", 0, 1)
    work = _Work(config, load_models(config), show)
    work.seconds["loading"] = time.monotonic() - begun
    if work.models.decoder is None:
        work.skipped.append("auto-encoding, translation and fragility: no --decoder was given")
    by_lang = _sentences(work)
    with work.timed("search"):
        searched, pairs = _search(work, by_lang)
    normalizer = _normalizer(work, by_lang) if work.models.decoder and config.noise_levels else None
    languages = {}
    for number, (lang, each) in enumerate(by_lang.items()):
        autoencoding, translation = _round_trips(work, by_lang, lang, number)
        languages[lang] = LanguageReport(
            sentences=len(each),
            invalid=each.num_invalid,
            blank=work.blank.get(lang, 0),
            tokens=token_statistics(each),
            space=space_statistics(each.emb_ND),
            xsim=searched.get(lang),
            autoencoding=autoencoding,
            translation=translation,
            fragility=_fragility(work, each, normalizer) if autoencoding and normalizer else None,
        )
    work.seconds["all"] = time.monotonic() - begun
    rows = [figures(each) for each in languages.values()]
    names = dict.fromkeys(name for row in rows for name in row)
    targets = {each.lang for one in languages.values() for each in (one.autoencoding, one.translation) if each}
    return Report(
        source=config.source,
        out=open_files(config.out).root,
        settings=config.model_dump(mode="json"),
        provenance=work.models.provenance(normalizer, config.normalizer),
        versions={
            "python": platform.python_version(),
            "lcm-data": __version__,
            **{name: _version(name) for name in _PACKAGES},
        },
        signatures=signatures(targets) if targets else {},
        languages=languages,
        all_languages=space_statistics(np.concatenate([each.emb_ND for each in by_lang.values()])),
        mean={name: fmean(row[name] for row in rows if name in row) for name in names},
        pairs=pairs,
        skipped=work.skipped,
        seconds={job: round(seconds, 3) for job, seconds in work.seconds.items()},
        points=work.points,
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


# --- sentences -----------------------------------------------------------------------------------------------------


def _sentences(work: _Work) -> dict[str, Sentences]:
    """The embedded sentences of every language that has enough of them."""
    found = _from_corpus(work) if work.models.corpus is not None else _from_text(work)
    least = work.config.min_sentences
    few = [f"{lang} ({len(each)})" for lang, each in found.items() if len(each) < least]
    if few:
        work.skipped.append(f"fewer than {least} sentences: {', '.join(few)}")
    kept = {lang: each for lang, each in found.items() if len(each) >= least}
    if not kept:
        raise InputError(f"{work.config.source}: no language has {least} sentences. {'; '.join(work.skipped)}.")
    return kept


def _from_text(work: _Work) -> dict[str, Sentences]:
    config, encoder = work.config, work.models.encoder
    assert encoder is not None
    work.show("reading", 0, 1)
    langs = None if config.lang is None else [*config.lang, *filter(None, [config.to])]
    with work.timed("reading"):
        text = read_aligned(config.source, langs=langs, pivot=config.pivot, sample=config.sample, seed=config.seed)
    work.blank = text.num_blank
    found, total = {}, sum(map(len, text.ids.values()))
    done = 0
    for lang, ids in text.ids.items():
        work.show(f"encoding {lang}", done, total)
        done += len(ids)
        try:
            with work.timed("encoding"):
                found[lang] = embed_texts(encoder, lang, ids, text.texts[lang])
        except UnknownNameError:
            work.skipped.append(f"{lang}: the encoder does not know it")
    return found


def _from_corpus(work: _Work) -> dict[str, Sentences]:
    config, data = work.config, work.models.corpus
    assert data is not None
    langs = config.lang or data.langs
    data.shards(langs)  # refuses names that are not there
    found = {}
    for number, lang in enumerate(langs):
        work.show(f"reading {lang}", number, len(langs))
        with work.timed("reading"):
            found[lang] = corpus_sentences(data, lang, config.sample, config.seed)
    work.skipped.append("similarity search: sentences of a corpus are not aligned")
    if work.models.decoder is not None and any(each.texts is None for each in found.values()):
        work.skipped.append("auto-encoding and fragility: the corpus was encoded with --no-text")
    if work.models.decoder is not None and config.to:
        work.skipped.append("translation: sentences of a corpus are not aligned")
    return found


# --- measurements --------------------------------------------------------------------------------------------------


def _search(work: _Work, by_lang: dict[str, Sentences]) -> tuple[dict[str, dict[str, XsimScore]], list[dict[str, Any]]]:
    """Search errors by language against the pivot, and those of all ordered pairs if they are wanted."""
    pivot = work.config.pivot
    if work.models.corpus is not None:
        return {}, []
    if pivot not in by_lang or len(by_lang) < 2:
        has = ", ".join(by_lang)
        work.skipped.append(f"similarity search with {pivot}: it needs this language and another one; there is {has}")
    couples = [
        (one, other)
        for one, other in itertools.combinations(by_lang, 2)
        if pivot in (one, other) or work.config.all_pairs
    ]
    searched: dict[str, dict[str, XsimScore]] = {}
    pairs: list[dict[str, Any]] = []
    for number, (one, other) in enumerate(couples):
        work.show(f"searching {one} in {other}", number, len(couples))
        found = _search_pair(by_lang[one], by_lang[other], work.config.min_sentences)
        if found is None:
            work.skipped.append(f"similarity search of {one} and {other}: too few sentences in both")
            continue
        for source, target, score in ((one, other, found[0]), (other, one, found[1])):
            if work.config.all_pairs:
                pairs.append({"from": source, "to": target, **vars(score)})
            if source == pivot:
                searched.setdefault(target, {})["from_pivot"] = score
            elif target == pivot:
                searched.setdefault(source, {})["to_pivot"] = score
    return searched, pairs


def _search_pair(one: Sentences, other: Sentences, least: int) -> tuple[XsimScore, XsimScore] | None:
    _, rows, other_rows = np.intersect1d(one.ids, other.ids, assume_unique=True, return_indices=True)
    if len(rows) < least:
        return None
    left, right = one.take(rows), other.take(other_rows)
    assert left.texts is not None
    assert right.texts is not None
    return xsim(left.emb_ND, right.emb_ND, left.texts, right.texts)


def _round_trips(
    work: _Work, by_lang: dict[str, Sentences], lang: str, number: int
) -> tuple[RoundTrip | None, RoundTrip | None]:
    """Auto-encoding of a language, and its translation into the language of ``to``."""
    config, decoder, each = work.config, work.models.decoder, by_lang[lang]
    if decoder is None or each.texts is None:
        return None, None
    work.show(f"decoding {lang}", number, len(by_lang))
    chosen = each.first(config.decode_sample or config.sample, config.seed)
    assert chosen.texts is not None
    try:
        with work.timed("decoding"):
            back, work.points[lang] = round_trip(decoder, chosen.emb_ND, chosen.texts, lang)
    except UnknownNameError:
        work.skipped.append(f"decoding {lang}: the decoder does not know it")
        return None, None
    target = by_lang.get(config.to or "")
    if config.to is None or lang == config.to or work.models.corpus is not None:
        return back, None
    if target is None:
        note = f"translation into {config.to}: the input has no references in it"
        work.skipped += [] if note in work.skipped else [note]
        return back, None
    _, rows, target_rows = np.intersect1d(chosen.ids, target.ids, assume_unique=True, return_indices=True)
    references = target.take(target_rows).texts
    if not references:
        work.skipped.append(f"translation of {lang} into {config.to}: no sentence is in both")
        return back, None
    with work.timed("decoding"):
        return back, round_trip(decoder, chosen.emb_ND[rows], references, config.to)[0]


def _normalizer(work: _Work, by_lang: dict[str, Sentences]) -> Normalizer:
    """The one that was given, or one fitted on the sample of all languages with equal shares."""
    config = work.config
    if config.normalizer:
        return load_normalizer(config.normalizer, work.models)
    rows_ND = np.concatenate([each.first(config.sample, config.seed).emb_ND for each in by_lang.values()])
    source = work.models.source
    return Normalizer.fit(rows_ND.astype(np.float32), encoder=source.get("encoder", ""), space=source.get("space", ""))


def _fragility(work: _Work, each: Sentences, normalizer: Normalizer) -> Fragility:
    config, decoder = work.config, work.models.decoder
    assert decoder is not None
    chosen = each.first(config.fragility_sample or config.sample, config.seed)
    with work.timed("fragility"):
        likenesses: dict[str, Likeness] = {}
        if work.models.encoder is not None:
            likenesses["cosine"] = likeness(work.models.encoder, chosen, chosen.emb_ND)
        if work.models.judge is not None:
            try:
                likenesses["judge_cosine"] = likeness(work.models.judge, chosen)
            except UnknownNameError:
                work.skipped.append(f"judging {each.lang}: the judge does not know it")
        return measure_fragility(
            chosen,
            normalizer,
            noise_levels(config.noise_levels),
            lambda emb_ND: decoder.decode(emb_ND, each.lang).texts,
            likenesses,
            seed=config.seed,
            show=lambda done, total: work.show(f"fragility of {each.lang}, noise level", done, total),
        )

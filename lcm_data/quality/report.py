"""What ``evaluate-space`` found out: a record a language, the means, and with what it was measured.

Holds figures and turns them into JSON. Measuring, printing, drawing and writing are done elsewhere.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from lcm_data.quality.fragility import Fragility
from lcm_data.quality.roundtrip import Points, RoundTrip
from lcm_data.quality.statistics import SpaceStatistics, TokenStatistics
from lcm_data.quality.xsim import XsimScore

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class LanguageReport:
    """Everything about one language; None for what was not measured.

    ``invalid`` sentences were left out because their vectors were not finite, or zero, ``blank`` ones because the input
    has no text for them. ``xsim`` holds the search errors ``to_pivot`` and ``from_pivot``.
    """

    sentences: int
    invalid: int
    blank: int
    tokens: TokenStatistics
    space: SpaceStatistics
    xsim: dict[str, XsimScore] | None
    autoencoding: RoundTrip | None
    translation: RoundTrip | None
    fragility: Fragility | None


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was measured, with what. ``to_json`` is what ``report.json`` holds.

    Attributes:
        source, settings: what was given.
        provenance: of ``encoder`` (or ``corpus``), ``decoder``, ``judge`` and ``normalizer``; with fingerprints.
        versions: of the packages the figures depend on.
        signatures: sacrebleu's names of its settings.
        languages: by FLORES-200 code.
        all_languages: the space of all sentences together.
        mean: of each of the ``figures``, over the languages that have it (macro mean).
        pairs: search errors from one language into another, with ``all_pairs``.
        skipped: what was not measured, and why.
        seconds: by kind of work, and in all.
        points: for the plots; not part of the JSON.
    """

    source: str
    out: str
    settings: dict[str, Any]
    provenance: dict[str, dict[str, str]]
    versions: dict[str, str]
    signatures: dict[str, str]
    languages: dict[str, LanguageReport]
    all_languages: SpaceStatistics
    mean: dict[str, float]
    pairs: list[dict[str, Any]]
    skipped: list[str]
    seconds: dict[str, float]
    points: dict[str, Points]

    def to_json(self) -> dict[str, Any]:
        """JSON values only."""
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "points"}
        languages = {lang: asdict(each) for lang, each in self.languages.items()}
        values |= {"languages": languages, "all_languages": asdict(self.all_languages)}
        return {"schema_version": SCHEMA_VERSION, **values}


def figures(language: LanguageReport) -> dict[str, float]:
    """The main figures of a language by name, those that were measured. Shares lie in [0, 1], scores in [0, 100]."""
    found: dict[str, float | None] = {
        "tokens": language.tokens.tokens.mean,
        "truncated": language.tokens.truncated,
        "unknown": language.tokens.unknown,
        "norm": language.space.norm.mean,
        "mean_cosine": language.space.mean_cosine,
    }
    if language.xsim is not None:
        score = language.xsim["to_pivot"]
        found |= {"xsim_cosine": score.cosine, "xsim_margin": score.margin}
    for name, trip in (("autoencoding", language.autoencoding), ("translation", language.translation)):
        if trip is not None:
            scores = {"chrf": trip.scores.chrf, "bleu": trip.scores.bleu, "exact": trip.scores.exact, "cut": trip.cut}
            found |= {f"{name}_{score}": value for score, value in scores.items()}
    if language.fragility is not None:
        found |= {f"fragility_{name}": value for name, value in language.fragility.fragility.items()}
    return {name: value for name, value in found.items() if value is not None}

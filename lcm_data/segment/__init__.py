"""Text to sentences with offsets: the table of segmenters and the way documents go through them.

Importing this package is cheap: spaCy, stanza, wtpsplit and torch are imported when their segmenter is built.
"""

from __future__ import annotations

from typing import cast

from lcm_data.errors import LcmDataError, UsageError
from lcm_data.segment.base import ScoredSegmenter, Segment, Segmenter, Span
from lcm_data.segment.document import segment_documents
from lcm_data.tables import resolve

__all__ = ["SEGMENTERS", "ScoredSegmenter", "Segment", "Segmenter", "Span", "load_segmenter", "segment_documents"]

SEGMENTERS: dict[str, str] = {
    "rules": "lcm_data.segment.rules:RuleSegmenter",
    "sat": "lcm_data.segment.sat_adapter:SatSegmenter",
    "spacy": "lcm_data.segment.spacy_adapter:SpacySegmenter",
    "stanza": "lcm_data.segment.stanza_adapter:StanzaSegmenter",
}


def load_segmenter(name: str, model: str | None = None) -> Segmenter:
    """Build a segmenter: a name of ``SEGMENTERS`` or ``"package.module:Class"``, with its model if it takes one.

    Call it on the worker that will use the segmenter; the two strings are what travels there.

    Args:
        name: ``rules`` needs no model; ``spacy`` has a rule-based default; ``stanza`` looks into its own resources
            folder by default; ``sat`` defaults to ``sat-3l-sm``.
        model: name or path of the model, passed on as ``Class(model=model)`` when given.

    Raises:
        UnknownNameError: ``name`` is not in the table.
        MissingExtraError: the library behind the segmenter is not installed.
        CheckpointError: the model cannot be found or read.
        UsageError: ``model`` is given to a segmenter that takes none, or the segmenter cannot be built, or it is none.
    """
    if name == "rules" and model is not None:
        raise UsageError(f"segmenter 'rules' takes no model, got {model!r}. Leave the model out.")
    try:
        cls = resolve(SEGMENTERS, name, "segmenter")
        segmenter = cls() if model is None else cls(model=model)
        fingerprint = getattr(segmenter, "fingerprint", None)
    except LcmDataError:
        raise
    except Exception as error:  # code of others, which may raise anything
        cause = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(".: ")
        given = "without a model" if model is None else f"with the model {model!r}"
        raise UsageError(f"cannot build the segmenter {name!r} {given}: {cause}.") from error
    if not isinstance(fingerprint, str) or not fingerprint:
        raise UsageError(
            f"the segmenter {name!r} has no 'fingerprint': got {fingerprint!r}. Give it a text that names it and its "
            "version, and another one whenever it cuts otherwise."
        )
    if not callable(getattr(segmenter, "segment", None)):
        raise UsageError(f"the segmenter {name!r} has no method 'segment(paragraphs, lang)'. See docs/extending.md.")
    return cast(Segmenter, segmenter)

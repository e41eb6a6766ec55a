"""Text to sentences with offsets: the table of segmenters and the way documents go through them.

Importing this package is cheap: spaCy, stanza, wtpsplit and torch are imported when their segmenter is built.
"""

from __future__ import annotations

from typing import cast

from lcm_data.errors import UsageError
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
        UsageError: ``model`` is given to a segmenter that takes none.
    """
    cls = resolve(SEGMENTERS, name, "segmenter")
    if model is None:
        return cast(Segmenter, cls())
    if name == "rules":
        raise UsageError(f"segmenter 'rules' takes no model, got {model!r}. Leave the model out.")
    return cast(Segmenter, cls(model=model))

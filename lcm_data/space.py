"""The embedding space that vectors are in: its name in their provenance, and the refusal to mix two.

Vectors of one space can be compared, averaged, quantized with one codebook and decoded with one decoder; numbers of two
spaces have nothing to do with each other, whatever their width. Who makes vectors names their space
(``lcm_data.encode.describe_encoder``); who combines them asks here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lcm_data.errors import SpaceError


def space_of(provenance: Mapping[str, Any]) -> str:
    """The name of the space, "" where none was recorded."""
    return str(provenance.get("space", ""))


def space_text(provenance: Mapping[str, Any]) -> str:
    """A space for people: ``the space sonar (encoder text_sonar_basic_encoder, 1024 dimensions)``."""
    facts = [f"encoder {provenance['encoder']}"] if provenance.get("encoder") else []
    facts += [f"{provenance['dim']} dimensions"] if provenance.get("dim") else []
    facts += [f"prompt {provenance['prompt']!r}"] if provenance.get("prompt") else []
    return f"the space {space_of(provenance)}" + (f" ({', '.join(facts)})" if facts else "")


def has_other_weights(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether two encoders made the vectors, as far as that is recorded; both may have been made for one space."""
    weights = [each.get("encoder_revision") for each in (first, second)]
    return all(weights) and weights[0] != weights[1]


def check_same_space(
    first: Mapping[str, Any], second: Mapping[str, Any], first_is: str, second_is: str, advice: str
) -> None:
    """Refuse to bring the vectors of two provenances together.

    Where one of them does not say its space there is nothing to compare; widths are the caller's to check.

    Args:
        first, second: provenance with ``space``, and ``encoder`` and ``dim`` for the message.
        first_is, second_is: whose they are, as in "the codebook books/a" and "the corpus c".
        advice: what to do next, a sentence.

    Raises:
        SpaceError: they name different spaces.
    """
    if space_of(first) and space_of(second) and space_of(first) != space_of(second):
        raise SpaceError(
            f"{first_is} is of {space_text(first)}, {second_is} is of {space_text(second)}. "
            f"Two spaces are never mixed. {advice}"
        )

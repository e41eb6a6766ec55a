"""What an engine is, and the table of them."""

from __future__ import annotations

import os
from typing import Protocol

import numpy as np
import numpy.typing as npt

from lcm_data.errors import UsageError

FloatTrack = npt.NDArray[np.float32]

SPEAKERS = ("espeak-ng",)
"""Engines by name; every other name is the folder of a VITS model."""


class Speaker(Protocol):
    """Says sentences of one language, from several threads at once."""

    name: str
    """What is told about the voice: engine, version, voice."""
    rate: int
    """Samples a second."""

    def say(self, text: str) -> FloatTrack:
        """The sentence as samples in [-1, 1], float32 [N].

        Raises:
            UsageError: the engine failed.
        """
        ...


def load_speaker(engine: str, lang: str) -> Speaker:
    """The engine, ready to say sentences of a language (a FLORES-200 code).

    Raises:
        UsageError: there is no such engine, or it has no voice for the language.
        MissingExtraError: a package is missing.
        CheckpointError: the folder holds no VITS model.
    """
    if engine == "espeak-ng":
        from lcm_data.speak.espeak import EspeakNg

        return EspeakNg(lang)
    if os.path.isdir(engine):
        from lcm_data.speak.vits import Vits

        return Vits(engine)
    known = ", ".join(SPEAKERS)
    raise UsageError(
        f"no speech engine {engine!r}: give {known} or the folder of a VITS model (facebook/mms-tts-..., say)."
    )

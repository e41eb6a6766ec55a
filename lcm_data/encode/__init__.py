"""Sentences and speech to vectors: the tables of encoders, their options, loading one, and describing one cheaply.

Segmenting and writing shards are elsewhere; an encoder sees a list of sentences of one language, a speech encoder a
list of clips. A new backend is a class with the methods of ``lcm_data.encode.base.Encoder``, or of
``lcm_data.encode.speech.SpeechEncoder``, and one line in a table (or ``package.module:Class``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from lcm_data.encode.base import Encoder, EncoderOptions, Prepared
from lcm_data.encode.speech import SpeechEncoder
from lcm_data.errors import UsageError
from lcm_data.tables import resolve

__all__ = [
    "ENCODERS",
    "SPEECH_ENCODERS",
    "Encoder",
    "EncoderOptions",
    "Prepared",
    "SpeechEncoder",
    "describe_encoder",
    "describe_speech_encoder",
    "load_encoder",
    "load_speech_encoder",
]

ENCODERS = {
    "native": "lcm_data.encode.native:NativeEncoder",
    "sonar-space": "lcm_data.encode.sonar_space:SonarSpaceEncoder",
    "sentence-transformers": "lcm_data.encode.sentence_transformers:SentenceTransformersEncoder",
}

SPEECH_ENCODERS = {
    "native": "lcm_data.encode.native_speech:NativeSpeechEncoder",
    "sonar-space": "lcm_data.encode.sonar_space_speech:SonarSpaceSpeechEncoder",
}


def load_encoder(options: EncoderOptions) -> Encoder:
    """Load the weights and return an encoder ready to run, in the process and on the device it will run on.

    Raises:
        UnknownNameError: no such backend, dtype or device.
        UsageError: a plug-in that does not say what it must (see ``describe_encoder``).
        CheckpointError: the model's files are missing, truncated or of another kind.
        MissingExtraError: the backend's package is not installed.
    """
    encoder: Encoder = resolve(ENCODERS, options.backend, "encoder backend")(options)
    encoder.provenance = _completed(encoder.provenance, options)
    return encoder


def describe_encoder(options: EncoderOptions) -> dict[str, str]:
    """The part of ``Encoder.provenance`` that identifies the vectors, without loading weights into memory.

    The same on every machine (no device, no batch sizes), so a plan can be compared with it. Values are text; ``dim``
    and ``max_seq_len`` hold integers. Downloads the model when it is given by name and not there yet.

    A backend must give ``encoder_revision`` and ``dim``. It may leave out ``encoder`` (then it is the model's name),
    ``encoder_backend``, ``compute_dtype`` and ``space``: without one the vectors are in a space of their own, named
    after backend and revision, so that nothing else is ever mixed with them.

    Raises:
        UnknownNameError: no such backend or dtype.
        UsageError: a plug-in that does not say what it must.
        CheckpointError: the model's files are missing, truncated or of another kind.
    """
    return _completed(resolve(ENCODERS, options.backend, "encoder backend").describe(options), options)


def load_speech_encoder(options: EncoderOptions) -> SpeechEncoder:
    """As ``load_encoder`` for a speech encoder.

    Raises:
        UnknownNameError: no such backend, dtype or device.
        UsageError: a plug-in that does not say what it must (see ``describe_encoder``), or int8.
        CheckpointError: the model's files are missing, truncated or of another kind.
        MissingExtraError: the backend's package is not installed.
    """
    encoder: SpeechEncoder = resolve(SPEECH_ENCODERS, options.backend, "speech encoder backend")(options)
    encoder.provenance = _completed(encoder.provenance, options)
    return encoder


def describe_speech_encoder(options: EncoderOptions) -> dict[str, str]:
    """As ``describe_encoder`` for a speech encoder; ``max_seq_len`` counts positions, 50 a second."""
    described = resolve(SPEECH_ENCODERS, options.backend, "speech encoder backend").describe(options)
    return _completed(described, options)


def _completed(described: object, options: EncoderOptions) -> dict[str, str]:
    who = f"the encoder backend {options.backend!r}"
    if not isinstance(described, Mapping) or not all(isinstance(x, str) for pair in described.items() for x in pair):
        raise UsageError(f"{who} must describe itself by names with values of text, got {described!r}.")
    if not described.get("encoder_revision"):
        raise UsageError(
            f"{who} gives no 'encoder_revision' in its description: a text that changes whenever its vectors do, such "
            "as the sha256 of its weights. Without one a corpus cannot tell its vectors from others."
        )
    if not described.get("dim", "").isdigit() or int(described["dim"]) < 1:
        raise UsageError(f"{who} must give 'dim', the width of its vectors, as text; got {described.get('dim')!r}.")
    if options.prompt and described.get("prompt") != options.prompt:
        raise UsageError(f"{who} takes no prompt, got {options.prompt!r}. Leave it out.")
    defaults = {
        "encoder": Path(options.model).name if Path(options.model).exists() else options.model,
        "encoder_backend": options.backend,
        "compute_dtype": options.dtype,
        "space": f"{options.backend}:{_short(described['encoder_revision'])}",
    }
    return {**defaults, **described}


def _short(revision: str) -> str:
    """The beginning of a hash, which is enough to tell it from others; all of anything else."""
    return revision[:12] if re.fullmatch("[0-9a-f]{40,}", revision) else revision

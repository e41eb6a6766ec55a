"""Sentences to vectors: the ``ENCODERS`` table, the options of an encoder, loading one, and describing one cheaply.

Segmenting text and writing shards are elsewhere; an encoder sees a list of sentences of one language. A new backend
is a class with the methods of ``lcm_data.encode.base.Encoder`` and one line in the table (or ``package.module:Class``).
"""

from __future__ import annotations

from lcm_data.encode.base import Encoder, EncoderOptions, Prepared
from lcm_data.tables import resolve

__all__ = ["ENCODERS", "Encoder", "EncoderOptions", "Prepared", "describe_encoder", "load_encoder"]

ENCODERS = {
    "native": "lcm_data.encode.native:NativeEncoder",
    "sonar-space": "lcm_data.encode.sonar_space:SonarSpaceEncoder",
}


def load_encoder(options: EncoderOptions) -> Encoder:
    """Load the weights and return an encoder ready to run, in the process and on the device it will run on.

    Raises:
        UnknownNameError: no such backend, dtype or device.
        CheckpointError: the model's files are missing, truncated or of another kind.
        MissingExtraError: the backend's package is not installed.
    """
    encoder: Encoder = resolve(ENCODERS, options.backend, "encoder backend")(options)
    return encoder


def describe_encoder(options: EncoderOptions) -> dict[str, str]:
    """The part of ``Encoder.provenance`` that identifies the vectors, without loading weights into memory.

    The same on every machine (no device, no batch sizes), so a plan can be compared with it. Values are text; ``dim``
    and ``max_seq_len`` hold integers. Downloads the model when it is given by name and not there yet.

    Raises:
        UnknownNameError: no such backend or dtype.
        CheckpointError: the model's files are missing, truncated or of another kind.
    """
    described: dict[str, str] = resolve(ENCODERS, options.backend, "encoder backend").describe(options)
    return described

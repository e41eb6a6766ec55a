"""Vectors to sentences: the ``DECODERS`` table, the options of a decoder, loading one, and describing one cheaply.

The way back from ``lcm_data.encode``. A decoder sees vectors and one target language; where they come from and where
the texts go is elsewhere. A new backend is a class with the methods of ``lcm_data.decode.base.Decoder`` and one line in
the table (or ``package.module:Class``).
"""

from __future__ import annotations

from lcm_data.decode.base import Decoded, Decoder, DecoderOptions
from lcm_data.errors import UsageError
from lcm_data.tables import resolve

__all__ = ["DECODERS", "Decoded", "Decoder", "DecoderOptions", "describe_decoder", "load_decoder"]

DECODERS = {
    "native": "lcm_data.decode.native:NativeDecoder",
    "sonar-space": "lcm_data.decode.sonar_space:SonarSpaceDecoder",
}


def load_decoder(options: DecoderOptions) -> Decoder:
    """Load the weights and return a decoder ready to run, in the process and on the device it will run on.

    Raises:
        UnknownNameError: no such backend, dtype or device.
        CheckpointError: the model's files are missing, truncated or of another kind.
        MissingExtraError: the backend's package is not installed.
    """
    decoder: Decoder = resolve(DECODERS, options.backend, "decoder backend")(options)
    return decoder


def describe_decoder(options: DecoderOptions) -> dict[str, str]:
    """The part of ``Decoder.provenance`` that identifies the texts, without loading weights into memory.

    The same on every machine (no device, no batch sizes), so a plan can be compared with it. Values are text; ``dim``
    and ``max_seq_len`` hold integers. Downloads the model when it is given by name and not there yet.

    Raises:
        UnknownNameError: no such backend or dtype.
        UsageError: a plug-in that gives no ``decoder_revision`` or no ``dim``.
        CheckpointError: the model's files are missing, truncated or of another kind.
    """
    described: dict[str, str] = resolve(DECODERS, options.backend, "decoder backend").describe(options)
    if not described.get("decoder_revision") or not described.get("dim", "").isdigit():
        raise UsageError(
            f"the decoder backend {options.backend!r} must give 'decoder_revision', a text that changes whenever its "
            f"sentences do, and 'dim', the width of its vectors, as text; got {described!r}."
        )
    return described

"""Samples as the bytes of a sound file."""

from __future__ import annotations

import io
import wave

import numpy as np

from lcm_data.errors import MissingExtraError
from lcm_data.speak.base import FloatTrack

FORMATS = ("wav", "flac")


def sound_file(x_N: FloatTrack, rate: int, form: str) -> bytes:
    """One channel of 16 bits; samples beyond [-1, 1] are clipped.

    Args:
        form: of ``FORMATS``.

    Raises:
        MissingExtraError: PyAV, which writes flac, is not installed.
    """
    samples = np.round(np.clip(x_N, -1, 32767 / 32768) * 32768).astype("<i2")
    data = io.BytesIO()
    if form == "wav":
        with wave.open(data, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(rate)
            file.writeframes(samples.tobytes())
        return data.getvalue()
    try:
        import av
    except ImportError as error:
        raise MissingExtraError("writing flac files", "av", "audio") from error
    with av.open(data, "w", format="flac") as container:
        stream = container.add_stream("flac", rate=rate, layout="mono", format="s16")
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
        frame.rate = rate
        if len(samples):
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return data.getvalue()

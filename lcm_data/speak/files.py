"""Samples as the bytes of a sound file."""

from __future__ import annotations

import io
import wave
from typing import Literal

from lcm_data.audio.clips import pcm16, write_flac
from lcm_data.speak.base import FloatTrack

SoundFormat = Literal["wav", "flac"]


def sound_file(x_N: FloatTrack, rate: int, form: SoundFormat) -> bytes:
    """One channel of 16 bits; samples beyond [-1, 1] are clipped.

    Raises:
        MissingExtraError: PyAV, which writes flac, is not installed.
    """
    data = io.BytesIO()
    if form == "flac":
        write_flac(data, x_N, rate)
        return data.getvalue()
    with wave.open(data, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(pcm16(x_N).astype("<i2").tobytes())
    return data.getvalue()

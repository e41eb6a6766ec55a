"""Samples as FLAC files, mono, 16 bit; and where the clips of segments lie, named by the id of the sentence."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from lcm_data.errors import MissingExtraError

_SCALE = 32768


def clip_path(part: int, sid: int) -> str:
    """Path of a clip inside the stage ``segments``: part of its unit, id of its sentence as 16 hexadecimal digits."""
    return f"clips/part-{part:06d}/{sid & (1 << 64) - 1:016x}.flac"


def pcm16(x_N: npt.NDArray[np.float32]) -> npt.NDArray[np.int16]:
    """Samples as 16 bit integers, exact for those that were; what is beyond full scale is clipped."""
    return np.clip(np.rint(x_N * _SCALE), -_SCALE, _SCALE - 1).astype(np.int16)


def write_flac(file: Any, x_N: npt.NDArray[np.float32], rate: int) -> None:
    """Write samples; the same ones always give the same bytes.

    Args:
        file: path or binary file.

    Raises:
        MissingExtraError: PyAV is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise MissingExtraError("writing flac files", "av", "audio") from error
    pcm_N = pcm16(x_N)
    frame = av.AudioFrame.from_ndarray(pcm_N[None], format="s16", layout="mono")
    frame.sample_rate = rate
    # Without "bitexact" the version of FFmpeg would be in the file.
    with av.open(file, "w", format="flac", container_options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("flac", rate=rate, layout="mono", options={"flags": "+bitexact"})
        stream.codec_context.format = "s16"
        fifo = av.AudioFifo()
        fifo.write(frame)
        while (part := fifo.read(4096, partial=True)) is not None:
            part.pts = None
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))

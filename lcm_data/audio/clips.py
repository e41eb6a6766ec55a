"""Segments as files of their own: FLAC, mono, 16 kHz, 16 bit, named by the id of the sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from lcm_data.audio.model import SAMPLE_RATE

_SCALE = 32767


def clip_path(part: int, sid: int) -> str:
    """Path of a clip inside the stage ``segments``: part of its unit, id of its sentence as 16 hexadecimal digits."""
    return f"clips/part-{part:06d}/{sid & (1 << 64) - 1:016x}.flac"


def write_clip(file: Path, x_N: npt.NDArray[np.float32]) -> None:
    """Write samples at 16 kHz; what is beyond full scale is clipped. The same samples always give the same bytes."""
    import av

    pcm_N = np.clip(np.rint(x_N * _SCALE), -_SCALE, _SCALE).astype(np.int16)
    frame = av.AudioFrame.from_ndarray(pcm_N[None], format="s16", layout="mono")
    frame.sample_rate = SAMPLE_RATE
    # Without "bitexact" the version of FFmpeg would be in the file.
    with av.open(str(file), "w", format="flac", container_options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("flac", rate=SAMPLE_RATE, layout="mono", options={"flags": "+bitexact"})
        stream.codec_context.format = "s16"
        fifo = av.AudioFifo()
        fifo.write(frame)
        while (part := fifo.read(4096, partial=True)) is not None:
            part.pts = None
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))

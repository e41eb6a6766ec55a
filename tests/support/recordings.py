"""Recordings for tests: three spoken sentences with known pauses, in any format, whole or damaged.

``data/speech.opus`` was said by espeak-ng (voice en, 160 words a minute), 20 kbit/s.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

SPEECH = Path(__file__).parents[1] / "audio" / "data" / "speech.opus"
SECONDS = 11.135_687_5
SENTENCES = ((0.40, 3.60), (4.20, 7.05), (7.95, 10.64))
"""Where the sentences are, in seconds."""

FORMATS: dict[str, tuple[str, str, int, dict[str, str]]] = {
    "wav": ("pcm_s16le", "s16", 44_100, {}),
    "flac": ("flac", "s16", 44_100, {}),
    "mp3": ("libmp3lame", "s16p", 22_050, {"b": "64000"}),
    "m4a": ("aac", "fltp", 44_100, {"b": "64000"}),
    "opus": ("libopus", "flt", 48_000, {"b": "24000"}),
    "ogg": ("libopus", "flt", 48_000, {"b": "24000"}),
    "webm": ("libopus", "flt", 48_000, {"b": "24000"}),
}
"""Suffix -> codec, sample format, rate, options of the encoder."""

Track = npt.NDArray[np.float32]


@functools.cache
def speech() -> Track:
    """The three sentences, float32 at 16 kHz. Not to be changed."""
    from lcm_data.audio.resample import Resampler
    from lcm_data.audio.sound import Sound

    with Sound(str(SPEECH)) as sound:
        resampler = Resampler(sound.rate)
        x_N = np.concatenate([*(resampler.push(x_CN[0]) for _, x_CN in sound.blocks()), resampler.end()])
    x_N.flags.writeable = False
    return x_N


def stereo() -> npt.NDArray[np.float32]:
    """Sentences on the left, later and softer on the right: [2, samples] at 16 kHz."""
    x_N = speech()
    return np.stack([x_N, 0.4 * np.roll(x_N, 5 * 16_000)])


def write_recording(path: Path, x_CN: npt.NDArray[Any] | None = None, rate: int | None = None, **options: str) -> Path:
    """Samples at 16 kHz, [channels, samples] or [samples], as a file whose suffix says the format."""
    import av

    codec, kind, usual_rate, encoder = FORMATS[path.suffix[1:]]
    x_CN = np.atleast_2d(speech() if x_CN is None else x_CN).astype(np.float32)
    layout = {1: "mono", 2: "stereo", 3: "2.1", 6: "5.1"}[len(x_CN)]
    rate = rate or usual_rate
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(x_CN), format="fltp", layout=layout)
    frame.sample_rate = 16_000
    converter = av.AudioResampler(format=kind, layout=layout, rate=rate)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="ogg" if path.suffix == ".opus" else None) as out:
        stream = out.add_stream(codec, rate=rate, layout=layout, options={**encoder, **options})
        stream.codec_context.format = kind
        for part in [*converter.resample(frame), *converter.resample(None)]:
            out.mux(stream.encode(part))
        out.mux(stream.encode(None))
    return path


def write_float_wav(path: Path, x_N: npt.NDArray[Any]) -> Path:
    """A WAV of float32 at 16 kHz that holds any numbers at all."""
    data = x_N.astype("<f4").tobytes()
    head = b"RIFF" + (36 + len(data)).to_bytes(4, "little") + b"WAVEfmt " + (16).to_bytes(4, "little")
    head += b"\x03\x00\x01\x00" + (16_000).to_bytes(4, "little") + (64_000).to_bytes(4, "little") + b"\x04\x00\x20\x00"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head + b"data" + len(data).to_bytes(4, "little") + data)
    return path


def cut_off(path: Path, share: float = 0.6) -> Path:
    """The file without its end."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path

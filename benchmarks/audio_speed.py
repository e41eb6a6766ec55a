"""Recordings to segments on one core: x real time and memory, by format and by length.

    python -m benchmarks.audio_speed [RECORDING] [--minutes 1,60,180] [--formats wav,flac,mp3,m4a,opus]

RECORDING is any file with speech (by default the sentence of ``benchmarks.audio_segments`` that espeak-ng says), which
is repeated. First five minutes of stereo at 44.1 kHz (Opus: 48) in each format, then FLAC of 16 kHz, mono, of each
length. Each run is a process of its own: CPU seconds of decoding alone, of voice activity alone, and of all of it
(decode, resample, voice activity, cutting), and the process's peak memory.

Then what people write without us, on the same files and on 100 clips: one file after the other is decoded by the
program ffmpeg (to 16 kHz, mono) and given to ``get_speech_timestamps`` of silero-vad, with its model for sequences
(the quicker one) and with its default model. CPU seconds of ffmpeg and Python together; models are loaded before.
Needs ffmpeg, torch and silero-vad, and is left out with a word where they are missing.

Traps: (1) run nothing else: voice activity is bound by the cache and loses half of its speed beside a neighbour.
(2) Noise and music are no faster than speech: the model computes the same. (3) Peak memory includes the libraries
(about 120 MB); what grows is 0.9 MB an hour and channel. (4) silero alone finds speech: it does not cut it
into segments of bounded length, nor notice a truncated file.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.audio_segments import load, spoken

FORMATS = {
    "wav": ("pcm_s16le", "s16", 44_100, {}),
    "flac": ("flac", "s16", 44_100, {}),
    "mp3": ("libmp3lame", "s16p", 44_100, {"b": "128000"}),
    "m4a": ("aac", "fltp", 44_100, {"b": "128000"}),
    "opus": ("libopus", "flt", 48_000, {"b": "48000"}),
}
NUM_CLIPS = 100
CHILD = """
import json, sys, time
from lcm_data.audio import AudioOptions
from lcm_data.audio.read import mixed
from lcm_data.audio.recording import segment_recording
from lcm_data.audio.sound import Sound
from lcm_data.audio.vad import VoiceActivity
import numpy as np
voice, file = VoiceActivity(), sys.argv[1]
begun = time.process_time()
with Sound(file) as sound:
    for _, x_CN in sound.blocks():
        mixed(x_CN, None)
decode = time.process_time() - begun
begun = time.process_time()
found = segment_recording(file, voice, AudioOptions())
whole = time.process_time() - begun
track, x_N = voice.track(), np.zeros(60 * 16_000, np.float32) + 0.01
begun = time.process_time()
track.push(x_N)
track.end()
vad = time.process_time() - begun
# Not ru_maxrss, which begins with that of the parent.
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 1024
print(json.dumps([found.seconds, decode, 60 / vad, whole, peak, len(found.segments)]))
"""

PEER = """
import json, resource, subprocess, sys
import numpy as np, torch
from silero_vad import get_speech_timestamps, load_silero_vad
from silero_vad.sequence_vad import get_speech_timestamps_sequence
torch.set_num_threads(1)
model = load_silero_vad(sequence=True) if sys.argv[1] == "sequence" else load_silero_vad()
def used():
    each = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in each)
begun, seconds = used(), 0.0
for file in sys.argv[2:]:
    command = ["ffmpeg", "-v", "error", "-threads", "1", "-i", file, "-ac", "1", "-ar", "16000", "-f", "f32le", "-"]
    data = subprocess.run(command, check=True, capture_output=True).stdout
    x_N = np.frombuffer(data, np.float32)
    seconds += len(x_N) / 16000
    if sys.argv[1] == "sequence":
        get_speech_timestamps_sequence(x_N, model)
    else:
        get_speech_timestamps(torch.from_numpy(x_N.copy()), model, sampling_rate=16000)
print(json.dumps([seconds, used() - begun]))
"""
OURS = """
import json, sys, time
import av
from lcm_data.audio import AudioOptions
from lcm_data.audio.recording import segment_recording
from lcm_data.audio.vad import VoiceActivity
voice = VoiceActivity()
begun = time.process_time()
found = [segment_recording(file, voice, AudioOptions()) for file in sys.argv[1:]]
print(json.dumps([sum(each.seconds for each in found), time.process_time() - begun]))
"""


def make(file: Path, speech: np.ndarray, minutes: float, rate: int | None = None, layout: str = "stereo") -> None:
    """A file of ``speech`` (16 kHz) over and over, written piece by piece."""
    import av

    codec, kind, usual_rate, options = FORMATS[file.suffix[1:]]
    rate = rate or usual_rate
    converter = av.AudioResampler(format=kind, layout=layout, rate=rate)
    with av.open(str(file), "w", format="ogg" if file.suffix == ".opus" else None) as out:
        stream = out.add_stream(codec, rate=rate, layout=layout, options=options)
        stream.codec_context.format = kind
        for _ in range(round(minutes * 60 * 16_000 / len(speech))):
            x_CN = np.stack([speech, speech][: converter.layout.nb_channels])
            frame = av.AudioFrame.from_ndarray(x_CN, format="fltp", layout=layout)
            frame.sample_rate = 16_000
            for part in converter.resample(frame):
                out.mux(stream.encode(part))
        out.mux(stream.encode(None))


def measure(file: Path) -> None:
    ran = subprocess.run([sys.executable, "-c", CHILD, str(file)], check=True, capture_output=True, text=True)
    seconds, decode, vad, whole, peak, num = json.loads(ran.stdout)
    print(
        f"{file.suffix[1:]:5} {seconds / 60:8.1f} {seconds / decode:12.0f} {vad:16.0f} {seconds / whole:8.0f} "
        f"{peak:10.0f} {num:9,}",
        flush=True,
    )


def child(script: str, *args: object) -> float:
    """Times real time that a script needs."""
    env = {**os.environ, **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")}
    command = [sys.executable, "-c", script, *map(str, args)]
    ran = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=env)
    seconds, used = json.loads(ran.stdout.splitlines()[-1])
    return float(seconds / used)


def compare(name: str, files: Sequence[Path]) -> None:
    """A row: the best of some rounds of each, which take turns because the load changes."""
    rounds = [(child(OURS, *files), child(PEER, "sequence", *files), child(PEER, "default", *files)) for _ in range(3)]
    ours, sequence, default = map(max, zip(*rounds, strict=True))
    print(
        f"{name:10} {ours:8.0f} {sequence:10.0f} {ours / sequence:8.2f} {default:10.0f} {ours / default:8.2f}",
        flush=True,
    )


def peers(files: Sequence[Path], clip: np.ndarray, folder: Path) -> None:
    """The table of ratios, or why there is none."""
    missing = [name for name in ("torch", "silero_vad") if importlib.util.find_spec(name) is None]
    missing += [] if shutil.which("ffmpeg") else ["the program ffmpeg"]
    if missing:
        print(f"no comparison with ffmpeg + silero-vad: {', '.join(missing)} is not installed")
        return
    print("               ours   sequence    ratio    default    ratio   (x real time; ffmpeg + silero-vad beside us)")
    for file in files:
        compare(file.suffix[1:], [file])
    clips = [folder / f"clip-{number}.flac" for number in range(NUM_CLIPS)]
    for file in clips:
        make(file, clip, len(clip) / 16_000 / 60, rate=16_000, layout="mono")
    compare(f"{NUM_CLIPS} clips", clips)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recording", nargs="?", type=Path)
    parser.add_argument("--minutes", default="1,60,180")
    parser.add_argument("--formats", default=",".join(FORMATS))
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pause = np.zeros(8000, np.float32)
        clips = [load(args.recording)] if args.recording else [load(file) for file in spoken(folder)]
        speech = np.concatenate([part for clip in clips for part in (clip, pause)])
        print("      minutes  decode only  voice activity  all of it    MB peak  segments   (x real time, one core)")
        files = []
        for suffix in filter(None, args.formats.split(",")):
            files.append(folder / f"r.{suffix}")
            make(files[-1], speech, 5)
            measure(files[-1])
        for minutes in filter(None, args.minutes.split(",")):
            make(file := folder / "long.flac", speech, float(minutes), rate=16_000, layout="mono")
            measure(file)
        peers(files, clips[0], folder)


if __name__ == "__main__":
    main()

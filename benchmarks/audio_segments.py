"""Speech segments of clips put together with known pauses: ours next to plain silero-vad and webrtcvad.

    python -m benchmarks.audio_segments [CLIPS ...] [--num 60] [--min-pause 0.25]

CLIPS are recordings of one utterance each, or folders of such; without any, sentences that espeak-ng says. ``--num``
clips of 1.5 to 12 s are put together with pauses of 0.35 to 1.2 s, clean and with pink noise at 20, 10 and 5 dB below
the speech. For each system: share of the speech that is in a segment (speech recall), share of the pauses that cut
(gap recall), segments a clip, and speed. Then the share of a minute that is taken for speech, of silence, noise, tones.

Truth is an energy mask of the clean clips (frames of 10 ms above 2 % of the clip's peak). Traps: (1) recordings have
room noise, which the mask takes for speech: recall is low by that, for all systems alike. (2) A clip may hold pauses
of its own, so more than one segment a clip is no error. (3) silero and webrtcvad as packaged find speech, not
sentences: their segments are what they return with their own defaults, webrtcvad (mode 2, frames of 30 ms) with runs
of up to 0.3 s bridged. (4) Speed is of one process, decoding included for ours alone.
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import subprocess
import tempfile
import time
import wave
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lcm_data.audio import AudioError, AudioOptions
from lcm_data.audio.read import mixed
from lcm_data.audio.recording import segment_recording
from lcm_data.audio.resample import Resampler
from lcm_data.audio.sound import Sound
from lcm_data.audio.vad import VoiceActivity

RATE = 16_000
MASK_FRAME = 160
SENTENCES = {
    "en": "The ferry leaves at nine, so we should have breakfast early. "
    "Nobody had told him that the bridge was closed. She read the letter twice before she put it away. "
    "Rain is expected in the north on Thursday.",
    "de": "Am Abend wurde es kühl, und wir gingen ins Haus. Niemand wusste, wer das Fenster geöffnet hatte. "
    "Der Zug nach Hamburg hat heute zwanzig Minuten Verspätung.",
    "fr": "Le marché commence très tôt le samedi matin. Elle a posé son livre sur la table de la cuisine. "
    "Nous avons marché jusqu'au village sans rencontrer personne.",
    "hi": "आज मौसम बहुत अच्छा है। बच्चे मैदान में खेल रहे हैं। मैं कल अपने गाँव जाऊँगा।",
}
Track = npt.NDArray[np.float32]
Spans = list[tuple[float, float]]


def spoken(folder: Path) -> Iterator[Path]:
    """Clips by espeak-ng."""
    for voice, text in SENTENCES.items():
        for number, sentence in enumerate(part.strip() for part in text.replace("।", ".").split(".") if part.strip()):
            for speed in (140, 170):
                file = folder / f"{voice}-{number}-{speed}.wav"
                subprocess.run(["espeak-ng", "-v", voice, "-s", str(speed), "-w", str(file), sentence], check=True)
                yield file


def load(file: Path) -> Track:
    """All of a file, mono at 16 kHz."""
    with Sound(str(file)) as sound:
        resampler = Resampler(sound.rate)
        parts = [resampler.push(mixed(x_CN, None)) for _, x_CN in sound.blocks()]
        return np.concatenate([*parts, resampler.end()])


def put_together(clips: list[Track], rng: random.Random) -> tuple[Track, npt.NDArray[np.bool_], Spans]:
    """Samples, truth for each 10 ms, and the pauses in seconds."""
    parts, masks, pauses = [], [], []
    at = 0
    for clip in clips:
        clip = clip[: len(clip) // MASK_FRAME * MASK_FRAME]
        level = np.sqrt((clip.reshape(-1, MASK_FRAME) ** 2).mean(axis=1))
        mask = level > 0.02 * np.abs(clip).max()
        loud = np.flatnonzero(mask)
        clip = clip[loud[0] * MASK_FRAME : (loud[-1] + 1) * MASK_FRAME]
        mask = mask[loud[0] : loud[-1] + 1]
        pause = round(rng.uniform(0.35, 1.2) * 100)
        parts += [clip / np.abs(clip).max() * 0.5, np.zeros(pause * MASK_FRAME, np.float32)]
        masks += [mask, np.zeros(pause, np.bool_)]
        at += len(clip)
        pauses.append((at / RATE, at / RATE + pause / 100))
        at += pause * MASK_FRAME
    return np.concatenate(parts).astype(np.float32), np.concatenate(masks), pauses[:-1]


def pink(num_samples: int, seed: int) -> Track:
    """Pink noise of mean square 1."""
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(num_samples))
    spectrum /= np.sqrt(np.maximum(np.arange(len(spectrum)), 20))
    x_N = np.fft.irfft(spectrum, num_samples)
    return (x_N / x_N.std()).astype(np.float32)


def write(file: Path, x_N: Track) -> None:
    with wave.open(str(file), "wb") as out:
        out.setparams((1, 2, RATE, 0, "NONE", ""))
        out.writeframes(np.clip(x_N * 32767, -32768, 32767).astype(np.int16).tobytes())


def ours(options: AudioOptions, file: Path) -> Callable[[Track], Spans]:
    voice = VoiceActivity()

    def find(x_N: Track) -> Spans:
        write(file, x_N)
        try:
            return [segment.seconds for segment in segment_recording(str(file), voice, options).segments]
        except AudioError:
            return []

    return find


def silero() -> Callable[[Track], Spans]:
    from silero_vad import load_silero_vad
    from silero_vad.sequence_vad import get_speech_timestamps_sequence

    model = load_silero_vad(sequence=True)

    def find(x_N: Track) -> Spans:
        found = get_speech_timestamps_sequence(x_N, model)
        return [(each["start"] / RATE, each["end"] / RATE) for each in found]

    return find


def webrtc() -> Callable[[Track], Spans]:
    import webrtcvad

    def find(x_N: Track) -> Spans:
        vad = webrtcvad.Vad(2)
        pcm = np.clip(x_N * 32767, -32768, 32767).astype(np.int16)[: len(x_N) // 480 * 480].reshape(-1, 480)
        is_speech = np.array([vad.is_speech(frame.tobytes(), RATE) for frame in pcm])
        edges = np.flatnonzero(np.diff(is_speech, prepend=False, append=False)).reshape(-1, 2) * 0.03
        spans: Spans = []
        for start, end in edges.tolist():
            if spans and start - spans[-1][1] <= 0.3:
                spans[-1] = (spans[-1][0], end)
            else:
                spans.append((start, end))
        return [span for span in spans if span[1] - span[0] >= 0.25]

    return find


def scores(found: Spans, mask: npt.NDArray[np.bool_], pauses: Spans) -> tuple[float, float]:
    """Speech recall and gap recall: a pause cuts if no segment covers all of its inner half."""
    covered = np.zeros(len(mask), np.bool_)
    for start, end in found:
        covered[round(start * 100) : round(end * 100)] = True
    cuts = 0
    for start, end in pauses:
        quarter = (end - start) / 4
        cuts += not any(a <= start + quarter and end - quarter <= b for a, b in found)
    return float(covered[mask].mean()), cuts / len(pauses)


def no_speech(seconds: int = 60) -> dict[str, Track]:
    num = seconds * RATE
    t = np.arange(num) / RATE
    white = np.random.default_rng(0).standard_normal(num).astype(np.float32)
    return {
        "silence": np.zeros(num, np.float32),
        "white noise": white * 0.1,
        "pink noise": pink(num, 1) * 0.1,
        "tone 440 Hz": (0.3 * np.sin(2 * np.pi * 440 * t)).astype(np.float32),
        "tones, changing": (0.3 * np.sin(2 * np.pi * np.cumsum(300 + 200 * (t.astype(int) % 5)) / RATE)).astype(
            np.float32
        ),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="*", type=Path)
    parser.add_argument("--num", type=int, default=60)
    parser.add_argument("--min-pause", type=float, default=AudioOptions().min_pause)
    args = parser.parse_args(argv)
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = [path for given in args.clips for path in (sorted(given.rglob("*.*")) if given.is_dir() else [given])]
        files = files or list(spoken(folder))
        rng.shuffle(files)
        clips: list[Track] = []
        for file in files:
            clip = load(file)
            if 1.5 * RATE <= len(clip) <= 12 * RATE and np.abs(clip).max() > 0.01:
                clips.append(clip)
            if len(clips) == args.num:
                break
        systems = {"lcm-data": ours(AudioOptions(min_pause=args.min_pause), folder / "all.wav"), "silero": silero()}
        if importlib.util.find_spec("webrtcvad"):
            systems["webrtcvad"] = webrtc()
        speech(clips, systems, rng)
        print("\nshare taken for speech")
        for kind, x_N in no_speech().items():
            found = {name: sum(end - start for start, end in find(x_N)) / 60 for name, find in systems.items()}
            print(f"{kind:16}" + "  ".join(f"{name} {share:6.1%}" for name, share in found.items()))


def speech(clips: list[Track], systems: dict[str, Callable[[Track], Spans]], rng: random.Random) -> None:
    clean, mask, pauses = put_together(clips, rng)
    power = float((clean.reshape(-1, MASK_FRAME)[mask] ** 2).mean())
    print(f"{len(clips)} clips, {len(clean) / RATE:.0f} s, {len(pauses)} pauses")
    print("noise    system      speech recall  gap recall  segments a clip  longest   x real time")
    for snr in (None, 20, 10, 5):
        noisy = clean if snr is None else clean + pink(len(clean), 2) * (power / 10 ** (snr / 10)) ** 0.5
        for name, find in systems.items():
            begun = time.process_time()
            found = find(noisy)
            speed = len(clean) / RATE / (time.process_time() - begun)
            recall, gaps = scores(found, mask, pauses)
            longest = max((end - start for start, end in found), default=0.0)
            print(
                f"{'clean' if snr is None else f'{snr} dB':8} {name:10} {recall:14.1%} {gaps:11.1%} "
                f"{len(found) / len(clips):16.2f} {longest:8.1f} {speed:13.0f}"
            )


if __name__ == "__main__":
    main()

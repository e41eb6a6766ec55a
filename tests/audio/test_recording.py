"""One recording: its sentences are found in every format, and what cannot be used says why."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from recordings import FORMATS, SENTENCES, SPEECH, cut_off, speech, stereo, write_float_wav, write_recording

from lcm_data.audio import AudioError, AudioOptions, SpeechSegment
from lcm_data.audio.clips import clip_path, write_flac
from lcm_data.audio.recording import segment_recording
from lcm_data.audio.vad import VoiceActivity, vad_fingerprint


def segments(path: Path, voice: VoiceActivity, **options: object) -> tuple[SpeechSegment, ...]:
    return segment_recording(str(path), voice, AudioOptions(**options)).segments  # type: ignore[arg-type]


def assert_sentences(found: tuple[SpeechSegment, ...], shift: float = 0.0) -> None:
    assert len(found) == len(SENTENCES)
    for segment, (start, end) in zip(found, SENTENCES, strict=True):
        assert -0.3 < segment.seconds[0] - start - shift <= 0.05
        assert -0.05 <= segment.seconds[1] - end - shift < 0.3


@pytest.mark.parametrize("suffix", FORMATS)
def test_sentences_are_found_in_every_format(tmp_path: Path, voice: VoiceActivity, suffix: str) -> None:
    path = write_recording(tmp_path / f"r.{suffix}")
    found = segment_recording(str(path), voice, AudioOptions())
    assert_sentences(found.segments)
    assert found.sample_rate == FORMATS[suffix][2]
    assert found.seconds == pytest.approx(11.136, abs=0.06)
    for segment in found.segments:
        assert segment.channel == 0
        assert 0.8 < segment.speech_ratio <= 1
        assert -26 < segment.loudness_db < -17


def test_channels_mixed_or_each(tmp_path: Path, voice: VoiceActivity) -> None:
    quiet = np.zeros(len(speech()), np.float32)
    path = write_recording(tmp_path / "r.wav", np.stack([speech(), quiet]))
    mixed = segments(path, voice)
    assert_sentences(mixed)
    assert {segment.channel for segment in mixed} == {None}
    each = segments(path, voice, channels="each")
    assert {segment.channel for segment in each} == {0}
    assert mixed[0].loudness_db == pytest.approx(each[0].loudness_db - 6.02, abs=0.1)
    both = segments(write_recording(tmp_path / "both.wav", stereo()), voice, channels="each")
    assert {segment.channel for segment in both} == {0, 1}
    assert [segment.start for segment in both] == sorted(segment.start for segment in both)
    assert_sentences(tuple(segment for segment in both if segment.channel == 0))


def test_what_has_a_transcript_stays_whole(tmp_path: Path, voice: VoiceActivity) -> None:
    def cut(path: Path) -> list[tuple[float, float]]:
        found = segment_recording(str(path), voice, AudioOptions(), is_utterance=True)
        return [segment.seconds for segment in found.segments]

    ((start, end),) = cut(SPEECH)
    assert start < SENTENCES[0][0]
    assert end > SENTENCES[-1][1]
    assert len(cut(write_recording(tmp_path / "long.flac", np.tile(speech(), 3)))) == 9


def test_it_does_not_matter_how_samples_are_fed(voice: VoiceActivity) -> None:
    x_N = speech()
    tracks = [voice.track() for _ in range(3)]
    tracks[0].push(x_N)
    for at in range(0, len(x_N), 777):
        tracks[1].push(x_N[at : at + 777])
    for at in range(0, len(x_N), 40_000):
        tracks[2].push(x_N[at : at + 40_000])
    probs_F, energy_F = tracks[0].end()
    assert len(probs_F) == -(-len(x_N) // 512)
    assert probs_F.max() > 0.95
    assert probs_F.min() < 0.05
    for track in tracks[1:]:
        for found, expected in zip(track.end(), (probs_F, energy_F), strict=True):
            np.testing.assert_array_equal(found, expected)


def test_probabilities_are_those_of_silero(voice: VoiceActivity) -> None:
    silero_vad = pytest.importorskip("silero_vad", reason="needs silero-vad and torch")
    with warnings.catch_warnings(action="ignore"):
        theirs = silero_vad.load_silero_vad(sequence=True).audio_forward(np.array(speech()))
    track = voice.track()
    track.push(speech())
    np.testing.assert_array_equal(track.end()[0], theirs)
    assert vad_fingerprint().startswith("silero-vad 6.")


NUM = 5 * 16_000
NOISE = np.random.default_rng(0).standard_normal(NUM).astype(np.float32)
TONE = np.sin(2 * np.pi * 440 * np.arange(NUM) / 16_000).astype(np.float32)

UNUSABLE: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "gone.wav": (lambda path: None, "missing_audio", "No such file"),
    "folder.wav": (lambda path: path.mkdir(), "missing_audio", "directory"),
    "nothing.wav": (lambda path: path.write_bytes(b""), "empty_audio", "no bytes"),
    "header.wav": (lambda path: write_float_wav(path, np.zeros(0)), "empty_audio", "no samples"),
    "text.mp3": (lambda path: path.write_text("no sound at all\n" * 500), "broken_audio", "decode"),
    "junk.flac": (lambda path: path.write_bytes(b"fLaC" + NOISE.tobytes()), "broken_audio", "Hz|decode"),
    "nan.wav": (lambda path: write_float_wav(path, np.where(NOISE > 3, np.nan, NOISE)), "broken_audio", "no numbers"),
    "huge.wav": (lambda path: write_float_wav(path, NOISE * 1e30), "broken_audio", "infinite"),
    "ints.wav": (lambda path: write_float_wav(path, NOISE * 32768), "broken_audio", "full scale is 1"),
    "short.wav": (lambda path: write_recording(path, speech()[8000:16_000]), "too_short", "0.50 s, a segment has 1 s"),
    "long.flac": (lambda path: write_recording(path, np.tile(speech(), 4)), "too_long", "max_hours 0.01"),
    "silence.wav": (lambda path: write_recording(path, NOISE * 0), "silent_audio", "5.0 s of silence"),
    "noise.wav": (lambda path: write_recording(path, NOISE * 0.05), "no_speech", "no speech was found in 5.0 s"),
    "tone.mp3": (lambda path: write_recording(path, TONE * 0.3), "no_speech", "no speech"),
    "cut.wav": (lambda path: cut_off(write_recording(path)), "truncated_audio", "bytes of samples"),
    "cut.flac": (lambda path: cut_off(write_recording(path)), "truncated_audio", "of the 11.1 s its header names"),
    "cut.mp3": (lambda path: cut_off(write_recording(path)), "truncated_audio", "of the 11.1 s its header names"),
    "cut.opus": (lambda path: cut_off(write_recording(path)), "truncated_audio", "end of the stream is missing"),
    "cut.webm": (lambda path: cut_off(write_recording(path)), "truncated_audio", "of the 11.1 s its header names"),
    "cut.m4a": (lambda path: cut_off(write_recording(path)), "broken_audio", "decoded"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_what_cannot_be_used_says_why(tmp_path: Path, voice: VoiceActivity, name: str) -> None:
    make, reason, message = UNUSABLE[name]
    make(tmp_path / name)
    with pytest.raises(AudioError, match=message) as caught:
        segments(tmp_path / name, voice, max_hours=0.01)
    assert caught.value.reason == reason


def test_a_wav_that_was_streamed_is_whole(tmp_path: Path, voice: VoiceActivity) -> None:
    """Its writer could not go back to fill in the sizes."""
    path = write_recording(tmp_path / "r.wav")
    data = bytearray(path.read_bytes())
    at = data.index(b"data") + 4
    data[4:8] = data[at : at + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    assert_sentences(segments(path, voice))


def test_clips_hold_the_samples(tmp_path: Path) -> None:
    from lcm_data.audio.sound import Sound

    for name in ("one.flac", "two.flac"):
        write_flac(str(tmp_path / name), speech()[:50_001], 16_000)
    assert (tmp_path / "one.flac").read_bytes() == (tmp_path / "two.flac").read_bytes()
    with Sound(str(tmp_path / "one.flac")) as sound:
        assert (sound.rate, sound.num_channels) == (16_000, 1)
        x_CN = np.concatenate([x_CN for _, x_CN in sound.blocks()], axis=1)
    np.testing.assert_allclose(x_CN[0], speech()[:50_001], atol=1e-4)
    assert clip_path(7, -1) == "clips/part-000007/ffffffffffffffff.flac"

"""Reading: a clip is what the whole recording has there, to the sample, in every format and rate, of any channel."""

from __future__ import annotations

import errno
import random
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from recordings import FORMATS, SECONDS, SENTENCES, speech, stereo, write_recording

from lcm_data.audio.read import ClipReader, mixed, read_clip
from lcm_data.audio.resample import Resampler
from lcm_data.audio.sound import Sound
from lcm_data.errors import InputError, StorageError, UsageError


def whole(path: Path, channel: int | None) -> np.ndarray:
    """A recording decoded from the beginning to the end, at 16 kHz."""
    with Sound(str(path)) as sound:
        resampler = Resampler(sound.rate)
        parts = [resampler.push(mixed(x_CN, channel)) for _, x_CN in sound.blocks()]
        return np.concatenate([*parts, resampler.end()])


def ranges(num_samples: int, seed: int) -> list[tuple[int, int]]:
    rng = random.Random(seed)
    found = [(start, start + rng.randint(1, 40_000)) for start in (rng.randrange(num_samples) for _ in range(12))]
    inside = [(start, end) for start, end in found if end <= num_samples]
    return [(0, num_samples), *inside, *sorted(inside), (num_samples - 1, num_samples), (0, 1)]


def tolerance(suffix: str) -> float:
    """The decoder of Opus remembers more than what is decoded before a jump's goal."""
    return 1e-5 if suffix in ("opus", "ogg") else 0.0


@pytest.mark.parametrize("suffix", [name for name in FORMATS if name != "m4a"])
def test_clips_are_exact(tmp_path: Path, suffix: str) -> None:
    path = write_recording(tmp_path / f"r.{suffix}", np.tile(stereo(), 3))
    for channel in (None, 1):
        full = whole(path, channel)
        assert abs(len(full) / 16_000 - 3 * SECONDS) < 0.05
        with ClipReader(str(path)) as reader:
            for start, end in ranges(len(full), seed=1):
                clip = reader.read(channel, start / 16_000, end / 16_000)
                assert clip.dtype == np.float32
                np.testing.assert_allclose(clip, full[start:end], rtol=0, atol=tolerance(suffix))


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 44_100, 96_000])
def test_any_rate(tmp_path: Path, rate: int) -> None:
    path = write_recording(tmp_path / "r.flac", rate=rate)
    full = whole(path, None)
    assert abs(len(full) - len(speech())) <= 2
    last = min(len(full), len(speech())) - 1000
    assert np.corrcoef(full[:last], speech()[:last])[0, 1] > (0.9 if rate < 16_000 else 0.999)
    with ClipReader(str(path)) as reader:
        for start, end in ranges(len(full), seed=rate):
            np.testing.assert_array_equal(reader.read(0, start / 16_000, end / 16_000), full[start:end])


@pytest.mark.parametrize("channels", [1, 3, 6])
def test_any_number_of_channels(tmp_path: Path, channels: int) -> None:
    tracks = np.stack([speech() * (0.5 + 0.1 * n) for n in range(channels)])
    path = write_recording(tmp_path / "r.flac", tracks, rate=16_000)
    for channel in range(channels):
        np.testing.assert_allclose(whole(path, channel), tracks[channel], atol=1e-4)
    np.testing.assert_allclose(whole(path, None), tracks.mean(axis=0), atol=1e-4)


def test_aac_is_exact_but_for_the_noise_it_makes_up(tmp_path: Path) -> None:
    path = write_recording(tmp_path / "r.m4a", np.tile(speech(), 3))
    full = whole(path, None)
    start, end = (round(at * 16_000) for at in SENTENCES[1])
    clip = read_clip(str(path), None, start / 16_000, end / 16_000)
    assert np.corrcoef(clip, full[start:end])[0, 1] > 0.99


def test_gaps_of_lost_packets_are_silence(tmp_path: Path) -> None:
    """A damaged page takes nothing of its place in time away from what follows."""
    path = write_recording(tmp_path / "r.opus", np.tile(speech(), 6))
    before = whole(path, None)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 50] = bytes(50)
    path.write_bytes(data)
    after = whole(path, None)
    assert len(after) == len(before)
    np.testing.assert_allclose(after[-16_000 * 20 :], before[-16_000 * 20 :], atol=1e-3)
    assert (before != after).any()
    with ClipReader(str(path)) as reader:
        for start, end in ranges(len(after), seed=3):
            clip = reader.read(0, start / 16_000, end / 16_000)
            np.testing.assert_allclose(clip, after[start:end], rtol=0, atol=1e-5)


def test_reading_forward_and_jumping_hold_little(tmp_path: Path) -> None:
    path = write_recording(tmp_path / "r.flac", np.tile(speech(), 40), rate=16_000)  # 7.4 minutes, 28 MB of floats
    tracemalloc.start()
    with ClipReader(str(path)) as reader:
        for start in (400.0, 1.0, 3.0, 8.0, 200.0, 390.0):
            assert len(reader.read(0, start, start + 2)) == 32_000
    with Sound(str(path)) as sound:
        assert sum(x_CN.shape[1] for _, x_CN in sound.blocks()) == 40 * len(speech())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


def test_what_cannot_be_read(tmp_path: Path) -> None:
    path = write_recording(tmp_path / "r.wav")
    with ClipReader(str(path)) as reader:
        with pytest.raises(UsageError, match=r"a clip from 3 to 2 s holds no samples; give 0 <= start_s < end_s"):
            reader.read(0, 3, 2)
        with pytest.raises(UsageError, match=r"no channel 1 in .*r\.wav', which has 1"):
            reader.read(1, 0, 1)
        with pytest.raises(InputError, match=r"it ends at 11.136 s, before 12.000 s. Put the file back"):
            reader.read(0, 11, 12)
        assert len(reader.read(0, 0, 1)) == 16_000
    with pytest.raises(InputError, match=r"cannot read the recording '.*gone.wav': .*No such file"):
        read_clip(str(tmp_path / "gone.wav"), 0, 0, 1)
    path.write_bytes(b"nothing of the kind" * 100)
    with pytest.raises(InputError, match="cannot be decoded"):
        read_clip(str(path), 0, 0, 1)


def test_trouble_of_the_storage_is_no_fault_of_the_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        protocol = ("file",)

        def info(self, path: str) -> dict[str, int]:
            raise OSError(errno.EIO, "the disk is dying")

    monkeypatch.setattr("lcm_data.audio.sound.file_system", lambda uri, options: (Broken(), uri))
    with pytest.raises(StorageError, match="the disk is dying"):
        Sound("/a.wav")


def test_names_are_no_protocols(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_recording(tmp_path / "a.wav")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.wav").rename(tmp_path / "concat:a.wav")
    assert len(read_clip("concat:a.wav", 0, 0, 1)) == 16_000


def test_urls(tmp_path: Path) -> None:
    import fsspec

    path = write_recording(tmp_path / "r.mp3", np.tile(speech(), 3))
    fsspec.filesystem("memory").pipe_file("/bucket/r.mp3", path.read_bytes())
    np.testing.assert_array_equal(read_clip("memory://bucket/r.mp3", 0, 20, 22), read_clip(str(path), 0, 20, 22))
    with pytest.raises(InputError, match="gone"):
        read_clip("memory://bucket/gone.mp3", 0, 0, 1)

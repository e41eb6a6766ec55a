"""Cutting: whatever the speech, segments cover it, stay in their bounds, and never overlap."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcm_data.audio import AudioOptions
from lcm_data.audio.cut import cut_segments
from lcm_data.audio.spans import MIN_SILENCE_FRAMES, MIN_SPEECH_FRAMES, speech_spans
from lcm_data.errors import UsageError


@st.composite
def tracks(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    """Spans of speech as ``speech_spans`` may give them, energy, and the number of frames."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    lengths = st.tuples(st.integers(MIN_SILENCE_FRAMES, 150), st.integers(MIN_SPEECH_FRAMES, 2000))
    pairs = draw(st.lists(lengths, max_size=30))
    first, last = draw(st.integers(0, 50)), draw(st.integers(0, 50))
    spans, at = [], first - (pairs[0][0] if pairs else 0)
    for gap, speech in pairs:
        spans.append((at + gap, at + gap + speech))
        at += gap + speech
    num_frames = max(at, 1) + last
    return np.array(spans, np.int64).reshape(-1, 2), rng.random(num_frames, np.float32), num_frames


options = st.builds(
    AudioOptions,
    min_pause=st.sampled_from([0.1, 0.25, 0.3, 1.0]),
    min_seconds=st.sampled_from([0.5, 1.0, 3.0]),
    max_seconds=st.sampled_from([12.0, 30.0, 60.0]),
    padding=st.sampled_from([0.0, 0.1, 0.25]),
)


@given(tracks(), options)
def test_segments_keep_their_promises(track: tuple[np.ndarray, np.ndarray, int], options: AudioOptions) -> None:
    spans, energy, num_frames = track
    found = cut_segments(spans, energy, options)
    assert (len(found) > 0) == (len(spans) > 0)
    assert all(0 <= start < end <= num_frames for start, end in found)
    assert all(left[1] <= right[0] for left, right in itertools.pairwise(found))  # in order, apart
    for start, end in found:
        assert min(options.min_frames, num_frames) <= end - start <= max(options.max_frames, options.min_frames)
    covered = np.zeros(num_frames, np.bool_)
    for start, end in found:
        covered[start:end] = True
    for start, end in spans.tolist():
        assert covered[start:end].all()
    assert found == cut_segments(spans, energy, options)


@given(tracks(), options)
def test_padding_is_what_was_asked_where_there_is_room(
    track: tuple[np.ndarray, np.ndarray, int], options: AudioOptions
) -> None:
    spans, energy, num_frames = track
    is_speech = np.zeros(num_frames, np.bool_)
    for start, end in spans.tolist():
        is_speech[start:end] = True
    segments = cut_segments(spans, energy, options)
    starts, ends = {start for start, _ in segments}, {end for _, end in segments}
    for start, end in segments:
        if end - start > options.min_frames:  # shorter ones got more
            speech = np.flatnonzero(is_speech[start:end])
            # Where two segments meet, one that was too long was cut, maybe inside a pause near its end.
            assert speech[0] <= options.padding_frames or start in ends
            assert end - start - 1 - speech[-1] <= options.padding_frames or end in starts


@given(st.lists(st.floats(0, 1, width=32), max_size=300), st.sampled_from([0.3, 0.5, 0.8]))
def test_spans_of_speech(probs: list[float], threshold: float) -> None:
    spans = speech_spans(np.array(probs, np.float32), threshold)
    assert ((spans[:, 1] - spans[:, 0]) >= MIN_SPEECH_FRAMES).all()
    assert (spans[1:, 0] - spans[:-1, 1] >= MIN_SILENCE_FRAMES).all()
    for start, end in spans.tolist():
        assert probs[start] >= np.float32(threshold)
        assert end == len(probs) or probs[end] < np.float32(threshold - 0.15)


def test_spans_are_those_of_silero() -> None:
    utils = pytest.importorskip("silero_vad.utils_vad", reason="needs silero-vad and torch")
    rng = np.random.default_rng(0)
    for seed in range(20):
        walk = np.cumsum(np.random.default_rng(seed).normal(0, 0.12, 800))
        probs = np.abs((walk + rng.normal(0, 0.05, 800)) % 2 - 1).astype(np.float32)
        theirs = utils.get_speech_timestamps_from_probs(probs.tolist(), speech_pad_ms=0)
        ours = speech_spans(probs, 0.5)
        assert len(ours) > 1
        assert [[each["start"] // 512, each["end"] // 512] for each in theirs] == ours.tolist()


def test_pauses_cut_and_short_ones_only_what_is_too_long() -> None:
    spans = np.array([[0, 300], [306, 700], [711, 1100]])
    energy = np.ones(1100, np.float32)
    assert cut_segments(spans, energy, AudioOptions()) == [(0, 703), (708, 1100)]
    assert cut_segments(spans, energy, AudioOptions(max_seconds=20.0)) == [(0, 303), (303, 703), (708, 1100)]
    assert cut_segments(spans, energy, AudioOptions(min_pause=1.0)) == [(0, 703), (708, 1100)]


def test_without_pauses_it_is_cut_where_it_is_quietest() -> None:
    energy = np.ones(1500, np.float32)
    energy[798:803] = 0.1
    assert cut_segments(np.array([[0, 1500]]), energy, AudioOptions()) == [(0, 800), (800, 1500)]


def test_a_word_alone_gets_silence_and_a_near_one_a_neighbour() -> None:
    energy = np.ones(400, np.float32)
    assert cut_segments(np.array([[100, 110]]), energy, AudioOptions()) == [(89, 122)]
    assert cut_segments(np.array([[0, 10]]), energy, AudioOptions()) == [(0, 33)]
    near = np.array([[100, 110], [130, 250]])
    assert cut_segments(near, energy, AudioOptions()) == [(97, 253)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": "left"}, "channels must be mix or each, got 'left'"),
        ({"min_seconds": 10.0}, "min_seconds must be between 0.5 and a quarter of max_seconds"),
        ({"padding": 0.6}, "padding must be between 0 and half of min_seconds"),
        ({"min_pause": 0.0}, r"min_pause must be between 0.1 and 10, got 0"),
        ({"speech_threshold": 1.0}, "speech_threshold must be between 0.2 and 0.95, got 1"),
        ({"max_seconds": 1000.0}, "max_seconds must be between 2 and 300, got 1000"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        AudioOptions(**settings)  # type: ignore[arg-type]

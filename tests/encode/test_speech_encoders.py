"""What every speech encoder backend promises, and what is the native one's own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from speechlike import clip

from lcm_data.encode import (
    SPEECH_ENCODERS,
    EncoderOptions,
    Prepared,
    SpeechEncoder,
    describe_speech_encoder,
    load_speech_encoder,
)
from lcm_data.encode.batching import padded_batches
from lcm_data.errors import CheckpointError, MissingExtraError, UnknownNameError, UsageError
from lcm_data.sonar.random_speech import write_random_speech
from lcm_data.sonar.speech_config import SpeechEncoderConfig, most_samples, num_positions

SIZES = SpeechEncoderConfig(
    model_dim=32, num_layers=2, num_heads=4, ffn_dim=48, kernel_size=7, pooler_layers=1, pooler_heads=2,
    pooler_ffn_dim=40, pooler_vocab=32, embedding_dim=32, max_positions=100,
)  # fmt: skip
WAVES = [clip(length, seed) for seed, length in enumerate([4000, 16000, 560, 9000, 9001, 40000, 32000, 700] * 2)]


@pytest.fixture(scope="session")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_speech(tmp_path_factory.mktemp("speech"), SIZES)


@pytest.fixture(params=[*SPEECH_ENCODERS])
def encoder(request: pytest.FixtureRequest, speech: Path) -> SpeechEncoder:
    try:
        return load_speech_encoder(
            EncoderOptions(model=str(speech), backend=request.param, device="cpu", token_budget=120)
        )
    except MissingExtraError as error:
        pytest.skip(str(error))


def test_vectors_do_not_depend_on_batches(encoder: SpeechEncoder) -> None:
    prepared = encoder.prepare(WAVES)
    vectors = encoder.embed(prepared)
    assert vectors.shape == (len(WAVES), encoder.dim)
    assert vectors.dtype == np.float32
    alone = np.concatenate([encoder.embed(encoder.prepare([wave])) for wave in WAVES])
    np.testing.assert_allclose(vectors, alone, atol=1e-6, rtol=0)
    assert len({row.tobytes() for row in vectors.round(4)}) == len(WAVES)


def test_a_rerun_gives_the_same_bits(encoder: SpeechEncoder) -> None:
    prepared = encoder.prepare(WAVES)
    assert encoder.embed(prepared).tobytes() == encoder.embed(prepared).tobytes()


def test_rows_select_and_order(encoder: SpeechEncoder) -> None:
    prepared = encoder.prepare(WAVES)
    rows = np.array([15, 3, 3, 0])
    np.testing.assert_allclose(encoder.embed(prepared, rows), encoder.embed(prepared)[rows], atol=1e-6, rtol=0)


def test_counts_are_positions_and_long_clips_are_cut(encoder: SpeechEncoder) -> None:
    prepared = encoder.prepare(WAVES)
    assert isinstance(prepared, Prepared)
    assert prepared.num_tokens.tolist() == [min(100, num_positions(len(wave))) for wave in WAVES]
    assert prepared.num_tokens.dtype == prepared.num_unknown.dtype == np.int32
    assert np.flatnonzero(prepared.truncated).tolist() == [5, 13]
    assert not prepared.num_unknown.any()
    cut = encoder.prepare([WAVES[5][: most_samples(100)]])
    np.testing.assert_allclose(encoder.embed(cut), encoder.embed(prepared, np.array([5])), atol=1e-6, rtol=0)


def test_nothing_to_embed(encoder: SpeechEncoder) -> None:
    assert encoder.embed(encoder.prepare([])).shape == (0, encoder.dim)
    assert encoder.embed(encoder.prepare(WAVES[:1]), np.zeros(0, np.int64)).shape == (0, encoder.dim)


def test_provenance_extends_the_description(encoder: SpeechEncoder) -> None:
    options = EncoderOptions(model=encoder.provenance["encoder"], backend=encoder.provenance["encoder_backend"])
    assert options.dtype == encoder.provenance["compute_dtype"]
    assert {"encoder_revision", "space", "trained", "max_seq_len", "pooling", "device"} <= set(encoder.provenance)
    assert all(isinstance(value, str) for value in encoder.provenance.values())
    assert int(encoder.provenance["dim"]) == encoder.dim
    before = encoder.busy_seconds
    encoder.embed(encoder.prepare(WAVES[:2]))
    assert encoder.busy_seconds > before


def test_description_needs_no_weights_in_memory(speech: Path) -> None:
    options = EncoderOptions(model=str(speech), device="cpu")
    assert describe_speech_encoder(options).items() <= load_speech_encoder(options).provenance.items()


@pytest.mark.parametrize(
    ("wave", "match"),
    [
        (np.zeros(8000, np.float32), "is silent: all of its 8000 samples are 0"),
        (np.full(8000, 0.5, np.float32), "is silent: all of its 8000 samples are 0.5"),
        (clip(559), "a clip of 34.9375 ms is too short to encode; at least 35 ms"),
        (np.zeros(0, np.float32), "a clip of 0 ms is too short"),
        (np.where(np.arange(8000) == 7, np.nan, clip(8000)).astype(np.float32), "not finite"),
        (np.where(np.arange(8000) == 7, -np.inf, clip(8000)).astype(np.float32), "not finite"),
        (clip(8000).astype(np.float64), r"float32 array \[samples\], mono at 16 kHz.*got float64 \[8000\]"),
        (clip(8000).reshape(2, -1), r"got float32 \[2, 4000\]"),
        ([0.1] * 8000, "got list"),
    ],
)
def test_clips_that_cannot_be_encoded(encoder: SpeechEncoder, wave: Any, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        encoder.prepare([WAVES[0], wave])


class SmallMemory(torch.nn.Module):
    """A network that refuses batches of more than ``most`` positions, as a full GPU does."""

    def __init__(self, network: Any, most: int) -> None:
        super().__init__()
        self.network = network
        self.most = most

    def forward(self, features: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
        if features.shape[0] * features.shape[1] > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return self.network(features, lengths)


def test_a_batch_that_does_not_fit_is_halved(speech: Path, caplog: pytest.LogCaptureFixture) -> None:
    encoder: Any = load_speech_encoder(EncoderOptions(model=str(speech), device="cpu", token_budget=2000))
    prepared = encoder.prepare(WAVES)
    wanted = encoder.embed(prepared)
    encoder._network = SmallMemory(encoder._network, 110)
    with caplog.at_level(logging.WARNING):
        np.testing.assert_allclose(encoder.embed(prepared), wanted, atol=1e-6, rtol=0)
    assert encoder.num_ooms >= 2
    assert [record.message for record in caplog.records if "did not fit into memory" in record.message]
    assert len(caplog.records) == 1
    encoder._network.most = 99
    with pytest.raises(torch.OutOfMemoryError):
        encoder.embed(prepared)


def test_bfloat16_is_close_and_float32_comes_back(speech: Path) -> None:
    exact, half = (load_speech_encoder(EncoderOptions(model=str(speech), device="cpu", dtype=d))
                   for d in ("float32", "bfloat16"))  # fmt: skip
    x, y = (encoder.embed(encoder.prepare(WAVES)) for encoder in (exact, half))
    assert y.dtype == np.float32
    cosine = (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
    assert cosine.min() > 0.99


def test_preparing_on_other_threads_while_embedding(speech: Path) -> None:
    encoder = load_speech_encoder(EncoderOptions(model=str(speech), device="cpu"))
    got: list[Prepared] = []
    threads = [threading.Thread(target=lambda: got.append(encoder.prepare(WAVES))) for _ in range(4)]
    for thread in threads:
        thread.start()
    encoder.embed(encoder.prepare(WAVES))
    for thread in threads:
        thread.join()
    assert [prepared.num_tokens.tolist() for prepared in got] == [encoder.prepare(WAVES).num_tokens.tolist()] * 4


def test_what_is_refused(speech: Path, golden_text: Path) -> None:
    with pytest.raises(UsageError, match="speech encoders have no int8"):
        load_speech_encoder(EncoderOptions(model=str(speech), dtype="int8"))
    with pytest.raises(UnknownNameError, match=r"speech encoder backend 'nativ'\. Did you mean 'native'"):
        load_speech_encoder(EncoderOptions(model=str(speech), backend="nativ"))
    with pytest.raises(UsageError, match="takes no prompt"):
        describe_speech_encoder(EncoderOptions(model=str(speech), prompt="x"))
    with pytest.raises(CheckpointError, match="not a SONAR speech encoder"):
        load_speech_encoder(EncoderOptions(model=str(golden_text)))


@pytest.fixture
def golden_text() -> Path:
    return Path(__file__).parent.parent / "parity" / "golden" / "model.safetensors"


def test_padding_counts_in_batches() -> None:
    lengths = np.array([5, 40, 10, 10, 3, 90, 200])
    batches = padded_batches(lengths, 100)
    assert [batch.tolist() for batch in batches] == [[6], [5], [1, 2], [3, 0, 4]]
    assert sorted(np.concatenate(batches).tolist()) == list(range(7))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * lengths[batch].max() <= 100
    assert padded_batches(np.zeros(0, np.int64), 5) == []
    with pytest.raises(UsageError, match="at least 1, got 0"):
        padded_batches(lengths, 0)

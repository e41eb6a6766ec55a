from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from lcm_data.encode import EncoderOptions, describe_encoder, load_encoder
from lcm_data.encode.native import NativeEncoder, default_token_budget
from lcm_data.errors import UnknownNameError, UsageError
from lcm_data.sonar.text_encoder import TextEncoder

TEXTS = [f"Hello Paul, {'apple ' * (i % 13)}{i}." for i in range(120)] + ["", "x " * 700]


@pytest.fixture(scope="module")
def encoder(tiny: Path) -> NativeEncoder:
    return NativeEncoder(EncoderOptions(model=str(tiny), device="cpu", token_budget=700))


def test_order_does_not_depend_on_batches(encoder: NativeEncoder, tiny: Path) -> None:
    vectors = encoder.embed(encoder.prepare(TEXTS, "eng_Latn"))
    assert vectors.shape == (len(TEXTS), 32)
    assert vectors.dtype == np.float32
    single = load_encoder(EncoderOptions(model=str(tiny), device="cpu", token_budget=1))
    np.testing.assert_allclose(single.embed(single.prepare(TEXTS, "eng_Latn")), vectors, atol=5e-7, rtol=0)


def test_a_rerun_gives_the_same_bits(encoder: NativeEncoder) -> None:
    prepared = encoder.prepare(TEXTS, "eng_Latn")
    assert encoder.embed(prepared).tobytes() == encoder.embed(prepared).tobytes()


def test_rows_select_and_order(encoder: NativeEncoder) -> None:
    prepared = encoder.prepare(TEXTS, "eng_Latn")
    rows = np.array([121, 3, 3, 0])
    np.testing.assert_allclose(encoder.embed(prepared, rows), encoder.embed(prepared)[rows], atol=5e-7, rtol=0)


def test_counts_and_truncation_are_reported(encoder: NativeEncoder) -> None:
    prepared = encoder.prepare(TEXTS, "eng_Latn")
    assert len(prepared) == len(TEXTS)
    assert prepared.num_tokens.dtype == np.int32
    assert prepared.num_tokens[-2:].tolist() == [2, 514]
    assert np.flatnonzero(prepared.truncated).tolist() == [len(TEXTS) - 1]


def test_nothing_to_embed(encoder: NativeEncoder) -> None:
    assert encoder.embed(encoder.prepare([], "eng_Latn")).shape == (0, 32)
    assert encoder.embed(encoder.prepare(["a"], "eng_Latn"), np.zeros(0, np.int64)).shape == (0, 32)


def test_the_language_matters(encoder: NativeEncoder) -> None:
    english, french = (encoder.embed(encoder.prepare(["Paul"], lang)) for lang in ("eng_Latn", "fra_Latn"))
    assert not np.allclose(english, french, atol=1e-3)


def test_preparing_on_other_threads_while_embedding(encoder: NativeEncoder) -> None:
    wanted = encoder.prepare(TEXTS, "eng_Latn").payload.ids
    got: list[np.ndarray] = []
    threads = [
        threading.Thread(target=lambda: got.append(encoder.prepare(TEXTS, "eng_Latn").payload.ids)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    encoder.embed(encoder.prepare(TEXTS, "eng_Latn"))
    for thread in threads:
        thread.join()
    assert len(got) == 4
    assert all(np.array_equal(ids, wanted) for ids in got)


def test_busy_seconds_grow(encoder: NativeEncoder) -> None:
    before = encoder.busy_seconds
    encoder.embed(encoder.prepare(TEXTS, "eng_Latn"))
    assert encoder.busy_seconds > before


class SmallMemory(torch.nn.Module):
    """A network that refuses batches of more than ``most`` tokens, as a full GPU does."""

    def __init__(self, network: TextEncoder, most: int) -> None:
        super().__init__()
        self.network = network
        self.most = most

    def forward(self, ids_T: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
        if sum(lengths) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return self.network(ids_T, lengths)


def test_a_batch_that_does_not_fit_is_halved(tiny: Path, caplog: pytest.LogCaptureFixture) -> None:
    encoder = NativeEncoder(EncoderOptions(model=str(tiny), device="cpu", token_budget=2000))
    prepared = encoder.prepare(TEXTS, "eng_Latn")
    wanted = encoder.embed(prepared)
    encoder._network = SmallMemory(encoder._network, 520)  # type: ignore[assignment]
    with caplog.at_level(logging.WARNING):
        got = encoder.embed(prepared)
    np.testing.assert_allclose(got, wanted, atol=5e-7, rtol=0)
    assert encoder.num_ooms >= 2
    assert [record.message for record in caplog.records if "--token-budget below 2000" in record.message]
    assert len(caplog.records) == 1


def test_one_sentence_that_does_not_fit_is_an_error(tiny: Path) -> None:
    encoder = NativeEncoder(EncoderOptions(model=str(tiny), device="cpu"))
    encoder._network = SmallMemory(encoder._network, 513)  # type: ignore[assignment]
    with pytest.raises(torch.OutOfMemoryError):
        encoder.embed(encoder.prepare(TEXTS, "eng_Latn"))


def test_numbers_that_are_not_finite_come_back_as_they_are(tiny: Path) -> None:
    encoder = NativeEncoder(EncoderOptions(model=str(tiny), device="cpu"))
    encoder._network.layer_norm.bias.data[5] = float("nan")
    vectors = encoder.embed(encoder.prepare(["Paul", "apple"], "eng_Latn"))
    assert np.isnan(vectors[:, 5]).all()
    assert np.isfinite(np.delete(vectors, 5, axis=1)).all()


def test_provenance_extends_the_description(encoder: NativeEncoder, tiny: Path) -> None:
    described = describe_encoder(EncoderOptions(model=str(tiny)))
    assert described.items() <= encoder.provenance.items()
    assert encoder.provenance["device"] == "cpu"
    assert encoder.provenance["token_budget"] == "700"
    assert encoder.provenance["encoder_backend"] == "native"
    assert all(isinstance(value, str) for value in encoder.provenance.values())


def test_bfloat16_is_close_and_float32_comes_back(encoder: NativeEncoder, tiny: Path) -> None:
    half = NativeEncoder(EncoderOptions(model=str(tiny), device="cpu", dtype="bfloat16"))
    exact = encoder.embed(encoder.prepare(TEXTS, "eng_Latn"))
    vectors = half.embed(half.prepare(TEXTS, "eng_Latn"))
    assert vectors.dtype == np.float32
    cosine = (vectors * exact).sum(1) / np.linalg.norm(vectors, axis=1) / np.linalg.norm(exact, axis=1)
    assert cosine.min() > 0.99


def test_default_budgets_fill_the_cache_whatever_the_width() -> None:
    widths = (32, 64, 256, 1024, 4096)
    assert [default_token_budget("cpu", width) for width in widths] == [16384, 16384, 4096, 1024, 1024]
    assert default_token_budget("cuda", 1024) > 16384


def test_int8_is_close_and_is_on_record(encoder: NativeEncoder, tiny: Path) -> None:
    options = EncoderOptions(model=str(tiny), device="cpu", dtype="int8")
    small = NativeEncoder(options)
    exact = encoder.embed(encoder.prepare(TEXTS, "eng_Latn"))
    prepared = small.prepare(TEXTS, "eng_Latn")
    vectors = small.embed(prepared)
    assert vectors.dtype == np.float32
    assert vectors.tobytes() == small.embed(prepared).tobytes()
    cosine = (vectors * exact).sum(1) / np.linalg.norm(vectors, axis=1) / np.linalg.norm(exact, axis=1)
    assert cosine.min() > 0.99
    assert describe_encoder(options)["compute_dtype"] == small.provenance["compute_dtype"] == "int8"


def test_int8_is_refused_where_it_does_not_run(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="the backend sonar-space has no int8"):
        EncoderOptions(model=str(tiny), backend="sonar-space", dtype="int8")
    monkeypatch.setattr("lcm_data.sonar.checkpoint.resolve_device", lambda _: torch.device("cuda"))
    with pytest.raises(UsageError, match=r"int8 runs on CPUs only, got device cuda\. Use --dtype bfloat16"):
        NativeEncoder(EncoderOptions(model=str(tiny), dtype="int8"))


@pytest.mark.parametrize("bad", [{"token_budget": 0}, {"threads": -1}])
def test_options_out_of_range(bad: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        EncoderOptions(model="x", **bad)


def test_unknown_names() -> None:
    with pytest.raises(UnknownNameError, match=r"encoder backend 'nativ'\. Did you mean 'native'"):
        load_encoder(EncoderOptions(model="x", backend="nativ"))
    with pytest.raises(UnknownNameError, match="dtype"):
        EncoderOptions(model="x", dtype="float64")

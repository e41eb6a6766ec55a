from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lcm_data.decode import DecoderOptions, describe_decoder, load_decoder
from lcm_data.decode.native import NativeDecoder
from lcm_data.encode import EncoderOptions, load_encoder
from lcm_data.errors import CheckpointError, UnknownNameError, UsageError

EMB = np.random.default_rng(1).normal(0, 0.05, (23, 32)).astype(np.float32)


def decoder(model: Path, **options: Any) -> NativeDecoder:
    return NativeDecoder(DecoderOptions(model=str(model), device="cpu", **options))


@pytest.mark.parametrize("mode", ["beam", "sample"])
def test_batches_do_not_matter(tiny: Path, mode: str) -> None:
    whole, single = (decoder(tiny, mode=mode, batch_rows=rows).decode(EMB, "eng_Latn") for rows in (1000, 1))
    assert whole.texts == single.texts
    np.testing.assert_allclose(whole.scores, single.scores, atol=1e-5)
    assert whole.num_tokens.tolist() == single.num_tokens.tolist()


def test_vectors_of_the_encoder_go_in(tiny: Path) -> None:
    encoder = load_encoder(EncoderOptions(model=str(tiny), device="cpu"))
    vectors = encoder.embed(encoder.prepare(["Hello Paul.", "Привет!"], "eng_Latn"))
    said = decoder(tiny).decode(vectors, "fra_Latn")
    assert (said.num_tokens > 0).all()
    assert np.isfinite(said.scores).all()


def test_half_floats_as_stored_in_shards(tiny: Path) -> None:
    half = EMB.astype(np.float16)
    network = decoder(tiny)
    assert network.decode(half, "eng_Latn").texts == network.decode(half.astype(np.float32), "eng_Latn").texts


def test_the_seed_matters_for_draws_alone(tiny: Path) -> None:
    texts = {
        (mode, seed): tuple(decoder(tiny, mode=mode, seed=seed).decode(EMB, "eng_Latn").texts)
        for mode in ("greedy", "sample")
        for seed in (0, 1)
    }
    assert texts["greedy", 0] == texts["greedy", 1]
    assert texts["sample", 0] != texts["sample", 1]


def test_a_batch_that_does_not_fit_is_halved(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    network = decoder(tiny, batch_rows=200)
    wanted = network.decode(EMB, "eng_Latn")
    start = network._network.start

    def small_memory(emb_PD: torch.Tensor, ids_PT: torch.Tensor) -> Any:
        if len(emb_PD) > 6:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return start(emb_PD, ids_PT)

    monkeypatch.setattr(network._network, "start", small_memory)
    with caplog.at_level(logging.WARNING):
        assert network.decode(EMB, "eng_Latn").texts == wanted.texts
    assert network.num_ooms == 2  # 23 sentences, 12, 6
    assert [record.message for record in caplog.records] == [
        "a batch of 115 hypotheses did not fit into memory and goes on with half; batch_rows below it is faster"
    ]


def test_provenance_says_how_words_were_chosen(tiny: Path) -> None:
    beam = describe_decoder(DecoderOptions(model=str(tiny), beam_size=3))
    assert (beam["mode"], beam["beam_size"], beam["trained"], beam["max_seq_len"]) == ("beam", "3", "false", "30")
    assert "seed" not in beam
    drawn = describe_decoder(DecoderOptions(model=str(tiny), mode="sample", top_p=0.9, seed=4))
    assert (drawn["top_p"], drawn["seed"]) == ("0.9", "4")
    assert "beam_size" not in drawn
    network = decoder(tiny, mode="sample", top_p=0.9, seed=4)
    assert drawn.items() <= network.provenance.items()
    assert all(isinstance(value, str) for value in network.provenance.values())


def test_bfloat16(tiny: Path) -> None:
    said = decoder(tiny, dtype="bfloat16").decode(EMB, "eng_Latn")
    exact = decoder(tiny).decode(EMB, "eng_Latn")
    assert np.abs(said.scores - exact.scores).max() < 0.2


def test_an_encoder_is_no_decoder(tiny: Path, tmp_path: Path) -> None:
    from lcm_data.sonar.random_model import write_random_checkpoint

    folder = write_random_checkpoint(tmp_path, ["One sentence."] * 20, model_dim=16, num_heads=2, num_layers=1)
    with pytest.raises(CheckpointError, match="holds a SONAR text encoder, not a text decoder"):
        load_decoder(DecoderOptions(model=str(folder), device="cpu"))


@pytest.mark.parametrize("bad", [{"batch_rows": 0}, {"threads": -1}, {"beam_size": 0}, {"max_tokens": 1}])
def test_options_out_of_range(bad: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="at least"):
        DecoderOptions(model="x", **bad)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"beam_size": 100_000}, r"beam_size 100000 is too large for \d+ tokens; at most half"),
        ({"max_tokens": 31}, r"max_tokens 31 is more than the decoder's maximum of 30\. Leave it out"),
    ],
)
def test_what_the_network_cannot_do_is_refused_before_it_is_loaded(
    tiny: Path, bad: dict[str, int], message: str
) -> None:
    options = DecoderOptions(model=str(tiny), device="cpu", **bad)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=message):
        describe_decoder(options)
    with pytest.raises(UsageError, match=message):
        load_decoder(options)
    assert describe_decoder(DecoderOptions(model=str(tiny), max_tokens=30))["max_tokens"] == "30"


def test_unknown_names() -> None:
    with pytest.raises(UnknownNameError, match=r"decoder backend 'nativ'\. Did you mean 'native'"):
        load_decoder(DecoderOptions(model="x", backend="nativ"))
    with pytest.raises(UnknownNameError, match="dtype"):
        DecoderOptions(model="x", dtype="float64")
    with pytest.raises(UnknownNameError, match="mode"):
        DecoderOptions(model="x", mode="best")
    with pytest.raises(UsageError, match="top_p only has a meaning"):
        DecoderOptions(model="x", top_p=0.5)


def test_describing_needs_no_torch(tiny: Path) -> None:
    code = (
        "import sys; from lcm_data.decode import *; "
        f"describe_decoder(DecoderOptions(model={str(tiny)!r})); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0

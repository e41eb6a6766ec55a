"""What every entry of DECODERS must do; a backend whose package is missing must say how to install it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from lcm_data.decode import DECODERS, DecoderOptions, describe_decoder, load_decoder
from lcm_data.errors import LcmDataError, MissingExtraError, UsageError

KEYS = {
    *("decoder", "decoder_revision", "decoder_backend", "tokenizer_revision", "compute_dtype", "max_seq_len"),
    *("trained", "dim", "mode", "temperature"),
}
PACKAGES = {"sonar-space": "sonar"}


@pytest.fixture(params=sorted(DECODERS))
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    package = PACKAGES.get(name)
    if package is not None and importlib.util.find_spec(package) is None:
        with pytest.raises(MissingExtraError, match=rf"needs the package.*pip install 'lcm-data\[{name}\]'"):
            load_decoder(DecoderOptions(model="x", backend=name))
        pytest.skip(f"{package} is not installed; its absence is reported as it should")
    return name


@pytest.mark.parametrize("mode", ["beam", "greedy", "sample"])
def test_contract(backend: str, tiny: Path, mode: str) -> None:
    options = DecoderOptions(model=str(tiny), backend=backend, device="cpu", mode=mode, max_tokens=14, batch_rows=12)
    decoder = load_decoder(options)
    described = describe_decoder(options)
    assert described.keys() >= KEYS
    assert described.items() <= decoder.provenance.items()
    assert {"device", "batch_rows"} <= decoder.provenance.keys()
    assert described["max_tokens"] == "14"

    emb = np.random.default_rng(0).normal(0, 0.05, (9, 32)).astype(np.float32)
    emb[4, 7] = np.nan
    keys = np.arange(9) * 5
    said = decoder.decode(emb, "fra_Latn", keys)
    assert len(said) == len(said.texts) == 9
    assert said.scores.dtype == np.float32
    assert said.num_tokens.dtype == np.int32
    assert said.truncated.dtype == np.bool_
    assert np.flatnonzero(np.isnan(said.scores)).tolist() == [4]
    assert said.texts[4] == ""
    assert (said.num_tokens > 0).tolist() == [row != 4 for row in range(9)]
    assert (said.num_tokens <= 12).all()
    assert (said.truncated == (said.num_tokens == 12)).all()
    assert len(set(said.texts)) > 4

    order = np.array([8, 2, 5])
    again = decoder.decode(emb[order].astype(np.float64), "fra_Latn", keys[order])
    assert again.texts == [said.texts[row] for row in order]
    np.testing.assert_allclose(again.scores, said.scores[order], atol=1e-5)
    assert decoder.decode(emb[:3], "eng_Latn", keys[:3]).texts != said.texts[:3]
    nothing = decoder.decode(emb[:0], "eng_Latn")
    assert (nothing.texts, nothing.scores.shape) == ([], (0,))
    assert decoder.busy_seconds > 0
    assert decoder.num_ooms == 0
    with pytest.raises(LcmDataError, match="xxx_Latn"):
        decoder.decode(emb, "xxx_Latn")
    with pytest.raises(UsageError, match=r"shape \[N, 32\], got \[2, 31\]"):
        decoder.decode(emb[:2, :31], "eng_Latn")
    with pytest.raises(UsageError, match=r"keys of shape \[1\] for 9 vectors"):
        decoder.decode(emb, "eng_Latn", keys[:1])


def test_a_decoder_of_ones_own(tiny: Path) -> None:
    options = DecoderOptions(model=str(tiny), backend="lcm_data.decode.native:NativeDecoder", device="cpu")
    assert load_decoder(options).dim == 32

"""What every entry of ENCODERS must do; a backend whose package is missing must say how to install it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from lcm_data.encode import ENCODERS, EncoderOptions, describe_encoder, load_encoder
from lcm_data.errors import LcmDataError, MissingExtraError

KEYS = {
    *("encoder", "encoder_revision", "encoder_backend", "tokenizer_revision", "compute_dtype", "pooling"),
    *("normalized", "max_seq_len", "trained", "dim"),
}
PACKAGES = {"sonar-space": "sonar"}


@pytest.fixture(params=sorted(ENCODERS))
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    package = PACKAGES.get(name)
    if package is not None and importlib.util.find_spec(package) is None:
        with pytest.raises(MissingExtraError, match=rf"needs the package.*pip install 'lcm-data\[{name}\]'"):
            load_encoder(EncoderOptions(model="x", backend=name))
        pytest.skip(f"{package} is not installed; its absence is reported as it should")
    return name


def test_contract(backend: str, tiny: Path) -> None:
    options = EncoderOptions(model=str(tiny), backend=backend, device="cpu")
    encoder = load_encoder(options)
    described = describe_encoder(options)
    assert described.keys() >= KEYS
    assert described.items() <= encoder.provenance.items()
    assert encoder.provenance["normalized"] == "false"
    assert {"device", "token_budget"} <= encoder.provenance.keys()

    texts = ["Hello Paul.", "", "x " * 700, "Привет!"]
    prepared = encoder.prepare(texts, "eng_Latn")
    assert prepared.num_tokens.dtype == np.int32
    assert prepared.num_tokens[1:3].tolist() == [2, 514]
    assert prepared.truncated.tolist() == [False, False, True, False]
    vectors = encoder.embed(prepared)
    assert vectors.shape == (4, encoder.dim)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(encoder.embed(prepared, np.array([3, 1])), vectors[[3, 1]], atol=1e-6)
    assert encoder.embed(encoder.prepare([], "eng_Latn")).shape == (0, encoder.dim)
    assert encoder.busy_seconds > 0
    assert encoder.num_ooms == 0
    with pytest.raises(LcmDataError, match="xxx_Latn"):
        encoder.prepare(["a"], "xxx_Latn")


def test_an_encoder_of_ones_own(tiny: Path) -> None:
    options = EncoderOptions(model=str(tiny), backend="lcm_data.encode.native:NativeEncoder", device="cpu")
    assert load_encoder(options).dim == 32

"""What every encoder must do, those of ENCODERS and one of a user's own; a missing package must be named."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from oddencoder import OddEncoder
from sentencefolder import MAX_TOKENS

from lcm_data.encode import ENCODERS, EncoderOptions, describe_encoder, load_encoder
from lcm_data.errors import LcmDataError, MissingExtraError, UsageError

KEYS = {"encoder", "encoder_revision", "encoder_backend", "compute_dtype", "dim", "space"}
MORE_KEYS = {"tokenizer_revision", "pooling", "normalized", "max_seq_len", "trained"}
PACKAGES = {"sonar-space": "sonar", "sentence-transformers": "sentence_transformers"}
OWN = "oddencoder:OddEncoder"
MAXIMA = {"native": 514, "sonar-space": 514, "sentence-transformers": MAX_TOKENS}


@pytest.fixture(params=[*sorted(ENCODERS), OWN])
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    package = PACKAGES.get(name)
    if package is not None and importlib.util.find_spec(package) is None:
        with pytest.raises(MissingExtraError, match=rf"needs the package.*pip install 'lcm-data\[{name}\]'"):
            load_encoder(EncoderOptions(model="x", backend=name))
        pytest.skip(f"{package} is not installed; its absence is reported as it should")
    return name


@pytest.fixture
def model(backend: str, request: pytest.FixtureRequest) -> str:
    fixture = {"sentence-transformers": "sentences", OWN: None}.get(backend, "tiny")
    return "one" if fixture is None else str(request.getfixturevalue(fixture))


def test_contract(backend: str, model: str) -> None:
    options = EncoderOptions(model=model, backend=backend, device="cpu")
    encoder = load_encoder(options)
    described = describe_encoder(options)
    assert described.keys() >= KEYS
    assert described["dim"] == str(encoder.dim)
    assert all(isinstance(value, str) for value in encoder.provenance.values())
    assert described.items() <= encoder.provenance.items()
    if backend in ENCODERS:
        assert described.keys() >= MORE_KEYS
        assert {"device", "token_budget"} <= encoder.provenance.keys()
        assert encoder.prepare(["x " * 700], "eng_Latn").num_tokens.tolist() == [MAXIMA[backend]]

    prepared = encoder.prepare(["Hello Paul.", "", "x " * 700, "Bye."], "eng_Latn")
    assert prepared.num_tokens.dtype == prepared.num_unknown.dtype == np.int32
    assert prepared.num_tokens[1] == 2
    assert prepared.truncated.tolist() == [False, False, True, False]
    assert prepared.num_unknown.tolist() == [0, 0, 0, 0]
    vectors = encoder.embed(prepared)
    assert vectors.shape == (4, encoder.dim)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(encoder.embed(prepared, np.array([3, 1])), vectors[[3, 1]], atol=1e-6)
    assert encoder.embed(encoder.prepare([], "eng_Latn")).shape == (0, encoder.dim)
    assert encoder.busy_seconds > 0 or backend not in ENCODERS


def test_languages(backend: str, model: str) -> None:
    encoder = load_encoder(EncoderOptions(model=model, backend=backend, device="cpu"))
    if backend == "sentence-transformers":  # such models take none
        np.testing.assert_array_equal(
            *(encoder.embed(encoder.prepare(["a"], lang)) for lang in ("xxx_Latn", "eng_Latn"))
        )
        return
    with pytest.raises(LcmDataError, match="xxx_Latn"):
        encoder.prepare(["a"], "xxx_Latn")


def test_a_prompt_is_used_or_refused(backend: str, model: str) -> None:
    options = EncoderOptions(model=model, backend=backend, device="cpu", prompt="query: ")
    if backend == "sentence-transformers":
        assert describe_encoder(options)["prompt"] == "query: "
        return
    for function in (describe_encoder, load_encoder):
        with pytest.raises(UsageError, match="takes no prompt, got 'query: '"):
            function(options)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"dim": "4"}, "gives no 'encoder_revision' in its description: a text that changes whenever its vectors do"),
        ({"encoder_revision": "", "dim": "4"}, "gives no 'encoder_revision'"),
        ({"encoder_revision": "a"}, "must give 'dim', the width of its vectors, as text; got None"),
        ({"encoder_revision": "a", "dim": "wide"}, "must give 'dim'.*got 'wide'"),
        ({"encoder_revision": "a", "dim": 4}, "names with values of text, got {'encoder_revision': 'a', 'dim': 4}"),
        ("a", "names with values of text, got 'a'"),
    ],
)
def test_plug_ins_must_say_what_they_are(said: object, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OddEncoder, "describe", staticmethod(lambda options: said))
    for function in (describe_encoder, load_encoder):
        with pytest.raises(UsageError, match=f"the encoder backend '{OWN}'.*{message}"):
            function(EncoderOptions(model="x", backend=OWN))


def test_plug_ins_get_a_space_of_their_own() -> None:
    first, second = (describe_encoder(EncoderOptions(model=model, backend=OWN)) for model in ("one", "two"))
    assert first["space"] == f"{OWN}:{first['encoder_revision'][:12]}" != second["space"]
    assert first["encoder"] == "one"


@pytest.mark.parametrize("backend", ["native", "sonar-space"], indirect=True)
def test_unknown_characters_are_counted(backend: str) -> None:
    golden = Path(__file__).parent.parent / "parity" / "golden"  # its vocabulary has no bytes to fall back to
    encoder = load_encoder(EncoderOptions(model=str(golden), backend=backend, device="cpu"))
    prepared = encoder.prepare(["Paul", "\U00012000", "Paul \U00012000\U00012001 Paul \U00012000 Paul"], "eng_Latn")
    assert prepared.num_unknown.tolist() == [0, 1, 2]  # a run of them is one token
    after_the_end = encoder.prepare(["Paul " * 600 + "\U00012000"], "eng_Latn")
    assert after_the_end.truncated.tolist() == [True]
    assert after_the_end.num_unknown.tolist() == [0]  # of the tokens that the network sees


def test_an_encoder_of_ones_own(tiny: Path) -> None:
    options = EncoderOptions(model=str(tiny), backend="lcm_data.encode.native:NativeEncoder", device="cpu")
    assert load_encoder(options).dim == 32

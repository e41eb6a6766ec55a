"""``lcm-data models``: what a person reads, and the same as JSON."""

from __future__ import annotations

import functools
import http.server
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lcm_data.sonar import hub
from lcm_data.sonar.config import TextEncoderConfig
from lcm_data.sonar.fingerprint import file_sha256

GOLDEN = Path(__file__).parents[1] / "parity" / "golden"


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("LCM_DATA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a web server with one model, ``my_model``."""
    root = tmp_path / "site"
    root.mkdir()
    for name in ("model.safetensors", "sentencepiece.model"):
        shutil.copy(GOLDEN / name, root)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(root)))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    files = (hub.RemoteFile(f"{url}/{name}") for name in ("model.safetensors", "sentencepiece.model"))
    monkeypatch.setitem(hub.MODELS, "my_model", hub.RemoteModel(*files, TextEncoderConfig()))
    yield root
    server.shutdown()
    server.server_close()


def narrow(text: str) -> bool:
    """Whether everything but paths, which cannot be shortened, fits a terminal."""
    return all(len(line.rstrip()) <= 100 for line in text.splitlines() if "/" not in line)


def test_list(call: Callable[..., Any], cache: Path, tmp_path: Path) -> None:
    partial = cache / "text_sonar_basic_decoder" / "sonar_text_decoder.pt.part"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"x" * 1500)
    shutil.copytree(GOLDEN, cache / "owner--port@main")
    (cache / "empty").mkdir()
    text = call("models", "list").out
    lines = {line.split()[0]: " ".join(line.split()[1:]) for line in text.splitlines() if line.strip()}
    assert lines["text_sonar_basic_encoder"] == "text encoder 1,024 766.1 M ~3.1 GB no"
    assert lines["text_sonar_basic_decoder"] == "text decoder 1,024 866.9 M ~3.5 GB partial, 1.5 kB"
    assert lines["hf:owner/port@main"].endswith("kB yes")
    assert "empty" not in lines
    assert lines["sonar-mini"].endswith("ships")
    assert "encode takes sonar-mini, since text_sonar_basic_encoder is not in the cache" in " ".join(text.split())
    assert "non-commercial" in text
    assert str(cache) in text
    assert narrow(text)
    found = call("models", "list", "--json").json
    assert found["cache"] == str(cache)
    models = {model["name"]: model for model in found["models"]}
    assert [name for name, model in models.items() if model["is_default"]] == ["sonar-mini"]
    assert models["text_sonar_basic_decoder"]["cached_bytes"] == 1500
    assert [other["name"] for other in found["others"]] == ["hf:owner/port@main"]


def test_show(call: Callable[..., Any], tmp_path: Path) -> None:
    weights = GOLDEN / "model.safetensors"
    text = call("models", "show", weights).out
    for word in ("text encoder", "safetensors", "fairseq2", "float32", file_sha256(weights), "sonar-", "parameters"):
        assert word in text
    assert narrow(text)
    about = call("models", "show", weights, "--json").json["files"][0]
    assert about["networks"][0]["model_dim"] == 48
    assert about["fingerprint"] == file_sha256(weights)
    text = call("models", "show", GOLDEN).out
    assert "text decoder" in text
    assert "Cannot be loaded: it holds no network of SONAR" in text  # other files lie there, too
    assert "is a file that begins with" in call("models", "show", Path(__file__), code=2).err
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(weights.read_bytes()[:-1])
    assert "is truncated or damaged" in call("models", "show", cut, code=2).err
    err = call("models", "show", "text_sonar_finetuned_decoder", code=2).err
    assert "not in the cache; fetch it with: lcm-data models fetch text_sonar_finetuned_decoder" in err


def test_fetch_and_then_without_network(call: Callable[..., Any], published: Path, cache: Path) -> None:
    assert "not in the cache" in call("models", "show", "my_model", code=2).err
    (cache / "my_model").mkdir(parents=True)
    (cache / "my_model" / "config.json").write_text('{"num_heads": 4}')  # the published sizes need none
    called = call("models", "fetch", "my_model")
    assert called.out.startswith("my_model\n")
    assert "model.safetensors" in called.err  # the progress
    assert narrow(called.out)
    shutil.rmtree(published)
    about = call("models", "fetch", "my_model", "--json", "--quiet")
    assert about.err == ""
    (model,) = about.json["models"]
    assert model["name"] == "my_model"
    assert model["fingerprint"] == file_sha256(GOLDEN / "model.safetensors")
    assert model["file"] == str(cache / "my_model" / "model.safetensors")
    assert call("models", "show", "my_model", "--json").json["files"][0]["kind"] == "text encoder"
    listed = call("models", "list", "--json").json["models"]
    assert {model["name"]: model["cached"] for model in listed}["my_model"] == "yes"
    assert "does not exist" in call("models", "fetch", "my_model", "--force", code=2).err


def test_fetching_what_cannot_be_loaded_fails(call: Callable[..., Any], published: Path) -> None:
    shutil.copy(GOLDEN / "golden.safetensors", published / "model.safetensors")
    called = call("models", "fetch", "my_model", code=2)
    assert "it holds no network of SONAR" in called.out
    assert "my_model was fetched, but holds nothing that can be loaded" in called.err


def test_fetch_refuses_paths_and_unknown_names(call: Callable[..., Any], tmp_path: Path) -> None:
    err = call("models", "fetch", GOLDEN, code=2).err
    assert f"is here already; look at it with: lcm-data models show {GOLDEN}" in err
    assert "Did you mean 'text_sonar_basic_encoder'" in call("models", "fetch", "text_sonar_basic_encode", code=2).err


@pytest.mark.parametrize("verb", ["list", "fetch", "show"])
def test_help(call: Callable[..., Any], verb: str) -> None:
    text = call("models", verb, "--help").out
    assert f"Example: lcm-data models {verb}" in text
    assert all(len(line) <= 80 for line in text.splitlines())

from __future__ import annotations

import functools
import http.server
import importlib.util
import json
import logging
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from lcm_data.errors import CheckpointError, UnknownNameError
from lcm_data.sonar import hub
from lcm_data.sonar.checkpoint import load_text_encoder
from lcm_data.sonar.config import TextEncoderConfig
from lcm_data.sonar.files import find_model

DEAD = "http://127.0.0.1:9"


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder with the headers by which huggingface_hub knows the Hub."""

    def end_headers(self) -> None:
        path = Path(self.translate_path(self.path))
        self.send_header("X-Repo-Commit", "0" * 40)
        if path.is_file():
            self.send_header("ETag", f'"{path.stat().st_size}-{path.name}"')
        else:
            self.send_header("X-Error-Code", "EntryNotFound")
        super().end_headers()

    def log_message(self, *args: object) -> None:
        pass


def model_at(url: str, weights: str, tokenizer: str) -> hub.RemoteModel:
    return hub.RemoteModel(
        hub.RemoteFile(f"{url}/{weights}"), hub.RemoteFile(f"{url}/{tokenizer}"), TextEncoderConfig()
    )


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the address it is served under."""
    root = tmp_path / "site"
    root.mkdir()
    handler = functools.partial(Handler, directory=str(root))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield root, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def no_hub_package(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "huggingface_hub" else find_spec(name)
    )


def publish(tiny: Path, folder: Path, tokenizer: str = "sentencepiece.bpe.model") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(tiny / "model.safetensors", folder)
    shutil.copy(tiny / "sentencepiece.model", folder / tokenizer)
    config = (tiny / "config.json").read_text().replace("sentencepiece.model", tokenizer)
    (folder / "config.json").write_text(config)


def split(weights: Path, number: int) -> None:
    """Replace a safetensors file by several and their index."""
    tensors = list(load_file(weights).items())
    weight_map = {}
    for part in range(number):
        mine = dict(tensors[part::number])
        save_file(mine, weights.parent / f"model-{part + 1}.safetensors")
        weight_map |= dict.fromkeys(mine, f"model-{part + 1}.safetensors")
    (weights.parent / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    weights.unlink()


def test_the_known_names_are_the_published_files() -> None:
    model = hub.MODELS["text_sonar_basic_encoder"]
    assert model.weights.url == "https://dl.fbaipublicfiles.com/SONAR/sonar_text_encoder.pt"
    assert model.tokenizer.url == "https://dl.fbaipublicfiles.com/SONAR/sentencepiece.source.256000.model"


def licence_notes(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if "non-commercial" in record.message]


def test_a_name_is_downloaded_once_and_its_licence_told_once(
    site: tuple[Path, str],
    tiny: Path,
    own_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    root, url = site
    publish(tiny, root / "m", "tok.model")
    monkeypatch.setitem(hub.MODELS, "my_model", model_at(f"{url}/m", "model.safetensors", "tok.model"))
    assert hub.cached_weights("my_model") is None
    with caplog.at_level(logging.WARNING):
        weights = hub.model_weights("my_model")
        shutil.rmtree(root / "m")
        hub.model_weights("my_model")
    assert hub.cached_weights("my_model") == weights == own_cache / "models" / "my_model" / "model.safetensors"
    assert weights.read_bytes() == (tiny / "model.safetensors").read_bytes()
    assert (weights.parent / "tok.model").is_file()
    assert licence_notes(caplog) == [f"my_model: {hub.LICENCE_NOTE}"]
    assert "downloading my_model (about 3.1 GB)" in caplog.text


def test_models_share_their_tokenizer(
    site: tuple[Path, str], tiny: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, url = site
    publish(tiny, root, "tok.model")
    for name in ("first", "second", "third"):
        monkeypatch.setitem(hub.MODELS, name, model_at(url, "model.safetensors", "tok.model"))
    hub.model_weights("first")
    (root / "tok.model").unlink()
    hub.model_weights("second")
    folder = own_cache / "models"
    assert (folder / "second" / "tok.model").read_bytes() == (tiny / "sentencepiece.model").read_bytes()
    for name in ("first", "second"):
        with (folder / name / "tok.model").open("ab") as file:
            file.write(b"edited since")
    with pytest.raises(CheckpointError, match="does not exist"):  # not what was downloaded: nobody takes it over
        hub.model_weights("third")


def test_a_licence_is_told_once_where_nothing_can_be_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    for _ in range(2):
        hub._tell_licence("a model that nobody else names", tmp_path / "file")
    assert len(licence_notes(caplog)) == 1


def test_a_web_page_instead_of_weights_is_not_kept(
    site: tuple[Path, str], tiny: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a hotel's network answers: the size is right, the status is 200, and it is no model."""
    root, url = site
    publish(tiny, root, "tok.model")
    (root / "weights.pt").write_text("<!DOCTYPE html><html>Please log in</html>")
    monkeypatch.setitem(hub.MODELS, "my_model", model_at(url, "weights.pt", "tok.model"))
    with pytest.raises(CheckpointError, match=r"discarded.*is a web page"):
        hub.model_weights("my_model")
    assert not list((own_cache / "models" / "my_model").glob("weights.pt*[!k]"))
    monkeypatch.setitem(hub.MODELS, "my_model", model_at(url, "tok.model", "weights.pt"))
    with pytest.raises(CheckpointError, match="no SentencePiece model"):
        hub.model_weights("my_model")


def test_force_downloads_again(
    site: tuple[Path, str], tiny: Path, golden: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, url = site
    publish(tiny, root, "tok.model")
    monkeypatch.setitem(hub.MODELS, "my_model", model_at(url, "model.safetensors", "tok.model"))
    weights = hub.model_weights("my_model")
    shutil.copy(golden / "model.safetensors", root)
    seen = []
    hub.model_weights("my_model", progress=lambda *state: seen.append(state))
    assert weights.read_bytes() == (tiny / "model.safetensors").read_bytes()
    assert seen == []
    hub.model_weights("my_model", force=True, progress=lambda *state: seen.append(state))
    size = (golden / "model.safetensors").stat().st_size
    assert weights.read_bytes() == (golden / "model.safetensors").read_bytes()
    assert seen[-1] == ("model.safetensors", size, size)
    (root / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="does not exist"):
        hub.model_weights("my_model", force=True)
    assert hub.model_weights("my_model").stat().st_size == size  # what was there stays until there is something better


@pytest.mark.usefixtures("no_hub_package")
@pytest.mark.parametrize("name", ["hf:owner/repo", "owner/repo", "hf:owner/repo@main"])
def test_a_hub_repository_loads_without_the_hub_package(
    site: tuple[Path, str], tiny: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    root, url = site
    publish(tiny, root / "owner" / "repo" / "resolve" / "main")
    monkeypatch.setenv("HF_ENDPOINT", url)
    assert load_text_encoder(name, device="cpu").dim == 32
    shutil.rmtree(root / "owner")
    assert find_model(name).tokenizer.name == "sentencepiece.bpe.model"  # from the cache, without the server


@pytest.mark.usefixtures("no_hub_package")
def test_a_repository_in_several_files(
    site: tuple[Path, str], tiny: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, url = site
    folder = root / "owner" / "repo" / "resolve" / "main"
    publish(tiny, folder)
    split(folder / "model.safetensors", 3)
    monkeypatch.setenv("HF_ENDPOINT", url)
    assert load_text_encoder("hf:owner/repo", device="cpu").dim == 32
    shutil.rmtree(root / "owner")
    cached = own_cache / "models" / "owner--repo@main"
    for note in (cached / "complete.json", None):  # fetched, and put there by hand
        assert hub.cached_weights("hf:owner/repo") == cached / "model.safetensors.index.json"
        (cached / "model-2.safetensors").rename(cached / "away")
        assert hub.cached_weights("hf:owner/repo") is None
        (cached / "away").rename(cached / "model-2.safetensors")
        if note:
            note.unlink()


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package huggingface_hub with a cache of its own."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)


@pytest.mark.usefixtures("hub_cache")
def test_the_hub_package_is_used_when_it_is_there(
    site: tuple[Path, str], tiny: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, url = site
    publish(tiny, root / "owner" / "repo" / "resolve" / "v2")
    monkeypatch.setenv("HF_ENDPOINT", url)
    assert load_text_encoder("hf:owner/repo@v2", device="cpu").dim == 32
    weights = find_model("hf:owner/repo@v2").weights
    assert "hub-cache" in str(weights)
    with pytest.raises(CheckpointError, match=r"owner/none at main does not exist, or has none of model.safetensors"):
        find_model("owner/none")
    monkeypatch.setenv("HF_ENDPOINT", DEAD)
    assert find_model("hf:owner/repo@v2").hints["num_heads"] == 4  # the second time without the Hub
    note = own_cache / "models" / "owner--repo@v2" / "complete.json"
    note.unlink()
    assert find_model("hf:owner/repo@v2").weights == weights  # from the package's own cache
    assert not note.exists()
    with pytest.raises(CheckpointError, match="cannot reach the Hugging Face Hub"):
        hub.model_weights("hf:owner/repo@v2", force=True)  # what is here is not what was asked for


@pytest.mark.usefixtures("hub_cache")
@pytest.mark.parametrize("switch", ["HF_ENDPOINT", "HF_HUB_OFFLINE"])
def test_a_hub_that_cannot_be_reached_is_given_up_quickly(
    site: tuple[Path, str], switch: str, own_cache: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", site[1])
    monkeypatch.setenv(switch, DEAD if switch == "HF_ENDPOINT" else "1")
    folder = own_cache / "models" / "owner--offline@main"
    started = time.monotonic()
    with pytest.raises(CheckpointError, match=rf"cannot reach.*model\.safetensors.*put them into {folder}"):
        find_model("hf:owner/offline")
    assert time.monotonic() - started < 2
    assert not (folder / "complete.json").exists()
    publish(tiny, folder)
    assert load_text_encoder("hf:owner/offline", device="cpu").dim == 32  # put there by hand


@pytest.mark.usefixtures("no_hub_package")
def test_a_repository_that_does_not_exist(site: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", site[1])
    with pytest.raises(CheckpointError, match="owner/none: no such file or folder, and as a Hugging Face repo"):
        find_model("owner/none")


def test_offline_says_where_to_put_the_files(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(hub.MODELS, "my_model", model_at(DEAD, "a.pt", "b.model"))
    started = time.monotonic()
    with pytest.raises(CheckpointError) as caught:
        find_model("my_model")
    assert time.monotonic() - started < 2
    for name in ("a.pt", "b.model"):
        assert str(own_cache / "models" / "my_model" / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_put_there_by_hand_need_no_network(
    tiny: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(hub.MODELS, "my_model", model_at(DEAD, "model.safetensors", "sentencepiece.model"))
    shutil.copytree(tiny, own_cache / "models" / "my_model")
    for _ in range(2):
        assert load_text_encoder("my_model", device="cpu").dim == 32
    assert len(licence_notes(caplog)) == 1


def test_weights_without_a_tokenizer_take_that_of_nllb(
    site: tuple[Path, str], tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(tiny / "model.safetensors", tmp_path / "alone.safetensors")
    shutil.copy(tiny / "sentencepiece.model", site[0] / "nllb.model")
    monkeypatch.setattr(hub, "NLLB_TOKENIZER", hub.RemoteFile(f"{site[1]}/nllb.model"))
    assert find_model(tmp_path / "alone.safetensors").tokenizer.name == "nllb.model"
    monkeypatch.setattr(hub, "NLLB_TOKENIZER", hub.RemoteFile(f"{site[1]}/gone.model"))
    with pytest.raises(CheckpointError, match=r"no tokenizer .*beside .*alone.safetensors"):
        find_model(tmp_path / "alone.safetensors")


def test_a_wrong_path_is_not_looked_up_on_the_web(tmp_path: Path) -> None:
    for name in (str(tmp_path / "no" / "model"), "./no", "weights.pt"):
        with pytest.raises(CheckpointError, match="no such file or folder"):
            find_model(name)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'text_sonar_basic_encoder'"):
        find_model("text_sonar_basic_encode")

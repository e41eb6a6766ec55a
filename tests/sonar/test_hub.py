from __future__ import annotations

import functools
import http.server
import logging
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lcm_data.errors import CheckpointError, UnknownNameError
from lcm_data.sonar import hub
from lcm_data.sonar.checkpoint import find_model, load_text_encoder

DEAD = "http://127.0.0.1:9"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the address it is served under."""
    root = tmp_path / "site"
    root.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(root))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield root, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def no_hub_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)


def publish(tiny: Path, folder: Path, tokenizer: str = "sentencepiece.bpe.model") -> None:
    folder.mkdir(parents=True)
    shutil.copy(tiny / "model.safetensors", folder)
    shutil.copy(tiny / "sentencepiece.model", folder / tokenizer)
    config = (tiny / "config.json").read_text().replace("sentencepiece.model", tokenizer)
    (folder / "config.json").write_text(config)


def test_the_known_names_are_the_published_files() -> None:
    model = hub.MODELS["text_sonar_basic_encoder"]
    assert model.weights.url == "https://dl.fbaipublicfiles.com/SONAR/sonar_text_encoder.pt"
    assert model.tokenizer.url == "https://dl.fbaipublicfiles.com/SONAR/sentencepiece.source.256000.model"


def test_a_name_is_downloaded_once_with_a_word_on_its_licence(
    site: tuple[Path, str],
    tiny: Path,
    own_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    root, url = site
    publish(tiny, root / "m", "tok.model")
    remote = hub.RemoteModel(hub.RemoteFile(f"{url}/m/model.safetensors"), hub.RemoteFile(f"{url}/m/tok.model"))
    monkeypatch.setitem(hub.MODELS, "my_model", remote)
    with caplog.at_level(logging.WARNING):
        weights = hub.model_weights("my_model")
        hub.model_weights("my_model")
    assert weights == own_cache / "models" / "my_model" / "model.safetensors"
    assert weights.read_bytes() == (tiny / "model.safetensors").read_bytes()
    assert (weights.parent / "tok.model").is_file()
    assert [record.message for record in caplog.records if "non-commercial" in record.message] == [
        f"downloaded my_model: {hub.LICENCE_NOTE}"
    ]


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


def test_the_hub_package_is_used_when_it_is_there(
    tiny: Path, own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What huggingface_hub does is its own; here a file it would return, and the errors it would raise."""
    huggingface_hub = pytest.importorskip("huggingface_hub")
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    publish(tiny, tmp_path / "snapshot")
    asked = []

    def download(repo: str, file_name: str, *, revision: str) -> str:
        asked.append((repo, file_name, revision))
        if file_name == "model.safetensors" and repo == "owner/offline":
            raise LocalEntryNotFoundError("no network")
        if not (tmp_path / "snapshot" / file_name).is_file():
            raise EntryNotFoundError(f"404 {file_name}")
        return str(tmp_path / "snapshot" / file_name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert load_text_encoder("hf:owner/repo@v2", device="cpu").dim == 32
    assert asked[-1] == ("owner/repo", "model.safetensors", "v2")
    num_asked = len(asked)
    assert find_model("hf:owner/repo@v2").hints["num_heads"] == 4
    assert len(asked) == num_asked  # the second time without the Hub
    with pytest.raises(CheckpointError, match=r"cannot reach.*put it into .*owner--offline@main"):
        find_model("hf:owner/offline")
    assert not (own_cache / "models" / "owner--offline@main" / "complete.json").exists()


@pytest.mark.usefixtures("no_hub_package")
def test_a_repository_that_does_not_exist(site: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", site[1])
    with pytest.raises(CheckpointError, match="owner/none: no such file or folder, and as a Hugging Face repo"):
        find_model("owner/none")


def test_offline_says_where_to_put_the_file(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dead = hub.RemoteModel(hub.RemoteFile(f"{DEAD}/a.pt"), hub.RemoteFile(f"{DEAD}/b.model"))
    monkeypatch.setitem(hub.MODELS, "my_model", dead)
    monkeypatch.setattr(hub, "fetch", functools.partial(hub.fetch, attempts=1))
    with pytest.raises(CheckpointError) as caught:
        find_model("my_model")
    assert str(own_cache / "models" / "my_model" / "b.model") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_put_there_by_hand_need_no_network(tiny: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dead = hub.RemoteModel(hub.RemoteFile(f"{DEAD}/model.safetensors"), hub.RemoteFile(f"{DEAD}/sentencepiece.model"))
    monkeypatch.setitem(hub.MODELS, "my_model", dead)
    shutil.copytree(tiny, own_cache / "models" / "my_model")
    assert load_text_encoder("my_model", device="cpu").dim == 32


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

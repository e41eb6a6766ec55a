"""The vectors are those of the library, whatever the model is made of, and everything that sets them is recorded."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentencefolder import MAX_TOKENS, WIDTH, write_json, write_sentence_folder

from lcm_data.encode import EncoderOptions, describe_encoder, load_encoder
from lcm_data.errors import CheckpointError, UsageError

library = pytest.importorskip("sentence_transformers", reason="needs the extra 'sentence-transformers'")
torch = pytest.importorskip("torch")

TEXTS = [f"Hello Paul, {'apples ' * (i % 13)}{i}." for i in range(90)]
TEXTS += ["", " ", "  two  spaces \n", "x " * 300, "Привет!"]


def options(folder: Path, **more: Any) -> EncoderOptions:
    return EncoderOptions(model=str(folder), backend="sentence-transformers", device="cpu", **more)


def vectors(encoder: Any, texts: list[str] = TEXTS) -> Any:
    return encoder.embed(encoder.prepare(texts, "eng_Latn"))


@pytest.fixture
def folder(sentences: Path) -> Path:
    return sentences


@pytest.fixture(scope="module")
def encoder(sentences: Path) -> Any:
    return load_encoder(options(sentences, token_budget=300))


MADE_OF: dict[str, dict[str, Any]] = {
    "mean, length one": {},
    "first token": {"pooling": {"pooling_mode": "cls"}, "normalize": False},
    "old spelling of two poolings": {
        "pooling": {"pooling_mode": None, "pooling_mode_max_tokens": True, "pooling_mode_mean_tokens": True}
    },
    "a last layer": {"dense": 12, "normalize": False},
    "cut to fewer dimensions": {"settings": {"truncate_dim": 20}},
    "a prompt that is not pooled": {
        "settings": {"prompts": {"query": "query: "}, "default_prompt_name": "query"},
        "pooling": {"include_prompt": False},
    },
}


@pytest.mark.parametrize("name", MADE_OF)
def test_vectors_are_those_of_the_library(name: str, tmp_path: Path) -> None:
    how = MADE_OF[name]
    if how.get("pooling", {}).get("pooling_mode", "") is None:
        how = {**how, "pooling": {key: value for key, value in how["pooling"].items() if value}}
    folder = write_sentence_folder(tmp_path / "model", **how)
    if "pooling_mode_max_tokens" in how.get("pooling", {}):
        write_json(folder / "1_Pooling/config.json", {"word_embedding_dimension": WIDTH, **how["pooling"]})
    wanted = library.SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
    encoder = load_encoder(options(folder, token_budget=300))
    got = vectors(encoder)
    assert got.dtype == np.float32
    assert encoder.dim == wanted.shape[1]
    np.testing.assert_allclose(got, wanted, atol=1e-6)


def test_description(folder: Path, encoder: Any) -> None:
    described = describe_encoder(options(folder))
    revision = described.pop("encoder_revision")
    assert len(revision) == len(described.pop("tokenizer_revision")) == 64
    assert described == {
        "encoder": "minisentences",
        "encoder_backend": "sentence-transformers",
        "compute_dtype": "float32",
        "dim": str(WIDTH),
        "max_seq_len": str(MAX_TOKENS),
        "pooling": "mean",
        "normalized": "true",
        "trained": "true",
        "space": f"sentence-transformers:{revision[:12]}",
    }
    assert encoder.provenance == {
        **describe_encoder(options(folder)), "device": "cpu", "token_budget": "300"
    }  # fmt: skip


def test_where_it_lies_does_not_matter(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "minisentences")
    (copy / "README.md").write_text("whatever")
    assert describe_encoder(options(copy)) == describe_encoder(options(folder))


def other_weights(folder: Path) -> None:
    shutil.copy(write_sentence_folder(folder.parent / "other", seed=1) / "model.safetensors", folder)


def other_pooling(folder: Path) -> None:
    write_json(folder / "1_Pooling/config.json", {"embedding_dimension": WIDTH, "pooling_mode": "max"})


def default_prompt(folder: Path) -> None:
    write_json(folder / "config_sentence_transformers.json", {"prompts": {"a": "query: "}, "default_prompt_name": "a"})


def fewer_tokens(folder: Path) -> None:
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 20})


@pytest.mark.parametrize("change", [other_weights, other_pooling, default_prompt, fewer_tokens])
def test_whatever_sets_the_vectors_is_in_the_revision(folder: Path, tmp_path: Path, change: Any) -> None:
    copy = shutil.copytree(folder, tmp_path / "minisentences")
    change(copy)
    before, after = describe_encoder(options(folder)), describe_encoder(options(copy))
    assert before["encoder_revision"] != after["encoder_revision"]
    assert before["space"] != after["space"]
    assert before["tokenizer_revision"] == after["tokenizer_revision"]


def test_a_prompt_is_put_before_every_sentence(folder: Path, encoder: Any) -> None:
    prompted = load_encoder(options(folder, prompt="query: "))
    np.testing.assert_allclose(
        vectors(prompted, TEXTS[:9]), vectors(encoder, ["query: " + text for text in TEXTS[:9]]), atol=1e-6
    )
    assert prompted.provenance["prompt"] == "query: "
    assert prompted.provenance["encoder_revision"] != encoder.provenance["encoder_revision"]


def test_a_prompt_of_the_model_can_be_left_out(tmp_path: Path, encoder: Any) -> None:
    settings = {"prompts": {"q": "query: "}, "default_prompt_name": "q"}
    folder = write_sentence_folder(tmp_path / "minisentences", settings=settings)
    np.testing.assert_allclose(vectors(load_encoder(options(folder, prompt=""))), vectors(encoder), atol=1e-6)


def test_counts(encoder: Any) -> None:
    texts = ["Paul", "", "x " * 300, "x " * (MAX_TOKENS - 2), "Paul Привет и Paul", "имя " * 300]
    prepared = encoder.prepare(texts, "eng_Latn")
    assert prepared.num_tokens.tolist()[1:4] == [2, MAX_TOKENS, MAX_TOKENS]
    assert prepared.truncated.tolist() == [False, False, True, False, False, True]
    assert prepared.num_unknown.tolist() == [0, 0, 0, 0, 2, MAX_TOKENS - 2]
    assert prepared.num_unknown.dtype == prepared.num_tokens.dtype == np.int32


def test_batches_do_not_matter(encoder: Any, folder: Path) -> None:
    single = load_encoder(options(folder, token_budget=1))
    np.testing.assert_allclose(vectors(single), vectors(encoder), atol=1e-6)
    assert vectors(encoder).tobytes() == vectors(encoder).tobytes()


def test_bfloat16_is_close(encoder: Any, folder: Path) -> None:
    half = load_encoder(options(folder, dtype="bfloat16"))
    assert (vectors(half) * vectors(encoder)).sum(1).min() > 0.99


def test_tokenising_on_other_threads_while_embedding(encoder: Any) -> None:
    """The tokenizer is switched between cutting and not cutting, which two threads must not do at once."""
    wanted = encoder.prepare(TEXTS, "eng_Latn").payload[0]
    got: list[Any] = []

    def prepare() -> None:
        for _ in range(40):
            got.append(encoder.prepare(TEXTS, "eng_Latn").payload[0])

    threads = [threading.Thread(target=prepare) for _ in range(4)]
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        vectors(encoder)
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(usual)
    assert len(got) == 160
    assert all(np.array_equal(ids, wanted) for ids in got)


def test_out_of_memory_is_halved(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    encoder: Any = load_encoder(options(folder, token_budget=800))
    wanted = vectors(encoder)

    class Small(torch.nn.Module):
        """A model that refuses more than 100 tokens, as a full GPU does."""

        def __init__(self, whole: Any) -> None:
            super().__init__()
            self.whole = whole

        def forward(self, features: dict[str, Any]) -> Any:
            if features["attention_mask"].sum() > 100:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return self.whole(features)

    encoder._model = Small(encoder._model)
    with caplog.at_level(logging.WARNING):
        np.testing.assert_allclose(vectors(encoder), wanted, atol=1e-6)
    assert encoder.num_ooms > 2
    assert len([record for record in caplog.records if "--token-budget below 800" in record.message]) == 1


def no_modules(folder: Path) -> None:
    (folder / "modules.json").unlink()


def own_code(folder: Path) -> None:
    write_json(folder / "modules.json", [{"idx": 0, "name": "0", "path": "", "type": "custom_st.Transformer"}])


def damaged(folder: Path) -> None:
    (folder / "modules.json").write_text("[{")


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def no_tokenizer(folder: Path) -> None:
    for file in folder.glob("*token*.json"):
        file.unlink()


def not_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_text("<html>")


def elsewhere(folder: Path) -> None:
    modules = (folder / "modules.json").read_text("utf-8")
    (folder / "modules.json").write_text(modules.replace('"1_Pooling"', '"../1_Pooling"'))


def no_pooling(folder: Path) -> None:
    (folder / "1_Pooling/config.json").unlink()


def a_text_for_a_number(folder: Path) -> None:
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": "many"})


def a_negative_width(folder: Path) -> None:
    write_json(folder / "config_sentence_transformers.json", {"truncate_dim": -3})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (elsewhere, r"modules\.json names .*1_Pooling; expected folders inside the model"),
        (no_pooling, "dimension must be a positive whole number, got None"),
        (a_text_for_a_number, "max_seq_length must be a positive whole number, got 'many'"),
        (a_negative_width, "truncate_dim must be a positive whole number, got -3"),
        (no_modules, "has no modules.json"),
        (own_code, "needs the part custom_st.Transformer; known are Transformer, Pooling"),
        (damaged, "modules.json is damaged"),
        (no_weights, "holds no weights"),
        (no_tokenizer, "holds no tokenizer"),
        (not_weights, "cannot load"),
    ],
)
def test_folders_that_are_something_else(folder: Path, tmp_path: Path, change: Any, message: str) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    change(copy)
    with pytest.raises(CheckpointError, match=message):
        load_encoder(options(copy))


@pytest.mark.parametrize("model", ["text_sonar_basic_encoder", "./nowhere", "a/b/c"])
def test_names_that_are_no_model(model: str) -> None:
    with pytest.raises(UsageError, match=r"takes a folder that holds a modules\.json, or a Hugging Face repository"):
        load_encoder(EncoderOptions(model=model, backend="sentence-transformers"))


def test_a_repository_that_is_not_at_hand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match=r"owner/repo: no such folder, and not to be had.*Give the folder"):
        load_encoder(EncoderOptions(model="owner/repo", backend="sentence-transformers"))


def in_hub_cache(cache: Path, commit: str, seed: int) -> None:
    """What huggingface_hub has of owner/repo after it fetched ``main`` at ``commit``."""
    repo = cache / "models--owner--repo"
    write_sentence_folder(repo / "snapshots" / commit, seed=seed)
    (repo / "refs").mkdir(exist_ok=True)
    (repo / "refs" / "main").write_text(commit)


def test_a_branch_that_moves_does_not_change_the_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub.constants as constants

    from lcm_data.sonar import hub, inventory

    cache, first, second = tmp_path / "hub", "a" * 40, "b" * 40
    (cache / "models--owner--repo" / "snapshots").mkdir(parents=True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("LCM_DATA_CACHE", str(tmp_path / "own"))

    def revision(model: str = "owner/repo") -> str:
        return describe_encoder(EncoderOptions(model=model, backend="sentence-transformers"))["encoder_revision"]

    in_hub_cache(cache, first, seed=0)
    found = revision()
    in_hub_cache(cache, second, seed=1)
    assert revision() == revision("hf:owner/repo@main") == found
    (other,) = inventory.other_models()
    assert (other["name"], other["cached"]) == ("hf:owner/repo@main", "yes")
    shutil.move(cache / "models--owner--repo" / "snapshots" / first, tmp_path / "away")
    # The same commit or none.
    with pytest.raises(CheckpointError, match=f"owner/repo: no such folder.*revision {first}"):
        revision()
    (hub.models_dir() / "owner--repo@main" / "sentence-transformers.json").unlink()
    assert revision() != found


def test_threads(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    monkeypatch.delenv("RAYON_NUM_THREADS", raising=False)
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    try:
        load_encoder(options(folder, threads=2))
        assert torch.get_num_threads() == 2
        assert os.environ["RAYON_NUM_THREADS"] == "2"
    finally:
        torch.set_num_threads(before)

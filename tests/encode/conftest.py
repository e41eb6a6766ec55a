from __future__ import annotations

from pathlib import Path

import pytest
from sentencefolder import write_sentence_folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random checkpoint with two layers of width 32."""
    from lcm_data.sonar.random_model import write_random_checkpoint

    texts = [f"Hello, my name is Paul and I have {i} apples. Привет!" for i in range(200)]
    return write_random_checkpoint(tmp_path_factory.mktemp("tiny"), texts, model_dim=32, num_heads=4, vocab_size=320)


@pytest.fixture(scope="session")
def sentences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random model of sentence-transformers."""
    return write_sentence_folder(tmp_path_factory.mktemp("models") / "minisentences")


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """No test reads or fills the user's cache."""
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("LCM_DATA_CACHE", str(cache))
    return cache

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random encoder and decoder with two layers of width 32; sentences end after 30 tokens at the latest."""
    from lcm_data.sonar.random_model import write_random_checkpoint

    texts = [f"Hello, my name is Paul and I have {i} apples. Привет!" for i in range(200)]
    folder = tmp_path_factory.mktemp("tiny")
    sizes = {"model_dim": 32, "num_heads": 4, "vocab_size": 320, "decoder_layers": 2, "max_target_tokens": 30}
    return write_random_checkpoint(folder, texts, **sizes)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """No test reads or fills the user's cache."""
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("LCM_DATA_CACHE", str(cache))
    return cache

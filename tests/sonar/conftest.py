from __future__ import annotations

from pathlib import Path

import pytest

TEXTS = [
    *(f"Hello, my name is Paul and I have {i} apples." for i in range(120)),
    *(f"Привет, меня зовут Павел, мне {i} лет." for i in range(60)),
    *("你好，我叫保罗。", "مرحبا، اسمي بول.", "नमस्ते, मेरा नाम पॉल है।") * 10,
]


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder with the small checkpoint and what sonar-space computed with it."""
    return Path(__file__).parent.parent / "parity" / "golden"


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random checkpoint with two layers of width 32."""
    from lcm_data.sonar.random_model import write_random_checkpoint

    return write_random_checkpoint(tmp_path_factory.mktemp("tiny"), TEXTS, model_dim=32, num_heads=4, vocab_size=320)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """No test reads or fills the user's cache."""
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("LCM_DATA_CACHE", str(cache))
    return cache

"""Prepared texts of three toy languages."""

from __future__ import annotations

from pathlib import Path

import pytest
from toylanguages import write_pairs

from lcm_models.sonar.config import PrepareConfig
from lcm_models.sonar.prepare import prepare
from lcm_models.sonar.prepared import Prepared


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs") / "pairs.jsonl", 300)


@pytest.fixture(scope="session")
def prepared(pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Read only."""
    config = PrepareConfig(pairs=(str(pairs),), vocab_size=600, valid_share=0.1, test_share=0.1)
    return prepare(config, tmp_path_factory.mktemp("prepared") / "data")

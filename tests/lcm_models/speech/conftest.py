"""Prepared clips of two toy languages."""

from __future__ import annotations

from pathlib import Path

import pytest
from toyspeech import write_table

from lcm_models.speech.config import ClipsConfig
from lcm_models.speech.prepare import prepare
from lcm_models.speech.prepared import PreparedClips

pytest.importorskip("av")


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table."""
    return write_table(tmp_path_factory.mktemp("clips"), 60)


@pytest.fixture(scope="session")
def prepared(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> PreparedClips:
    """Read only."""
    config = ClipsConfig(speech=(str(clips),), valid_share=0.15)
    return prepare(config, tmp_path_factory.mktemp("prepared") / "data")

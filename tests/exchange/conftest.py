"""A corpus of imported vectors, which the tests of export read."""

from __future__ import annotations

from pathlib import Path

import pytest
from exchanged import import_here, write_flat


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_flat(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="session")
def imported(tmp_path_factory: pytest.TempPathFactory, source: Path) -> Path:
    """Read only."""
    corpus = tmp_path_factory.mktemp("imported") / "corpus"
    import_here(source, corpus, space="signs-1", unit_rows=50)
    return corpus

"""Nested data in three shapes: many files, few files of many row groups, and hardly anything."""

from __future__ import annotations

from pathlib import Path

import pytest
from conceptfiles import SHAPES, lengths, write_nested


@pytest.fixture(scope="session")
def nested(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders by shape; the source number of their concepts is the place in the dict. Read only."""
    root = tmp_path_factory.mktemp("nested")
    return {shape: write_nested(root / shape, lengths(shape), number) for number, shape in enumerate(SHAPES)}

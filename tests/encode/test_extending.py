"""The encoder of docs/extending.md works as it stands there."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest

from lcm_data.corpus import open_corpus
from pipelines import encode, segment

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"


def test_the_encoder_of_the_documentation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = PAGE.read_text("utf-8").split("## An encoder")[1].split("\n## ")[0]
    (code,) = re.findall(r"^```python\n(.*?)^```", section, flags=re.S | re.M)
    (tmp_path / "your_package").mkdir()
    (tmp_path / "your_package" / "encoders.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]]))

    (tmp_path / "a.txt").write_text("One fish, two fish. Red fish, blue fish.")
    corpus = str(tmp_path / "corpus")
    segment.run(segment.SegmentConfig(inputs=[str(tmp_path / "a.txt")], corpus=corpus, lang="en", validation=0, test=0))
    command = re.search(r"--backend (\S+:\S+) --model (\S+)`", section)
    assert command is not None
    encode.run(encode.EncodeConfig(corpus=corpus, backend=command[1], model=command[2]))

    data = open_corpus(corpus).embeddings
    (batch,) = data.batches()
    assert batch["n_tokens"] == [4, 4]
    assert batch.vectors("emb").shape == (2, 256)
    assert batch.vectors("emb").sum(1).tolist() == [4, 4]
    assert np.count_nonzero(batch.vectors("emb")[0]) == 4
    assert data.metadata["space"] == "your_package.encoders:HashedWords:hashed-words-1-256"
    assert data.metadata["encoder"] == "256"

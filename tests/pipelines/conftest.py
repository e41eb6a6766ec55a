"""A small multilingual input, a tiny untrained SONAR encoder, and a finished corpus made with both."""

from __future__ import annotations

from pathlib import Path

import pytest
from jobs import embedded, write_inputs

from pipelines import encode, normalize, quantize, segment
from pipelines.encode import EncodeConfig
from pipelines.normalize import NormalizeConfig
from pipelines.quantize import QuantizeConfig
from pipelines.segment import SegmentConfig


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a text encoder of SONAR's architecture, 32 wide, random weights."""
    pytest.importorskip("torch")
    from lcm_data.sonar.random_model import write_random_checkpoint

    texts = [doc["text"] for doc in embedded()]
    folder = tmp_path_factory.mktemp("model") / "tiny"
    return write_random_checkpoint(folder, texts, model_dim=32, num_layers=1, vocab_size=800)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, inputs: Path, checkpoint: Path) -> Path:
    """A finished corpus with held-out documents. Read only: copy it to change it."""
    corpus = str(tmp_path_factory.mktemp("finished") / "corpus")
    how = {"corpus": corpus, "executor": "local"}
    segment.run(SegmentConfig(inputs=[str(inputs)], validation=0.2, test=0.2, unit_bytes=6000, **how))
    encode.run(EncodeConfig(model=str(checkpoint), threads=1, **how))
    quantize.run(QuantizeConfig(levels=3, units=8, iterations=3, threads=1, **how))
    normalize.run(NormalizeConfig(corpus=corpus))
    return Path(corpus)

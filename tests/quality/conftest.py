from __future__ import annotations

from pathlib import Path

import pytest

from lcm_data.decode import Decoder, DecoderOptions, load_decoder
from lcm_data.encode import Encoder, EncoderOptions, load_encoder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random encoder and decoder with two layers of width 32; sentences end after 24 tokens at the latest."""
    from lcm_data.sonar.random_model import write_random_checkpoint

    texts = [f"Hello, my name is Paul and I have {i} apples. Bonjour, je suis Paul!" for i in range(200)]
    folder = tmp_path_factory.mktemp("tiny")
    sizes = {"model_dim": 32, "num_heads": 4, "vocab_size": 320, "decoder_layers": 2, "max_target_tokens": 24}
    return write_random_checkpoint(folder, texts, **sizes)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def encoder(tiny: Path) -> Encoder:
    return load_encoder(EncoderOptions(model=str(tiny), device="cpu", threads=1))


@pytest.fixture(scope="session")
def decoder(tiny: Path) -> Decoder:
    return load_decoder(DecoderOptions(model=str(tiny), device="cpu", threads=1, mode="greedy"))

"""A random encoder of text and one of speech, in one space."""

from __future__ import annotations

from pathlib import Path

from lcm_data.encode import EncoderOptions, load_encoder
from lcm_data.sonar.random_model import write_random_checkpoint
from lcm_data.sonar.random_speech import write_random_speech
from lcm_data.sonar.speech_config import SpeechEncoderConfig

SIZES = SpeechEncoderConfig(
    model_dim=32, num_layers=1, num_heads=4, ffn_dim=48, kernel_size=7, pooler_layers=1, pooler_heads=2,
    pooler_ffn_dim=40, pooler_vocab=32, embedding_dim=32, max_positions=300,
)  # fmt: skip


def write_models(folder: Path) -> Path:
    """Write ``text`` and ``speech`` into a folder."""
    texts = [f"Hello, my name is Paul and I have {i} apples." for i in range(200)]
    write_random_checkpoint(folder / "text", texts, model_dim=32, num_heads=4, vocab_size=320)
    space = load_encoder(EncoderOptions(model=str(folder / "text"), device="cpu")).provenance["space"]
    write_random_speech(folder / "speech", SIZES, space=space, seed=0)
    return folder

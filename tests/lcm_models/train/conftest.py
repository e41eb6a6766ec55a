"""A small corpus with all its stages, as the verbs make it, for the task of learning concepts."""

from __future__ import annotations

from pathlib import Path

import pytest

from lcm_data.corpus import open_corpus
from lcm_data.sonar.random_model import write_random_checkpoint
from pipelines import demo, encode, normalize, quantize, segment


@pytest.fixture(scope="session")
def trained_on(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read only. Documents of two languages, some of them held out, and two of French, which are not."""
    folder = tmp_path_factory.mktemp("corpus")
    source = Path(demo.__file__).parents[1] / "lcm_data/assets/demo"
    french = folder / "french.jsonl"
    french.write_text("".join((source / "fra_Latn.jsonl").read_text("utf-8").splitlines(keepends=True)[:2]), "utf-8")
    inputs = [*(str(source / f"{lang}.jsonl") for lang in ("eng_Latn", "deu_Latn")), str(french)]
    segment.run(segment.SegmentConfig(inputs=inputs, corpus=str(folder), validation=0.2, test=0))
    batches = open_corpus(str(folder)).segments.batches(columns=["text"])
    texts = [text for batch in batches for text in batch["text"]]
    write_random_checkpoint(folder / "model", texts, model_dim=64, num_layers=2, vocab_size=4000)
    encode.run(encode.EncodeConfig(corpus=str(folder), model=str(folder / "model")))
    normalize.run(normalize.NormalizeConfig(corpus=str(folder)))
    quantize.run(quantize.QuantizeConfig(corpus=str(folder), levels=3, units=4))
    return folder

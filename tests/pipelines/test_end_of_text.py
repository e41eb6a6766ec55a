"""``encode`` leaves the embedding of the end of a text beside the stages, made by the encoder of the corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jobs import write_jsonl

from lcm_data.encode import EncoderOptions, load_encoder
from lcm_data.end_of_text import END_OF_TEXT, Concept
from lcm_data.sonar.random_model import write_random_checkpoint
from pipelines import encode, segment
from pipelines.encode import EncodeConfig
from pipelines.segment import SegmentConfig
from pipelines.stage import dry_run

ODD = "oddencoder:OddEncoder"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    rows = [{"id": f"d{n}", "lang": "eng_Latn", "text": f"One sentence {n}."} for n in range(5)]
    write_jsonl(tmp_path / "in.jsonl", rows)
    segment.run(SegmentConfig(inputs=[str(tmp_path / "in.jsonl")], corpus=str(tmp_path / "corpus"), executor="local"))
    return tmp_path / "corpus"


def config(corpus: Path, model: str, **settings: Any) -> EncodeConfig:
    return EncodeConfig(corpus=str(corpus), executor="local", **{"backend": ODD, "model": model, **settings})


def expected(model: str) -> Any:
    return Concept.encode(load_encoder(EncoderOptions(model=model, backend=ODD))).vector


def test_it_is_that_of_the_encoder(corpus: Path) -> None:
    file = corpus / END_OF_TEXT
    settings = config(corpus, "one")
    dry_run(encode.make_stage(settings), settings.run_options, False)
    assert not file.exists()
    encode.run(settings)
    found = Concept.load(str(file))
    np.testing.assert_array_equal(found.vector, expected("one"))
    assert (found.info.text, found.info.lang) == ("End of text.", "eng_Latn")
    assert found.info.encoder_revision
    encode.run(config(corpus, "two", overwrite=True))
    assert Concept.load(str(file)).info.encoder_revision != found.info.encoder_revision


def test_an_encoder_without_english_still_encodes(tmp_path: Path) -> None:
    rows = [{"id": f"d{n}", "lang": "fra_Latn", "text": f"Une phrase {n}."} for n in range(5)]
    write_jsonl(tmp_path / "in.jsonl", rows)
    corpus = tmp_path / "corpus"
    segment.run(SegmentConfig(inputs=[str(tmp_path / "in.jsonl")], corpus=str(corpus), executor="local"))
    texts = [row["text"] for row in rows]
    model = write_random_checkpoint(tmp_path / "model", texts, model_dim=16, num_heads=2, languages=("fra_Latn",))
    report = encode.run(config(corpus, str(model), backend="native"))
    assert report.manifest.rows_done == 5
    assert not (corpus / END_OF_TEXT).exists()

"""Decoded sentences said aloud: a file for every row, under its id, and a stopped run goes on."""

from __future__ import annotations

import json
import shutil
import wave
from pathlib import Path

import numpy as np
import pytest
from jobs import cli, embedded, error_line

from lcm_data.corpus import open_corpus
from lcm_data.errors import PlanMismatchError
from lcm_data.sonar.random_model import write_random_checkpoint
from pipelines.segment import SegmentConfig
from pipelines.segment import run as segment
from pipelines.speak import say_corpus

TEXTS = ["One.", "Two!", "...", "Three?", "Four.", "Five."]


class Toy:
    """A voice that says a sample a letter, nothing for dots, and can be made to fail."""

    name, rate = "toy 1", 100

    def __init__(self, fails_at: str = "") -> None:
        self.fails_at, self.said = fails_at, []  # type: str, list[str]

    def say(self, text: str) -> np.ndarray:
        if text == self.fails_at:
            raise RuntimeError(text)
        self.said.append(text)
        return np.full(sum(map(str.isalpha, text)), 0.5, np.float32)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    source = tmp_path / "in.jsonl"
    source.write_text("\n".join(json.dumps({"id": str(i), "lang": "en", "text": t}) for i, t in enumerate(TEXTS)))
    segment(SegmentConfig(inputs=[str(source)], corpus=str(tmp_path / "corpus"), segmenter="rules"))
    return tmp_path / "corpus"


def files_of(corpus: Path) -> dict[str, bytes]:
    return {str(path.relative_to(corpus / "speech")): path.read_bytes() for path in (corpus / "speech").rglob("*.wav")}


def test_a_file_for_every_row(corpus: Path) -> None:
    speaker = Toy()
    said = say_corpus(str(corpus), speaker, "wav")
    assert (said.files, said.written, said.silent) == (5, 5, 1)
    assert said.seconds == pytest.approx(0.19)
    expected = {}
    for batch in open_corpus(corpus).segments.batches():
        for sid, text in zip(batch["sid"], batch["text"], strict=True):
            expected[f"split={batch.split}/lang=eng_Latn/{sid}.wav"] = sum(map(str.isalpha, text))
    found = files_of(corpus)
    assert found.keys() == {path for path, length in expected.items() if length}
    for path in found:
        with wave.open(str(corpus / "speech" / path)) as file:
            assert file.getnframes() == expected[path]


def test_a_stopped_run_goes_on(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="Four"):
        say_corpus(str(corpus), Toy(fails_at="Four."), "wav")
    before = files_of(corpus)
    assert 0 < len(before) < 5
    again = Toy()
    said = say_corpus(str(corpus), again, "wav")
    assert (said.files, said.written) == (5, 5 - len(before))
    assert len([text for text in again.said if text != "..."]) == 5 - len(before)
    assert {path: files_of(corpus)[path] for path in before} == before


def test_voices_are_not_mixed(corpus: Path) -> None:
    say_corpus(str(corpus), Toy(), "wav")
    other = Toy()
    other.name = "toy 2"
    with pytest.raises(PlanMismatchError, match=r"voice was 'toy 1', now 'toy 2'.*--overwrite"):
        say_corpus(str(corpus), other, "wav")
    assert say_corpus(str(corpus), other, "wav", overwrite=True).written == 5


def test_the_command(finished: Path, tmp_path: Path) -> None:
    """Refused before anything is decoded if there is no such engine."""
    texts = [doc["text"] for doc in embedded()]
    sizes = {"model_dim": 32, "num_layers": 1, "vocab_size": 800, "decoder_layers": 1, "max_target_tokens": 16}
    model = write_random_checkpoint(tmp_path / "model", texts, **sizes)  # type: ignore[arg-type]
    out = tmp_path / "out"
    how = ("decode", finished, out, "--lang", "deu_Latn", "--model", model, "--mode", "greedy")
    assert "no speech engine 'nobody'" in error_line(*how, "--speech", "nobody")
    assert not out.exists()
    if shutil.which("espeak-ng") is None:
        pytest.skip("the program espeak-ng is not installed")
    told = cli(*how, "--speech", "espeak-ng", "--split", "test", "--from-lang", "eng_Latn")
    assert "voice" in told.out
    assert files_of(out)

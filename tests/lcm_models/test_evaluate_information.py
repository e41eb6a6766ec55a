"""Mutual information with a language model that knows four little documents by heart, and with a random one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers", reason="needs transformers")

from tinylm import write_causal_lm, write_classifier

from lcm_data.errors import CheckpointError
from lcm_models.evaluate.coherence import CoherenceModel
from lcm_models.evaluate.information import LanguageModel, mutual_information

PAIRS = [("red", "blue"), ("one", "two"), ("sun", "moon"), ("dog", "cat")]
SENTENCES = [f"{first} {second}" for first, second in PAIRS]
CONTEXTS = [[f"the {first} word"] for first, _ in PAIRS]


@pytest.fixture(scope="module")
def knowing(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    documents = [f"{context[0]}\n{sentence}" for context, sentence in zip(CONTEXTS, SENTENCES, strict=True)]
    torch.set_num_threads(1)
    return LanguageModel(str(write_causal_lm(tmp_path_factory.mktemp("knowing"), documents, steps=100, max_len=64)))


def test_context_that_helps_has_a_positive_sign(knowing: LanguageModel) -> None:
    right = mutual_information(knowing.gains(SENTENCES, CONTEXTS))
    wrong = mutual_information(knowing.gains(SENTENCES, [*CONTEXTS[1:], CONTEXTS[0]]))
    assert right is not None
    assert wrong is not None
    assert right > 1
    assert right > wrong + 0.5


def test_it_is_the_difference_of_log_probabilities(knowing: LanguageModel) -> None:
    """Against the network called for each sentence on its own."""
    gains = knowing.gains(SENTENCES, CONTEXTS)
    for sentence, (context,), gain in zip(SENTENCES, CONTEXTS, gains, strict=True):
        expected = log_probability(knowing, f"\n{context}\n", sentence) - log_probability(knowing, "\n", sentence)
        assert gain.nats == pytest.approx(expected, abs=1e-4)
    weighted = sum(gain.nats for gain in gains) / sum(gain.tokens for gain in gains)
    assert mutual_information(gains) == pytest.approx(weighted)


def log_probability(model: LanguageModel, before: str, sentence: str) -> float:
    prefix, ids = model._ids(before), model._ids(sentence)
    with torch.no_grad():
        logits = model._model(input_ids=torch.tensor([prefix + ids])).logits[0]
    scores = torch.log_softmax(logits, dim=-1)
    return sum(float(scores[len(prefix) - 1 + i, token]) for i, token in enumerate(ids))


def test_no_context_is_no_gain_and_no_sentence_no_token(knowing: LanguageModel) -> None:
    none, empty = knowing.gains(["sun moon", ""], [[], ["the sun word"]])
    assert none.nats == pytest.approx(0, abs=1e-5)
    assert (empty.nats, empty.tokens) == (0, 0)
    assert mutual_information([empty]) is None


def test_what_is_too_long_is_cut(knowing: LanguageModel) -> None:
    """Contexts at their beginning: only the last ten sentences count, and of them what fits."""
    first, second = knowing.gains(["sun moon"] * 2, [["x"] * 200 + ["the sun word"], ["y", *["x"] * 9, "the sun word"]])
    assert first == pytest.approx(second)
    (gain,) = knowing.gains(["dog " * 100], [["cat " * 100]])
    assert gain.tokens == 32


def test_a_coherence_model_scores_documents(tmp_path: Path) -> None:
    sentences = [f"sentence {i}" for i in range(17)]
    model = CoherenceModel(str(write_classifier(tmp_path / "one", sentences)))
    parts = [model.score(sentences[start : start + 10]) for start in (0, 5, 10)]
    assert model.score(sentences) == pytest.approx(sum(parts) / 3)
    assert 0 < model.score(sentences[:1]) < 1
    with pytest.raises(CheckpointError, match="has 3 classes"):
        CoherenceModel(str(write_classifier(tmp_path / "three", sentences, num_labels=3)))


def test_what_is_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"cannot load a causal language model from '{tmp_path}'"):
        LanguageModel(str(tmp_path))

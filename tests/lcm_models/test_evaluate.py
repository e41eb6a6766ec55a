"""Figures of evaluation against values worked out by hand, and what baselines must score."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lcm_models import build_model
from lcm_models.evaluate.coherence import local_coherence, spans
from lcm_models.evaluate.documents import EvalDocument, Window, windows
from lcm_models.evaluate.places import Means, place_figures
from lcm_models.evaluate.pool import make_pool
from lcm_models.evaluate.predict import BASELINES, baseline_guesses, model_guesses
from lcm_models.evaluate.text import ovl_3, rep_4, rouge_l, words


def document(name: str, *rows: list[float]) -> EvalDocument:
    return EvalDocument(name, np.array(rows, np.float32), None)


def drawn(num: int, length: int, dim: int = 6, seed: int = 0) -> list[EvalDocument]:
    rng = np.random.default_rng(seed)
    return [EvalDocument(f"d{i}", rng.normal(size=(length, dim)).astype(np.float32), None) for i in range(num)]


# --- contrastive accuracy --------------------------------------------------------------------------------------------


def test_contrastive_accuracy_by_hand() -> None:
    """Candidates on a line at 0, 1, 2, 10, 11, and a second document at 3 and 4."""
    documents = [document("a", [0.0], [1.0], [2.0], [10.0], [11.0]), document("b", [3.0], [4.0])]
    pool = make_pool(documents, 100, seed=0)
    # Place 1 of document a (truth 1): its neighbours 0 and 2 are no candidates; 10, 11, 3 and 4 are.
    for guess, share in ((1.0, 1.0), (2.1, 0.75), (3.9, 0.5), (9.0, 0.0)):
        found = pool.accuracy(torch.tensor([[guess]]), torch.tensor([[1.0]]), 0, torch.tensor([1]))
        assert found.tolist() == [share], guess
    # From the other document all five are candidates of place 1, its own neighbour 3 is not.
    found = pool.accuracy(torch.tensor([[2.4]]), torch.tensor([[4.0]]), 1, torch.tensor([1]))
    assert found.tolist() == pytest.approx([3 / 5])  # 1 and 2 are nearer than 4


def test_equal_concepts_are_no_candidates() -> None:
    documents = [document("a", [0.0], [1.0], [5.0]), document("b", [1.0], [7.0])]
    pool = make_pool(documents, 100, seed=0)
    found = pool.accuracy(torch.tensor([[1.0]]), torch.tensor([[1.0]]), 0, torch.tensor([1]))
    assert found.tolist() == [1.0]
    alone = make_pool(documents[:1], 100, seed=0)
    assert alone.accuracy(torch.ones(1, 1), torch.ones(1, 1), 0, torch.tensor([1])).isnan().all()


def test_the_pool_is_a_fixed_sample() -> None:
    documents = drawn(5, 8)
    one, again, other = (make_pool(documents, 10, seed) for seed in (0, 0, 1))
    assert torch.equal(one.key_P, again.key_P)
    assert not torch.equal(one.key_P, other.key_P)
    assert len(one.key_P) == 10


# --- places ----------------------------------------------------------------------------------------------------------


def test_figures_of_places_by_hand() -> None:
    truth_SD = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 2.0]])
    guess_SD = torch.tensor([[9.0, 9.0], [1.0, 0.0], [0.8, 0.6]])
    pool = make_pool([EvalDocument("a", truth_SD.numpy(), None)], 10, seed=0)
    found = place_figures(guess_SD, truth_SD, pool, 0, 0)
    assert found["l2"].tolist() == pytest.approx([math.sqrt(0.8), math.sqrt(0.64 + 1.96)])
    assert found["cosine"].tolist() == pytest.approx([0.6, 0.6])
    # Place 1 has seen (1, 0): cosine 1 of the guess, 0.6 of the truth. Place 2: the best of 0.8 and 0.96, of 0 and 0.8.
    assert found["par"].tolist() == pytest.approx([1 / 0.6, 0.96 / 0.8])


def test_par_is_not_over_nothing() -> None:
    truth_SD = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    pool = make_pool([EvalDocument("a", truth_SD.numpy(), None)], 10, seed=0)
    assert place_figures(truth_SD, truth_SD, pool, 0, 0)["par"].isnan().all()


def test_means_leave_out_what_is_not_there() -> None:
    means = Means()
    means.add({"a": torch.tensor([1.0, torch.nan]), "b": torch.tensor([torch.nan])})
    means.add({"a": torch.tensor([4.0])})
    assert means.means() == {"a": 2.5}
    assert means.counts["b"] == 0


def test_baselines() -> None:
    documents = drawn(6, 9)
    cut = windows(documents, 5)
    pool = make_pool(documents, 40, seed=0)
    scores = {}
    for name in BASELINES:
        means = Means()
        for number, guess_SD in baseline_guesses(name, cut, pool.mean_D):
            window = cut[number]
            means.add(place_figures(guess_SD, torch.from_numpy(window.x_SD), pool, window.document, window.start))
        scores[name] = means.means()
    assert scores["truth"] == pytest.approx({"l2": 0, "cosine": 1, "ca": 1, "par": 1})
    assert scores["copy"]["par"] > 1
    steps = [np.linalg.norm(np.diff(window.x_SD, axis=0), axis=1) for window in cut]
    assert scores["copy"]["l2"] == pytest.approx(np.concatenate(steps).mean(), rel=1e-5)
    assert scores["mean"]["l2"] < scores["copy"]["l2"]


def test_windows() -> None:
    cut = windows(drawn(1, 11), 5)
    assert [(each.start, len(each.x_SD)) for each in cut] == [(0, 5), (5, 5)]  # nothing precedes the eleventh
    assert [(each.start, len(each.x_SD)) for each in windows(drawn(1, 12), 5)] == [(0, 5), (5, 5), (10, 2)]


def test_guesses_do_not_depend_on_batches() -> None:
    torch.manual_seed(0)
    model = build_model("two-tower", "tiny", {"concept_dim": 6, "width": 16, "num_heads": 2}).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    cut = [*windows(drawn(2, 7), 9), Window(2, 0, drawn(1, 3, seed=1)[0].x_SD)]
    sampling = model.sampling_type(steps=3)
    together = dict(model_guesses(model, cut, [1, 2, 3], sampling, 1000))
    alone = dict(model_guesses(model, cut, [1, 2, 3], sampling, 1))
    assert sorted(together) == sorted(alone) == [0, 1, 2]
    for number in together:
        torch.testing.assert_close(together[number], alone[number], atol=1e-5, rtol=1e-4)
    # Base draws nothing: what it says at a place is what it says when it is asked there alone.
    base = build_model("base", "tiny", {"concept_dim": 6, "width": 16, "num_heads": 2}).eval()
    (_, guess_SD), *_ = model_guesses(base, cut, [1, 2, 3], base.sampling_type(), 1)
    for place in range(1, 7):
        state = base.start([torch.from_numpy(cut[0].x_SD[:place])])
        torch.testing.assert_close(guess_SD[place], base.next_concepts(state)[0], atol=1e-5, rtol=1e-4)


# --- texts -----------------------------------------------------------------------------------------------------------


def test_words_of_any_script() -> None:
    assert words("Don't STOP, 3 times!") == ["don", "t", "stop", "3", "times"]
    assert words("Straße हिन्दी") == ["strasse", "हिन्दी"]
    assert words("我们 go!") == ["我", "们", "go"]
    assert words("ที่นี่") == ["ที่", "นี่"]
    assert words("…") == []


def test_rouge_l_by_hand() -> None:
    assert rouge_l(words("police kill the gunman"), words("police killed the gunman")) == pytest.approx(3 / 4)
    assert rouge_l(words("the gunman police killed"), words("police killed the gunman")) == pytest.approx(2 / 4)
    assert rouge_l(["a"], ["a", "b", "c"]) == pytest.approx(2 * 1 * (1 / 3) / (1 + 1 / 3))
    assert rouge_l([], ["a"]) == rouge_l(["a"], []) == 0
    assert rouge_l(["a", "b"], ["a", "b"]) == 1


def test_ovl_3_is_a_share_of_the_source() -> None:
    assert ovl_3(words("x a b c y"), words("a b c d")) == 0.5
    assert ovl_3(words("a b c d"), words("a b c a b c")) == 0.5  # abc bca cab abc
    assert ovl_3(["a"], ["a", "b"]) is None
    assert ovl_3([], words("a b c")) == 0


def test_rep_4_is_a_percentage() -> None:
    assert rep_4(words("a b c d")) == 0
    assert rep_4(words("a b c d a b c d")) == pytest.approx(100 / 5)  # 5 4-grams, the last was there
    assert rep_4(["a"] * 8) == pytest.approx(80)
    assert rep_4(words("a b c")) is None


def test_local_coherence_is_of_every_second_sentence() -> None:
    x_SD = torch.tensor([[1.0, 0.0], [0.0, 1.0], [3.0, 0.0], [1.0, 1.0]])
    assert local_coherence(x_SD) == pytest.approx((1 + math.sqrt(0.5)) / 2)
    assert local_coherence(x_SD[:2]) is None


def test_long_documents_are_scored_in_runs() -> None:
    assert [len(part) for part in spans(["s"] * 15)] == [15]
    assert [len(part) for part in spans(["s"] * 20)] == [10, 10, 10]
    assert [part[0] for part in spans([str(i) for i in range(17)])] == ["0", "5", "10"]
    assert spans([str(i) for i in range(17)])[-1][-1] == "16"

"""Similarity search: against an obvious slow implementation, hand-made neighbours, and repeated sentences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcm_data.quality.xsim import by_margin, top_cosines, unit_rows, xsim

Array = np.ndarray[Any, Any]


def slow_margin(x_ND: Array, y_ND: Array, k: int) -> list[int]:
    """As the definition reads: of the k nearest of each x, the one with the largest ratio margin."""
    cosines = np.array([[x @ y / np.linalg.norm(x) / np.linalg.norm(y) for y in y_ND] for x in x_ND])
    found = []
    for i in range(len(x_ND)):
        margins = {}
        for j in sorted(range(len(y_ND)), key=lambda j: -cosines[i, j])[:k]:
            around_x = sorted(cosines[i], reverse=True)[:k]
            around_y = sorted(cosines[:, j], reverse=True)[:k]
            margins[j] = cosines[i, j] / ((sum(around_x) / k + sum(around_y) / k) / 2)
        found.append(max(margins, key=lambda j: margins[j]))
    return found


def names(prefix: str, num: int) -> list[str]:
    return [f"{prefix}{i}" for i in range(num)]


@given(seed=st.integers(0, 1000), num=st.integers(1, 12), k=st.integers(1, 5))
def test_margin_is_that_of_the_definition(seed: int, num: int, k: int) -> None:
    random = np.random.default_rng(seed)
    x_ND = random.standard_normal((num, 8)) + 1.0  # not around zero, as real vectors: means of cosines are positive
    y_ND = x_ND + 0.7 * random.standard_normal((num, 8))
    k = min(k, num)
    forward = top_cosines(unit_rows(x_ND), unit_rows(y_ND), k)
    backward = top_cosines(unit_rows(y_ND), unit_rows(x_ND), k)
    assert by_margin(forward, backward).tolist() == slow_margin(x_ND, y_ND, k)


def test_errors_are_those_of_laser() -> None:
    """The same figures as LASER's xsim.py computes with FAISS, where no text repeats."""
    pytest.importorskip("faiss", reason="needs the extra 'cpu'")
    from lcm_data.quantize.faiss_setup import load_faiss

    faiss = load_faiss()
    random = np.random.default_rng(4)
    x_ND = unit_rows(random.standard_normal((150, 12)) + 0.5)
    y_ND = unit_rows(x_ND + 0.25 * random.standard_normal((150, 12)))
    index_x, index_y = faiss.IndexFlatIP(12), faiss.IndexFlatIP(12)
    index_x.add(x_ND)
    index_y.add(y_ND)
    cosines, rows = index_y.search(x_ND, 4)
    back, _ = index_x.search(y_ND, 4)
    best = (cosines / ((cosines.mean(1)[:, None] + back.mean(1)[rows]) / 2)).argmax(1)
    errors = float(np.mean(rows[np.arange(150), best] != np.arange(150)))
    there, _ = xsim(x_ND, y_ND, names("x", 150), names("y", 150))
    assert (there.cosine, there.margin) == (float(np.mean(rows[:, 0] != np.arange(150))), errors)
    assert 0.05 < errors < 0.95


def test_top_cosines_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(1)
    x_ND, y_MD = unit_rows(random.standard_normal((37, 5))), unit_rows(random.standard_normal((23, 5)))
    whole = x_ND @ y_MD.T
    expected = np.argsort(-whole, axis=1, kind="stable")[:, :4]
    for block_values in (1, 100, 2**25):
        monkeypatch.setattr("lcm_data.quality.xsim._BLOCK_VALUES", block_values)
        cosines, rows = top_cosines(x_ND, y_MD, 4)
        assert (rows == expected).all()
        np.testing.assert_allclose(cosines, np.take_along_axis(whole, expected, 1), atol=1e-6)


def test_hand_made_neighbours() -> None:
    """Of four sentences one is nearer to another's translation, in one direction only."""
    x_ND = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 0.5]], np.float32)
    y_ND = np.array([[1, 0.1, 0], [0, 1, 0], [0, 0, 1], [0, 0.5, 0.9]], np.float32)
    there, back = xsim(x_ND, y_ND, names("x", 4), names("y", 4), neighbours=1)
    assert (there.num_sentences, there.cosine) == (4, 0.25)  # x3 finds y1
    assert back.cosine == 0.25  # y3 finds x2


def test_margin_helps_against_a_hub() -> None:
    """A target near everything is everybody's nearest by cosine; the margin sees that it is nobody's in particular."""
    own, away = np.eye(13, dtype=np.float32)[1:7], np.eye(13, dtype=np.float32)[7:]
    x_ND = np.vstack([np.zeros_like(own[:1]), own])
    x_ND[:, 0] = 1
    y_ND = x_ND.copy()
    y_ND[1:] += 1.5 * away  # cosine .69 with their own, and .71 with the hub in row 0
    score, _ = xsim(x_ND, y_ND, names("x", 7), names("y", 7))
    assert (score.cosine, score.margin) == (pytest.approx(6 / 7), 0)


def test_the_same_side_twice_has_no_errors() -> None:
    x_ND = np.random.default_rng(0).standard_normal((50, 16)).astype(np.float32)
    for score in xsim(x_ND, 3 * x_ND, names("x", 50), names("x", 50)):
        assert (score.cosine, score.margin) == (0, 0)


def test_unrelated_sides_are_nearly_all_errors() -> None:
    random = np.random.default_rng(0)
    there, _ = xsim(
        random.standard_normal((200, 16)), random.standard_normal((200, 16)), names("x", 200), names("y", 200)
    )
    assert there.cosine > 0.95
    assert there.margin > 0.95


def test_repeated_sentences_are_no_errors() -> None:
    """Two rows with one target text: finding either is right. And the other way: one text with two translations."""
    x_ND = np.array([[1, 0], [1, 0.1], [0, 1]], np.float32)
    y_ND = np.array([[1, 0.1], [1, 0.0], [0, 1]], np.float32)  # each of the first two finds the other's
    y_texts = ["same", "same", "third"]
    there, back = xsim(x_ND, y_ND, ["a", "b", "c"], ["one", "two", "third"], neighbours=1)
    assert there.cosine == back.cosine == pytest.approx(2 / 3)
    there, back = xsim(x_ND, y_ND, ["a", "b", "c"], y_texts, neighbours=1)
    assert there.cosine == back.cosine == 0


def test_one_pair() -> None:
    one = np.ones((1, 3), np.float32)
    assert [score.margin for score in xsim(one, one, ["a"], ["b"])] == [0, 0]

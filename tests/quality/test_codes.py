"""Figures of codes against plain loops, and against what information theory says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lcm_data.quality.codes import Usage, check_gates, make_levels, measure_errors, shared_codes, yardstick
from lcm_data.quantize.codebook import Codebook, Provenance

Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def book() -> Codebook:
    rng = np.random.default_rng(0)
    tables = rng.standard_normal((4, 16, 6)).astype(np.float32) * (0.7 ** np.arange(4, dtype=np.float32))[:, None, None]
    return Codebook.build(tables, Provenance(encoder="x"))


def test_errors_are_those_of_a_loop(book: Codebook) -> None:
    rng = np.random.default_rng(1)
    emb = (rng.standard_normal((300, 6)) + 1).astype(np.float32)
    langs = ["a" if value < 0.3 else "b" for value in rng.random(300)]
    codes, _ = book.encode(emb)
    overall, each = measure_errors(book, emb, codes, langs)
    assert set(each) == {"a", "b"}
    assert sum(errors.sentences for errors in each.values()) == overall.sentences == 300
    for lang, errors in (("a", each["a"]), ("b", each["b"]), (None, overall)):
        rows = [row for row, own in enumerate(langs) if lang in (None, own)]
        x = emb[rows].astype(np.float64)
        for levels in range(1, 5):
            decoded = book.decode(codes[rows], levels).astype(np.float64)
            nmse = ((x - decoded) ** 2).sum() / ((x - x.mean(axis=0)) ** 2).sum()
            cosine = (x * decoded).sum(axis=1) / np.linalg.norm(x, axis=1) / np.linalg.norm(decoded, axis=1)
            assert errors.nmse[levels - 1] == pytest.approx(nmse, rel=1e-5)
            assert errors.cosine[levels - 1] == pytest.approx(cosine.mean(), rel=1e-5)


def test_a_language_without_variance_has_no_share_of_it(book: Codebook) -> None:
    emb = np.random.default_rng(1).standard_normal((6, book.dim)).astype(np.float32)
    emb[4:] = emb[4]
    codes = np.zeros((6, book.num_levels), np.uint16)
    _, each = measure_errors(book, emb, codes, ["eng_Latn"] * 3 + ["fra_Latn"] + ["deu_Latn"] * 2)
    assert list(each) == ["eng_Latn"]


@given(st.lists(st.floats(1e-3, 10), min_size=1, max_size=12), st.floats(0.01, 60))
@settings(deadline=None)
def test_the_yardstick_is_reverse_water_filling(variances: list[float], bits: float) -> None:
    """Rows with exactly these variances; the water level is found by bisection here."""
    dim = len(variances)
    rows = np.concatenate([np.diag(np.sqrt(np.array(variances) * dim)), -np.diag(np.sqrt(np.array(variances) * dim))])
    low, high = 0.0, max(variances)
    for _ in range(200):
        water = (low + high) / 2
        rate = sum(max(0.0, 0.5 * np.log2(value / water)) for value in variances)
        low, high = (water, high) if rate > bits else (low, water)
    expected = sum(min(high, value) for value in variances) / sum(variances)
    assert yardstick(rows, [bits])[0] == pytest.approx(expected, rel=1e-4, abs=1e-12)


def test_no_code_of_a_gaussian_beats_the_yardstick() -> None:
    from lcm_data.quantize.fit import FitOptions, fit_codebook

    spread = np.arange(1, 17) ** -0.5
    train, heldout = (np.random.default_rng(seed).standard_normal((8000, 16)) * spread for seed in (1, 2))
    options = FitOptions(num_levels=6, num_units=64, threads=1, engine="faiss")
    codebook = fit_codebook(train.astype(np.float32), heldout.astype(np.float32), options, Provenance(encoder="x"))
    bound = yardstick(heldout, [6.0 * levels for levels in range(1, 7)])
    ratio = [level.heldout_nmse / least for level, least in zip(codebook.quality, bound, strict=True)]
    assert min(ratio) > 1.0
    assert ratio[0] < 1.3


def test_usage_adds_up_over_blocks() -> None:
    codes = np.array([[0, 1], [0, 2], [1, 2], [0, 2]], dtype=np.uint16)
    usage = Usage(2, 4)
    usage.add(codes[:1])
    usage.add(codes[1:])
    assert usage.rows == 4
    first = usage.of(0)
    assert (first["used"], first["dead"], first["max_share"]) == (2, 2, 0.75)
    assert first["perplexity"] == pytest.approx(np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25))))


def test_shared_codes_are_of_distinct_vectors() -> None:
    emb = np.array([[0, 1], [0, 1], [1, 1], [2, 2], [3, 3]], dtype=np.float16)
    codes = np.array([[7, 7], [7, 7], [7, 7], [8, 8], [7, 8]], dtype=np.uint16)
    assert shared_codes(emb, codes) == 1  # the third has the code of the first; the second is the first


def test_gates(book: Codebook) -> None:
    rng = np.random.default_rng(1)
    emb = rng.standard_normal((2000, 6)).astype(np.float32)
    codes, _ = book.encode(emb)
    codes[:, 3] = 5  # a level that always says the same
    overall, _ = measure_errors(book, emb, codes, ["a"] * 2000)
    usage = Usage(4, 16)
    usage.add(codes)
    levels = make_levels(overall, usage, [0.0] * 4, [4.0, 8.0, 12.0, 16.0])
    limits = {"min_usage": 0.5, "min_gain": 0.001}
    failed = {(gate.name, gate.level) for gate in check_gates(levels, 16, usage.rows, **limits) if not gate.passed}
    assert failed == {("usage", 4), ("gain", 4)}
    few = [gate for gate in check_gates(levels, 16, 100, **limits) if gate.name == "usage"]
    assert {gate.passed for gate in few} == {None}
    assert all(gate.passed for gate in check_gates(levels, 16, usage.rows, min_usage=0.0, min_gain=-9.0))

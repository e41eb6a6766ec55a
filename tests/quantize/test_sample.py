from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lcm_data import open_corpus
from lcm_data.errors import UsageError
from lcm_data.quantize.sample import RowSampler, Sample, language_quotas, splitmix64
from pipelines.sampling import sample_embeddings

Array = np.ndarray[Any, Any]
Corpus = dict[str, tuple[Array, Array]]


def corpus(sizes: dict[str, int], *, seed: int = 0, distinct: int | None = None, dim: int = 4) -> Corpus:
    """Ids and vectors per language; with ``distinct`` the vectors repeat."""
    rng = np.random.default_rng(seed)
    made = {}
    for lang, size in sizes.items():
        emb = rng.standard_normal((size, dim)).astype(np.float16)
        if distinct:
            emb = emb[rng.integers(0, min(distinct, size), size)]
        made[lang] = (rng.integers(-(2**63), 2**63 - 1, size), emb)
    return made


def sampled(data: Corpus, quotas: dict[str, int], cuts: int, workers: int, shuffle: int, **options: Any) -> Sample:
    """Feed ``data`` in random order, in random batches, through several merged samplers."""
    rng = np.random.default_rng(shuffle)
    samplers = [RowSampler(quotas, **options) for _ in range(workers)]
    batches = [
        (lang, rows)
        for lang, (sid, _) in data.items()
        for rows in np.array_split(rng.permutation(len(sid)) if shuffle else np.arange(len(sid)), cuts)
    ]
    for i in rng.permutation(len(batches)):
        lang, rows = batches[i]
        sid, emb = data[lang]
        samplers[rng.integers(workers)].add(sid[rows], lang, emb[rows])
    for other in samplers[1:]:
        samplers[0].merge(other)
    return samplers[0].result()


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.dictionaries(st.sampled_from(["eng_Latn", "fra_Latn", "zul_Latn"]), st.integers(0, 4000), min_size=1),
    share=st.floats(0, 1.2),
    heldout=st.integers(0, 300),
    distinct=st.sampled_from([None, 50, 900]),
    cuts=st.integers(1, 9),
    workers=st.integers(1, 4),
    seed=st.integers(0, 2**64 - 1),
)
def test_the_sample_does_not_depend_on_order_cuts_or_workers(
    sizes: dict[str, int], share: float, heldout: int, distinct: int | None, cuts: int, workers: int, seed: int
) -> None:
    data = corpus(sizes, distinct=distinct)
    quotas = {lang: int(share * size) for lang, size in sizes.items()}
    first = sampled(data, quotas, 1, 1, 0, heldout_rows=heldout, seed=seed)
    other = sampled(data, quotas, cuts, workers, 7, heldout_rows=heldout, seed=seed)
    for name in ("train", "heldout", "train_sid", "heldout_sid"):
        np.testing.assert_array_equal(getattr(first, name), getattr(other, name))
    assert first.counts == other.counts
    rows = [row.tobytes() for row in np.concatenate([first.train, first.heldout])]
    assert len(set(rows)) == len(rows)
    for lang, count in first.counts.items():
        assert count.train <= quotas[lang]
        assert count.seen == sizes[lang]


def test_the_rows_are_those_with_the_smallest_hashes() -> None:
    sid, emb = corpus({"x": 20000})["x"]
    sampler = RowSampler({"x": 500}, seed=5)
    for start in range(0, 20000, 700):
        sampler.add(sid[start : start + 700], "x", emb[start : start + 700])
    mixed = splitmix64(np.array([5], dtype=np.uint64))
    key = splitmix64(sid.view(np.uint64) ^ mixed)
    expected = np.argsort(key)[:500]
    sample = sampler.result()
    assert set(sample.train_sid.tolist()) == set(sid[expected].tolist())
    by_id = dict(zip(sid.tolist(), emb, strict=True))
    np.testing.assert_array_equal(sample.train, [by_id[i] for i in sample.train_sid.tolist()])


def test_known_values_of_splitmix64() -> None:
    """The first outputs of the reference generator seeded with 0 and 1234567."""
    states = np.array([0, 1234567], dtype=np.uint64)
    assert splitmix64(states).tolist() == [0xE220A8397B1DCDAF, 6457827717110365317]


def test_every_duplicate_is_counted_once_and_the_first_hash_stays() -> None:
    emb = np.repeat(np.eye(4, dtype=np.float32), 25, axis=0)
    sid = np.arange(100)
    sampler = RowSampler({"x": 50}, heldout_rows=50, dtype="float32")
    sampler.add(sid, "x", emb)
    sample = sampler.result()
    assert len(sample.train) + len(sample.heldout) == 4
    assert sample.counts["x"].duplicates == 96


def test_heldout_rows_never_share_a_vector_with_training_rows() -> None:
    data = corpus({"a": 6000, "b": 6000}, distinct=1000)
    shared = {"a": data["a"], "b": (data["b"][0], data["a"][1])}  # the same sentences in both languages
    sample = sampled(shared, {"a": 400, "b": 400}, 3, 2, 1, heldout_rows=100)
    train, heldout = ({row.tobytes() for row in side} for side in (sample.train, sample.heldout))
    assert len(sample.train) == 800
    assert len(sample.heldout) == 100
    assert not train & heldout


def test_wanted_skips_vectors_without_changing_the_sample() -> None:
    sid, emb = corpus({"x": 30000})["x"]
    whole, lazy = (RowSampler({"x": 300}, heldout_rows=60) for _ in range(2))
    read = 0
    for start in range(0, 30000, 1000):
        rows = slice(start, start + 1000)
        whole.add(sid[rows], "x", emb[rows])
        mask = lazy.wanted(sid[rows], "x")
        read += int(mask.sum())
        lazy.add(sid[rows][mask], "x", emb[rows][mask])
    np.testing.assert_array_equal(whole.result().train, lazy.result().train)
    np.testing.assert_array_equal(whole.result().heldout, lazy.result().heldout)
    assert read < 10000


def test_unusable_rows_are_counted_and_left_out() -> None:
    emb = np.random.default_rng(0).standard_normal((10, 4)).astype(np.float32)
    emb[0, 0], emb[1, 3], emb[2], emb[3, 1] = np.nan, np.inf, 0, 1e6
    half, single = RowSampler({"x": 99}), RowSampler({"x": 99}, dtype="float32")
    for sampler in (half, single):
        sampler.add(np.arange(10), "x", emb)
    assert half.result().counts["x"].invalid == 4  # 1e6 is more than a half float holds
    assert single.result().counts["x"].invalid == 3
    assert half.result().train.dtype == np.float16
    assert len(half.result().train) == 6
    assert np.isfinite(half.result().train).all()


def test_more_can_be_added_after_a_result() -> None:
    sid, emb = corpus({"x": 3000})["x"]
    sampler, whole = RowSampler({"x": 100}), RowSampler({"x": 100})
    sampler.add(sid[:1000], "x", emb[:1000])
    sampler.result()
    sampler.add(sid[1000:], "x", emb[1000:])
    whole.add(sid, "x", emb)
    np.testing.assert_array_equal(sampler.result().train, whole.result().train)


def test_memory_is_bounded_by_the_sample() -> None:
    sampler = RowSampler({"x": 2000})
    rng = np.random.default_rng(0)
    for start in range(0, 100_000, 5000):
        sampler.add(np.arange(start, start + 5000), "x", rng.standard_normal((5000, 4)))
        pool = sampler._pools["x"][0]
        assert pool.num_rows <= 2000
        assert pool._num_pending <= 1024


def test_seeds_give_different_samples() -> None:
    data = corpus({"x": 5000})
    one, two = (set(sampled(data, {"x": 500}, 1, 1, 0, seed=seed).train_sid.tolist()) for seed in (0, 1))
    assert 20 < len(one & two) < 90  # 50 by chance


def test_the_order_mixes_languages() -> None:
    data = corpus({"a": 20000, "b": 500})
    ids = set(data["b"][0].tolist())
    sample = sampled(data, {"a": 250, "b": 250}, 2, 1, 0)
    positions = [i for i, sid in enumerate(sample.train_sid.tolist()) if sid in ids]
    assert 200 < np.mean(positions) < 300


def test_wrong_use_is_refused() -> None:
    sampler = RowSampler({"x": 5})
    sampler.add(np.arange(2), "x", np.ones((2, 3)))
    with pytest.raises(UsageError, match="'y' has no quota"):
        sampler.add(np.arange(2), "y", np.ones((2, 3)))
    with pytest.raises(UsageError, match="got 4 dimensions, expected 3"):
        sampler.add(np.arange(2), "x", np.ones((2, 4)))
    with pytest.raises(UsageError, match="one id per vector"):
        sampler.add(np.arange(3), "x", np.ones((2, 3)))
    with pytest.raises(UsageError, match="different quotas"):
        sampler.merge(RowSampler({"x": 6}))
    with pytest.raises(UsageError, match="dtype: got 'int8'"):
        RowSampler({"x": 5}, dtype="int8")
    with pytest.raises(UsageError, match="negative"):
        RowSampler({"x": -5})
    assert RowSampler({}).result().train.shape == (0, 0)


@settings(max_examples=300, deadline=None)
@given(
    counts=st.dictionaries(st.text("abc", min_size=1, max_size=3), st.integers(0, 10**10), max_size=8),
    rows=st.integers(0, 10**8),
    alpha=st.floats(0, 1),
)
def test_quotas_add_up_and_never_exceed_what_there_is(counts: dict[str, int], rows: int, alpha: float) -> None:
    quotas = language_quotas(counts, rows, alpha)
    assert sum(quotas.values()) == min(rows, sum(counts.values()))
    assert all(0 <= quotas[lang] <= counts[lang] for lang in counts)
    ranked = sorted(counts, key=lambda lang: counts[lang])
    assert all(quotas[a] <= quotas[b] + 1 for a, b in itertools.pairwise(ranked))


def test_quotas_follow_the_exponent() -> None:
    counts = {"eng": 1_000_000, "deu": 10_000, "zul": 100}
    assert language_quotas(counts, 1110, 0.5) == {"eng": 1000, "deu": 100, "zul": 10}
    assert language_quotas(counts, 300, 0) == {"eng": 100, "deu": 100, "zul": 100}
    assert language_quotas(counts, 600, 0) == {"eng": 250, "deu": 250, "zul": 100}
    assert language_quotas({"a": 0}, 10) == {"a": 0}
    with pytest.raises(UsageError, match="alpha from 0 to 1"):
        language_quotas(counts, 10, 2)


@pytest.mark.parametrize("num_rows", [5, 9, 60])
def test_a_small_or_repetitive_corpus_has_rows_held_out(tmp_path: Path, num_rows: int) -> None:
    from vectorcorpus import write_vectors

    x_ND = np.random.default_rng(num_rows).standard_normal((2, 4))[np.arange(num_rows) % 2]
    corpus = open_corpus(write_vectors(tmp_path / "c", {("train", "eng_Latn"): x_ND}))
    for seed in range(8):
        sample = sample_embeddings(corpus.embeddings, 100, seed=seed, alpha=0.5)
        assert (len(sample.train), len(sample.heldout)) == (len(sample.train_sid), len(sample.heldout_sid)) == (1, 1)

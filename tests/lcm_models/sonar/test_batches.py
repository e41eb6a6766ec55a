"""Batches of a SONAR space: who is decoded from whom, what noise may touch, what an epoch holds, and resuming."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import numpy as np
import pytest
import torch

from lcm_data.sonar.tokenizer import EOS
from lcm_models.sonar.batches import Batches, SonarBatch, SonarLoader, validation_batches
from lcm_models.sonar.config import BatchConfig
from lcm_models.sonar.prepared import Prepared


def config(**settings: object) -> BatchConfig:
    return BatchConfig(**{"path": "-", "batch_tokens": 256, **settings})  # type: ignore[arg-type]


def sources(batch: SonarBatch) -> list[tuple[int, ...]]:
    return [tuple(part.tolist()) for part in batch.source_T.split(batch.source_lengths)]


def targets(batch: SonarBatch) -> list[tuple[int, ...]]:
    return [tuple(part.tolist()) for part in batch.target_U.split(batch.target_lengths)]


def translations(data: Prepared) -> set[tuple[tuple[int, ...], tuple[int, ...]]]:
    starts = data.starts()
    rows = [tuple(np.asarray(data.tokens[a:b]).tolist()) for a, b in zip(starts, data.ends_S, strict=True)]
    return {(rows[a], rows[b]) for part in (data.train_N2, data.valid_N2) for a, b in part.tolist()}


@pytest.mark.parametrize("autoencode", [0.0, 1.0])
def test_who_is_decoded_from_whom(prepared: Prepared, autoencode: float) -> None:
    known = translations(prepared)
    for batch in islice(iter(SonarLoader(prepared, config(autoencode=autoencode, noised=0, pivot=0))), 5):
        encoded, decoded = sources(batch), targets(batch)
        assert Counter(encoded) == Counter(decoded)
        for target, place in zip(decoded, batch.from_M.tolist(), strict=True):
            source = encoded[place]
            if autoencode:
                assert source == target
            else:
                assert (source, target) in known or (target, source) in known
        for first, second in batch.pair_P2.tolist():
            assert (encoded[first], encoded[second]) in known
        assert 2 * len(batch.pair_P2) == len(encoded)


def test_inputs_are_the_targets_one_place_later(prepared: Prepared) -> None:
    batch = next(iter(SonarLoader(prepared, config())))
    for given, target in zip(batch.input_U.split(batch.target_lengths), targets(batch), strict=True):
        assert given.tolist() == [EOS, *target[:-1]]
        assert target[0] >= prepared.first_lang
        assert target[-1] == EOS
    assert batch.source_lengths == sorted(batch.source_lengths)
    assert batch.target_lengths == sorted(batch.target_lengths)


@pytest.mark.parametrize("drop_tokens", [0.3, 0.0])
def test_noise_keeps_language_and_end(prepared: Prepared, drop_tokens: float) -> None:
    batches = islice(iter(SonarLoader(prepared, config(noised=1, drop_tokens=drop_tokens, autoencode=1))), 5)
    shorter = moved = 0
    for batch in batches:
        encoded, decoded = sources(batch), targets(batch)
        for target, place in zip(decoded, batch.from_M.tolist(), strict=True):
            source = encoded[place]
            assert (source[0], source[-1]) == (target[0], target[-1])
            assert not Counter(source) - Counter(target)
            shorter += len(source) < len(target)
            moved += len(source) == len(target) and source != target
    assert shorter > 20 if drop_tokens else moved > 20


def test_pivots_are_two_languages_of_one_english_sentence(prepared: Prepared) -> None:
    of_english: dict[tuple[int, ...], set[tuple[int, ...]]] = {}
    for english, other in translations(prepared):
        of_english.setdefault(english, set()).add(other)
    alike = {frozenset((a, b)) for group in of_english.values() for a in group for b in group if a != b}
    found = 0
    for batch in islice(iter(SonarLoader(prepared, config(pivot=1, noised=0))), 5):
        encoded = sources(batch)
        for first, second in batch.pair_P2.tolist():
            is_pivot = frozenset((encoded[first], encoded[second])) in alike
            assert is_pivot or encoded[second] in of_english[encoded[first]]
            found += is_pivot
    assert found > 5


def test_languages_take_turns_without_repeats(prepared: Prepared) -> None:
    """Over epochs an item comes again only when all of its language came."""
    batches = Batches(prepared, config(temperature=3))
    counts: Counter[tuple[int, ...]] = Counter()
    for number in range(4):
        for items in batches.epoch(number):
            counts.update(map(tuple, items.tolist()))
        langs = {key: int(prepared.tokens[prepared.starts()[key[1]]]) for key in counts}
        for lang in set(langs.values()):
            times = [count for key, count in counts.items() if langs[key] == lang]
            assert max(times) - min(times) <= 1
    assert len(counts) == len(prepared.train_N2)


def test_epochs_differ_and_repeat_exactly(prepared: Prepared) -> None:
    def epoch(number: int, seed: int = 0) -> list[list[list[int]]]:
        return [items.tolist() for items in Batches(prepared, config(seed=seed)).epoch(number)]

    assert epoch(0) == epoch(0)
    assert epoch(0) != epoch(1)
    assert epoch(0) != epoch(0, seed=1)


def test_a_loader_goes_on_where_it_was(prepared: Prepared) -> None:
    loader = SonarLoader(prepared, config())
    stream = iter(loader)
    for _ in range(70):  # into the second epoch
        next(stream)
    state = loader.state_dict()
    assert state["epoch"] > 0
    expected = list(islice(stream, 3))
    again = SonarLoader(prepared, config())
    again.load_state_dict(state)
    for one, other in zip(expected, islice(iter(again), 3), strict=True):
        assert torch.equal(one.source_T, other.source_T)
        assert torch.equal(one.from_M, other.from_M)


def test_processes_share_an_epoch(prepared: Prepared) -> None:
    whole = [targets(batch) for batch in islice(iter(SonarLoader(prepared, config())), 8)]
    shares = [iter(SonarLoader(prepared, config(), rank, 2)) for rank in range(2)]
    assert [targets(next(shares[number % 2])) for number in range(8)] == whole


def test_validation_is_every_held_out_pair_once(prepared: Prepared) -> None:
    batches = list(validation_batches(prepared, config()))
    assert sum(len(batch.pair_P2) for batch in batches) == len(prepared.valid_N2)
    again = list(validation_batches(prepared, config(seed=5)))
    assert all(torch.equal(a.target_U, b.target_U) for a, b in zip(batches, again, strict=True))


def test_longer_sentences_can_wait(prepared: Prepared) -> None:
    middle = int(np.median(prepared.ends_S - prepared.starts()))
    for batch in islice(iter(SonarLoader(prepared, config(max_tokens=middle))), 20):
        assert max(batch.target_lengths) <= middle


def test_how_often_tokens_are_targets(prepared: Prepared) -> None:
    """The shares that are known in advance are those of the batches."""
    config = BatchConfig(path="-", batch_tokens=400, pivot=0)
    share = Batches(prepared, config).token_share()
    count = np.zeros(prepared.vocab_size)
    batches = Batches(prepared, config)
    for number in range(3):
        for items in batches.epoch(number):
            batch = batches.make(items, np.random.default_rng(0))
            count += np.bincount(batch.target_U.numpy(), minlength=len(count))
    assert share.sum() == pytest.approx(1)
    assert np.abs(share - count / count.sum()).max() < 2e-3

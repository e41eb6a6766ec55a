"""A loader goes on bit for bit where another one stood, at any batch, with a thread ahead of it."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conceptfiles import config, write_end, write_nested
from hypothesis import given, settings
from hypothesis import strategies as st

from lcm_data.errors import UsageError, VerificationError
from lcm_models.data import ConceptLoader, DataConfig
from lcm_models.model import Batch


def assert_same(left: list[Batch], right: list[Batch]) -> None:
    assert len(left) == len(right)
    for one, two in zip(left, right, strict=True):
        for a, b in zip(one, two, strict=True):
            assert (a is None) == (b is None)
            if a is not None and b is not None:
                assert a.dtype == b.dtype
                assert torch.equal(a, b)


def resumed(how: DataConfig, state: dict[str, Any], num: int, rank: int = 0, world_size: int = 1) -> list[Batch]:
    loader = ConceptLoader(how, rank, world_size)
    loader.load_state_dict(json.loads(json.dumps(state)))
    return list(itertools.islice(loader, num))


@pytest.fixture(autouse=True)
def _small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lcm_models.data.mixture.GROUP_CONCEPTS", 300)


@settings(max_examples=12)
@given(
    step=st.integers(0, 150),
    pack=st.booleans(),
    weighted=st.booleans(),
    prefetch=st.sampled_from([0, 1, 5]),
    rank=st.integers(0, 1),
    max_len=st.sampled_from([5, 8, 30]),
)
def test_any_batch_can_be_resumed(
    nested: dict[str, Path], step: int, pack: bool, weighted: bool, prefetch: int, rank: int, max_len: int
) -> None:
    folders = [nested["files"], nested["groups"], nested["little"]]
    weights = [0.5, 0.2, 0.3] if weighted else None
    how = config(*folders, weights=weights, pack=pack, prefetch=prefetch, max_len=max_len, batch_rows=3, seed=4)
    loader = ConceptLoader(how, rank, 2)
    batches = iter(loader)
    for _ in itertools.islice(batches, step):
        pass
    state = json.loads(json.dumps(loader.state_dict()))
    expected = list(itertools.islice(batches, 6))
    batches.close()  # type: ignore[attr-defined]
    assert_same(resumed(how, state, 6, rank, 2), expected)


def test_a_loader_goes_on_after_a_break(nested: dict[str, Path]) -> None:
    how = config(nested["files"], prefetch=3)
    whole = list(itertools.islice(ConceptLoader(how), 9))
    loader = ConceptLoader(how)
    parts = [list(itertools.islice(loader, 4)), list(itertools.islice(loader, 5))]
    assert_same([*parts[0], *parts[1]], whole)


def test_prefetching_changes_nothing(nested: dict[str, Path]) -> None:
    runs = [list(itertools.islice(ConceptLoader(config(nested["groups"], prefetch=n)), 40)) for n in (0, 4)]
    assert_same(*runs)


def test_a_state_is_small(nested: dict[str, Path]) -> None:
    loader = ConceptLoader(config(nested["files"], max_len=16, batch_rows=8))
    for _ in itertools.islice(loader, 37):
        pass
    assert len(json.dumps(loader.state_dict())) < 3000


def test_one_pass_begins_anew_each_time(nested: dict[str, Path]) -> None:
    loader = ConceptLoader(config(nested["little"], endless=False, batch_rows=2))
    whole = list(loader)
    assert_same(list(itertools.islice(loader, 3)), whole[:3])
    assert_same(list(loader), whole)


def test_two_iterators_at_once_are_refused(nested: dict[str, Path]) -> None:
    loader = ConceptLoader(config(nested["little"]))
    batches = iter(loader)
    next(batches)
    with pytest.raises(UsageError, match="has an open iterator"):
        next(iter(loader))


def test_an_error_in_the_thread_is_raised(tmp_path: Path) -> None:
    folder = write_nested(tmp_path, [[[4, 4]]] * 40)  # more files than are kept open
    loader = ConceptLoader(config(folder, prefetch=2, shuffle=False, endless=False))
    (folder / "part-001.parquet").unlink()
    with pytest.raises(VerificationError, match=r"part-001.parquet is missing"):
        list(loader)


def test_what_may_not_change_is_named(nested: dict[str, Path], tmp_path: Path) -> None:
    own = config(nested["files"], end_of_text=write_end(tmp_path))
    state = ConceptLoader(own).state_dict()
    for other, named in (
        (own.model_copy(update={"seed": 7}), r"data.seed = 0, now it is 7"),
        (own.model_copy(update={"max_len": 9}), r"data.max_len = 8, now it is 9"),
        (own.model_copy(update={"end_of_text": None}), r"data.end_of_text = \w+, now it is None"),
        (config(nested["groups"], end_of_text=own.end_of_text), r"data.sources = \w+, now it is \w+"),
    ):
        with pytest.raises(UsageError, match=rf"the run to resume had {named}. Resume with what it had, or"):
            ConceptLoader(other).load_state_dict(state)
    with pytest.raises(UsageError, match=r"data.world_size = 1, now it is 2"):
        ConceptLoader(own, 0, 2).load_state_dict(state)
    faster = own.model_copy(update={"prefetch": 9})
    ConceptLoader(faster).load_state_dict(state)
    with pytest.raises(UsageError, match="version 0, this program reads 1"):
        ConceptLoader(own).load_state_dict({**state, "version": 0})

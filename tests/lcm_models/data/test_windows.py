"""Windows cover documents, packed rows are full and keep documents apart, batches keep their budget."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from conceptfiles import END, concepts, config, documents_of, one_pass, write_end, write_nested
from hypothesis import given
from hypothesis import strategies as st

from lcm_models.attention import causal_rule, dense_mask
from lcm_models.data import ConceptLoader
from lcm_models.data.documents import Documents
from lcm_models.data.order import Entry, Place
from lcm_models.data.windows import Limits, Window, batches_by_length, cut, pack
from lcm_models.model import PADDING


def entry(length: int, num_prompt: int | None = None) -> Entry:
    """The second document of a block."""
    prompts = None if num_prompt is None else np.array([0, num_prompt])
    block = Documents(concepts(0, length + 3), np.array([3, length + 3]), None, prompts)
    return Entry(Place(), block, 1)


limits = st.builds(Limits, st.integers(5, 20), st.integers(1, 3), st.booleans())


@given(length=st.integers(0, 99), limits=limits)
def test_windows_cover_a_document(length: int, limits: Limits) -> None:
    windows = cut(0, entry(length), limits)
    if length == 0 or length + limits.has_end < limits.min_len:
        assert windows == []
        return
    covered = [row for window in windows for row in range(window.start, window.stop)]
    assert covered == list(range(3, length + 3))
    assert [window.has_end for window in windows] == [False] * (len(windows) - 1) + [limits.has_end]
    assert all(limits.min_len <= len(window) <= limits.max_len for window in windows)
    assert all(len(window) == limits.max_len for window in windows[:-2])
    assert [window.number for window in windows] == list(range(len(windows)))
    assert len(windows) == -(-(length + limits.has_end) // limits.max_len)


@given(num_prompt=st.integers(0, 40), num_answer=st.integers(1, 40), limits=limits)
def test_windows_of_a_pair_keep_the_answer(num_prompt: int, num_answer: int, limits: Limits) -> None:
    length = num_prompt + num_answer
    windows = cut(0, entry(length, num_prompt), limits)
    if length + limits.has_end < limits.min_len:
        assert windows == []
        return
    answer = [row for window in windows for row in range(window.start + window.num_prompt, window.stop)]
    assert answer == list(range(3 + num_prompt, 3 + length))
    prompt = windows[0].num_prompt
    assert prompt == sum(window.num_prompt for window in windows)
    if num_answer + limits.has_end + num_prompt > limits.max_len:  # no room for all of it: what precedes the answer
        assert prompt >= min(num_prompt, limits.max_len // 2)
        assert windows[0].start == 3 + num_prompt - prompt
    else:
        assert prompt == num_prompt


def window(size: int) -> Window:
    return Window(0, Place(), 0, Documents(concepts(0, size), np.array([size])), 0, size, False)


sizes = st.lists(st.integers(1, 10), max_size=60)


@given(new=sizes, carried=sizes, num_rows=st.integers(1, 12))
def test_packing_loses_nothing(new: list[int], carried: list[int], num_rows: int) -> None:
    windows, first = [window(size) for size in new], [window(size) for size in carried]
    rows, left = pack(windows, first, num_rows, 10)
    placed = [each for row in rows for each in row]
    assert sorted(map(id, [*placed, *left])) == sorted(map(id, [*windows, *first]))
    assert all(0 < sum(len(each) for each in row) <= 10 for row in rows)
    assert len(rows) <= num_rows
    if left:
        assert len(rows) == num_rows
        smallest = min(map(len, left))
        assert all(10 - sum(len(each) for each in row) < smallest for row in rows)


@given(new=sizes, budget=st.integers(10, 40))
def test_batches_by_length_keep_the_budget(new: list[int], budget: int) -> None:
    windows = [window(size) for size in new]
    batches = batches_by_length(windows, None, budget, np.random.default_rng(0))
    assert sorted(len(row[0]) for batch in batches for row in batch) == sorted(new)
    assert all(len(batch) * max(len(row[0]) for row in batch) <= budget for batch in batches)


def test_a_batch_is_no_larger_than_asked(nested: dict[str, Path]) -> None:
    for batch in one_pass(config(nested["files"], pack=False, batch_rows=None, batch_concepts=50))[0]:
        assert batch.doc_BS.numel() <= 50
    for batch in one_pass(config(nested["files"], pack=False, batch_rows=7))[0][:-1]:
        assert len(batch.doc_BS) <= 7
    packed = ConceptLoader(config(nested["files"], batch_rows=None, batch_concepts=50))
    assert {tuple(batch.doc_BS.shape) for batch in itertools.islice(packed, 50)} == {(6, 8)}


@pytest.mark.parametrize(("mean", "max_len"), [(6, 32), (20, 128), (100, 128), (300, 128)])
def test_packed_rows_are_full(tmp_path: Path, mean: int, max_len: int) -> None:
    """Long-tailed lengths; less than a twentieth is padding."""
    rng = np.random.default_rng(0)
    lengths = np.maximum(1, rng.lognormal(np.log(mean), 0.8, (8, 60))).astype(int).tolist()
    folder = write_nested(tmp_path, [lengths])
    loader = ConceptLoader(config(folder, max_len=max_len, batch_rows=8))
    padding = [float((batch.doc_BS < 0).float().mean()) for batch in itertools.islice(loader, 64)]
    assert np.mean(padding) < 0.05


def test_documents_of_a_row_do_not_see_each_other(nested: dict[str, Path]) -> None:
    batch = next(iter(ConceptLoader(config(nested["files"], max_len=40))))
    assert int(batch.doc_BS.max()) > 2
    see_BSS = dense_mask(causal_rule(batch.doc_BS), *batch.doc_BS.shape, 40, torch.device("cpu"))[:, 0]
    name_BS = torch.where(batch.doc_BS >= 0, batch.x_BSD[..., 0], -1)
    row, query, key = see_BSS.nonzero(as_tuple=True)
    assert torch.equal(name_BS[row, query], name_BS[row, key])
    padding = batch.doc_BS == PADDING
    assert (batch.x_BSD[padding] == 0).all()
    assert not padding[:, 0].any()


def test_the_end_of_text_follows_whole_documents(nested: dict[str, Path], tmp_path: Path) -> None:
    batches = one_pass(config(nested["groups"], end_of_text=write_end(tmp_path), min_len=2))[0]
    ended = {}
    for found in (x for batch in batches for x in documents_of(batch)):
        assert (found[:-1, 0] != END).all()
        document = int(found[0, 0])
        assert document != END
        if found[-1, 0] == END:
            assert document not in ended
            ended[document] = int(found[-2, 1]) + 1
    whole = {}
    for found in (x for batch in one_pass(config(nested["groups"]))[0] for x in documents_of(batch)):
        whole[int(found[0, 0])] = max(whole.get(int(found[0, 0]), 0), int(found[-1, 1]) + 1)
    assert ended == whole


def test_short_documents_are_left_out_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lcm_models.data.mixture.GROUP_CONCEPTS", 120)
    folder = write_nested(tmp_path, [[[1, 5, 2, 7, 1]]])
    loader = ConceptLoader(config(folder, min_len=3, batch_rows=1, prefetch=0))
    batches = [batch for batch, _ in zip(loader, range(300), strict=False)]
    documents = {int(x[0, 0]) for batch in batches for x in documents_of(batch)}
    assert documents == {1, 3}
    (left_out,) = loader.counts["short_documents"]
    (given_,) = loader.counts["concepts"]
    assert left_out == pytest.approx(given_ / 12 * 3, rel=0.05)

"""Who sees whom, against the rules spelled out; rotary positions; the cache."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lcm_data.errors import UsageError
from lcm_models.attention import (
    Attention,
    KVCache,
    Rule,
    causal_rule,
    cross_rule,
    dense_mask,
    interleaved_rule,
    make_mask,
    positions,
    rotary,
    rotate,
)

CPU = torch.device("cpu")
runs = st.lists(st.integers(1, 4), min_size=1, max_size=4)


def ids(lengths: list[int]) -> list[int]:
    """Document ids of one row, the last document being padding."""
    return [number if number < len(lengths) - 1 else -1 for number, length in enumerate(lengths) for _ in range(length)]


def as_mask(rule: Rule, queries: int, keys: int) -> Tensor:
    return dense_mask(rule, 1, queries, keys, CPU)[0, 0]


@given(runs)
@settings(deadline=None)
def test_positions_begin_anew_in_every_document(lengths: list[int]) -> None:
    expected = [place for length in lengths for place in range(length)]
    assert positions(torch.tensor([ids(lengths)]))[0].tolist() == expected


@given(runs, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_rules(lengths: list[int], random: object) -> None:
    doc = ids(lengths)
    num = len(doc)
    drop = [random.random() < 0.3 for _ in doc]  # type: ignore[attr-defined]
    doc_BS, drop_BS = torch.tensor([doc]), torch.tensor([drop])
    causal = as_mask(causal_rule(doc_BS), num, num)
    cross = as_mask(cross_rule(doc_BS, drop_BS), num, num + 1)
    both = as_mask(interleaved_rule(doc_BS, drop_BS), 2 * num, 2 * num)
    for q in range(num):
        for k in range(num):
            same = doc[q] == doc[k]
            assert causal[q, k] == (same and k <= q)
            before = same and k < q and not drop[q]
            assert cross[q, k + 1] == before
            assert both[q, k] == (same and k <= q)  # clean sees clean
            assert not both[q, num + k]  # clean never sees noisy
            assert both[num + q, k] == before  # noisy sees clean before it, never its own answer
            assert both[num + q, num + k] == (q == k)  # noisy sees no other noisy
        assert cross[q, 0]
    assert causal.any(dim=1).all()
    assert both.any(dim=1).all()


def test_rotary_turns_adjacent_pairs() -> None:
    x = torch.randn(1, 2, 5, 8)
    angles = rotary(torch.arange(5)[None], 8)
    pairs = torch.view_as_complex(x.reshape(1, 2, 5, 4, 2).contiguous())
    turn = torch.polar(torch.ones(5, 4), torch.arange(5)[:, None] * 10000.0 ** (-torch.arange(4) / 4))
    assert torch.allclose(rotate(x, angles), torch.view_as_real(pairs * turn).flatten(-2), atol=1e-5)


@given(st.integers(0, 400), st.integers(0, 40), st.integers(0, 40))
@settings(deadline=None, max_examples=30)
def test_rotary_scores_depend_on_distance_only(shift: int, first: int, second: int) -> None:
    q, k = torch.randn(2, 1, 1, 1, 8, generator=torch.Generator().manual_seed(0))

    def score(of_q: int, of_k: int) -> Tensor:
        turned = [rotate(x, rotary(torch.tensor([[at]]), 8)) for x, at in ((q, of_q), (k, of_k))]
        return (turned[0] * turned[1]).sum()

    assert torch.allclose(score(first, second), score(first + shift, second + shift), atol=1e-3)


def test_attention_equals_the_formula() -> None:
    torch.manual_seed(0)
    layer = Attention(16, 2)
    x, doc_BS = torch.randn(2, 5, 16), torch.tensor([[0, 0, 1, 1, 1], [0, 0, 0, -1, -1]])
    mask = dense_mask(causal_rule(doc_BS), 2, 5, 5, CPU)
    heads = [p(x).view(2, 5, 2, 8).transpose(1, 2) for p in (layer.q_proj, layer.k_proj, layer.v_proj)]
    scores = (heads[0] @ heads[1].transpose(-1, -2) / 8**0.5).masked_fill(~mask, float("-inf"))
    mixed = (scores.softmax(dim=-1) @ heads[2]).transpose(1, 2).reshape(2, 5, 16)
    assert torch.allclose(layer(x, mask), layer.output_proj(mixed), atol=1e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention_gives_the_same() -> None:
    torch.manual_seed(0)
    layer, x = Attention(32, 2), torch.randn(2, 6, 32)
    rule = causal_rule(torch.tensor([[0, 0, 1, 1, 1, 1], [0, 0, 0, 0, -1, -1]]))
    with torch.no_grad():
        flex, dense = (layer(x, make_mask(kind, rule, 2, 6, 6, CPU)) for kind in ("flex", "sdpa"))
    assert torch.allclose(flex, dense, atol=1e-5)


def test_flex_attention_trains_on_gpus_only() -> None:
    with pytest.raises(UsageError, match="GPUs only: set attention to 'sdpa'"):
        make_mask("flex", causal_rule(torch.zeros(1, 2)), 1, 2, 2, CPU)


def test_the_cache_keeps_what_it_is_told_to() -> None:
    cache, kept = KVCache(), []
    generator = torch.Generator().manual_seed(0)
    for number in range(40):
        k, v = torch.randn(2, 2, 3, 1 + number % 4, 5, generator=generator)
        seen_k, _ = cache.put(k, v)
        assert torch.equal(seen_k[:, :, -k.shape[2] :], k)
        if number % 3:  # otherwise a glance: the next one overwrites it
            cache.keep(k.shape[2])
            kept.append((k, v))
        expected = torch.cat([k for k, _ in kept], dim=2) if kept else k[:, :, :0]
        assert torch.equal(cache.kept()[0], expected)
    cache.select(torch.tensor([1]))
    assert torch.equal(cache.kept()[1], torch.cat([v for _, v in kept], dim=2)[1:])

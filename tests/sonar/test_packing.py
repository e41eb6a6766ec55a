from __future__ import annotations

import itertools
import logging
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lcm_data.sonar import packing
from lcm_data.sonar.layers import sinusoid
from lcm_data.sonar.packing import Groups, Padded, Varlen, gpu_attention, largest_difference
from lcm_data.sonar.text_encoder import TextEncoder, TextEncoderConfig

CPU = torch.device("cpu")
LENGTHS = st.lists(st.integers(1, 12), min_size=1, max_size=9)


def plain_attention(q: Tensor, k: Tensor, v: Tensor, ends: Tensor, longest: int) -> Tensor:
    """What the GPU's kernel computes, sentence by sentence."""
    assert longest == int(ends.diff().max())
    mixed = torch.empty_like(q)
    for start, end in itertools.pairwise(ends.tolist()):
        a, b, c = (t[start:end].transpose(0, 1).float() for t in (q, k, v))
        weights = torch.softmax(a @ b.transpose(1, 2) / math.sqrt(q.shape[-1]), -1)
        mixed[start:end] = (weights @ c).transpose(0, 1).to(q.dtype)
    return mixed


@settings(deadline=None)
@given(lengths=LENGTHS)
def test_both_packings_agree(lengths: list[int]) -> None:
    groups, varlen = Groups(lengths), Varlen(lengths, CPU, plain_attention)
    table = sinusoid(12, 8)
    assert torch.equal(groups.positions(table), varlen.positions(table))
    x = torch.randn(sum(lengths), 3 * 8)
    q, k, v = (part.view(-1, 2, 4) for part in x.chunk(3, dim=1))
    torch.testing.assert_close(groups.attend(q, k, v), varlen.attend(q, k, v), atol=1e-6, rtol=0)
    means = torch.stack([part.sum(0) / (len(part) + 1e-7) for part in x.split(lengths)])
    for each in (groups, varlen):
        torch.testing.assert_close(each.means(x), means, atol=1e-6, rtol=0)


def test_the_network_gives_the_same_through_both(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = TextEncoder(TextEncoderConfig(model_dim=24, num_layers=2, num_heads=3, ffn_dim=40, vocab_size=50))
    lengths = [7, 7, 3, 1]
    ids = torch.randint(0, 50, (18,))
    with torch.inference_mode():
        plain = network(ids, lengths)
        monkeypatch.setattr("lcm_data.sonar.text_encoder.gpu_attention", lambda *_: plain_attention)
        network.pack()
        torch.testing.assert_close(network(ids, lengths), plain, atol=2e-6, rtol=0)


def test_there_is_no_packed_attention_on_a_cpu_or_in_float32() -> None:
    assert gpu_attention(CPU, torch.bfloat16, 4, 16) is None
    assert gpu_attention(torch.device("cuda"), torch.float32, 4, 16) is None


def test_the_self_check_tells_right_from_wrong() -> None:
    assert largest_difference(plain_attention, CPU, torch.float32, 4, 16) < 1e-6
    assert largest_difference(plain_attention, CPU, torch.bfloat16, 4, 16) < 0.05

    def forgets_sentences(q: Tensor, k: Tensor, v: Tensor, ends: Tensor, longest: int) -> Tensor:
        return plain_attention(q, k, v, ends[[0, -1]], len(q))

    assert largest_difference(forgets_sentences, CPU, torch.float32, 4, 16) > 0.05


def test_a_kernel_that_does_not_work_is_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> float:
        raise RuntimeError("no kernel image is available")

    monkeypatch.setattr(packing, "largest_difference", broken)
    with caplog.at_level(logging.WARNING):
        assert gpu_attention(torch.device("cuda"), torch.bfloat16, 4, 16) is None
    assert "no kernel image" in caplog.text
    monkeypatch.setattr(packing, "largest_difference", lambda *_: float("nan"))
    with caplog.at_level(logging.WARNING):
        assert gpu_attention(torch.device("cuda"), torch.bfloat16, 4, 16) is None
    assert "off by nan" in caplog.text
    monkeypatch.setattr(packing, "largest_difference", lambda *_: 0.0)
    assert gpu_attention(torch.device("cuda"), torch.bfloat16, 4, 16) is not None


@settings(deadline=None, max_examples=30)
@given(lengths=LENGTHS, causal=st.booleans())
def test_packings_for_training_agree_and_have_gradients(lengths: list[int], causal: bool) -> None:
    """Groups with gradients (products), without (SDPA) and padded rows give the same, sentence by sentence."""
    x = torch.randn(sum(lengths), 3 * 8, requires_grad=True)

    def attend(how: Groups | Padded) -> Tensor:
        q, k, v = (part.view(-1, 2, 4) for part in x.chunk(3, dim=1))
        return how.attend(q, k, v)

    groups, padded = Groups(lengths, causal), Padded(lengths, CPU, causal)
    found = attend(groups)
    with torch.no_grad():
        torch.testing.assert_close(attend(groups), found.detach(), atol=1e-6, rtol=0)
    torch.testing.assert_close(attend(padded), found, atol=1e-6, rtol=0)
    weights = torch.randn_like(found)
    (one,) = torch.autograd.grad((found * weights).sum(), x)
    (other,) = torch.autograd.grad((attend(padded) * weights).sum(), x)
    torch.testing.assert_close(one, other, atol=1e-5, rtol=0)
    table = sinusoid(12, 8)
    assert torch.equal(groups.positions(table), padded.positions(table))
    torch.testing.assert_close(groups.means(x), padded.means(x), atol=1e-6, rtol=0)


def test_a_causal_token_does_not_see_what_follows() -> None:
    lengths = [3, 3, 5]
    x = torch.randn(sum(lengths), 2, 4, requires_grad=True)
    for how in (Groups(lengths, causal=True), Padded(lengths, CPU, causal=True)):
        for token, seen in ((1, [0, 1]), (4, [3, 4]), (10, [6, 7, 8, 9, 10])):
            (gradient,) = torch.autograd.grad(how.attend(x, x, x)[token].sum(), x)
            assert gradient.abs().sum(dim=(1, 2)).nonzero().flatten().tolist() == seen

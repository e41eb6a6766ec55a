"""The chunked cross entropy equals torch's, gradients included."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from lcm_models.sonar.cross_entropy import linear_cross_entropy


@pytest.mark.parametrize("bias", [None, torch.linspace(-2, 2, 50)])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("num", [3, 1500])
def test_equals_torch(num: int, smoothing: float, bias: torch.Tensor | None) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(num, 8, generator=generator, dtype=torch.float64).requires_grad_()
    weight = torch.randn(50, 8, generator=generator, dtype=torch.float64).requires_grad_()
    target = torch.randint(50, (num,), generator=generator)
    logits = x @ weight.t() + (0 if bias is None else bias)
    expected = F.cross_entropy(logits, target, reduction="sum", label_smoothing=smoothing)
    wanted = torch.autograd.grad(expected * 3, (x, weight))
    found = linear_cross_entropy(x, weight, target, smoothing, bias)
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    for gradient, right in zip(torch.autograd.grad(found * 3, (x, weight)), wanted, strict=True):
        assert torch.allclose(gradient, right, rtol=1e-4, atol=1e-4)


def test_in_the_dtype_of_autocast() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(100, 16, generator=generator).requires_grad_()
    weight = torch.randn(30, 16, generator=generator).requires_grad_()
    target = torch.randint(30, (100,), generator=generator)
    exact = linear_cross_entropy(x, weight, target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = linear_cross_entropy(x, weight, target)
    assert rounded.dtype == torch.float32
    assert float(rounded) != float(exact)
    assert float(rounded) == pytest.approx(float(exact), rel=1e-2)
    gradients = torch.autograd.grad(rounded, (x, weight))
    assert [gradient.dtype for gradient in gradients] == [torch.float32] * 2


def test_nothing_to_learn() -> None:
    with torch.no_grad():
        assert float(linear_cross_entropy(torch.zeros(2, 4), torch.zeros(10, 4), torch.tensor([1, 2]))) > 4

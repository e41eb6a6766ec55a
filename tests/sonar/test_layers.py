from __future__ import annotations

import warnings

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lcm_data.sonar.layers import Int8Linear, PackedLinear, linear, packed


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("activation", ["none", "relu"])
@settings(deadline=None, max_examples=10)
@given(rows=st.integers(1, 70), width=st.integers(1, 70))
def test_packed_weights_change_nothing_but_rounding(dtype: torch.dtype, activation: str, rows: int, width: int) -> None:
    layer = nn.Linear(48, width).to(dtype).requires_grad_(False)
    x = torch.randn(rows, 48, dtype=dtype)
    fast = packed(layer, int8=False)
    exact = F.linear(x.double(), layer.weight.double(), layer.bias.double())
    exact = exact.relu() if activation == "relu" else exact
    tolerance = 2e-6 if dtype == torch.float32 else 3e-2
    with torch.inference_mode():
        torch.testing.assert_close(linear(x, fast, activation).double(), exact, atol=tolerance, rtol=1e-2)
        assert linear(x, fast, activation).dtype == dtype


@pytest.mark.parametrize("activation", ["none", "relu"])
def test_int8_is_close_and_keeps_large_and_small_rows_apart(activation: str) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(256, 64, bias=False)
    layer.bias = nn.Parameter(torch.zeros(64))
    layer.weight.data *= torch.logspace(-4, 4, 64).unsqueeze(1)  # a scale per output, or small ones would vanish
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fast = packed(layer, int8=True, activation=activation)
    assert isinstance(fast, Int8Linear)
    for rows in (100, 1, 37, 100):
        x = torch.randn(rows, 256)
        with torch.inference_mode():
            exact = linear(x, layer, activation)
            error = (linear(x, fast, activation) - exact).abs().amax(dim=0)
            assert float((error / layer.weight.norm(dim=1)).max()) < 0.15


def test_int8_leaves_the_engine_of_others_alone() -> None:
    before = torch.backends.quantized.engine
    packed(nn.Linear(8, 8), int8=True)
    assert torch.backends.quantized.engine == before


def test_weights_of_nothing_and_inputs_of_nothing_survive_int8() -> None:
    layer = nn.Linear(8, 4)
    layer.weight.data.zero_()
    fast = packed(layer, int8=True)
    with torch.inference_mode():
        torch.testing.assert_close(linear(torch.zeros(3, 8), fast), layer.bias.detach().expand(3, 4))


def test_float16_has_no_packed_form_and_still_works() -> None:
    layer = nn.Linear(8, 4).half()
    assert not isinstance(packed(layer, int8=False), PackedLinear)
    assert linear(torch.ones(2, 8).half(), layer, "relu").min() >= 0

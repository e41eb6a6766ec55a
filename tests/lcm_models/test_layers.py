"""The layers against their formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from toylcm import DIM, normalizer

from lcm_data.errors import UsageError
from lcm_data.normalize import Normalizer
from lcm_models.base_lcm import BaseLCMConfig
from lcm_models.layers import AdaLN, LevelEmbedder, RMSNorm, Scaler, SwiGLU, Tower


def test_rms_norm() -> None:
    norm, x = RMSNorm(8), torch.randn(3, 8)
    norm.weight.data.uniform_(0.5, 2)
    expected = x / (x.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt() * norm.weight
    assert torch.allclose(norm(x), expected, atol=1e-6)
    assert norm(x.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize(("width", "inner"), [(2048, 5632), (4096, 11008), (128, 512)])
def test_swiglu_width_and_formula(width: int, inner: int) -> None:
    with torch.device("meta"):
        assert SwiGLU(width).inner_proj.out_features == inner
    layer, x = SwiGLU(8), torch.randn(2, 8)
    expected = layer.output_proj(F.silu(layer.gate_proj(x)) * layer.inner_proj(x))
    assert torch.equal(layer(x), expected)


def test_level_embedding_is_a_sinusoid_and_an_mlp() -> None:
    embed = LevelEmbedder(12)
    found = embed(30)
    frequency = [math.exp(-math.log(10000) * i / 128) for i in range(128)]
    wave = torch.tensor([[*(math.cos(17 * f) for f in frequency), *(math.sin(17 * f) for f in frequency)]])
    expected = embed.output_proj(F.silu(embed.inner_proj(wave)))[0]
    assert torch.allclose(found[17], expected, atol=1e-5)
    assert embed.inner_proj.weight.std().item() == pytest.approx(0.02, rel=0.1)


def test_adaptive_norms_begin_at_zero() -> None:
    assert not AdaLN(8, 3)(torch.randn(5, 8)).any()


@pytest.mark.parametrize("clip", [False, True])
def test_the_scaler_is_the_normaliser(clip: bool) -> None:
    fitted = normalizer()
    if clip:
        low, high = np.full(DIM, -1, np.float32), np.full(DIM, 0.5, np.float32)
        fitted = Normalizer(fitted.center, fitted.scale, low, high)
    scaler = Scaler(DIM)
    x = torch.randn(7, DIM) * 0.01
    assert torch.equal(scaler.normalize(x), x)
    scaler.load(fitted)
    assert torch.allclose(scaler.normalize(x), fitted.normalize(x), atol=1e-6)
    y = torch.randn(5, DIM)
    assert torch.allclose(scaler.denormalize(y), fitted.denormalize(y), atol=1e-7)
    if not clip:
        assert torch.allclose(scaler.denormalize(scaler.normalize(x)), x, atol=1e-7)


def test_the_scaler_is_saved_and_stays_float32() -> None:
    scaler, copy = Scaler(DIM), Scaler(DIM)
    scaler.load(normalizer())
    copy.load_state_dict(scaler.state_dict())
    assert torch.equal(copy.center_D, scaler.center_D)
    assert scaler.to(torch.bfloat16).scale_D.dtype == torch.float32
    assert torch.equal(copy.scale_D, scaler.scale_D)
    assert scaler.normalize(torch.ones(2, DIM, dtype=torch.float16)).dtype == torch.float32


def test_a_normaliser_of_another_width_is_refused() -> None:
    with pytest.raises(UsageError, match=r"of 16 dimensions, the model for 4.*lcm-data normalize"):
        Scaler(4).load(normalizer())


def test_dropout_acts_in_training_only() -> None:
    config = BaseLCMConfig(width=16, num_heads=2, dropout=0.5)
    tower, x = Tower(config, 2), torch.randn(1, 3, 16)
    mask = torch.ones(1, 1, 3, 3, dtype=torch.bool)
    assert not torch.equal(tower(x, mask), tower(x, mask))
    tower.eval()
    assert torch.equal(tower(x, mask), tower(x, mask))

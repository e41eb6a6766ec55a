"""Layers of the Large Concept Models against those of fairseq2, of which the official ones are built.

Runs in the environment of ``make parity``; skipped without it. The official code itself needs another fairseq2.
"""

from __future__ import annotations

import importlib.util

import pytest
import torch

from lcm_models.attention import rotary, rotate
from lcm_models.layers import RMSNorm, SwiGLU

pytestmark = [
    pytest.mark.parity,
    pytest.mark.skipif(importlib.util.find_spec("fairseq2") is None, reason="fairseq2 is not installed"),
]


@pytest.fixture(autouse=True, scope="module")
def native_library() -> None:
    """fairseq2 looks for libsndfile, which the wheel of soundfile brings."""
    pytest.importorskip("soundfile")


def test_rotary_positions() -> None:
    from fairseq2.nn import BatchLayout, RotaryEncoder

    x_NSK = torch.randn(6, 50, 16)
    ours = rotate(x_NSK[:, None], rotary(torch.arange(50).expand(6, 50), 16))[:, 0]
    assert torch.allclose(RotaryEncoder(16, 64)(x_NSK, BatchLayout.of(x_NSK)), ours, atol=1e-5)


def test_norm() -> None:
    """Also of small values, which tell the epsilon."""
    from fairseq2.nn import RMSNorm as Reference

    ours, theirs = RMSNorm(16), Reference(16, bias=False)
    torch.nn.init.normal_(ours.weight)
    theirs.load_state_dict(ours.state_dict())
    for scale in (1.0, 1e-3):
        x = scale * torch.randn(9, 16)
        assert torch.allclose(theirs(x), ours(x), atol=1e-6)


@pytest.mark.parametrize("width", [96, 2048])
def test_feed_forward(width: int) -> None:
    """The same names, the same inner width from the official configuration."""
    from fairseq2.models.transformer.ffn import GLUFeedForwardNetwork

    ours = SwiGLU(width)
    theirs = GLUFeedForwardNetwork(width, 4 * width, bias=True, inner_dim_scale=2 / 3, inner_dim_to_multiple=256)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(3, width)
    assert torch.allclose(theirs(x), ours(x), atol=1e-5)

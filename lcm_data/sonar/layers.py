"""What the SONAR text encoder and decoder share: the position table, a fast linear map, and the feed-forward."""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

POSITION_OFFSET = 2
"""Position 0 uses angle 2: fairseq numbers positions from the padding index (1) plus one."""


def sinusoid(num_positions: int, model_dim: int, offset: int = POSITION_OFFSET) -> Tensor:
    """Position table float32 [P, D]: sines of all D/2 frequencies, then their cosines (not interleaved).

    Frequency i is exp(-i ln(10000) / (D/2 - 1)), the tensor2tensor form; row p is angle ``(p + offset) * frequency``.
    """
    half = model_dim // 2
    step = -math.log(10000.0) / max(half - 1, 1)
    frequency = torch.exp(torch.arange(half, dtype=torch.float32) * step)
    angle = torch.arange(offset, offset + num_positions, dtype=torch.float32).unsqueeze(1) * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=1)


@functools.cache
def _has_onednn_linear() -> bool:
    """Whether torch's oneDNN linear works here: on AMD processors MKL's float32 product is half as fast.

    The public switch, ``torch.set_float32_matmul_precision("medium")``, reaches the same kernel but is global to the
    process and lets processors with AMX compute in bfloat16, so it would change results silently.
    """
    try:
        x, weight, bias = torch.randn(4, 8), torch.randn(6, 8), torch.randn(6)
        y = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return torch.allclose(y, F.linear(x, weight, bias), atol=1e-5)
    except (AttributeError, RuntimeError):
        return False


def linear(x: Tensor, layer: nn.Linear, activation: str = "none") -> Tensor:
    """``layer(x)`` followed by ``activation`` ("none" or "relu"), through oneDNN for float32 inference on a CPU."""
    if x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_grad_enabled() and _has_onednn_linear():
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, layer.weight, layer.bias, activation, [], "")
        return y
    y = F.linear(x, layer.weight, layer.bias)
    return F.relu(y) if activation == "relu" else y


class FeedForward(nn.Module):
    """Two linear layers with a ReLU between them."""

    def __init__(self, model_dim: int, ffn_dim: int) -> None:
        super().__init__()
        self.inner_proj = nn.Linear(model_dim, ffn_dim)
        self.output_proj = nn.Linear(ffn_dim, model_dim)

    def forward(self, x: Tensor) -> Tensor:
        return linear(linear(x, self.inner_proj, "relu"), self.output_proj)

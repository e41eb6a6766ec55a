"""What the SONAR text encoder and decoder share: the position table, a fast linear map, and the feed-forward."""

from __future__ import annotations

import functools
import math
import warnings

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


def placed(x: Tensor, positions: Tensor) -> Tensor:
    """Scaled embeddings with their positions, in the dtype the layers compute in.

    Added in float32 and cast back, as the reference does: in bfloat16 late positions would collapse. Under autocast
    that is autocast's, or every product would cast what layer norms and sums left in float32.
    """
    kind = x.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
    return (x.float() + positions).to(dtype)


@functools.cache
def _has_onednn(dtype: torch.dtype) -> bool:
    """Whether torch's oneDNN linear works here in ``dtype``, with plain and with packed weights.

    On AMD processors MKL's float32 product is half as fast, and in bfloat16 torch's own path copies the bias into
    the result first. The public switch, ``torch.set_float32_matmul_precision("medium")``, reaches the same kernel but
    is global to the process and lets processors with AMX compute in bfloat16, so it would change results silently.
    """
    if dtype not in (torch.float32, torch.bfloat16):
        return False
    try:
        if dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return False
        x, weight, bias = (torch.ones(shape, dtype=dtype) for shape in ((4, 8), (6, 8), (6,)))
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, _PACKED_ROWS)
        return all(torch.equal(_onednn(x, w, bias, "relu"), F.linear(x, weight, bias)) for w in (weight, packed))
    except (AttributeError, RuntimeError):
        return False


_PACKED_ROWS = 1024
"""The number of rows weights are laid out for; any other number works, and was measured to be as fast."""


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str) -> Tensor:
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, activation, [], "")
    return y


class PackedLinear(nn.Module):
    """A linear map on the CPU whose weights [O, I] lie as oneDNN's kernel wants them, so that no call rearranges them.

    For inference only: it has no parameters. The weights become this process's own even if they came from a mapped
    file, the price of some 5 to 10 % of speed.
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight, _PACKED_ROWS)
        self._bias = bias

    def forward(self, x: Tensor, activation: str = "none") -> Tensor:
        return _onednn(x, self._weight, self._bias, activation)


class Int8Linear(nn.Module):
    """A linear map on the CPU with int8 weights, one scale per output; float32 in and out, products of int8.

    The input gets one scale and zero point per call, so a row's result depends a little on the rows it is computed
    with.
    """

    def __init__(self, weight: Tensor, bias: Tensor, activation: str) -> None:
        super().__init__()
        # One for good: torch caches the kernel of the first call with these weights, whatever the later ones ask for.
        self._activation = activation
        scales = weight.float().abs().amax(dim=1).clamp_min(1e-12) / 127
        zeros = torch.zeros(len(scales), dtype=torch.int64)
        engine = torch.backends.quantized.engine
        with warnings.catch_warnings():
            # torch 2.13 calls quantized tensors deprecated; the alternative it names has no kernel as fast as this.
            warnings.filterwarnings("ignore", message=".*quantize_per_channel.*deprecated")
            quantized = torch.quantize_per_channel(weight.float(), scales, zeros, 0, torch.qint8)
        try:
            if "onednn" in torch.backends.quantized.supported_engines:
                torch.backends.quantized.engine = "onednn"
            self._packed = torch.ops.quantized.linear_prepack(quantized, bias.float())
        finally:
            torch.backends.quantized.engine = engine

    def forward(self, x: Tensor, activation: str = "none") -> Tensor:
        assert activation == self._activation
        run = torch.ops.quantized.linear_relu_dynamic if activation == "relu" else torch.ops.quantized.linear_dynamic
        y: Tensor = run(x, self._packed)
        return y


def packed(layer: nn.Module, *, int8: bool, activation: str = "none") -> nn.Module:
    """A linear layer as the fastest module of its device and dtype, to be given to ``linear`` with ``activation``."""
    assert isinstance(layer, nn.Linear)
    if int8:
        return Int8Linear(layer.weight.detach(), layer.bias.detach(), activation)
    if layer.weight.device.type == "cpu" and _has_onednn(layer.weight.dtype):
        return PackedLinear(layer.weight.detach(), layer.bias.detach())
    return layer


def linear(x: Tensor, layer: nn.Module, activation: str = "none") -> Tensor:
    """``layer(x)`` followed by ``activation`` ("none" or "relu"), through oneDNN for inference on a CPU."""
    if isinstance(layer, PackedLinear | Int8Linear):
        y: Tensor = layer(x, activation)
        return y
    assert isinstance(layer, nn.Linear)
    return product(x, layer.weight, layer.bias, activation)


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str = "none") -> Tensor:
    """``linear`` of a weight [O, I] that no layer holds, a part of one, say."""
    plain = x.device.type == "cpu" and x.dtype == weight.dtype and not torch.is_grad_enabled()  # no autocast
    if plain and _has_onednn(x.dtype):
        return _onednn(x, weight, bias, activation)
    y = F.linear(x, weight, bias)
    if activation == "relu":
        return F.relu(y, inplace=not torch.is_grad_enabled())  # the widest tensor of a layer, once instead of twice
    return y


def joined(*layers: nn.Linear) -> nn.Linear:
    """Layers of one input as one layer, whose outputs are theirs one after the other; it does not learn."""
    whole = nn.Linear(layers[0].in_features, sum(layer.out_features for layer in layers), device="meta")
    whole.weight = nn.Parameter(torch.cat([layer.weight.detach() for layer in layers]), requires_grad=False)
    whole.bias = nn.Parameter(torch.cat([layer.bias.detach() for layer in layers]), requires_grad=False)
    return whole


class FeedForward(nn.Module):
    """Two linear layers with a ReLU between them."""

    inner_proj: nn.Module
    output_proj: nn.Module

    def __init__(self, model_dim: int, ffn_dim: int) -> None:
        super().__init__()
        self.inner_proj = nn.Linear(model_dim, ffn_dim)
        self.output_proj = nn.Linear(ffn_dim, model_dim)

    def forward(self, x: Tensor) -> Tensor:
        return linear(linear(x, self.inner_proj, "relu"), self.output_proj)

    def pack(self, *, int8: bool) -> None:
        """See ``lcm_data.sonar.text_encoder.TextEncoder.pack``."""
        self.inner_proj = packed(self.inner_proj, int8=int8, activation="relu")
        self.output_proj = packed(self.output_proj, int8=int8)

"""The cross entropy of a large vocabulary without ever holding all its logits: products and gradients chunk by chunk.

The gradient of the logits is known as soon as they are, so the products with it are made at once, while the chunk is in
the cache, and the backward pass only scales them.

Shapes: T tokens, D width, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_CHUNK_ROWS = 1024
"""Tokens of a chunk: fewer would add to the gradient of the weights too often."""


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_TD: Tensor, weight_VD: Tensor, target_T: Tensor, smoothing: float, bias_V: Tensor | None
    ) -> Tensor:
        kind = x_TD.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x_TD.dtype
        x_TD_, weight_VD_ = x_TD.to(dtype), weight_VD.to(dtype)
        vocab = weight_VD.shape[0]
        learns = x_TD.requires_grad or weight_VD.requires_grad
        dx_TD = torch.empty_like(x_TD_) if learns else None
        dw_VD = torch.zeros_like(weight_VD, dtype=torch.float32) if learns else None
        total = x_TD.new_zeros((), dtype=torch.float32)
        with torch.autocast(kind, enabled=False):
            for start in range(0, len(x_TD), _CHUNK_ROWS):
                part_RD = x_TD_[start : start + _CHUNK_ROWS]
                target_R1 = target_T[start : start + _CHUNK_ROWS].unsqueeze(1)
                logits_RV = (part_RD @ weight_VD_.t()).float()
                if bias_V is not None:
                    logits_RV += bias_V
                norm_R1 = logits_RV.logsumexp(dim=1, keepdim=True)
                total += (norm_R1 - (1 - smoothing) * logits_RV.gather(1, target_R1)).sum()
                if smoothing:
                    total -= smoothing * logits_RV.mean(dim=1).sum()
                if dx_TD is not None and dw_VD is not None:
                    grad_RV = logits_RV.sub_(norm_R1).exp_()
                    if smoothing:
                        grad_RV -= smoothing / vocab
                    grad_RV.scatter_add_(1, target_R1, torch.full_like(norm_R1, smoothing - 1))
                    low_RV = grad_RV.to(dtype)
                    torch.mm(low_RV, weight_VD_, out=dx_TD[start : start + _CHUNK_ROWS])
                    dw_VD += low_RV.t() @ part_RD
        ctx.save_for_backward(dx_TD, dw_VD)
        ctx.dtypes = x_TD.dtype, weight_VD.dtype
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        dx_TD, dw_VD = ctx.saved_tensors
        of_x, of_weight = ctx.dtypes
        return dx_TD.to(of_x) * grads[0], (dw_VD * grads[0]).to(of_weight), None, None, None


def linear_cross_entropy(
    x_TD: Tensor, weight_VD: Tensor, target_T: Tensor, smoothing: float = 0.0, bias_V: Tensor | None = None
) -> Tensor:
    """The sum over T of ``cross_entropy(x @ weight.T + bias, target)``, float32; products in autocast's dtype, if any.

    Args:
        smoothing: share of each target spread evenly over the vocabulary.
        bias_V: added to the logits, and not learned.
    """
    total: Tensor = _LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
        x_TD, weight_VD, target_T, smoothing, bias_V
    )
    return total

"""AdamW with its groups, clipping by the global norm, and the moving average of the weights; all with sharded ones."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grad_norm_
from torch.optim.swa_utils import get_ema_multi_avg_fn

from lcm_models.train.config import OptimConfig


def make_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW over all weights that learn; biases and norms are not decayed unless the settings say so."""
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decayed = [parameter for parameter in learning if parameter.ndim >= 2 or config.decay_all]
    others = [parameter for parameter in learning if parameter.ndim < 2 and not config.decay_all]
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    fused = all(parameter.is_cuda for parameter in learning)
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.lr,
        betas=config.betas,
        eps=config.eps,
        fused=fused or None,
    )


def local(tensors: Iterable[Tensor]) -> list[Tensor]:
    """The part of every tensor that lies in this process; changing it in place changes the whole."""
    return [tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors]


@torch.no_grad()
def scale_and_clip(parameters: Iterable[nn.Parameter], scale: float, clip_norm: float) -> float:
    """Multiply all gradients by ``scale``, clip them to ``clip_norm`` (0: not), and return their norm before that."""
    learning = [parameter for parameter in parameters if parameter.grad is not None]
    torch._foreach_mul_(local(p.grad for p in learning if p.grad is not None), scale)
    norm = clip_grad_norm_(learning, clip_norm or float("inf"))
    return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)


class EMA:
    """Exponential moving average of the weights that learn: ``average = decay * average + (1 - decay) * weight``."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._model = model
        self._update = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        self.averages = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}

    def update(self) -> None:
        """Take in the weights as they are now."""
        weights = [p.detach() for p in self._model.parameters() if p.requires_grad]
        self._update(local(self.averages.values()), local(weights), 0)

    @torch.no_grad()
    def restart(self) -> None:
        """Begin anew with the weights as they are now."""
        for name, parameter in self._model.named_parameters():
            if name in self.averages:
                self.averages[name].copy_(parameter)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Meanwhile the model has the averages for weights."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, parameter in self._model.named_parameters():
            if name in self.averages:
                (average,), (weight,) = local([self.averages[name]]), local([parameter.detach()])
                kept = weight.clone()
                weight.copy_(average)
                average.copy_(kept)

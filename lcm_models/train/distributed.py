"""The processes of a run: who this one is, sums over all of them, and how a model is spread over them.

Nothing here starts processes; ``launch`` does.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

from lcm_data.errors import UsageError
from lcm_models.train.config import TrainConfig
from lcm_models.train.errors import ProcessLostError

_LOST = ("gloo", "nccl", "connection closed", "connection reset", "broken pipe", "timed out", "socket")
"""Words in the errors that PyTorch raises when another process is gone; it has no class for them all."""


@dataclass(frozen=True)
class Place:
    """A process among those of a run; ``local_rank`` counts on its machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    rendezvous: str = "env://"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Place:
        """What torchrun says; a process of its own otherwise."""
        if "TORCHELASTIC_RUN_ID" not in environment and "MASTER_ADDR" not in environment:
            return cls()
        try:
            rank, size, local_rank = (int(environment[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
        except (KeyError, ValueError) as error:
            raise UsageError(
                f"this looks like torchrun, but RANK, WORLD_SIZE and LOCAL_RANK are not all numbers: {error}."
            ) from error
        return cls(rank, size, local_rank)


@dataclass(frozen=True)
class World:
    """The processes of a run as the trainer sees them."""

    rank: int
    size: int
    device: torch.device

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, in all of them."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def wait(self) -> None:
        """Wait until all processes are here."""
        self.sum(torch.zeros(1, device=self.device))
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


@contextlib.contextmanager
def join_world(place: Place, config: TrainConfig) -> Iterator[World]:
    """Meet the other processes, and part from them at the end.

    Raises:
        UsageError: a device that is not here.
    """
    device = choose_device(config.device, place.local_rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    ours = place.size > 1 and not dist.is_initialized()  # Ray Train has done it
    if ours:
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(
            backend,
            init_method=place.rendezvous,
            rank=place.rank,
            world_size=place.size,
            timeout=timedelta(seconds=config.timeout),
        )
    yield World(place.rank, place.size, device)
    if ours:  # not after an error: parting waits for processes that may be gone
        dist.destroy_process_group()


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """The device of a process.

    Raises:
        UsageError: there is no such GPU.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UsageError("train.device is cuda, and PyTorch finds no GPU here: use auto or cpu.")
    if local_rank >= torch.cuda.device_count():
        raise UsageError(
            f"process {local_rank} of this machine has no GPU: there are {torch.cuda.device_count()}. "
            "Start as many processes as there are GPUs."
        )
    return torch.device("cuda", local_rank)


@contextlib.contextmanager
def lost_processes(timeout: float, hint: Callable[[], str]) -> Iterator[None]:
    """Turn what PyTorch raises when another process is gone into one line, which ends with the hint."""
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if not isinstance(error, dist.DistError) and not any(word in text.lower() for word in _LOST):
            raise
        raise ProcessLostError(
            f"another process of this run ended, or did not answer within {timeout:g} s "
            f"({text.strip().splitlines()[0][:200]}). {hint()}"
        ) from error


def layers_of(model: nn.Module) -> list[nn.Module]:
    """The layers of a network: the elements of its outermost module lists."""
    found: list[nn.Module] = []

    def visit(module: nn.Module) -> None:
        for child in module.children():
            if isinstance(child, nn.ModuleList):
                found.extend(child)
            else:
                visit(child)

    visit(model)
    return found


def spread(model: nn.Module, world: World, config: TrainConfig) -> nn.Module:
    """The model ready to train on its device: compiled, and copied to or shared by all processes, as configured.

    Its own parameters stay the ones to optimise and save. With FSDP2 each becomes a ``DTensor``.
    """
    sharded = world.size > 1 and config.strategy == "fsdp"
    model.to(torch.device("cpu") if sharded else world.device)
    if config.compile == "layers":
        for layer in layers_of(model):
            layer.compile()
    elif config.compile == "model":
        model.compile()
    if world.size == 1:
        return model
    if not sharded:
        ids = [world.device.index] if world.device.type == "cuda" else None
        with warnings.catch_warnings():
            # Buffers (normaliser, codebook) never change and were made alike in all processes: nothing to send. What
            # newer versions offer instead sends them once, and older ones do not have it.
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            return DistributedDataParallel(model, device_ids=ids, broadcast_buffers=False, gradient_as_bucket_view=True)
    low = torch.bfloat16 if config.precision == "bfloat16" else None
    policy = MixedPrecisionPolicy(param_dtype=low, reduce_dtype=torch.float32, cast_forward_inputs=False)
    mesh = init_device_mesh(world.device.type, (world.size,))
    for layer in layers_of(model):
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    return model.to(world.device)


@contextlib.contextmanager
def no_exchange(model: nn.Module, wanted: bool) -> Iterator[None]:
    """Meanwhile gradients only add up in this process, if ``wanted``: all but the last batch of a step."""
    if isinstance(model, DistributedDataParallel):
        with model.no_sync() if wanted else contextlib.nullcontext():
            yield
        return
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(not wanted)
    yield


def reshard(model: nn.Module) -> None:
    """Give up the whole weights that a sharded model keeps after a forward pass without a backward one."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()

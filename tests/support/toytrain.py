"""A tiny training task with its data in memory, and what tests do with runs of it, also in processes of their own."""

from __future__ import annotations

import json
import os
import pickle
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from lcm_data.errors import InputError, LcmDataError
from lcm_models import build_model
from lcm_models.model import Batch, ConceptModel
from lcm_models.train.checkpoint import complete_ones
from lcm_models.train.config import OptimConfig, TrainConfig
from lcm_models.train.launch import Launch, start
from lcm_models.train.run import Run, TrainReport

DIM = 8
MODELS = ("model.safetensors", "ema.safetensors")


def make_batch(number: int, bad: bool = False) -> Batch:
    """Batch ``number`` of all processes: documents of different lengths, so that batches differ in their targets."""
    generator = torch.Generator().manual_seed(number)
    lengths = torch.randint(2, 7, (3,), generator=generator).tolist()
    documents = [torch.randn(length, DIM, generator=generator) for length in lengths]
    if bad:
        documents[0][0, 0] = float("nan")
    return Batch.of(documents)


@dataclass
class ToyLoader:
    """Process r of W gives batches r, r + W, r + 2W, ..."""

    rank: int
    world_size: int
    bad: frozenset[int]
    seconds: float
    killed: str = ""
    given: int = 0

    def __iter__(self) -> Iterator[Batch]:
        while True:
            time.sleep(self.seconds)
            if self.killed and self.rank == 1 and self.given == 3 and not Path(self.killed).exists():
                Path(self.killed).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            number = self.given * self.world_size + self.rank
            self.given += 1
            yield make_batch(number, number in self.bad)

    def state_dict(self) -> dict[str, Any]:
        return {"given": self.given}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.given = state["given"]


@dataclass(frozen=True)
class ToyTask:
    """A variant with random batches; those numbered in ``bad`` are not finite, each takes ``seconds`` to come.

    Process 1 kills itself before its fourth, unless the file ``killed`` says that it has done so.
    """

    variant: str = "base"
    bad: frozenset[int] = frozenset()
    seconds: float = 0.0
    settings: dict[str, Any] = field(default_factory=dict)
    killed: str = ""

    def build(self) -> ConceptModel:
        small: dict[str, Any] = {"concept_dim": DIM, "width": 16, "num_heads": 2, "dropout": 0.1}
        two = self.variant == "two-tower"
        names = ("num_context_layers", "num_denoiser_layers") if two else ("num_layers",)
        model = build_model(self.variant, "tiny", {**small, **dict.fromkeys(names, 2), **self.settings})
        with torch.no_grad():
            for parameter in model.parameters():  # nothing is zero, so that every gradient says something
                parameter += 0.05 * torch.randn_like(parameter)
        return model

    def loader(self, rank: int, world_size: int) -> ToyLoader:
        return ToyLoader(rank, world_size, self.bad, self.seconds, self.killed)

    def validation(self) -> list[Batch]:
        return [make_batch(1_000_000 + number) for number in range(3)]

    def size(self, batch: Batch) -> int:
        return int((batch.doc_BS >= 0).sum())

    def identity(self) -> dict[str, dict[str, Any]]:
        return {"model": {"variant": self.variant, **self.settings}}

    def notes(self) -> dict[str, Any]:
        return {"kind": "toy", "variant": self.variant}

    def write_assets(self, folder: Path) -> None:
        (folder / "asset.txt").write_text("unchanging")


class BrokenTask(ToyTask):
    """Cannot make its data in process 1."""

    def loader(self, rank: int, world_size: int) -> ToyLoader:
        if rank == 1:
            raise InputError("shard 7 cannot be read")
        return super().loader(rank, world_size)


def toy_run(folder: Path, task: ToyTask | None = None, *, optim: dict[str, Any] | None = None, **train: Any) -> Run:
    """A short run; checkpoints often."""
    train = {"max_steps": 6, "checkpoint_every": 2, "valid_every": 4, "metrics": ("jsonl",), "log_every": 1, **train}
    return Run(
        task=task or ToyTask(),
        optim=OptimConfig(**{"lr": 1e-2, "warmup_steps": 1, **(optim or {})}),
        train=TrainConfig(**{"device": "cpu", "timeout": 30, **train}),
        folder=str(folder),
        quiet=True,
    )


def weights(checkpoint: Path, name: str = "model.safetensors") -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint."""
    return load_file(checkpoint / name)


def metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, without what depends on time."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "concepts_per_second"} for line in lines]


def same_state(one: object, other: object) -> bool:
    """Equal to the bit, through nested dicts, lists and tensors."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same_state(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same_state, one, other))
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return torch.equal(one, other)
    return one == other


def assert_same(one: Path, other: Path, processes: int = 1) -> None:
    """Both runs ended with the same checkpoint and told the same."""
    first, second = (complete_ones(folder / "checkpoints")[-1] for folder in (one, other))
    assert first.name == second.name
    for name in MODELS:
        assert same_state(weights(first, name), weights(second, name)), name
    for name in ("optimizer.pt", *(f"loader-{rank:05d}.pt" for rank in range(processes))):
        one_state, other_state = (torch.load(folder / name, weights_only=True) for folder in (first, second))
        assert same_state(one_state, other_state), name
    for name in ("progress.json", "settings.json", "model.json"):
        assert json.loads((first / name).read_text()) == json.loads((second / name).read_text()), name
    assert metrics(one) == metrics(other)


def largest_difference(one: Path, other: Path) -> float:
    """Between the weights, and averages, of the last checkpoints of two runs."""
    first, second = (complete_ones(folder / "checkpoints")[-1] for folder in (one, other))
    assert first.name == second.name
    largest = 0.0
    for name in (name for name in MODELS if (first / name).exists()):
        expected, found = weights(first, name), weights(second, name)
        assert expected.keys() == found.keys()
        finite = [key for key in expected if "clip_" not in key]  # the normaliser's bounds are infinite
        largest = max(largest, *(float((expected[key] - found[key]).abs().max()) for key in finite))
    return largest


def command(run: Run, launch: Launch) -> list[str]:
    """A command line that trains ``run`` in a process of its own: 'python -m toytrain' and the pickled run."""
    file = Path(run.folder).with_suffix(".run")
    file.write_bytes(pickle.dumps((run, launch)))
    return [sys.executable, "-m", "toytrain", str(file)]


def main() -> None:
    """Train a pickled run; a refusal or failure is one line and its exit code, as of the command."""
    torch.set_num_threads(1)
    run, launch = pickle.loads(Path(sys.argv[1]).read_bytes())
    try:
        report: TrainReport = start(run, launch)
    except LcmDataError as error:
        print(f"{os.environ.get('RANK', '')}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    print(report)


if __name__ == "__main__":
    main()

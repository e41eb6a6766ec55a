"""The training loop: steps, validation, checkpoints, and how a run ends. It knows neither models nor launchers.

The loss of a step is the sum over the targets of all batches of all processes, divided by how many targets they are:
a process or batch with few targets counts for little.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from signal import SIGTERM
from typing import Any

import torch

from lcm_data.errors import InterruptedRunError
from lcm_models.train.checkpoint import save_checkpoint, thin_out
from lcm_models.train.distributed import World, no_exchange, reshard
from lcm_models.train.errors import DivergedError
from lcm_models.train.metrics import Metrics
from lcm_models.train.optimizer import scale_and_clip
from lcm_models.train.progress import Line, Meter, describe
from lcm_models.train.run import Run, StopRequest
from lcm_models.train.schedule import lr_at
from lcm_models.train.state import TrainState
from lcm_models.train.task import reseed
from lcm_models.train.validation import shared_out

_VALIDATION = 1 << 32
"""Stands for the step in the seeds of validation batches; no step has this number."""


@dataclass(frozen=True)
class Step:
    """What happened in a step, over all processes; loss and ``sums`` are means over the targets."""

    loss: float
    targets: int
    concepts: int
    grad_norm: float
    sums: dict[str, float]
    signals: int
    hurry: bool


@dataclass
class Window:
    """Steps since metrics were written; those left out do not count. The rate is of those made in this process."""

    steps: list[Step] = field(default_factory=list)
    concepts: int = 0
    began: float = field(default_factory=time.monotonic)

    def add(self, step: Step) -> None:
        """Count a step, unless it was left out: it would make the means of all others useless."""
        if math.isfinite(step.loss) and math.isfinite(step.grad_norm):
            self.steps.append(step)
            self.concepts += step.concepts

    def means(self) -> dict[str, float]:
        """Loss and its parts over all targets of the window, and the rate."""
        targets = max(1, sum(step.targets for step in self.steps))
        values = {"loss": sum(step.loss * step.targets for step in self.steps) / targets}
        for name in self.steps[0].sums:
            values[name] = sum(step.sums[name] * step.targets for step in self.steps) / targets
        values["grad_norm"] = self.steps[-1].grad_norm
        values["concepts_per_second"] = self.concepts / (time.monotonic() - self.began)
        return values


class Trainer:
    """Trains ``run`` from where ``state`` is to its last step."""

    def __init__(
        self, run: Run, state: TrainState, world: World, metrics: list[Metrics], line: Line, stop: StopRequest
    ) -> None:
        self.run, self.state, self.world, self.metrics, self.line, self.stop = run, state, world, metrics, line, stop
        self.config = run.train
        self.valid_loss: float | None = None
        self.loss: float | None = None
        self._batches: Iterator[Any] = iter(state.loader)
        self._held_out: Iterable[Any] | None = None

    def train(self) -> Meter:
        """All steps that are left.

        Raises:
            InterruptedRunError: a signal stopped it; a checkpoint was made.
            DivergedError: loss or gradients were not finite; there is a checkpoint from before.
        """
        try:
            return self._steps()
        finally:
            if isinstance(self._batches, Generator):
                self._batches.close()  # ends the loader's thread

    def _steps(self) -> Meter:
        progress, config = self.state.progress, self.config
        meter, window = Meter(progress.step, config.max_steps), Window([Step(**each) for each in progress.unwritten])
        while progress.step < config.max_steps:
            step = self._step()
            progress.step += 1
            progress.concepts += step.concepts
            progress.targets += step.targets
            self.loss = step.loss
            meter.count(step.concepts)
            window.add(step)
            last = progress.step == config.max_steps
            if window.steps and (progress.step % config.log_every == 0 or last):
                self._write({**window.means(), "lr": self._lr(progress.step - 1)})
                window = Window()
            progress.unwritten = [asdict(each) for each in window.steps]
            begun = time.monotonic()
            if config.valid_every and (progress.step % config.valid_every == 0 or last):
                self._validate()
            if progress.step % config.checkpoint_every == 0 or last:
                self.save()
            spent = time.monotonic() - begun
            meter.aside += spent
            window.began += spent
            self.line.show(describe(progress.step, meter, step.loss, self.valid_loss), last)
            if step.signals and not last:
                self._end_early(step)
        return meter

    # -- a step --------------------------------------------------------------------------------------------------

    def _step(self) -> Step:
        """Gradients of all batches, then the optimiser; a step that went wrong changes nothing but the counters."""
        number, model, optimizer = self.state.progress.step, self.state.model, self.state.optimizer
        names, totals_N = self._gradients(number)
        totals = dict(zip(names, totals_N, strict=True))
        targets = max(1.0, totals["targets"])
        # Distributed training divides the sum of the processes' gradients by their number: undone here.
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        norm = scale_and_clip(parameters, self.world.size / targets, self.run.optim.clip_norm)
        loss = totals["loss"] / targets
        if math.isfinite(loss) and math.isfinite(norm):
            for group in optimizer.param_groups:
                group["lr"] = self._lr(number)
            optimizer.step()
            if self.state.ema is not None:
                self.state.ema.update()
        else:
            self._went_wrong(number, loss, norm)
        optimizer.zero_grad(set_to_none=True)
        known = {"loss", "targets", "concepts", "signals", "hurry"}
        return Step(
            loss=loss,
            targets=int(totals["targets"]),
            concepts=int(totals["concepts"]),
            grad_norm=norm,
            sums={name: value / targets for name, value in totals.items() if name not in known},
            signals=int(totals["signals"]),
            hurry=totals["hurry"] > 0,
        )

    def _gradients(self, number: int) -> tuple[list[str], list[float]]:
        """Add up the gradients of this step's batches, not yet divided; names and sums over all processes."""
        sums: dict[str, torch.Tensor] = {}
        for index in range(self.config.accumulate):
            batch = next(self._batches)
            concepts = self.run.task.size(batch)
            batch = batch.to(self.world.device)
            reseed(self.run.train.seed, number, index * self.world.size + self.world.rank)
            with no_exchange(self.state.model, index + 1 < self.config.accumulate):
                with self._autocast():
                    loss = self.state.model(batch)
                loss.total.backward()
            self._add(sums, {"loss": loss.total.detach(), "targets": loss.num_targets, **loss.sums})
            self._add(sums, {"concepts": concepts})
        # All processes must decide alike whether to go on. Reading the sums costs one wait for the GPU a step.
        self._add(sums, {"signals": self.stop.number is not None, "hurry": self.stop.hurry})
        names = sorted(sums)
        totals_N: list[float] = self.world.sum(torch.stack([sums[name] for name in names])).tolist()
        return names, totals_N

    def _add(self, sums: dict[str, torch.Tensor], values: Mapping[str, torch.Tensor | int]) -> None:
        for name, value in values.items():
            exact = torch.as_tensor(value, dtype=torch.float64, device=self.world.device)
            sums[name] = sums[name] + exact if name in sums else exact

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        return torch.autocast(self.world.device.type, dtype=torch.bfloat16, enabled=self.config.precision == "bfloat16")

    def _lr(self, step: int) -> float:
        return lr_at(step, self.run.optim, self.config.max_steps)

    def _went_wrong(self, number: int, loss: float, norm: float) -> None:
        self.state.progress.bad_steps += 1
        if self.state.progress.bad_steps <= self.config.max_bad_steps:
            self._write({"bad_step": 1.0}, number + 1)
            return
        last, bad = self.run.last_checkpoint(), self.state.progress.bad_steps
        raise DivergedError(
            f"step {number + 1}: loss {loss:g}, gradient norm {norm:g} (bad steps so far: {bad}). The last checkpoint "
            f"is {last or 'none'}. Lower optim.lr or optim.clip_norm in a new folder with train.init_from, look for "
            "vectors that are not finite (lcm-data verify), or leave such steps out with train.max_bad_steps."
        )

    # -- around the steps ----------------------------------------------------------------------------------------

    @torch.no_grad()
    def _validate(self) -> None:
        """The loss over the held-out batches, shared out over the processes, with the same draws every time."""
        held_out = self.run.task.validation() if self._held_out is None else self._held_out
        self._held_out = None if isinstance(held_out, Iterator) else held_out  # which is good for one pass
        model, sums = self.state.model, dict[str, torch.Tensor]()
        model.eval()
        with self.state.ema.in_place() if self.state.ema is not None else contextlib.nullcontext():
            for turn in shared_out(held_out, self.config.valid_batches, self.world.rank, self.world.size):
                reseed(self.config.seed, _VALIDATION, turn.number)
                with self._autocast():
                    loss = model(turn.batch.to(self.world.device))
                found = {"loss": loss.total, "targets": loss.num_targets, **loss.sums}
                self._add(sums, {name: value if turn.counts else 0 for name, value in found.items()})
            reshard(model)  # before the averages go back
        model.train()
        if not sums:  # nothing is held out
            return
        names = sorted(sums)
        totals = dict(zip(names, self.world.sum(torch.stack([sums[name] for name in names])).tolist(), strict=True))
        targets = max(1.0, totals.pop("targets"))
        self.valid_loss = totals["loss"] / targets
        self._write({f"valid_{name}": value / targets for name, value in totals.items()})

    def save(self) -> Path:
        """Make a checkpoint, and delete those that are no longer kept."""
        rank, config = self.world.rank, self.config

        def write(folder: Path) -> None:
            self.state.save(folder, rank)
            if rank == 0:
                self.run.write_notes(folder, self.world.size)

        made = save_checkpoint(self.run.checkpoints, self.state.progress.step, self.world, write)
        if rank == 0:
            thin_out(self.run.checkpoints, config.keep_last, config.keep_every)
        return made

    def _end_early(self, step: Step) -> None:
        done = f"step {self.state.progress.step} of {self.config.max_steps}"
        if step.hurry:
            where = self.run.last_checkpoint() or "none"
            raise self._interrupted(f"stopped at {done} by two signals, without a checkpoint; the last is {where}.")
        raise self._interrupted(f"stopped at {done}; the checkpoint is {self.save()}.")

    def _interrupted(self, text: str) -> InterruptedRunError:
        # Another process may have got the signal, and this one none.
        return InterruptedRunError(f"{text} Run the same command again to resume.", self.stop.number or SIGTERM)

    def _write(self, values: dict[str, float], step: int | None = None) -> None:
        for metrics in self.metrics:
            metrics.write(self.state.progress.step if step is None else step, values)

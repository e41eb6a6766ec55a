"""One process of a run, from start to end: what every launcher calls, once in each of its processes."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from lcm_data.errors import CheckpointError, PlanMismatchError, UsageError
from lcm_data.signals import StopSignal
from lcm_data.store.files import LocalFiles, storage_errors
from lcm_data.store.lock import stage_lock
from lcm_models.train.config import refuse_changes
from lcm_models.train.distributed import Place, World, join_world, lost_processes, spread
from lcm_models.train.loop import Trainer
from lcm_models.train.metrics import open_metrics
from lcm_models.train.optimizer import EMA, make_optimizer
from lcm_models.train.progress import Line
from lcm_models.train.run import SETTINGS, Run, StopRequest, TrainReport, find_checkpoint
from lcm_models.train.state import WEIGHTS, Progress, TrainState, plain
from lcm_models.train.task import reseed
from lcm_models.train.weights import load_tensors

log = logging.getLogger("lcm_data.train")


def train_here(run: Run, place: Place) -> TrainReport:
    """Take part in a run as one of its processes.

    Raises:
        CorpusBusyError: another run writes to the folder.
        PlanMismatchError: the folder holds a run with other settings.
        InterruptedRunError, DivergedError, ProcessLostError, StorageError: what ended it; a rerun resumes.
    """
    with contextlib.ExitStack() as stack:
        if place.rank == 0:
            stack.enter_context(stage_lock(LocalFiles(run.folder)))
            run.stop_file.unlink(missing_ok=True)
            if run.overwrite and not int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")):
                run.clear()
        signals = stack.enter_context(StopSignal())
        stack.enter_context(lost_processes(run.train.timeout, run.how_to_go_on))
        stack.enter_context(_memory_advice())
        world = stack.enter_context(join_world(place, run.train))
        return _train(run, world, StopRequest(signals, run.stop_file if place.rank == 0 else None))


@contextlib.contextmanager
def _memory_advice() -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise UsageError(
            f"the memory of the GPU is full ({str(error).splitlines()[0]}). Lower data.batch_concepts and raise "
            "train.accumulate, set model.activation_checkpointing=true, or share the model (train.strategy=fsdp)."
        ) from error


def _train(run: Run, world: World, stop: StopRequest) -> TrainReport:
    begun = time.monotonic()
    world.wait()  # until number 0 has the folder as it should be
    last = run.last_checkpoint()
    if last is not None:
        _refuse_other_run(run, last, world)
    state = _make_state(run, world)
    if last is not None:
        state.load(last, world.rank)
    elif run.train.init_from:
        load_tensors(plain(state.model).state_dict(), find_checkpoint(run.train.init_from) / WEIGHTS)
        if state.ema is not None:
            state.ema.restart()
    if world.rank == 0 and last is None:
        with storage_errors("write", run.folder):
            shutil.rmtree(run.assets, ignore_errors=True)
            run.assets.mkdir(parents=True)
            run.task.write_assets(run.assets)
    world.wait()  # nobody trains before all could load
    resumed_at = state.progress.step
    metrics = open_metrics(run.train.metrics, Path(run.folder), resumed_at, run.settings()) if world.rank == 0 else []
    trainer = Trainer(run, state, world, metrics, Line(run.quiet or world.rank > 0), stop)
    try:
        meter = trainer.train()
    finally:
        for each in metrics:
            each.close()
    report = TrainReport(
        folder=run.folder,
        checkpoint=str(run.last_checkpoint()),
        step=state.progress.step,
        resumed_at=resumed_at,
        loss=trainer.loss,
        valid_loss=trainer.valid_loss,
        bad_steps=state.progress.bad_steps,
        concepts=state.progress.concepts,
        seconds=time.monotonic() - begun,
        concepts_per_second=meter.rate,
        parameters=sum(parameter.numel() for parameter in state.model.parameters()),
    )
    if world.rank == 0:
        run.write_report(report)
    return report


def _make_state(run: Run, world: World) -> TrainState:
    reseed(run.train.seed)
    model = run.task.build().train()
    loader = run.task.loader(world.rank, world.size)
    model = spread(model, world, run.train)
    ema = None if run.optim.ema is None else EMA(plain(model), run.optim.ema)
    return TrainState(model, make_optimizer(model, run.optim), ema, loader, Progress())


def _refuse_other_run(run: Run, checkpoint: Path, world: World) -> None:
    try:
        stored = json.loads((checkpoint / SETTINGS).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {checkpoint / SETTINGS}: {error}. Remove that checkpoint.") from error
    now = json.loads(json.dumps(run.settings()))  # tuples are lists there
    refuse_changes(stored["settings"], now, run.folder)
    before = stored["settings"]["train"]["max_steps"]
    if before != run.train.max_steps and run.optim.schedule_steps is None and run.optim.schedule == "cosine":
        log.warning(
            "the learning rate falls until step %d, no longer %d; optim.schedule_steps=%d keeps it as it was",
            run.train.max_steps, before, before,
        )  # fmt: skip
    if stored["processes"] != world.size:
        raise PlanMismatchError(
            f"{run.folder} was begun with {stored['processes']} processes, this run has {world.size}, and each has its "
            "own place in the data. Use as many, or begin a new folder with train.init_from."
        )

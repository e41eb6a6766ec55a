"""A run on a Ray cluster: Ray Train places and watches the processes and joins them; everything else is the trainer's.

With ``lcm_data.pool`` the only module that imports ray. The trainer writes checkpoints, to a disk all nodes see.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lcm_data.errors import InterruptedRunError, LcmDataError, MissingExtraError, UsageError
from lcm_data.pool import PoolOptions, connect_ray, load_ray
from lcm_data.signals import StopSignal
from lcm_data.store.files import LocalFiles
from lcm_models.train.distributed import Place
from lcm_models.train.errors import DivergedError, ProcessLostError
from lcm_models.train.launch import Launch
from lcm_models.train.run import Run, TrainReport


def launch_ray(run: Run, launch: Launch) -> TrainReport:
    """Train in ``launch.workers`` processes of a cluster, which is started here if there is none.

    Raises:
        MissingExtraError: Ray Train is not installed.
        UsageError: no cluster answers, or it is too small.
        ProcessLostError: a worker or node was lost more often than ``max_restarts``.
        LcmDataError: what a worker raised.
    """
    ray = load_ray()
    try:
        importlib.import_module("ray.train.torch")  # needs packages that ray alone does not bring
    except ImportError as error:
        raise MissingExtraError("train --executor ray", "ray[train]", "ray") from error
    started = connect_ray(PoolOptions(launch.workers, launch.threads, launch.gpus_per_worker, launch.ray_address))
    try:
        _check_room(ray.cluster_resources(), launch)
        # Ray Train takes over SIGINT where it is called. So that is elsewhere, and this process listens to signals.
        task = ray.remote(num_cpus=0, max_retries=0)(_fit).remote(run, launch)
        with StopSignal() as stop:
            return _wait(ray, task, run, stop)
    finally:
        if started:
            ray.shutdown()


def _check_room(has: Mapping[str, float], launch: Launch) -> None:
    """Refuse what would wait for ever."""
    needs = {"CPU": launch.cpus_per_worker * launch.workers, "GPU": launch.gpus_per_worker * launch.workers}
    short = [
        f"{name} {need:g} (it has {has.get(name, 0):g})" for name, need in needs.items() if need > has.get(name, 0)
    ]
    if short:
        raise UsageError(f"the Ray cluster is too small for {launch.workers} workers: they need {', '.join(short)}.")


def _wait(ray: Any, task: Any, run: Run, stop: StopSignal) -> TrainReport:
    while not ray.wait([task], timeout=0.5)[0]:
        if stop.number is not None and run.stop_file.parent.is_dir():  # a second one changes nothing
            LocalFiles(run.folder).write(str(run.stop_file.relative_to(run.folder)), str(int(stop.number)).encode())
    try:
        report: TrainReport = ray.get(task)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, LcmDataError):
            raise error.cause from None
        raise
    except ray.exceptions.RayError as error:
        raise ProcessLostError(f"the Ray task that leads the run was lost. {run.how_to_go_on()}") from error
    return report


def _fit(run: Run, launch: Launch) -> TrainReport:
    """Runs in a Ray task: trains, and sorts out what went wrong."""
    import ray.train
    from ray.train.torch import TorchConfig, TorchTrainer

    gpus = launch.gpus_per_worker
    resources = {"CPU": launch.cpus_per_worker, **({"GPU": gpus} if gpus else {})}
    trainer = TorchTrainer(
        _train_worker,
        train_loop_config={"run": run, "threads": launch.threads or max(1, int(launch.cpus_per_worker))},
        torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if gpus else "gloo", timeout_s=int(run.train.timeout)),
        scaling_config=ray.train.ScalingConfig(
            num_workers=launch.workers, use_gpu=bool(gpus), resources_per_worker=resources
        ),
        run_config=ray.train.RunConfig(
            name="ray",
            storage_path=str(Path(run.folder, "_lcm")),
            failure_config=ray.train.FailureConfig(max_failures=launch.max_restarts),
        ),
    )
    _end_file(run).unlink(missing_ok=True)
    try:
        trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise _reason(error, run) from error
    _raise_end(run)
    return run.read_report()


def _reason(error: Any, run: Run) -> LcmDataError:
    """What a worker raised; that it was lost, if that is all there is."""
    failures = dict(getattr(error, "worker_failures", {}))
    causes = [getattr(failure, "cause", None) or failure for _, failure in sorted(failures.items())]
    ours = [cause for cause in causes if isinstance(cause, LcmDataError)]
    told = [cause for cause in ours if not isinstance(cause, ProcessLostError)]
    if told or (ours and len(ours) == len(causes)):
        return (told or ours)[0]
    first = str(causes[0] if causes else error).strip().splitlines()[0]
    return ProcessLostError(f"a worker of the Ray cluster was lost ({first[:200]}). {run.how_to_go_on()}")


def _train_worker(config: Mapping[str, Any]) -> None:
    """Runs on each worker, in a process group that Ray Train has made."""
    import ray.train.torch
    import torch

    from lcm_models.train.process import train_here

    torch.set_num_threads(config["threads"])
    context = ray.train.get_context()
    run: Run = config["run"]
    device = ray.train.torch.get_device().index or 0
    place = Place(context.get_world_rank(), context.get_world_size(), device)
    try:
        train_here(run, place)
    except (InterruptedRunError, DivergedError) as error:
        # All workers raise it, and know what they do: Ray must not start them again. Others it may.
        if place.rank == 0:
            end = {"kind": type(error).__name__, "message": str(error), "exit_code": error.exit_code}
            _end_file(run).write_text(json.dumps(end), "utf-8")


def _end_file(run: Run) -> Path:
    """Says how training ended, if early and on purpose."""
    return Path(run.folder, "_lcm", "end.json")


def _raise_end(run: Run) -> None:
    if not _end_file(run).exists():
        return
    end = json.loads(_end_file(run).read_text("utf-8"))
    if end["kind"] == InterruptedRunError.__name__:
        raise InterruptedRunError(end["message"], end["exit_code"] - 128)
    raise DivergedError(end["message"])

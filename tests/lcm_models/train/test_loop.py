"""One process: what a run writes, how it ends, and that its figures are what they say."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from toytrain import DIM, ToyTask, make_batch, metrics, toy_run, weights

from lcm_data.errors import CorpusBusyError, InterruptedRunError, MissingExtraError, PlanMismatchError, UsageError
from lcm_data.store.files import LocalFiles
from lcm_data.store.lock import stage_lock
from lcm_models.train.checkpoint import complete_ones, step_of
from lcm_models.train.config import OptimConfig
from lcm_models.train.distributed import Place, layers_of
from lcm_models.train.errors import DivergedError
from lcm_models.train.launch import Launch, start
from lcm_models.train.optimizer import make_optimizer
from lcm_models.train.run import TrainReport
from lcm_models.train.schedule import lr_at
from lcm_models.train.task import reseed

ALONE = Launch()


def steps(folder: Path) -> list[int]:
    return [step_of(each) for each in complete_ones(folder / "checkpoints")]


def test_a_run_is_a_plain_training_loop(tmp_path: Path) -> None:
    """The trainer's result is that of ten lines, bit for bit."""
    run = toy_run(tmp_path / "run", ToyTask("two-tower"), accumulate=2)
    report = start(run, ALONE)
    reseed(0)
    model = ToyTask("two-tower").build().train()
    optimizer = make_optimizer(model, run.optim)
    for step in range(6):
        targets = 0.0
        for index in range(2):
            reseed(0, step, index)
            loss = model(make_batch(2 * step + index))
            loss.total.backward()
            targets += float(loss.num_targets)
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad *= 1 / targets
        torch.nn.utils.clip_grad_norm_(model.parameters(), run.optim.clip_norm)
        for group in optimizer.param_groups:
            group["lr"] = lr_at(step, run.optim, 6)
        optimizer.step()
        optimizer.zero_grad()
    stored = weights(Path(report.checkpoint))
    assert stored.keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert torch.equal(stored[name], value), name


def test_a_run_learns_and_says_what_it_did(tmp_path: Path) -> None:
    report = start(toy_run(tmp_path / "run", optim={"lr": 3e-3}, max_steps=30, valid_every=10, log_every=5), ALONE)
    assert isinstance(report, TrainReport)
    lines = metrics(tmp_path / "run")
    trained = [line for line in lines if "loss" in line]
    validated = [line for line in lines if "valid_loss" in line]
    assert [line["step"] for line in trained] == [5, 10, 15, 20, 25, 30]
    assert [line["step"] for line in validated] == [10, 20, 30]
    assert trained[-1]["loss"] < trained[0]["loss"]
    assert report.valid_loss == validated[-1]["valid_loss"]
    assert report.concepts == sum(ToyTask().size(make_batch(number)) for number in range(30))
    assert report.step == 30
    assert set(trained[0]) == {"step", "loss", "squared_error", "grad_norm", "lr"}
    assert steps(tmp_path / "run") == [28, 30]
    assert json.loads((tmp_path / "run" / "report.json").read_text())["step"] == 30


def test_losses_are_means_over_targets_not_over_batches(tmp_path: Path) -> None:
    start(toy_run(tmp_path / "run", max_steps=1, accumulate=3, log_every=1), ALONE)
    reseed(0)
    model = ToyTask().build().train()
    total, targets = 0.0, 0.0
    for index in range(3):
        reseed(0, 0, index)
        loss = model(make_batch(index))
        total, targets = total + loss.total.item(), targets + float(loss.num_targets)
    assert metrics(tmp_path / "run")[0]["loss"] == pytest.approx(total / targets, rel=1e-6)


def test_validation_draws_the_same_every_time(tmp_path: Path) -> None:
    """With a learning rate of next to nothing, a diffusion model's validation loss stays what it was."""
    start(toy_run(tmp_path / "run", ToyTask("two-tower"), optim={"lr": 1e-30}, valid_every=1, max_steps=3), ALONE)
    found = {line["valid_loss"] for line in metrics(tmp_path / "run") if "valid_loss" in line}
    assert len(found) == 1


def test_validation_is_of_the_averaged_weights(tmp_path: Path) -> None:
    report = start(toy_run(tmp_path / "run", optim={"ema": 0.9}, max_steps=4, valid_every=4), ALONE)
    model = ToyTask().build().eval()
    model.load_state_dict(weights(Path(report.checkpoint), "ema.safetensors"))
    losses = [model(batch) for batch in ToyTask().validation()]
    mean = sum(loss.total.item() for loss in losses) / sum(loss.num_targets.item() for loss in losses)
    assert report.valid_loss == pytest.approx(mean, rel=1e-6)


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    run = toy_run(tmp_path / "run", ToyTask(bad=frozenset({3})), checkpoint_every=1)
    with pytest.raises(DivergedError) as raised:
        start(run, ALONE)
    text = str(raised.value)
    assert text.startswith("step 4: loss nan, gradient norm nan")
    assert "step-00000003" in text
    assert raised.value.exit_code == 5
    assert steps(tmp_path / "run") == [2, 3]
    assert all(
        value.isfinite().all()
        for name, value in weights(tmp_path / "run/checkpoints/step-00000003").items()
        if "clip_" not in name
    )


def test_bad_steps_can_be_left_out(tmp_path: Path) -> None:
    run = toy_run(tmp_path / "run", ToyTask(bad=frozenset({1, 3})), max_bad_steps=2, optim={"schedule": "constant"})
    report = start(run, ALONE)
    assert (report.step, report.bad_steps) == (6, 2)
    assert [line["step"] for line in metrics(tmp_path / "run") if "bad_step" in line] == [2, 4]
    assert [line["step"] for line in metrics(tmp_path / "run") if "loss" in line] == [1, 3, 5, 6]
    parameters = dict(ToyTask().build().named_parameters())
    stored = weights(Path(report.checkpoint))
    assert all(stored[name].isfinite().all() for name in parameters)
    with pytest.raises(DivergedError, match=r"step 4: .*bad steps so far: 2"):
        start(toy_run(tmp_path / "less", ToyTask(bad=frozenset({1, 3})), max_bad_steps=1), ALONE)


class SignalTask(ToyTask):
    """Sends this process signals while batch 3 is made."""

    signals: tuple[int, ...] = (signal.SIGUSR1,)

    def size(self, batch: object) -> int:
        if torch.equal(batch.x_BSD, make_batch(3).x_BSD):  # type: ignore[attr-defined]
            for number in self.signals:
                os.kill(os.getpid(), number)
        return super().size(batch)  # type: ignore[arg-type]


class ImpatientTask(SignalTask):
    signals = (signal.SIGINT, signal.SIGINT)


def test_a_signal_makes_a_checkpoint_and_a_rerun_goes_on(tmp_path: Path) -> None:
    run = toy_run(tmp_path / "run", SignalTask(), checkpoint_every=100, log_every=3)
    with pytest.raises(InterruptedRunError, match=r"stopped at step \d of 6; the checkpoint is .*step-") as raised:
        start(run, ALONE)
    assert raised.value.exit_code == 143
    (stopped,) = steps(tmp_path / "run")
    assert stopped == 4
    report = start(run, ALONE)
    assert report.resumed_at == stopped
    straight = start(toy_run(tmp_path / "straight", checkpoint_every=100, log_every=3), ALONE)
    expected, found = weights(Path(straight.checkpoint)), weights(Path(report.checkpoint))
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert metrics(tmp_path / "run") == metrics(tmp_path / "straight"), "means are over the steps before, too"


def test_two_signals_end_it_without_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(InterruptedRunError, match="two signals, without a checkpoint") as raised:
        start(toy_run(tmp_path / "run", ImpatientTask(), checkpoint_every=100), ALONE)
    assert raised.value.exit_code == 130
    assert steps(tmp_path / "run") == []


def test_a_run_in_use_is_refused(tmp_path: Path) -> None:
    with stage_lock(LocalFiles(str(tmp_path / "run"))), pytest.raises(CorpusBusyError):
        start(toy_run(tmp_path / "run"), ALONE)


def test_other_settings_are_refused_with_the_difference(tmp_path: Path) -> None:
    start(toy_run(tmp_path / "run", max_steps=2), ALONE)
    with pytest.raises(PlanMismatchError, match=r"optim\.lr: 0\.01 -> 0\.02"):
        start(toy_run(tmp_path / "run", optim={"lr": 0.02}), ALONE)
    with pytest.raises(PlanMismatchError, match=r"model\.variant: 'base' -> 'two-tower'"):
        start(toy_run(tmp_path / "run", ToyTask("two-tower")), ALONE)
    report = start(toy_run(tmp_path / "run", max_steps=4), ALONE)  # this may change
    assert (report.resumed_at, report.step) == (2, 4)


def test_a_longer_schedule_is_said_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    start(toy_run(tmp_path / "run", max_steps=2), ALONE)
    start(toy_run(tmp_path / "run", max_steps=4), ALONE)
    assert "falls until step 4, no longer 2; optim.schedule_steps=2" in caplog.text


def test_a_finished_run_stays_as_it_is(tmp_path: Path) -> None:
    first = start(toy_run(tmp_path / "run"), ALONE)
    before = metrics(tmp_path / "run")
    again = start(toy_run(tmp_path / "run"), ALONE)
    assert (again.resumed_at, again.step, again.checkpoint) == (6, 6, first.checkpoint)
    assert metrics(tmp_path / "run") == before


def test_overwrite_begins_anew(tmp_path: Path) -> None:
    import dataclasses

    start(toy_run(tmp_path / "run"), ALONE)
    report = start(dataclasses.replace(toy_run(tmp_path / "run", optim={"lr": 0.02}), overwrite=True), ALONE)
    assert (report.resumed_at, report.step) == (0, 6)
    assert [line["step"] for line in metrics(tmp_path / "run") if "loss" in line] == [1, 2, 3, 4, 5, 6]


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path) -> None:
    first = start(toy_run(tmp_path / "run"), ALONE)
    file = Path(first.checkpoint, "model.safetensors")
    file.write_bytes(file.read_bytes()[:-1])
    again = start(toy_run(tmp_path / "run"), ALONE)
    assert (again.resumed_at, again.step) == (4, 6)


def test_a_run_can_begin_with_the_weights_of_another(tmp_path: Path) -> None:
    first = start(toy_run(tmp_path / "first"), ALONE)
    second = start(
        toy_run(tmp_path / "second", optim={"lr": 1e-30, "weight_decay": 0.0}, init_from=str(tmp_path / "first")), ALONE
    )
    expected, found = weights(Path(first.checkpoint)), weights(Path(second.checkpoint))
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    still = {"lr": 1e-30, "weight_decay": 0.0, "ema": 0.999}
    averaged = start(toy_run(tmp_path / "averaged", optim=still, init_from=str(tmp_path / "first")), ALONE)
    found = weights(Path(averaged.checkpoint), "ema.safetensors")
    assert all(torch.equal(expected[name], found[name]) for name in expected), "the average begins with them, too"
    with pytest.raises(UsageError, match="holds no checkpoint"):
        start(toy_run(tmp_path / "third", init_from=str(tmp_path / "none")), ALONE)


def test_assets_are_in_every_checkpoint(tmp_path: Path) -> None:
    start(toy_run(tmp_path / "run"), ALONE)
    for checkpoint in complete_ones(tmp_path / "run" / "checkpoints"):
        assert (checkpoint / "asset.txt").read_text() == "unchanging"


def test_bfloat16_keeps_weights_and_optimiser_in_float32(tmp_path: Path) -> None:
    exact = start(toy_run(tmp_path / "exact"), ALONE)
    report = start(toy_run(tmp_path / "run", precision="bfloat16"), ALONE)
    assert {value.dtype for value in weights(Path(report.checkpoint)).values()} == {torch.float32}
    state = torch.load(Path(report.checkpoint, "optimizer.pt"), weights_only=True)["state"]
    assert {each["exp_avg"].dtype for each in state.values()} == {torch.float32}
    assert report.loss is not None
    assert exact.loss != report.loss
    assert report.loss == pytest.approx(exact.loss, rel=0.02)


def test_tensorboard_gets_every_figure(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra 'train'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    start(toy_run(tmp_path / "run", metrics=("jsonl", "tensorboard")), ALONE)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    expected = [line["loss"] for line in metrics(tmp_path / "run") if "loss" in line]
    assert [event.value for event in events.Scalars("loss")] == pytest.approx(expected, rel=1e-6)


def test_metrics_that_are_not_installed_are_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingExtraError, match="wandb"):
        start(toy_run(tmp_path / "run", metrics=("wandb",)), ALONE)


def test_settings_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="warmup_steps is 7, and the schedule has 6 steps"):
        toy_run(tmp_path, optim={"warmup_steps": 7})
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(UsageError, match="no GPU"):
        start(toy_run(tmp_path, device="cuda"), ALONE)


def test_the_layers_of_a_model_are_found() -> None:
    model = ToyTask("two-tower").build()
    assert len(layers_of(model)) == 4
    inside = {id(p) for layer in layers_of(model) for p in layer.parameters()}
    assert 0 < len(inside) < len(list(model.parameters()))


def test_torchrun_is_recognised() -> None:
    given = {"MASTER_ADDR": "here", "RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}
    assert Place.from_environment(given) == Place(3, 8, 1)
    assert Place.from_environment({}) == Place()
    with pytest.raises(UsageError, match="RANK, WORLD_SIZE and LOCAL_RANK"):
        Place.from_environment({"MASTER_ADDR": "here"})


@pytest.mark.slow
@pytest.mark.parametrize("what", ["layers", "model"])
def test_a_compiled_model_learns_the_same(tmp_path: Path, what: str) -> None:
    task, few = ToyTask(settings={"dropout": 0.0}), {"max_steps": 3, "valid_every": 0}
    plain = start(toy_run(tmp_path / "plain", task, **few), ALONE)
    report = start(toy_run(tmp_path / "run", task, compile=what, **few), ALONE)
    expected, found = weights(Path(plain.checkpoint)), weights(Path(report.checkpoint))
    assert expected.keys() == found.keys()
    assert max(float((expected[name] - found[name]).abs().max()) for name in expected) < 1e-3


def test_activations_can_be_computed_again(tmp_path: Path) -> None:
    plain = start(toy_run(tmp_path / "plain"), ALONE)
    task = ToyTask(settings={"activation_checkpointing": True})
    report = start(toy_run(tmp_path / "run", task), ALONE)
    expected, found = weights(Path(plain.checkpoint)), weights(Path(report.checkpoint))
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_the_toy_is_what_it_says() -> None:
    assert make_batch(0).x_BSD.shape[-1] == DIM
    assert len({int(make_batch(number).targets().sum()) for number in range(6)}) > 1
    assert OptimConfig().ema is None

"""Where figures go: Weights & Biases by a module that stands for it, and a class of one's own."""

from __future__ import annotations

import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from toytrain import metrics, toy_run

from lcm_data.errors import UnknownNameError
from lcm_models.train.launch import Launch, start


class FakeWandb(types.ModuleType):
    """What the package is used for here; ``runs`` says what was sent, run by run."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.runs: list[dict[str, Any]] = []
        self.util = types.SimpleNamespace(generate_id=lambda: f"id-{len(self.runs)}")

    def init(self, **how: Any) -> Any:
        run: dict[str, Any] = {**how, "lines": [], "finished": False}
        self.runs.append(run)
        return types.SimpleNamespace(
            log=lambda values, step: run["lines"].append((step, values)), finish=lambda: run.update(finished=True)
        )


def test_wandb_gets_every_figure_and_a_resumed_run_is_the_same_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    how: dict[str, Any] = {"metrics": ("jsonl", "wandb"), "optim": {"schedule_steps": 6}, "valid_every": 2}
    start(toy_run(tmp_path / "run", max_steps=4, **how), Launch())
    start(toy_run(tmp_path / "run", max_steps=6, **how), Launch())
    start(toy_run(tmp_path / "other", max_steps=2, **how), Launch())
    first, second, other = wandb.runs
    assert [run["id"] for run in wandb.runs] == ["id-0", "id-0", "id-2"]
    assert {run["resume"] for run in wandb.runs} == {"allow"}
    assert first["config"]["optim"]["lr"] == 1e-2
    assert all(run["finished"] for run in wandb.runs)
    sent = [{"step": step, **values} for run in (first, second) for step, values in run["lines"]]
    for line in sent:
        line.pop("concepts_per_second", None)
    assert sent == metrics(tmp_path / "run")
    assert [step for step, values in other["lines"] if "valid_loss" in values] == [2]


class Kept:
    """Figures in a list."""

    lines: list[tuple[int, dict[str, float]]] = []  # noqa: RUF012

    def __init__(self, folder: Path, step: int, settings: Mapping[str, Any]) -> None:
        assert folder.is_dir()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self.lines.append((step, dict(values)))

    def close(self) -> None:
        self.lines.append((-1, {}))


def test_a_class_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("own_metrics")
    module.Kept = Kept  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "own_metrics", module)
    start(toy_run(tmp_path / "run", metrics=("own_metrics:Kept",), max_steps=2, valid_every=0), Launch())
    assert [step for step, _ in Kept.lines] == [1, 2, -1]
    assert "loss" in Kept.lines[0][1]
    with pytest.raises(UnknownNameError, match="Did you mean 'wandb'"):
        start(toy_run(tmp_path / "typo", metrics=("wandbb",)), Launch())

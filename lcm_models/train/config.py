"""The settings of optimisation and of a run, how they are read, and which may change when a run is resumed.

Those of model and data stand with their owners.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from lcm_data.errors import PlanMismatchError, UnknownNameError, UsageError
from lcm_data.store.files import absolute
from lcm_models.config import Frozen, what_is_wrong

C = TypeVar("C", bound=BaseModel)
Settings = dict[str, dict[str, Any]]
"""Section -> name -> value, all of them plain values."""


class OptimConfig(Frozen):
    """AdamW and its schedule; defaults as the paper's ablations (§2.4.1) and the official recipes."""

    lr: float = Field(4e-4, gt=0, description="Highest learning rate.")
    schedule: Literal["cosine", "constant"] = Field("cosine", description="What follows the warm-up.")
    warmup_steps: int | None = Field(
        None, ge=0, description="Steps of linear warm-up; by default 4 % of the schedule, 10,000 at most."
    )
    final_fraction: float = Field(0.025, ge=0, le=1, description="Share of lr at the end of the cosine.")
    schedule_steps: int | None = Field(
        None, ge=1, description="Length of the schedule; by default train.max_steps. Fix it if that may grow."
    )
    betas: tuple[float, float] = Field((0.9, 0.95), description="Decay of AdamW's two averages.")
    eps: float = Field(1e-5, gt=0, description="AdamW's epsilon; goes with losses that are sums over dimensions.")
    weight_decay: float = Field(0.1, ge=0, description="Decoupled weight decay.")
    decay_all: bool = Field(False, description="Decay biases and norms, too (as the official code), not only matrices.")
    clip_norm: float = Field(25.0, ge=0, description="Largest norm of the whole gradient; 0 does not clip.")
    ema: float | None = Field(None, gt=0, lt=1, description="Decay of an average of the weights; none by default.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be from 0 to below 1, got {self.betas}")
        if self.schedule_steps is not None and (self.warmup_steps or 0) > self.schedule_steps:
            raise ValueError(f"warmup_steps {self.warmup_steps} is longer than schedule_steps {self.schedule_steps}")
        return self


class TrainConfig(Frozen):
    """How long, in what precision, on what, and what is written."""

    max_steps: int = Field(1000, ge=1, description="Optimiser steps in all.")
    accumulate: int = Field(1, ge=1, description="Batches of each process in a step.")
    seed: int = Field(0, ge=0, description="Of first weights, dropout and noise.")
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="Of matrix products; weights and optimiser stay float32."
    )
    strategy: Literal["ddp", "fsdp"] = Field(
        "ddp", description="With several processes: each has the whole model (ddp), or a share of it (fsdp, FSDP2)."
    )
    compile: Literal["no", "layers", "model"] = Field("no", description="What torch.compile compiles.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: a GPU where there is one.")
    init_from: str | None = Field(None, description="Begin with the weights of this run or checkpoint.")
    max_bad_steps: int = Field(
        0, ge=0, description="Steps with a loss or gradient that is not finite to leave out; one more ends the run."
    )
    checkpoint_every: int = Field(1000, ge=1, description="Steps between checkpoints; the last step makes one, too.")
    keep_last: int = Field(2, ge=1, description="Newest checkpoints to keep.")
    keep_every: int = Field(0, ge=0, description="Keep checkpoints of steps divisible by this for good; 0: none.")
    valid_every: int = Field(1000, ge=0, description="Steps between validations; 0: never.")
    valid_batches: int = Field(50, ge=1, description="Batches of a validation, at most.")
    log_every: int = Field(10, ge=1, description="Steps between lines of metrics.")
    metrics: tuple[str, ...] | None = Field(
        None, description="jsonl, tensorboard, wandb or module:Class; by default jsonl, and tensorboard if installed."
    )
    timeout: float = Field(600.0, gt=0, description="Seconds to wait for another process before giving up.")

    @field_validator("init_from")
    @classmethod
    def _found_elsewhere(cls, path: str | None) -> str | None:
        return path and absolute(path)


FREE = {
    "optim.schedule_steps",
    *(f"train.{name}" for name in ("max_steps", "compile", "device", "init_from", "max_bad_steps")),
    *(f"train.{name}" for name in ("checkpoint_every", "keep_last", "keep_every")),
    *(f"train.{name}" for name in ("valid_every", "valid_batches", "log_every", "metrics", "timeout")),
    "model.activation_checkpointing",
}
"""Settings that may differ when a run is resumed."""


def checked(kind: type[C], section: str, values: Mapping[str, Any]) -> C:
    """The settings of one section.

    Raises:
        UnknownNameError: no such setting; names the nearest.
        UsageError: a value does not fit.
    """
    try:
        return kind(**values)
    except ValidationError as error:
        raise what_is_wrong(kind, error, section) from error


def read_settings(file: str | None, assignments: list[str], sections: tuple[str, ...]) -> Settings:
    """The sections of a file with ``section.name=value`` on top; values are TOML, or else text; null is None.

    The file is TOML, or YAML as ``--print-config`` prints it if its name ends so.

    Raises:
        UsageError: the file cannot be read, or an assignment is none.
        UnknownNameError: no such section.
    """
    found = _read_file(file) if file else {}
    for name, values in found.items():
        if name not in sections:
            raise UnknownNameError(f"section of {file}", name, sections)
        if not isinstance(values, dict):
            raise UsageError(f"{name!r} in {file} must be a section: [{name}] and 'name = value' lines below it.")
    for text in assignments:
        path, equals, value = text.partition("=")
        names = [name.strip().replace("-", "_") for name in path.split(".")]
        if not equals or len(names) < 2 or not all(names):
            raise UsageError(f"--set {text!r}: give section.name=value, for example optim.lr=1e-3.")
        if names[0] not in sections:
            raise UnknownNameError("section", names[0], sections)
        group = found
        for name in names[:-1]:
            group = group.setdefault(name, {})
            if not isinstance(group, dict):
                raise UsageError(f"--set {text!r}: {name} is a value, no group of settings.")
        group[names[-1]] = _value(value.strip())
    return found


def _read_file(file: str) -> dict[str, Any]:
    try:
        text = Path(file).expanduser().read_text("utf-8")
        values = yaml.safe_load(text) or {} if file.endswith((".yaml", ".yml")) else tomllib.loads(text)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"cannot read the settings file {file!r}: {error}.") from error
    if not isinstance(values, dict):
        raise UsageError(f"the settings file {file!r} holds no sections.")
    return {name: _with_null(value) for name, value in values.items()}


def _value(text: str) -> Any:
    try:
        return _with_null(tomllib.loads(f"value = {text}")["value"])
    except tomllib.TOMLDecodeError:
        return _with_null(text)


def _with_null(value: Any) -> Any:
    """TOML has no word for "nothing": the text null stands for it."""
    if isinstance(value, dict):
        return {name: _with_null(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_with_null(each) for each in value]
    return None if value == "null" else value


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as ``section.group.name`` -> value; lists of groups as their number, and ``list.0.name``."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        elif isinstance(value, list) and value and all(isinstance(each, Mapping) for each in value):
            found[f"{prefix}{name}"] = f"{len(value)} of them"
            for number, each in enumerate(value):
                found |= flat(each, f"{prefix}{name}.{number}.")
        else:
            found[prefix + name] = value
    return found


def _is_beyond(name: str, settings: Mapping[str, Any]) -> bool:
    """Is it of a list, at a place where the list in ``settings`` has ended?"""
    group = re.match(r".*\.\d+\.", name)
    return group is not None and not any(other.startswith(group[0]) for other in settings)


def refuse_changes(stored: Mapping[str, Any], now: Mapping[str, Any], folder: str) -> None:
    """Refuse to resume a run whose settings differ in what decides its result.

    Raises:
        PlanMismatchError: they do; the message holds every difference.
    """
    before, after = flat(stored), flat(now)
    lines = [
        f"  {name}: {before.get(name, 'not set')!r} -> {after.get(name, 'not set')!r}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
        and name not in FREE
        and not (_is_beyond(name, before) or _is_beyond(name, after))
    ]
    if lines:
        raise PlanMismatchError(
            f"{folder} was begun with other settings:\n" + "\n".join(lines) + "\nUse those, write to another folder, "
            "or add --overwrite to start anew. (train.max_steps, and what only concerns logging, checkpoints and "
            "validation, may change.)"
        )

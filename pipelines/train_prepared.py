"""What trainings share that first prepare a folder of their inputs: texts of a SONAR space, or clips of speech."""

from __future__ import annotations

import time
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from lcm_data.errors import UnknownNameError, UsageError
from lcm_models.train.config import Settings
from lcm_models.train.distributed import Place
from lcm_models.train.launch import folder_of
from lcm_models.train.run import Run
from pipelines.train import Job

OPTIM = {"lr": 2e-3, "betas": (0.9, 0.98), "eps": 1e-8, "weight_decay": 0.01, "clip_norm": 1.0}
"""Losses are means over tokens or clips, not sums over the dimensions of a concept."""


@dataclass(frozen=True, kw_only=True)
class PreparedJob(Job):
    """A training from the folder ``data.path``, which the section ``source`` says how to make.

    Attributes:
        source: the section of what is prepared.
        about: the file that a prepared folder has.
    """

    source: ClassVar[str]
    about: ClassVar[str]

    langs: tuple[str, ...] = ()

    def optim_defaults(self) -> dict[str, Any]:
        """See ``Job.optim_defaults``."""
        return dict(OPTIM)

    @property
    def folder(self) -> str:
        """Of the prepared data."""
        given = self.settings.get("data", {}).get("path")
        return folder_of(given if given else f"{self.out}/data")

    def is_prepared(self) -> bool:
        """Whether the folder is there and nothing was said about how to make it."""
        said = any(self._given().values()) or self.settings.get(self.source)
        return Path(self.folder, self.about).is_file() and not said

    def make_ready(self, run: Run) -> None:
        """Prepare the inputs, if need be; by the first of several processes.

        Raises:
            UsageError: there is nothing to validate on, or the folder holds other data.
            InputError: the inputs cannot be read, or hold nothing to train on.
        """
        if not self.is_prepared():
            if Place.from_environment().rank == 0:
                self._prepare()
            while not Path(self.folder, self.about).is_file():
                time.sleep(1)
        if run.train.valid_every and not self._has_held_out():
            raise UsageError(
                f"nothing to validate on: nothing was held out. Set {self.source}.valid_share in another folder, or "
                "train.valid_every=0."
            )
        if run.train.init_from and run.last_checkpoint() is None:
            self._check_beginning(run.train.init_from, run)

    def merged(self) -> Settings:
        """The section ``source`` with what the command line gives.

        Raises:
            UsageError: both name the same.
        """
        given: dict[str, Any] = dict(self.settings.get(self.source, {}))
        for name, values in self._given().items():
            if values and given.get(name):
                raise UsageError(
                    f"--{name.replace('langs', 'lang')} and {self.source}.{name} in the settings: give one of them."
                )
            if values:
                given[name] = values
        return given

    def sized(self, presets: Any) -> dict[str, Any]:
        """The settings of the model on top of those of its preset.

        Raises:
            UnknownNameError: no such preset.
        """
        model = dict(self.settings.get("model", {}))
        preset = model.pop("preset", None)
        preset = self.preset or preset or "mini"
        if preset not in presets:
            raise UnknownNameError("preset", preset, presets)
        return {**presets[preset], **model}

    @abstractmethod
    def _given(self) -> dict[str, Any]:
        """What the command line says of the section ``source``."""

    @abstractmethod
    def _prepare(self) -> None:
        """Make the folder."""

    @abstractmethod
    def _has_held_out(self) -> bool:
        """Whether there is something to validate on."""

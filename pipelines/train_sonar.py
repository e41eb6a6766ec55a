"""``lcm-data train sonar``: a SONAR space from sentence pairs and plain text, on the trainer of the concept models."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from lcm_data.errors import CheckpointError, UnknownNameError, UsageError
from lcm_models.sonar.config import BatchConfig, PrepareConfig, SonarConfig
from lcm_models.sonar.export import export
from lcm_models.sonar.prepare import prepare
from lcm_models.sonar.prepared import ABOUT, open_prepared
from lcm_models.sonar.task import SonarTask, read_notes
from lcm_models.train.config import Settings, TrainConfig, checked
from lcm_models.train.distributed import Place
from lcm_models.train.launch import folder_of
from lcm_models.train.run import Run
from pipelines.train import Job

__all__ = ["SonarJob", "export"]

_ARTEFACTS = ("normalizer", "codebook")
_OPTIM = {"lr": 2e-3, "betas": (0.9, 0.98), "eps": 1e-8, "weight_decay": 0.01, "clip_norm": 1.0}
"""Losses are means over tokens, not sums over the dimensions of a concept."""


@dataclass(frozen=True, kw_only=True)
class SonarJob(Job):
    """A SONAR encoder and decoder from ``pairs`` (tables of translations) and ``text`` (corpora with segments)."""

    sections: ClassVar[tuple[str, ...]] = ("model", "texts", "data", "optim", "train")

    pairs: tuple[str, ...] = ()
    text: tuple[str, ...] = ()
    langs: tuple[str, ...] = ()

    def optim_defaults(self) -> dict[str, Any]:
        """See ``Job.optim_defaults``."""
        return dict(_OPTIM)

    def task_settings(self, run: Run) -> Settings:
        """See ``Job.task_settings``."""
        task = run.task
        assert isinstance(task, SonarTask)
        texts = {} if self._is_prepared() else {"texts": self._texts().model_dump(mode="json")}
        artefacts = {name: getattr(task, name) for name in _ARTEFACTS}
        model = {**task.config.model_dump(mode="json"), **artefacts}
        return {"model": model, **texts, "data": task.batches.model_dump(mode="json")}

    def _task(self, train: TrainConfig) -> SonarTask:
        model = dict(self.settings.get("model", {}))
        own, artefacts = model.pop("preset", None), {name: model.pop(name, None) for name in _ARTEFACTS}
        preset = self.preset or own or "mini"
        if preset not in SonarConfig.presets:
            raise UnknownNameError("preset", preset, SonarConfig.presets)
        merged = {**SonarConfig.presets[preset], **model}
        config = checked(SonarConfig, "model", merged)
        batches = checked(BatchConfig, "data", {**self.settings.get("data", {}), "path": self._folder()})
        if not self._is_prepared():  # checked now, made when training starts
            texts = self._texts()
            planned = texts.vocab_size + len(texts.langs or ())
            task = SonarTask(config, batches, **artefacts, planned_vocab=planned)
        else:
            task = SonarTask(config, batches, **artefacts)
        task.disturbance()
        return task

    def make_ready(self, run: Run) -> None:
        """Prepare the texts, if need be; by the first of several processes.

        Raises:
            UsageError: there is nothing to validate on, or the folder holds other texts.
            InputError: the texts cannot be read, or hold nothing to train on.
        """
        if not self._is_prepared():
            if Place.from_environment().rank == 0:
                prepare(self._texts(), self._folder())
            while not Path(self._folder(), ABOUT).is_file():
                time.sleep(1)
        if run.train.valid_every and not len(open_prepared(self._folder()).valid_N2):
            raise UsageError(
                "nothing to validate on: no pair was held out. Set texts.valid_share in another folder, or "
                "train.valid_every=0."
            )
        if run.train.init_from and run.last_checkpoint() is None:
            self._check_beginning(run.train.init_from, run)

    def _folder(self) -> str:
        """Of the prepared data."""
        given = self.settings.get("data", {}).get("path")
        return folder_of(given if given else f"{self.out}/data")

    def _is_prepared(self) -> bool:
        return Path(self._folder(), ABOUT).is_file() and not (self.pairs or self.text or self.settings.get("texts"))

    def _texts(self) -> PrepareConfig:
        given: dict[str, Any] = dict(self.settings.get("texts", {}))
        for name in ("pairs", "text", "langs"):
            values = getattr(self, name)
            if values and given.get(name):
                raise UsageError(
                    f"--{name.replace('langs', 'lang')} and texts.{name} in the settings: give one of them."
                )
            if values:
                given[name] = values
        return checked(PrepareConfig, "texts", given)

    def _check_beginning(self, folder: str, run: Run) -> None:
        """Refuse weights of other sizes or another vocabulary."""
        task = run.task
        assert isinstance(task, SonarTask)
        notes = read_notes(folder)
        if not Path(task.batches.path, ABOUT).is_file():
            return
        data = open_prepared(task.batches.path)
        if notes["prepared"]["tokenizer_sha256"] != data.about["tokenizer_sha256"] or notes["languages"] != list(
            data.languages
        ):
            raise CheckpointError(
                f"{folder} was trained with another tokenizer or other languages. Prepare the texts with its own "
                "(texts.tokenizer, --lang)."
            )

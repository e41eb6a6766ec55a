"""``lcm-data train sonar``: a SONAR space from sentence pairs and plain text, on the trainer of the concept models."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from lcm_data.errors import CheckpointError
from lcm_models.sonar.config import BatchConfig, PrepareConfig, SonarConfig
from lcm_models.sonar.prepare import prepare
from lcm_models.sonar.prepared import ABOUT, open_prepared
from lcm_models.sonar.task import SonarTask, read_notes
from lcm_models.train.config import Settings, TrainConfig, checked
from lcm_models.train.run import Run
from pipelines.train_prepared import PreparedJob

_ARTEFACTS = ("normalizer", "codebook")


@dataclass(frozen=True, kw_only=True)
class SonarJob(PreparedJob):
    """A SONAR encoder and decoder from ``pairs`` (tables of translations) and ``text`` (corpora with segments)."""

    sections: ClassVar[tuple[str, ...]] = ("model", "texts", "data", "optim", "train")
    source: ClassVar[str] = "texts"
    about: ClassVar[str] = ABOUT

    pairs: tuple[str, ...] = ()
    text: tuple[str, ...] = ()

    def task_settings(self, run: Run) -> Settings:
        """See ``Job.task_settings``."""
        task = run.task
        assert isinstance(task, SonarTask)
        texts = {} if self.is_prepared() else {"texts": self._texts().model_dump(mode="json")}
        artefacts = {name: getattr(task, name) for name in _ARTEFACTS}
        model = {**task.config.model_dump(mode="json"), **artefacts}
        return {"model": model, **texts, "data": task.batches.model_dump(mode="json")}

    def _task(self, train: TrainConfig) -> SonarTask:
        model = self.sized(SonarConfig.presets)
        artefacts = {name: model.pop(name, None) for name in _ARTEFACTS}
        config = checked(SonarConfig, "model", model)
        batches = checked(BatchConfig, "data", {**self.settings.get("data", {}), "path": self.folder})
        if not self.is_prepared():  # checked now, made when training starts
            texts = self._texts()
            planned = texts.vocab_size + len(texts.langs or ())
            task = SonarTask(config, batches, **artefacts, planned_vocab=planned)
        else:
            task = SonarTask(config, batches, **artefacts)
        task.disturbance()
        return task

    def _given(self) -> dict[str, Any]:
        return {"pairs": self.pairs, "text": self.text, "langs": self.langs}

    def _prepare(self) -> None:
        prepare(self._texts(), self.folder)

    def _has_held_out(self) -> bool:
        return len(open_prepared(self.folder).valid_N2) > 0

    def _texts(self) -> PrepareConfig:
        return checked(PrepareConfig, "texts", self.merged())

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

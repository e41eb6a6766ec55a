"""``lcm-data train speech``: a speech encoder for a space of text, taught by the text encoder of that space."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from lcm_data.errors import CheckpointError
from lcm_data.store.files import absolute
from lcm_models.speech.config import ClipsConfig, SpeechBatchConfig, SpeechConfig
from lcm_models.speech.prepare import prepare
from lcm_models.speech.prepared import ABOUT, open_clips
from lcm_models.speech.task import SpeechTask, read_notes
from lcm_models.train.config import Settings, TrainConfig, checked
from lcm_models.train.run import Run
from pipelines.train_prepared import PreparedJob


@dataclass(frozen=True, kw_only=True)
class SpeechJob(PreparedJob):
    """A speech encoder from ``speech`` (tables of clips, corpora with speech) and the text encoder ``teacher``."""

    sections: ClassVar[tuple[str, ...]] = ("model", "clips", "data", "optim", "train")
    source: ClassVar[str] = "clips"
    about: ClassVar[str] = ABOUT

    speech: tuple[str, ...] = ()
    teacher: str | None = None

    def task_settings(self, run: Run) -> Settings:
        """See ``Job.task_settings``."""
        task = run.task
        assert isinstance(task, SpeechTask)
        clips = {} if self.is_prepared() else {"clips": self._clips().model_dump(mode="json")}
        return {
            "model": task.config.model_dump(mode="json"),
            **clips,
            "data": task.batches.model_dump(mode="json"),
        }

    def _task(self, train: TrainConfig) -> SpeechTask:
        config = checked(SpeechConfig, "model", self.sized(SpeechConfig.presets))
        batches = checked(SpeechBatchConfig, "data", {**self.settings.get("data", {}), "path": self.folder})
        if not self.is_prepared():
            self._clips()  # checked now, prepared when training starts
        return SpeechTask(config, batches)

    def _given(self) -> dict[str, Any]:
        return {"speech": self.speech, "teacher": self.teacher, "langs": self.langs}

    def _prepare(self) -> None:
        prepare(self._clips(), self.folder)

    def _has_held_out(self) -> bool:
        return bool(open_clips(self.folder).held_out_N.any())

    def _clips(self) -> ClipsConfig:
        clips = checked(ClipsConfig, "clips", self.merged())
        return clips.model_copy(update={"teacher": absolute(clips.teacher)})

    def _check_beginning(self, folder: str, run: Run) -> None:
        """Refuse weights of other sizes or another teacher."""
        notes = read_notes(folder)
        if Path(self.folder, ABOUT).is_file():
            data = open_clips(self.folder)
            before, now = notes["prepared"]["teacher"], data.about["teacher"]
            if before["encoder_revision"] != now["encoder_revision"]:
                raise CheckpointError(
                    f"{folder} learned from another teacher ({before['space']}, here it is {now['space']}). Begin "
                    "anew, or prepare the clips with that teacher."
                )

"""``lcm-data models export``: what ``train sonar`` or ``train speech`` made, as a folder that the other verbs take."""

from __future__ import annotations

from pathlib import Path

from lcm_data.errors import UsageError
from lcm_models.sonar.export import export as export_sonar
from lcm_models.sonar.task import KIND as SONAR
from lcm_models.speech.export import export as export_speech
from lcm_models.speech.task import KIND as SPEECH
from lcm_models.train.run import read_notes


def export(run: str, folder: str | Path, *, space: str | None = None, dtype: str = "float16") -> Path:
    """Write the model of a run or checkpoint; returns the folder.

    Raises:
        UsageError: no checkpoint, a folder that is not empty, a space without a name or a speech encoder with one.
        CheckpointError: it is another kind of model.
        UnknownNameError: no such dtype.
    """
    notes = read_notes(run, {SONAR: "a SONAR space", SPEECH: "a speech encoder"})
    if notes["kind"] == SPEECH:
        if space is not None:
            own = notes["prepared"]["teacher"]["space"]
            raise UsageError(f"a speech encoder is of the space of its teacher, here {own!r}: leave --space out.")
        return export_speech(run, folder, notes, dtype=dtype)
    if not space:
        raise UsageError("vectors of different trainings never belong together: name the space with --space.")
    return export_sonar(run, folder, space=space, dtype=dtype)

"""Prepared clips: filter banks, target vectors and transcripts, as ``lcm_models.speech.prepare`` writes them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lcm_data.errors import UsageError
from lcm_data.sonar.fingerprint import file_sha256
from lcm_data.sonar.speech_config import NUM_CHANNELS

ABOUT, BANKS = "prepared.json", "banks.float16"
ARRAYS = ("ends", "targets", "letters", "letter_ends", "groups", "held_out")

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class PreparedClips:
    """N clips; arrays are mapped, not read.

    Attributes:
        banks_FC: float16, logarithms of the energies of all clips in 80 channels, one clip after the other.
        ends_N: where each ends in ``banks_FC``.
        targets_ND: float32, what the text encoder makes of what each says.
        letters: uint16, transcripts as numbers from 1 in ``characters``, one after the other; none of a clip whose own
            language the texts lack.
        letter_ends_N: where each ends in ``letters``.
        groups_N: which input and language it is of.
        held_out_N: to validate on.
    """

    folder: Path
    about: dict[str, Any]
    banks_FC: Array
    ends_N: Array
    targets_ND: Array
    letters: Array
    letter_ends_N: Array
    groups_N: Array
    held_out_N: Array

    @property
    def characters(self) -> str:
        """Letters in the order of their numbers, which begin with 1; 0 is the blank of CTC."""
        return str(self.about["characters"])

    @property
    def dim(self) -> int:
        """Width of the target vectors."""
        return int(self.targets_ND.shape[1])

    @property
    def fingerprint(self) -> str:
        """The sha256 of what says which clips and settings it was made of."""
        return file_sha256(self.folder / ABOUT)

    def starts(self) -> Array:
        """Where each clip begins [N]."""
        return np.concatenate([np.zeros(1, np.int64), self.ends_N[:-1]])

    def spelling(self, clip: int) -> Array:
        """The transcript of a clip, empty if there is none."""
        start = 0 if clip == 0 else self.letter_ends_N[clip - 1]
        return np.asarray(self.letters[start : self.letter_ends_N[clip]], np.int64)


def open_clips(folder: str | Path) -> PreparedClips:
    """Open a prepared folder.

    Raises:
        UsageError: it is none.
    """
    path = Path(folder)
    try:
        about = json.loads((path / ABOUT).read_text("utf-8"))
        banks_FC = np.memmap(path / BANKS, np.float16, mode="r").reshape(-1, NUM_CHANNELS)
        arrays = [np.load(path / f"{name}.npy", mmap_mode="r") for name in ARRAYS]
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} holds no prepared clips ({error}): make them with --speech.") from error
    return PreparedClips(path, about, banks_FC, *arrays)

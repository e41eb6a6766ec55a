"""A speech encoder without weights: vectors are the loudness of parts of a clip. A clip that lies above 0.5 kills it.

``ODD_PAUSE`` seconds pass at every call, so that a test can kill a worker at its work.
"""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lcm_data.encode import EncoderOptions, Prepared

DIM = 8


class OddSpeaker:
    def __init__(self, options: EncoderOptions) -> None:
        self.dim, self.busy_seconds, self.num_ooms = DIM, 0.0, 0
        self.provenance = self.describe(options)

    @staticmethod
    def describe(options: EncoderOptions) -> dict[str, str]:
        revision = hashlib.sha256(options.model.encode()).hexdigest()
        return {"encoder_revision": revision, "encoder_backend": "odd", "dim": str(DIM), "space": "odd"}

    def prepare(self, waves: Sequence[npt.NDArray[np.float32]]) -> Prepared:
        lengths = np.array([len(wave) // 320 for wave in waves], np.int32)
        return Prepared(lengths, lengths > 4096, np.zeros(len(waves), np.int32), list(waves))

    def embed(self, prepared: Prepared, rows: Any = None) -> npt.NDArray[np.float32]:
        time.sleep(float(os.environ.get("ODD_PAUSE", "0")))
        waves = [prepared.payload[row] for row in (range(len(prepared)) if rows is None else rows)]
        if any(wave.min() > 0.5 for wave in waves):
            os.kill(os.getpid(), signal.SIGKILL)
        parts = [np.array_split(wave.astype(np.float64), DIM) for wave in waves]
        return np.array([[np.square(part).mean() for part in each] for each in parts], np.float32).reshape(-1, DIM)

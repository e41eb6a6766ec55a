"""Voice activity: the probability of speech in each frame of 32 ms, by silero-vad.

The model is the ONNX file inside the package ``silero-vad`` (MIT, 1.2 MB), which takes many frames in one call. Only
the file is used: importing the package would import torch. What is done with the numbers is in ``spans``.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lcm_data.audio.model import FRAME
from lcm_data.errors import CheckpointError, MissingExtraError

_MODEL = "data/silero_vad_16k_sequence.onnx"
_CONTEXT = 64
"""Samples of the frame before that the model sees with each frame."""
_CALL_FRAMES = 256
"""Frames of one call: 8 s. More is no faster; the numbers are the same to the bit."""
_STATE = (1, 1, 128)


def model_path() -> Path:
    """The file of the model.

    Raises:
        MissingExtraError: silero-vad is not installed.
        CheckpointError: it is, but is too old to hold the model.
    """
    spec = importlib.util.find_spec("silero_vad")
    if spec is None or spec.origin is None:
        raise MissingExtraError("finding speech in recordings", "silero-vad", "audio")
    path = Path(spec.origin).parent / _MODEL
    if not path.is_file():
        raise CheckpointError(
            f"the installed silero-vad {metadata.version('silero-vad')} has no {_MODEL}. Install 6.2.3 or newer: "
            "pip install -U 'lcm-data[audio]'"
        )
    return path


def require_audio() -> None:
    """Refuse early, on the driver, what the workers could not do.

    Raises:
        MissingExtraError: PyAV, onnxruntime or silero-vad is not installed. CheckpointError: as ``model_path``.
    """
    for module, package in (("av", "av"), ("onnxruntime", "onnxruntime")):
        if importlib.util.find_spec(module) is None:
            raise MissingExtraError("reading recordings", package, "audio")
    model_path()


@functools.cache
def vad_fingerprint() -> str:
    """Name, version and content of the model; part of every plan that cuts recordings. Raises as ``model_path``."""
    content = hashlib.sha256(model_path().read_bytes()).hexdigest()
    return f"silero-vad {metadata.version('silero-vad')} sequence {content[:16]}"


class VoiceActivity:
    """The model, loaded; may be used for many tracks, one thread at a time.

    Raises:
        MissingExtraError: onnxruntime or silero-vad is not installed.
        CheckpointError: the model cannot be loaded.
    """

    def __init__(self) -> None:
        path = model_path()
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingExtraError("finding speech in recordings", "onnxruntime", "audio") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise CheckpointError(f"{path} cannot be loaded: {error}. Install silero-vad anew.") from error

    def track(self) -> Track:
        """A new track, which has seen nothing yet."""
        return Track(self._session)


class Track:
    """The frames of one track, fed piece by piece; memory grows by 8 bytes a frame, 0.9 MB an hour.

    Args:
        session: of the model.
    """

    def __init__(self, session: Any) -> None:
        self._session = session
        self._hidden = self._cell = np.zeros(_STATE, np.float32)
        self._context = np.zeros(_CONTEXT, np.float32)
        self._pending: list[npt.NDArray[np.float32]] = []
        self._pending_size = 0
        self._probs: list[npt.NDArray[np.float32]] = []
        self._energy: list[npt.NDArray[np.float32]] = []
        self.num_samples = 0

    def push(self, x_N: npt.NDArray[np.float32]) -> None:
        """More samples at 16 kHz."""
        self.num_samples += len(x_N)
        self._pending.append(x_N)
        self._pending_size += len(x_N)
        if self._pending_size >= _CALL_FRAMES * FRAME:
            x_N = np.concatenate(self._pending)
            step = _CALL_FRAMES * FRAME
            whole = len(x_N) // step * step
            for start in range(0, whole, step):
                self._run(x_N[start : start + step].reshape(-1, FRAME))
            self._pending, self._pending_size = [x_N[whole:]], len(x_N) - whole

    def end(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Probability of speech and mean square of each frame, float32 [F]; the last frame is filled with zeros."""
        if self._pending_size:
            x_N = np.zeros(-(-self._pending_size // FRAME) * FRAME, np.float32)
            x_N[: self._pending_size] = np.concatenate(self._pending)
            self._run(x_N.reshape(-1, FRAME))
            self._pending, self._pending_size = [], 0
        if not self._probs:
            return np.zeros(0, np.float32), np.zeros(0, np.float32)
        return np.concatenate(self._probs), np.concatenate(self._energy)

    def _run(self, x_FN: npt.NDArray[np.float32]) -> None:
        contexts = np.concatenate([self._context[None], x_FN[:-1, -_CONTEXT:]])
        feed = {"input": np.concatenate([contexts, x_FN], axis=1), "h": self._hidden, "c": self._cell}
        probs, self._hidden, self._cell = self._session.run(["speech_probs", "hn", "cn"], feed)
        self._context = x_FN[-1, -_CONTEXT:].copy()
        self._probs.append(np.asarray(probs, np.float32).reshape(-1))
        with np.errstate(over="ignore", invalid="ignore"):
            self._energy.append(np.einsum("fn,fn->f", x_FN, x_FN) / np.float32(FRAME))

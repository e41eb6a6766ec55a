"""An encoder without a network whose sentences misbehave on request: ``--backend oddencoder:OddEncoder``.

A sentence that contains one of these words gets what it asks for. The model name stands for the weights; written as
``name@space`` it names the space, too.

    RAISE, NAN, INF, ZERO   an exception; a vector that is not finite, or is zero
    HUGE, TINY, FAINT       finite as float32, but infinite, zero, or a few steps from zero as float16
    VAST                    finite, but its square is not
    KILL, KILLPREP          the process dies in ``embed`` or ``prepare``
    UNKNOWN                 a token that the vocabulary does not know
    BADTOKENS               an exception in ``prepare``
    LOST                    from here on everything fails, as on a lost GPU, until ODD_FLAGS/back exists
    ODD_PAUSE               seconds slept in every call of ``embed``
"""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lcm_data.encode import EncoderOptions, Prepared
from lcm_data.errors import UnknownNameError

DIM = 16
LANGUAGES = ("eng_Latn", "fra_Latn", "jpn_Jpan", "deu_Latn")
_VALUES = {"NAN": np.nan, "INF": np.inf, "ZERO": 0.0, "HUGE": 1e6, "TINY": 1e-9, "FAINT": 1e-6, "VAST": 1e30}


class OddEncoder:
    def __init__(self, options: EncoderOptions) -> None:
        self.dim, self.busy_seconds, self.num_ooms = DIM, 0.0, 0
        self.provenance = self.describe(options)
        self._lost = False

    @staticmethod
    def describe(options: EncoderOptions) -> dict[str, str]:
        revision = hashlib.sha256(options.model.encode()).hexdigest()
        described = {"encoder_revision": revision, "encoder_backend": "odd", "dim": str(DIM), "trained": "false"}
        space = options.model.partition("@")[2]
        return {**described, "space": space} if space else described

    def prepare(self, texts: Sequence[str], lang: str) -> Prepared:
        if lang not in LANGUAGES:
            raise UnknownNameError("language", lang, LANGUAGES)
        for text in texts:
            if "KILLPREP" in text:
                os.kill(os.getpid(), signal.SIGKILL)
            if "BADTOKENS" in text:
                raise ValueError("these cannot be tokenised")
        lengths = np.array([len(text.split()) + 2 for text in texts], np.int32)
        num_unknown = np.array([text.count("UNKNOWN") for text in texts], np.int32)
        return Prepared(lengths, lengths > 60, num_unknown, list(texts))

    def embed(self, prepared: Prepared, rows: Any = None) -> np.ndarray[Any, np.dtype[np.float32]]:
        time.sleep(float(os.environ.get("ODD_PAUSE", "0")))
        texts = [prepared.payload[i] for i in (range(len(prepared)) if rows is None else rows)]
        if any("LOST" in text for text in texts) and not Path(os.environ["ODD_FLAGS"], "back").exists():
            self._lost = True
        if self._lost:
            raise RuntimeError("the device is gone")
        return np.array([self._vector(text) for text in texts], np.float32).reshape(-1, DIM)

    def _vector(self, text: str) -> np.ndarray[Any, np.dtype[np.float32]]:
        if "KILL" in text:
            os.kill(os.getpid(), signal.SIGKILL)
        if "RAISE" in text:
            raise ValueError("this sentence cannot be encoded")
        for word, value in _VALUES.items():
            if word in text:
                return np.full(DIM, value, np.float32)
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
        return np.random.default_rng(seed).standard_normal(DIM).astype(np.float32) * 0.1


class ShortEncoder(OddEncoder):
    """Answers for the first sentence alone, as a plug-in may that forgets it is given many; the model says in what."""

    def __init__(self, options: EncoderOptions) -> None:
        super().__init__(options)
        self._short = options.model

    def prepare(self, texts: Sequence[str], lang: str) -> Prepared:
        prepared = super().prepare(texts, lang)
        return replace(prepared, num_unknown=prepared.num_unknown[:1]) if self._short == "one-count" else prepared

    def embed(self, prepared: Prepared, rows: Any = None) -> np.ndarray[Any, np.dtype[np.float32]]:
        vectors = super().embed(prepared, rows)
        return {"one-vector": vectors[:1], "one-number": vectors[:, :1]}.get(self._short, vectors)

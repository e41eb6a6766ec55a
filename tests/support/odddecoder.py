"""A decoder for ``OddEncoder``'s vectors that misbehaves on request: ``--backend odddecoder:OddDecoder``.

Every vector gets words of its own. The vectors of these sentences get something else; the model name stands for the
weights, and ``ODD_PAUSE`` is slept for every vector.
"""

from __future__ import annotations

import hashlib
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
from oddencoder import DIM, OddEncoder

from lcm_data.decode import Decoded, DecoderOptions
from lcm_data.encode import EncoderOptions
from lcm_data.errors import UnknownNameError

KILLS = "The decoder ends its process here."
RAISES = "The decoder raises here."
NO_SCORE = "The decoder has no score here."
SILENT = "The decoder says nothing here."
LOST = "The decoder loses its device here, until there is a file named back in ODD_FLAGS."
LANGUAGES = ("eng_Latn", "fra_Latn", "deu_Latn")


def vector_of(sentence: str) -> Any:
    """What ``OddEncoder`` makes of a sentence, as it is stored."""
    encoder = OddEncoder(EncoderOptions(model="one"))
    return encoder.embed(encoder.prepare([sentence], "eng_Latn"))[0].astype(np.float16)


_SPECIAL = {vector_of(text).tobytes(): text for text in (KILLS, RAISES, NO_SCORE, SILENT, LOST)}


class OddDecoder:
    def __init__(self, options: DecoderOptions) -> None:
        self.dim, self.busy_seconds, self.num_ooms = DIM, 0.0, 0
        self.provenance = self.describe(options)
        self.options = options
        self.decoded: list[bytes] = []
        self._lost = False

    @staticmethod
    def describe(options: DecoderOptions) -> dict[str, str]:
        revision = hashlib.sha256(options.model.encode()).hexdigest()
        odd = {"decoder": options.model, "decoder_revision": revision, "decoder_backend": "odd", "dim": str(DIM)}
        return {**odd, **options.describe()}

    def decode(self, emb: Any, lang: str, keys: Any = None) -> Decoded:
        if lang not in LANGUAGES:
            raise UnknownNameError("language", lang, LANGUAGES)
        keys = np.arange(len(emb)) if keys is None else keys
        said = [self._say(vector, lang, key) for vector, key in zip(emb, keys, strict=True)]
        texts, scores = [text for text, _ in said], [score for _, score in said]
        num_tokens = np.array([len(text.split()) + 1 for text in texts], np.int32)
        return Decoded(texts, np.array(scores, np.float32), num_tokens, num_tokens > 3)

    def _say(self, vector: Any, lang: str, key: int) -> tuple[str, float]:
        time.sleep(float(os.environ.get("ODD_PAUSE", "0")))
        content = vector.astype(np.float16).tobytes()
        self.decoded.append(content)
        special = _SPECIAL.get(content, "")
        if special == KILLS:
            os.kill(os.getpid(), signal.SIGKILL)
        self._lost |= special == LOST
        if special == RAISES:
            raise ValueError("this vector cannot be said")
        if self._lost and not Path(os.environ["ODD_FLAGS"], "back").exists():
            raise RuntimeError("the device is gone")
        if special in (NO_SCORE, SILENT):
            return "", np.nan if special == NO_SCORE else -0.5
        chance = (key, self.options.seed) if self.options.mode == "sample" else ""
        number = int(hashlib.sha256(content + repr(chance).encode()).hexdigest()[:6], 16)
        return f"{lang[:3]} {number}" + " more" * (number % 3), -1.0 - number % 7

"""A segmenter that fails on request: ``--segmenter oddsegmenter:OddSegmenter``. Words: RAISES, KILLS.

ODD_PAUSE: seconds slept in every call.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from typing import Any

from lcm_data.segment.rules import RuleSegmenter


class OddSegmenter(RuleSegmenter):
    fingerprint = "odd-1"

    def __init__(self, model: str | None = None) -> None:
        super().__init__()

    def segment(self, texts: Sequence[str], lang: str) -> list[Any]:
        time.sleep(float(os.environ.get("ODD_PAUSE", "0")))
        for text in texts:
            if "KILLS" in text:
                os.kill(os.getpid(), signal.SIGKILL)
            if "RAISES" in text:
                raise ValueError("cannot be cut")
        return super().segment(texts, lang)

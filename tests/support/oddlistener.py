"""A segmenter of texts whose import makes recordings behave oddly by their names, as a decoder with a defect would.

KILL ends the worker process; SLOW takes a while, so that a test can kill it.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from lcm_data.segment.rules import RuleSegmenter
from lcm_data.workers import segment as worker

_real = worker.segment_recording


def _odd(uri: str, *args: Any, **kwargs: Any) -> Any:
    if "KILL" in uri:
        os.kill(os.getpid(), signal.SIGKILL)
    if "SLOW" in uri:
        time.sleep(float(os.environ.get("ODD_PAUSE", "0")))
    return _real(uri, *args, **kwargs)


worker.segment_recording = _odd


class OddListener(RuleSegmenter):
    """Cuts texts as ``rules`` does."""

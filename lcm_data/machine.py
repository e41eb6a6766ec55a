"""What this process has used of its machine."""

from __future__ import annotations

import contextlib
import resource
import sys


def peak_memory() -> int:
    """The most bytes of memory this process has held at once."""
    # Not ru_maxrss where it can be helped: on Linux a process inherits that from the one that started it.
    with contextlib.suppress(OSError), open("/proc/self/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024

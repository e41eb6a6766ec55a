"""Stopping a run politely: the first SIGINT, SIGTERM or SIGUSR1 lets running units commit, a second one ends it now."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from lcm_data.errors import InterruptedRunError

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class StopSignal:
    """Counts stop signals while it is entered; does nothing outside the main thread, where Python allows no handler."""

    def __init__(self) -> None:
        self.number: int | None = None
        self.count = 0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number, self.count = number, self.count + 1

    def raise_if_set(self, done: int, total: int) -> None:
        """Raise if a signal arrived."""
        if self.number is not None and done < total:
            name = signal.Signals(self.number).name
            number = signal.SIGTERM if self.number == signal.SIGUSR1 else self.number
            raise InterruptedRunError(
                f"stopped by {name} with {done} of {total} units committed. Run the same command again to resume.",
                number,
            )

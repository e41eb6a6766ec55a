"""Items made ahead of their use by a thread, in order, with its errors; what they are is the caller's business."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Generator, Iterator
from typing import TypeVar

T = TypeVar("T")


def ahead(items: Iterator[T], num: int) -> Generator[T, None, None]:
    """The items, up to ``num`` of them made ahead by a thread; its errors are raised here."""
    if num == 0:
        yield from items
        return
    made: queue.Queue[T | BaseException | None] = queue.Queue(num)
    stopped = threading.Event()

    def put(item: T | BaseException | None) -> None:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                made.put(item, timeout=0.1)
                break

    def work() -> None:
        try:
            for item in items:
                put(item)
                if stopped.is_set():
                    return
            put(None)
        except BaseException as error:  # raised in the thread of the trainer
            put(error)

    thread = threading.Thread(target=work, name="concept-loader", daemon=True)
    thread.start()
    try:
        while (item := made.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        thread.join()

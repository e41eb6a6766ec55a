"""What a local worker process runs: ``main`` with the file descriptor of an inherited connection.

The parent sends the pickled worker, then tasks; the child answers ``("ready", None)`` or ``("broken", text)``, then
outcomes. When the parent dies its end of the connection closes and the child ends at once.
"""

from __future__ import annotations

import os
import pickle
import signal
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection

from lcm_data.errors import LcmDataError
from lcm_data.workers.base import STEPS, Harness, Task


def main(descriptor: int) -> None:
    """Serve tasks until the parent closes the connection."""
    # Stop signals are the driver's, which lets running units commit; batch systems send them to every process.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    connection = Connection(descriptor)
    sending = threading.Lock()

    def send(kind: str, value: object) -> None:
        try:
            with sending:
                connection.send((kind, value))
        except OSError:  # the parent is gone
            os._exit(1)

    def do(task: Task) -> None:
        send("outcome", harness.run(task))

    try:
        received = connection.recv_bytes()
    except (EOFError, OSError):
        os._exit(1)
    try:
        harness = Harness(pickle.loads(received))  # noqa: S301 - from our parent
        harness.setup()
    except LcmDataError as error:
        send("broken", error)
        return
    except Exception:
        send("broken", LcmDataError(f"a worker could not start:\n{traceback.format_exc(limit=-6)}"))
        return
    send("ready", None)
    pool = ThreadPoolExecutor(len(STEPS) + 1)
    try:
        while (task := connection.recv()) is not None:
            pool.submit(do, task)
    except (EOFError, OSError):  # a reset, if the parent died before it had read an outcome
        os._exit(1)
    pool.shutdown()

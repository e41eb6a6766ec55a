"""Entry point of a local worker process: ``python -m lcm_data.workers.process FD`` with an inherited connection.

The parent sends the pickled worker, then tasks; the child answers ``("ready", None)`` or ``("broken", text)``, then
outcomes. When the parent dies its end of the connection closes and the child ends at once.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection

from lcm_data.errors import LcmDataError
from lcm_data.workers.base import STEPS, Harness, Task


def main(descriptor: int) -> None:
    """Serve tasks until the parent closes the connection."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's: it lets running units commit
    connection = Connection(descriptor)
    sending = threading.Lock()

    def send(kind: str, value: object) -> None:
        with sending:
            connection.send((kind, value))

    def do(task: Task) -> None:
        try:
            send("outcome", harness.run(task))
        except OSError:
            os._exit(1)

    try:
        harness = Harness(connection.recv())
        harness.setup()
    except EOFError:
        os._exit(1)
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
    except EOFError:
        os._exit(1)
    pool.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]))

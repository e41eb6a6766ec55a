"""The command ``lcm-data``: one verb a job. Nothing heavy is imported until a verb runs.

``main`` is the entry point; the verbs that make things are in ``make``, those that look at them in ``look``.
"""

from __future__ import annotations

import os
import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line; our own errors end it with one message and their exit code."""
    from lcm_data.cli.app import app
    from lcm_data.errors import LcmDataError

    try:
        app(prog_name="lcm-data")
    except LcmDataError as error:
        if os.environ.get("LCM_DATA_DEBUG"):
            raise
        print(f"lcm-data: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    finally:
        _flush()


def _flush() -> None:
    """Write out what is left, unless the reader has gone: at its own exit, Python would complain about that."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

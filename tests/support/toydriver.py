"""A driver process: ``python toydriver.py ROOT TOY_JSON OPTIONS_JSON`` makes a toy stage as a command would.

Prints the digest on success; an error of ours becomes one block on stderr and its exit code.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys

from toystage import Toy, toy_stage

from lcm_data.errors import LcmDataError
from lcm_data.runner import RunOptions
from pipelines.stage import run_stage


def main(root: str, toy: str, options: str) -> int:
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    given = json.loads(options)
    overwrite = given.pop("overwrite", False)
    try:
        # Ray prints what happens to its nodes to stdout, which is for the result.
        with contextlib.redirect_stdout(sys.stderr):
            report = run_stage(toy_stage(root, Toy(**json.loads(toy))), RunOptions(**given), overwrite=overwrite)
    except LcmDataError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    print(report.manifest.digest)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

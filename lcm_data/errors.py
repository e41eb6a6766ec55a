"""Every exception lcm-data raises on purpose, and the exit code each one ends a command with.

    LcmDataError                   1  anything this package reports itself
    +-- UsageError                 2  an argument, option or config value is wrong (also a ValueError)
    |   +-- UnknownNameError       2  a name that is not in one of our tables
    |   +-- MissingExtraError      2  an optional dependency is not installed
    +-- InputError                 2  input files cannot be found, listed or understood (also a ValueError)
    +-- CheckpointError            2  model weights or a codebook are missing, truncated or of another kind
    +-- CorpusBusyError            1  another run holds the lock of this stage
    +-- StorageError               3  reading or writing failed (disk full, read-only, network); a rerun resumes
    +-- UnitsFailedError           3  the run finished but some units failed; a rerun resumes
    +-- PlanMismatchError          4  input, config or model differ from what the existing output was made with
    |   +-- SpaceError             4  vectors of two embedding spaces would be mixed
    +-- VerificationError          5  what is on disk is not what the commit records say
    +-- RejectRateError            5  more rows were rejected than allowed
    +-- QualityError               5  a figure is beyond the limit given for it
    +-- InterruptedRunError  130/143  SIGINT or SIGTERM: running units were committed, a rerun resumes

Messages say what was given, what is allowed and what to do next. Rows that cannot be processed are not
exceptions: they become rejects (see ``lcm_data.documents``).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class LcmDataError(Exception):
    """Base of all errors raised on purpose; the command line prints its text without a traceback."""

    exit_code = 1

    def __reduce__(self) -> tuple[Any, ...]:
        # Errors travel from workers to the driver; the subclasses do not all take the message as their argument.
        return _restore, (type(self), self.args, self.__dict__)


def _restore(kind: type[LcmDataError], args: tuple[Any, ...], state: dict[str, Any]) -> LcmDataError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error


class UsageError(LcmDataError, ValueError):
    """An argument, option or config value is wrong."""

    exit_code = 2


class UnknownNameError(UsageError):
    """A name that is not in one of our tables; the message lists the known ones and the nearest."""

    def __init__(self, kind: str, given: str, known: Iterable[str]) -> None:
        names = sorted(known)
        near = difflib.get_close_matches(given, names, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        listed = ", ".join(names[:30]) + (f", … ({len(names)} in all)" if len(names) > 30 else "")
        super().__init__(f"unknown {kind} {given!r}.{hint} Known: {listed}.")


class MissingExtraError(UsageError):
    """An optional dependency is not installed."""

    def __init__(self, feature: str, package: str, extra: str) -> None:
        super().__init__(
            f"{feature} needs the package {package!r}, which is not installed. "
            f"Install it with: pip install 'lcm-data[{extra}]'"
        )


class InputError(LcmDataError, ValueError):
    """Input files cannot be found, listed or understood."""

    exit_code = 2


class CheckpointError(LcmDataError):
    """Model weights or a codebook are missing, truncated or of another kind."""

    exit_code = 2


class CorpusBusyError(LcmDataError):
    """Another run holds the lock of this stage."""


class StorageError(LcmDataError):
    """Reading or writing failed (disk full, read-only, network); what is committed stays, a rerun resumes."""

    exit_code = 3


class UnitsFailedError(LcmDataError):
    """The run finished but some units failed; a rerun resumes with them."""

    exit_code = 3


class PlanMismatchError(LcmDataError):
    """Input, config or model differ from what the existing output was made with."""

    exit_code = 4


class SpaceError(PlanMismatchError):
    """Vectors of two embedding spaces would be mixed (see ``lcm_data.space``)."""


class VerificationError(LcmDataError):
    """What is on disk is not what the commit records say."""

    exit_code = 5


class RejectRateError(LcmDataError):
    """More rows were rejected than allowed."""

    exit_code = 5


class QualityError(LcmDataError):
    """A figure is beyond the limit given for it; the report with all of them was written."""

    exit_code = 5


class InterruptedRunError(LcmDataError):
    """The run was asked to stop by a signal; running units were committed and a rerun resumes."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number

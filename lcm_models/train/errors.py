"""What ends a training run besides the errors of ``lcm_data.errors``: a loss gone wrong, a process gone.

LcmDataError
+-- DivergedError    5  loss or gradients are not finite; the last checkpoint is from before
+-- ProcessLostError 3  a process of the run ended or does not answer; a rerun resumes
"""

from __future__ import annotations

from lcm_data.errors import LcmDataError


class DivergedError(LcmDataError):
    """Loss or gradients are not finite more often than allowed; the last checkpoint is from before."""

    exit_code = 5


class ProcessLostError(LcmDataError):
    """A process of the run ended or does not answer; the last checkpoint stays and a rerun resumes."""

    exit_code = 3

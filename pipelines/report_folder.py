"""The folder of a report, ``report.json`` and pictures, for the verbs that measure."""

from __future__ import annotations

import importlib.util
import io
import json
from collections.abc import Mapping
from typing import Any

from lcm_data.errors import MissingExtraError, UsageError
from lcm_data.store.files import Files, open_files

REPORT = "report.json"


def new_report(folder: str, *, overwrite: bool, plots: bool, decodes: bool) -> Files:
    """The folder of a report to be made; whatever is in the way is said before the work, not after it.

    Raises:
        UsageError: it has a report.
        MissingExtraError: sacrebleu or matplotlib is wanted and not installed.
    """
    out = open_files(folder)
    if out.size(REPORT) is not None and not overwrite:
        raise UsageError(f"{out.root} has a {REPORT}. Name another folder, or add --overwrite to replace it.")
    if plots:
        _needs("matplotlib", "drawing plots (--no-plots leaves them out)")
    if decodes:
        _needs("sacrebleu", "scoring decoded text")
    return out


def write_report(out: Files, report: dict[str, Any], figures: Mapping[str, Any]) -> None:
    """Write the matplotlib ``figures`` by name, and the report last: it says that the others are there."""
    for name, figure in figures.items():
        image = io.BytesIO()
        figure.savefig(image, format="png", dpi=150)
        out.write(f"{name}.png", image.getvalue())
    text = json.dumps(report, ensure_ascii=False, indent=1, allow_nan=False)
    out.write(REPORT, text.encode() + b"\n")


def _needs(package: str, feature: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise MissingExtraError(feature, package, "quality")

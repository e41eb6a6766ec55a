"""The plan of a stage: which units there are, from which input and config; written once, before the first unit.

A plan says nothing about workers, so any number of them gives the same output. A rerun compares its own input and
config with the stored plan and refuses with a diff when they differ.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson

from lcm_data.errors import PlanMismatchError, VerificationError
from lcm_data.schema import SCHEMA_VERSION
from lcm_data.store.files import Files

PLAN_PATH = "_lcm/plan.json"
CONFIG_PATH = "_lcm/config.yaml"
_SHOWN = 8


@dataclass(frozen=True)
class Unit:
    """What one worker does at once. ``spec`` is the stage's own description of it: small, JSON, no rows."""

    id: int
    rows: int
    spec: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """Units of a stage with everything that determines their output.

    ``config`` holds only settings that change the result; ``inputs`` maps each input to a fingerprint. ``schema`` is
    the layout version of the output.
    """

    stage: str
    config: dict[str, Any]
    inputs: dict[str, str]
    units: tuple[Unit, ...]
    notes: dict[str, Any] = field(default_factory=dict)
    schema: int = SCHEMA_VERSION

    @property
    def hash(self) -> str:
        """SHA-256 of what determines the output: config, inputs and the layout version."""
        canonical = orjson.dumps(
            {"stage": self.stage, "schema": self.schema, "config": self.config, "inputs": self.inputs},
            option=orjson.OPT_SORT_KEYS,
        )
        return hashlib.sha256(canonical).hexdigest()

    @property
    def rows(self) -> int:
        """Rows of all units."""
        return sum(unit.rows for unit in self.units)


def save_plan(files: Files, plan: Plan) -> None:
    """Write the plan; it must exist before any unit runs."""
    content = {"hash": plan.hash, **asdict(plan)}
    files.write(PLAN_PATH, orjson.dumps({**content, "checksum": _checksum(content)}))


def load_plan(files: Files) -> Plan | None:
    """The plan of an existing stage, None if the stage has not begun.

    It may be of an older layout: to look at the stage and read it, not to go on with it (``check_same``).

    Raises:
        PlanMismatchError: the stage was written by a newer version of lcm-data.
        VerificationError: the file is damaged.
    """
    where = f"{files.root}/{PLAN_PATH}"
    try:
        data = dict(json.loads(files.read(PLAN_PATH)))
        version, checksum = data["schema"], data.pop("checksum", "")
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise VerificationError(
            f"{where} is damaged ({error}). Restore it, or use --overwrite to start anew."
        ) from error
    refuse_newer(version, files.root)
    if checksum != _checksum(data):
        raise VerificationError(f"{where} was edited or damaged. Restore it, or use --overwrite to start anew.")
    units = tuple(Unit(**unit) for unit in data["units"])
    return Plan(data["stage"], data["config"], data["inputs"], units, data["notes"], version)


def refuse_newer(version: Any, where: str) -> None:
    """Refuse a layout that this version of lcm-data does not know.

    Raises:
        PlanMismatchError: it is newer, or no layout version.
    """
    if version not in range(1, SCHEMA_VERSION + 1):
        raise PlanMismatchError(
            f"{where} has layout version {version!r}, this version of lcm-data reads 1 to {SCHEMA_VERSION}. Use the "
            "lcm-data that wrote it, or a newer one."
        )


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()


def check_same(plan: Plan, config: Mapping[str, Any], inputs: Mapping[str, str], where: str) -> None:
    """Refuse to continue ``plan`` with another config or other inputs, or in another layout.

    Raises:
        PlanMismatchError: with one line per difference.
    """
    if plan.schema != SCHEMA_VERSION:
        raise PlanMismatchError(
            f"{where} has layout version {plan.schema}, this version of lcm-data writes {SCHEMA_VERSION}, and a stage "
            "has one layout. What it holds can be read as it is. Add --overwrite to make this stage anew, write to a "
            "new folder, or finish it with the lcm-data that began it."
        )
    lines = [f"  config {line}" for line in _diff(_flatten(plan.config), _flatten(config))]
    lines += [f"  input  {line}" for line in _diff(plan.inputs, inputs)]
    if lines:
        raise PlanMismatchError(
            f"{where} was made with other settings or inputs:\n" + "\n".join(_shorten(lines)) + "\n"
            "Run with the settings on the left, write to a new folder, or add --overwrite to start this stage anew."
        )


def _diff(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    lines = [f"{key}: {old[key]!r} -> {new[key]!r}" for key in old if key in new and old[key] != new[key]]
    lines += [f"removed: {key}" for key in old if key not in new]
    return lines + [f"added: {key}" for key in new if key not in old]


def _flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _shorten(lines: Sequence[str]) -> list[str]:
    return [*lines[:_SHOWN], f"  … and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else [*lines]

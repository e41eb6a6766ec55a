"""The settings every verb has, and how a settings file is read: defaults < file < environment < flags."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator

from lcm_data.errors import UnknownNameError, UsageError
from lcm_data.languages import parse_language
from lcm_data.pool import POOLS
from lcm_data.runner import RunOptions

C = TypeVar("C", bound=BaseModel)


Language = Annotated[str, AfterValidator(parse_language)]
"""A language by any of its names; the FLORES-200 code afterwards."""

Languages = list[Language] | None

Dtype = Literal["float32", "bfloat16", "float16"]


class VerbConfig(BaseModel):
    """Where the corpus is and how to run; none of it changes what is produced."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    corpus: str = Field(description="Corpus folder or fsspec URL.")
    executor: str | None = Field(None, description="local or ray; by default local for one worker, ray for more.")
    workers: int = Field(1, ge=1, description="Worker processes.")
    threads: int = Field(0, ge=0, description="CPU threads of a worker; 0 shares the cores out.")
    gpus_per_worker: float = Field(0.0, ge=0, description="GPUs of a worker, fractions allowed.")
    ray_address: str | None = Field(None, description="Ray cluster to join: auto, host:port or ray://host:port.")
    unit_timeout: float = Field(0.0, ge=0, description="Seconds a worker may hold a unit; 0 for no limit.")
    max_reject_rate: float = Field(0.1, ge=0, le=1, description="Share of rejected rows that aborts the run.")
    overwrite: bool = Field(False, description="Delete what the stage holds and start anew.")

    @field_validator("executor")
    @classmethod
    def _known_executor(cls, name: str | None) -> str | None:
        """Refused here, before a stage begins."""
        if name is not None and name not in POOLS and ":" not in name:
            raise UnknownNameError("executor", name, POOLS)
        return name

    @property
    def run_options(self) -> RunOptions:
        """The part the runner needs."""
        names = RunOptions.__dataclass_fields__
        return RunOptions(**{name: getattr(self, name) for name in names})


def load_config(kind: type[C], file: str | None, given: dict[str, Any]) -> C:
    """Build a config from a YAML (or JSON) file and the values ``given`` on top of it.

    Raises:
        UsageError: the file cannot be read, or a value does not fit; unknown keys name the nearest known one.
    """
    values = {**(_read_file(file) if file else {}), **given}
    for key in values:
        if key not in kind.model_fields:
            raise UnknownNameError(f"setting of {file or 'this command'}", key, kind.model_fields)
    try:
        return kind(**values)
    except ValidationError as error:
        raise UsageError("; ".join(map(_problem, error.errors())) + ". See --help for the allowed values.") from error


def _problem(item: Mapping[str, Any]) -> str:
    """One line for one value that does not fit."""
    name = ".".join(map(str, item["loc"]))
    if item["type"] == "missing":
        return f"{name}: is required and was not given"
    own = item.get("ctx", {}).get("error")  # what a validator of ours raised says it all
    if own:
        return f"{name}: {own}".removeprefix(": ").rstrip(".")  # a validator of several settings names them itself
    return f"{name}: {item['msg']}, got {item['input']!r}"


def _read_file(file: str) -> dict[str, Any]:
    try:
        values = yaml.safe_load(Path(file).read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"cannot read the settings file {file!r}: {error}.") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UsageError(f"the settings file {file!r} must hold 'name: value' lines, got {type(values).__name__}.")
    return {str(key).replace("-", "_"): value for key, value in values.items()}

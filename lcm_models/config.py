"""What the configs of all variants share, and how one is made from a preset and settings.

Presets and the settings of one variant stand in its file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lcm_data.errors import UnknownNameError, UsageError

C = TypeVar("C", bound="ModelConfig")


class Frozen(BaseModel):
    """A group of settings: never changed after it is made, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class ModelConfig(Frozen):
    """Settings every variant has; the defaults are those of the paper's 1.6B models (§2.4.1).

    ``presets`` maps a name to the settings that differ from the defaults.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    concept_dim: int = Field(1024, ge=1, description="Width of the concepts; SONAR's is 1024.")
    width: int = Field(2048, ge=2, description="Model width.")
    num_heads: int = Field(16, ge=1, description="Attention heads.")
    feed_forward: Literal["swiglu", "plain"] = Field(
        "swiglu",
        description="swiglu: 3 matrices, inner width 8/3 of the model's; plain: 2 matrices, inner width 4 times.",
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="Dropout on what each sublayer adds.")
    max_len: int = Field(4096, ge=1, description="Concepts of a document at most.")
    attention: Literal["sdpa", "flex"] = Field(
        "sdpa", description="Training attention: sdpa with a dense mask, or FlexAttention (compile the model with it)."
    )
    activation_checkpointing: bool = Field(False, description="Recompute layers in the backward pass to save memory.")
    official_compat: bool = Field(False, description="Drop contexts and scale SNR weights as the official code does.")

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        if self.width % (2 * self.num_heads):
            raise ValueError(f"width {self.width} must be a multiple of twice num_heads ({self.num_heads})")
        return self


def make_config(kind: type[C], preset: str | None = None, settings: Mapping[str, Any] | None = None) -> C:
    """The config of a preset with ``settings`` on top; nested groups are mappings and merge key by key.

    Raises:
        UnknownNameError: no such preset or setting; names the nearest.
        UsageError: a value does not fit.
    """
    if preset is not None and preset not in kind.presets:
        raise UnknownNameError("preset", preset, kind.presets)
    values = merge_settings(kind.presets[preset] if preset else {}, settings or {})
    try:
        return kind(**values)
    except ValidationError as error:
        raise what_is_wrong(kind, error) from error


def merge_settings(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    """``upper`` on top of ``lower``; nested groups key by key."""
    merged = dict(lower)
    for key, value in upper.items():
        below = merged.get(key)
        merged[key] = (
            merge_settings(below, value) if isinstance(value, Mapping) and isinstance(below, Mapping) else value
        )
    return merged


def what_is_wrong(kind: type[BaseModel], error: ValidationError, section: str = "") -> UsageError:
    """What to tell someone whose settings are no ``kind``: an unknown name, with the nearest; or all problems."""
    items = error.errors()
    for item in items:
        if item["type"] == "extra_forbidden":
            path, name = item["loc"][:-1], str(item["loc"][-1])
            group = ".".join(each for each in (section, *path) if isinstance(each, str))
            what = f"setting of [{group}]" if section else "setting"
            return UnknownNameError(what, name, _group(kind, path).model_fields)
    # A list whose elements are wrong is wrong itself to pydantic: too short.
    own = [item for item in items if not any(_is_inside(other["loc"], item["loc"]) for other in items)]
    return UsageError("; ".join(_problem(section, dict(item)) for item in own) + ".")


def _is_inside(path: tuple[Any, ...], outer: tuple[Any, ...]) -> bool:
    return len(path) > len(outer) and path[: len(outer)] == outer


def _group(kind: type[BaseModel], path: tuple[int | str, ...]) -> type[BaseModel]:
    """The class of the nested group at ``path``."""
    for name in path:
        annotation = kind.model_fields[str(name)].annotation if str(name) in kind.model_fields else None
        choices = get_args(annotation) if get_origin(annotation) is not None else (annotation,)
        kind = next((c for c in choices if isinstance(c, type) and issubclass(c, BaseModel)), kind)
    return kind


def _problem(section: str, item: Mapping[str, Any]) -> str:
    name = ".".join(str(part) for part in (section, *item["loc"]) if part != "") or "config"
    if item["type"] == "missing":
        return f"{name}: is required and was not given"
    own = item.get("ctx", {}).get("error")
    return f"{name}: {own}" if own else f"{name}: {item['msg']}, got {item['input']!r}"

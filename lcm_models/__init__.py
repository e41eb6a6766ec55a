"""Models over concepts: reading a corpus for training, and the Large Concept Models. ``lcm_data`` knows none of it.

A variant is a file; the table names them. A new one is a class with the methods of ``lcm_models.model.ConceptModel``
and one line here (or ``package.module:Class`` where a name is taken).
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from lcm_data.tables import resolve

if TYPE_CHECKING:
    from lcm_models.data import ConceptLoader, DataConfig, SourceConfig
    from lcm_models.model import ConceptModel

__all__ = ["LCMS", "ConceptLoader", "DataConfig", "SourceConfig", "build_model"]

LCMS = {
    "base": "lcm_models.base_lcm:BaseLCM",
    "one-tower": "lcm_models.one_tower:OneTower",
    "two-tower": "lcm_models.two_tower:TwoTower",
    "quant-d": "lcm_models.quant_lcm:QuantLCMDiscrete",
    "quant-c": "lcm_models.quant_lcm:QuantLCMContinuous",
}


def build_model(variant: str, preset: str | None = None, settings: Mapping[str, Any] | None = None) -> ConceptModel:
    """A new model with random weights, of a preset's sizes and ``settings`` on top; nested groups are mappings.

    Raises:
        UnknownNameError: no such variant, preset or setting.
        UsageError: a value does not fit.
    """
    from lcm_models.config import make_config

    kind = resolve(LCMS, variant, "model")
    model: ConceptModel = kind(make_config(kind.config_type, preset, settings))
    return model


def __getattr__(name: str) -> Any:
    if name in __all__:  # what is not here already: PyTorch comes with the first use
        return getattr(import_module("lcm_models.data"), name)
    raise AttributeError(f"module 'lcm_models' has no attribute {name!r}")

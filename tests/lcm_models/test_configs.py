"""Presets, their sizes, and settings that do not fit."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from lcm_data.errors import UnknownNameError, UsageError
from lcm_models import LCMS, build_model
from lcm_models.base_lcm import BaseLCMConfig
from lcm_models.config import make_config
from lcm_models.two_tower import TwoTowerConfig

# Base and Two-Tower by the formula of the official architecture; the others are in no official code.
NUM_PARAMETERS = {
    ("base", "1.6b"): 1_649_185_792,
    ("two-tower", "1.6b"): 1_645_538_304,
    ("two-tower", "7b"): 6_930_781_696,
    ("one-tower", "1.6b"): 1_658_230_272,
    ("quant-c", "1.6b"): 1_658_115_328,
    ("quant-d", "1.6b"): 1_672_802_560,
}
ABOUT = {"tiny": (1e6, 3e6), "30m": (28e6, 35e6), "300m": (300e6, 325e6), "1.6b": (1.6e9, 1.7e9), "7b": (6.4e9, 7e9)}


def num_parameters(variant: str, preset: str) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build_model(variant, preset).parameters())


@pytest.mark.parametrize(("variant", "preset"), NUM_PARAMETERS)
def test_sizes_of_the_paper(variant: str, preset: str) -> None:
    assert num_parameters(variant, preset) == NUM_PARAMETERS[variant, preset]


@pytest.mark.parametrize("variant", LCMS)
@pytest.mark.parametrize("preset", ABOUT)
def test_a_preset_is_as_large_as_it_is_called(variant: str, preset: str) -> None:
    low, high = ABOUT[preset]
    assert low < num_parameters(variant, preset) < high


def test_sizes_by_formula() -> None:
    """4 (d^2 + d) an attention, 3 d f + 2 f + d a feed-forward, 2 d the norms, linear maps to and from 1024."""
    d, f, layers = 2048, 5632, 32
    layer = 4 * (d * d + d) + 3 * d * f + 2 * f + d + 2 * d
    assert NUM_PARAMETERS["base", "1.6b"] == layers * layer + 1024 * d + d + 1024 * d + 1024 + d


def test_a_plain_feed_forward_has_about_the_same_size() -> None:
    with torch.device("meta"):
        plain = build_model("one-tower", "1.6b", {"feed_forward": "plain"})
    ratio = sum(p.numel() for p in plain.parameters()) / NUM_PARAMETERS["one-tower", "1.6b"]
    assert ratio == pytest.approx(1, abs=0.03)


def test_settings_are_laid_over_a_preset() -> None:
    config = make_config(TwoTowerConfig, "tiny", {"width": 64, "diffusion": {"schedule": {"name": "sigmoid"}}})
    assert (config.width, config.num_heads, config.diffusion.schedule.name) == (64, 4, "sigmoid")
    assert config.diffusion.drop_context == 0.15
    assert TwoTowerConfig(**config.model_dump()) == config
    with pytest.raises(ValidationError):
        config.width = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"widht": 64}, "unknown setting 'widht'. Did you mean 'width'"),
        ({"diffusion": {"predicton": "v"}}, "unknown setting 'predicton'. Did you mean 'prediction'"),
        ({"diffusion": {"schedule": {"centre": 1}}}, "unknown setting 'centre'. Did you mean 'center'"),
    ],
)
def test_unknown_settings_name_the_nearest(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        make_config(TwoTowerConfig, "tiny", settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 100, "num_heads": 8}, r"width 100 must be a multiple of twice num_heads \(8\)"),
        ({"dropout": 1.5}, "dropout: .*got 1.5"),
        ({"loss_space": "log"}, "loss_space: .*'normalized' or 'raw'.*got 'log'"),
    ],
)
def test_values_that_do_not_fit(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_config(BaseLCMConfig, "tiny", settings)


def test_unknown_variants_and_presets() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown model 'two_tower'\. Did you mean 'two-tower'"):
        build_model("two_tower")
    with pytest.raises(UnknownNameError, match=r"unknown preset '1\.5b'\. Did you mean '1\.6b'"):
        build_model("base", "1.5b")

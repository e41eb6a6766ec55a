"""Schedules against the numbers of the official scheduler and the paper's formulas; conversions and their inverses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from lcm_models.diffusion.objective import DiffusionConfig
from lcm_models.diffusion.schedules import Schedule, ScheduleConfig, alphas_bar, to_epsilon, to_x0

COSINE = ScheduleConfig()
QUADRATIC_1 = ScheduleConfig(name="quadratic")
QUADRATIC_2 = ScheduleConfig(name="quadratic", beta_first=0.02, beta_last=0.022)


def sigmoid(scale: float, center: float, **more: object) -> ScheduleConfig:
    return ScheduleConfig(name="sigmoid", scale=scale, center=center, **more)  # type: ignore[arg-type]


ALL = [COSINE, QUADRATIC_1, QUADRATIC_2, *(sigmoid(*pair) for pair in ((1.5, -1), (1.5, -2), (0.8, -1), (3.5, 0)))]

# alpha^2 at these levels, 100 in all, from the official scheduler (float32), after its zero-SNR rescaling.
LEVELS = [0, 1, 10, 25, 50, 75, 90, 97, 98, 99]
OFFICIAL = [
    [0.999369, 0.998252, 0.966701, 0.835543, 0.478054, 0.133266, 0.019426, 9.41649e-4, 2.27965e-4, 0],
    [0.999, 0.980196, 0.817930, 0.576423, 0.260770, 0.0644872, 0.00923095, 4.5963e-4, 1.1504e-4, 0],
    [0.98, 0.949913, 0.710525, 0.417759, 0.140249, 0.0258768, 0.00311643, 1.43261e-4, 3.5452e-5, 0],
    [0.997248, 0.992134, 0.894303, 0.638326, 0.257003, 0.0610551, 0.0111968, 0.00103302, 3.50519e-4, 0],
    [0.992555, 0.978907, 0.756883, 0.393704, 0.112880, 0.0233571, 0.00414691, 3.80106e-4, 1.28917e-4, 0],
    [0.935601, 0.892069, 0.661296, 0.458048, 0.261229, 0.126253, 0.0535593, 0.0154234, 0.00870947, 0],
    [1.0, 0.999999, 0.999337, 0.974935, 0.465048, 0.0173866, 3.0379e-4, 1.19e-6, 9.7e-8, 0],
]


@pytest.mark.parametrize(("config", "official"), list(zip(ALL, OFFICIAL, strict=True)), ids=lambda c: str(c)[:40])
def test_schedules_equal_the_official_ones(config: ScheduleConfig, official: list[float]) -> None:
    bar, _ = alphas_bar(config)
    np.testing.assert_allclose(bar[LEVELS], official, atol=1e-5, rtol=0)
    small = np.array(official) > 1e-5  # and relatively, where their float32 allows it
    np.testing.assert_allclose(bar[LEVELS][small], np.array(official)[small], rtol=1e-3)


@pytest.mark.parametrize("config", ALL, ids=lambda c: str(c)[:60])
def test_schedules_end_in_noise_and_are_monotone(config: ScheduleConfig) -> None:
    bar, rest = alphas_bar(config)
    assert bar[-1] == 0
    assert rest[-1] == pytest.approx(1)
    assert (np.diff(bar) < 0).all()
    np.testing.assert_allclose(bar + rest, 1, rtol=1e-15)
    schedule = Schedule(config)
    assert (schedule.log_snr_T.diff() < 0).all()
    assert torch.isfinite(schedule.log_snr_T).all()


def test_cosine_and_quadratic_follow_the_paper() -> None:
    """Eq 12 at (t + 1) / T, and eq 13, without rescaling."""
    bar, _ = alphas_bar(ScheduleConfig(zero_terminal_snr=False))
    time = (np.arange(100) + 1) / 100
    f = np.cos((time + 0.008) / 1.008 * np.pi / 2) ** 2 / np.cos(0.008 / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(bar[:-1], f[:-1], rtol=1e-10)  # the last beta is cut at 0.999
    for config, last in ((QUADRATIC_1, 0.896), (QUADRATIC_2, 0.1198)):
        bar, _ = alphas_bar(config.model_copy(update={"zero_terminal_snr": False}))
        assert bar[-1] == pytest.approx(last, abs=5e-4)


@pytest.mark.parametrize(("scale", "center", "spread"), [(1.5, -1, 2.57), (0.8, -1, 1.38)])
def test_the_two_numbers_of_a_sigmoid(scale: float, center: float, spread: float) -> None:
    """The first is a factor of the logit, the second the centre of the log-SNR (the paper's prose swaps the names)."""
    bar, rest = alphas_bar(sigmoid(scale, center, zero_terminal_snr=False))
    log_snr = np.log(bar[:-1] / rest[:-1])
    assert log_snr.mean() == pytest.approx(center, abs=0.02)
    assert log_snr.std() == pytest.approx(spread, abs=0.03)


def test_the_least_noisy_level_still_has_noise() -> None:
    """Sigmoid(3.5, 0) begins at alpha^2 = 1 - 1e-7: the official one, in float32, has no noise there, divides by 0."""
    schedule = Schedule(sigmoid(3.5, 0))
    assert 0 < schedule.sigma_T[0] < 1e-3
    level = torch.zeros(5, dtype=torch.long)
    x0, noise = torch.randn(2, 5, 8)
    x_t = schedule.add_noise(x0, noise, level)
    assert torch.isfinite(to_epsilon("x0", x0, x_t, *schedule.at(level))).all()


@pytest.mark.parametrize("config", ALL, ids=lambda c: str(c)[:60])
@pytest.mark.parametrize("prediction", ["x0", "v", "epsilon"])
def test_conversions_recover_what_was_mixed(config: ScheduleConfig, prediction: str) -> None:
    schedule = Schedule(config)
    level = torch.arange(99 if prediction == "epsilon" else 100)
    x0, noise = torch.randn(2, len(level), 6, generator=torch.Generator().manual_seed(0))
    x_t = schedule.add_noise(x0, noise, level)
    output = schedule.value_of(prediction, x0, noise, level)  # type: ignore[arg-type]
    alpha, sigma = schedule.at(level)
    # Rounding of float32 is divided by alpha or sigma, which are as small as 3e-4.
    assert torch.allclose(to_x0(prediction, output, x_t, alpha, sigma), x0, atol=3e-3)  # type: ignore[arg-type]
    assert torch.allclose(to_epsilon(prediction, output, x_t, alpha, sigma), noise, atol=3e-3)  # type: ignore[arg-type]


@given(st.integers(0, 98), st.sampled_from(["x0", "epsilon", "v"]))
@settings(deadline=None)
def test_x0_and_epsilon_make_up_x_t(level: int, prediction: str) -> None:
    """Whatever the network says, both readings of it are consistent with what it saw."""
    schedule = Schedule(COSINE)
    x_t, output = torch.randn(2, 3, 8)
    alpha, sigma = schedule.at(torch.tensor([level]))
    x0 = to_x0(prediction, output, x_t, alpha, sigma)  # type: ignore[arg-type]
    epsilon = to_epsilon(prediction, output, x_t, alpha, sigma)  # type: ignore[arg-type]
    assert torch.allclose(alpha * x0 + sigma * epsilon, x_t, atol=1e-4)


def test_tables_stay_float32_in_a_bfloat16_model() -> None:
    """As 16-bit numbers, 1 - alpha^2 would be lost near the clean end."""
    exact, schedule = Schedule(COSINE), Schedule(COSINE).to(torch.bfloat16)
    assert schedule.sigma_T.dtype == torch.float32
    assert torch.equal(schedule.sigma_T, exact.sigma_T)
    assert torch.equal(Schedule(COSINE).half().alpha_T, exact.alpha_T)


def test_noise_cannot_be_predicted_where_there_is_nothing_else() -> None:
    with pytest.raises(ValidationError, match="choose 'x0' or 'v'"):
        DiffusionConfig(prediction="epsilon")
    assert DiffusionConfig(prediction="epsilon", schedule=ScheduleConfig(zero_terminal_snr=False))

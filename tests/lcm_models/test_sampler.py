"""The sampler with networks that are known: one that is always right, one that knows nothing."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from lcm_data.errors import UsageError
from lcm_models.diffusion.sampler import Denoiser, DiffusionSampling, sample, sampling_levels
from lcm_models.diffusion.schedules import Prediction, Schedule, ScheduleConfig
from lcm_models.model import Noise

SCHEDULE = Schedule(ScheduleConfig())
PLAIN = DiffusionSampling(guidance=1, initial_noise=1, epsilon_scale=1)


def noise(*seeds: int, places: int = 3) -> Noise:
    return Noise([torch.Generator().manual_seed(seed) for seed in seeds], places, torch.device("cpu"))


def truth(x0: Tensor, prediction: Prediction, schedule: Schedule = SCHEDULE) -> Denoiser:
    """A network that knows the answer."""

    def denoise(x_t: Tensor, level: int) -> tuple[Tensor, None]:
        alpha, sigma = schedule.at(torch.tensor(level))
        epsilon = (x_t - alpha * x0) / sigma
        return schedule.value_of(prediction, x0, epsilon, torch.tensor(level)), None

    return denoise


def affine(weight: float, schedule: Schedule = SCHEDULE) -> Denoiser:
    """Two outputs that depend on input and level, so that guidance matters."""

    def denoise(x_t: Tensor, level: int) -> tuple[Tensor, Tensor]:
        free = 0.3 * x_t.flip(-1) + level / 100
        return free + weight * x_t.sin(), free

    return denoise


def test_the_levels_of_the_paper() -> None:
    levels = sampling_levels(100, 40)
    assert [level + 1 for level in levels[:8]] == [100, 98, 95, 92, 90, 88, 85, 82]
    assert [level + 1 for level in levels[-4:]] == [10, 8, 5, 2]
    assert len(levels) == 40
    assert sampling_levels(100, 100) == list(range(99, -1, -1))
    assert sampling_levels(100, 1) == [99]
    for steps in range(1, 101):
        levels = sampling_levels(100, steps)
        assert len(levels) == steps
        assert all(first > second >= 0 for first, second in itertools.pairwise(levels))


@pytest.mark.parametrize(("asked", "given"), [(40, 50), (30, 34), (60, 100), (80, 100), (50, 50), (20, 20)])
def test_the_official_code_takes_more_steps_than_asked_for(asked: int, given: int) -> None:
    levels = sampling_levels(100, asked, official=True)
    assert len(levels) == given
    assert levels[:2] == [99, 99 - 100 // asked]
    if asked == 40:
        assert levels == list(range(99, 0, -2))


def test_more_steps_than_levels_are_refused() -> None:
    with pytest.raises(UsageError, match="got 101, allowed are 1 to 100"):
        sampling_levels(100, 101)


@pytest.mark.parametrize("steps", [1, 2, 7, 40, 100])
@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("prediction", ["x0", "v"])
def test_a_network_that_knows_is_believed(steps: int, eta: float, prediction: Prediction) -> None:
    x0 = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))
    settings = PLAIN.model_copy(update={"steps": steps, "eta": eta})
    found = sample(truth(x0, prediction), SCHEDULE, prediction, settings, noise(1, 2), 8)
    assert torch.allclose(found, x0, atol=1e-4)


def test_epsilon_prediction_works_without_a_noise_only_level() -> None:
    schedule = Schedule(ScheduleConfig(zero_terminal_snr=False))
    x0 = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))
    found = sample(truth(x0, "epsilon", schedule), schedule, "epsilon", PLAIN, noise(1, 2), 8)
    assert torch.allclose(found, x0, atol=1e-3)


def test_the_path_keeps_the_right_amount_of_noise() -> None:
    """With eta 0 or 1, what the network sees at a level has the deviation of that level."""
    for eta in (0.0, 1.0):
        seen: dict[int, float] = {}

        def look(x_t: Tensor, level: int, seen: dict[int, float] = seen) -> tuple[Tensor, None]:
            seen[level] = float(x_t.std())
            return torch.zeros_like(x_t), None

        settings = PLAIN.model_copy(update={"steps": 20, "eta": eta})
        sample(look, SCHEDULE, "x0", settings, noise(5, places=4000), 8)
        for level, deviation in seen.items():
            assert deviation == pytest.approx(float(SCHEDULE.sigma_T[level]), rel=0.03)


def test_one_step_by_hand() -> None:
    """Song et al. eq 12 with the noise divided by its scale; two steps, so that there is a direction to take."""
    settings = DiffusionSampling(steps=2, guidance=1, initial_noise=0.6, epsilon_scale=1.5)
    network = affine(0.4)
    start = 0.6 * noise(3, places=1).normal(8)
    first = network(start, 99)[0]  # alpha is 0 here: epsilon is the start itself
    alpha, sigma = SCHEDULE.at(torch.tensor(49))
    second = alpha * first + sigma * start / 1.5
    expected = network(second, 49)[0]
    found = sample(lambda x, level: (network(x, level)[0], None), SCHEDULE, "x0", settings, noise(3, places=1), 8)
    assert torch.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("prediction", ["x0", "v"])
def test_guidance_identities(prediction: Prediction) -> None:
    """g = 1 is no guidance, g = 0 ignores the context."""

    def run(settings: DiffusionSampling, keep: int | None) -> Tensor:
        network = affine(0.5)
        only = network if keep is None else lambda x, level: (network(x, level)[keep], None)
        return sample(only, SCHEDULE, prediction, settings, noise(1, 2), 8)

    def guided(g: float) -> DiffusionSampling:
        return PLAIN.model_copy(update={"guidance": g, "rescale": 0.0, "steps": 10})

    assert torch.allclose(run(guided(1.0), None), run(guided(1.0), 0), atol=1e-4)
    assert torch.allclose(run(guided(0.0), None), run(guided(1.0), 1), atol=1e-4)
    assert not torch.allclose(run(guided(3.0), None), run(guided(1.0), 0), atol=0.1)


def test_guidance_is_the_same_on_concepts_and_noises() -> None:
    """Without rescaling: both mixtures are affine, with weights that sum to one."""
    network, g = affine(0.5), 2.5

    def mixed(x_t: Tensor, level: int) -> tuple[Tensor, None]:
        given, free = network(x_t, level)
        return free + g * (given - free), None

    plain = PLAIN.model_copy(update={"steps": 10})
    on_noise = plain.model_copy(update={"guidance": g, "rescale": 0.0})
    expected = sample(mixed, SCHEDULE, "x0", plain, noise(1), 8)
    assert torch.allclose(sample(network, SCHEDULE, "x0", on_noise, noise(1), 8), expected, atol=1e-3)


def test_rescaling_brings_back_the_deviation() -> None:
    """One level that is not the noisiest, so that guidance acts: std(eps_guided) becomes that of eps_given."""
    schedule = Schedule(ScheduleConfig(zero_terminal_snr=False))
    settings = PLAIN.model_copy(update={"steps": 1, "guidance": 4.0, "rescale": 1.0})
    network, start = affine(0.5), noise(1).normal(8)
    alpha, sigma = schedule.at(torch.tensor(99))
    given, free = ((start - alpha * output) / sigma for output in network(start, 99))
    mixed = free + 4.0 * (given - free)
    mixed = mixed * given.std(dim=-1, keepdim=True) / mixed.std(dim=-1, keepdim=True)
    expected = (start - sigma * mixed) / alpha
    assert torch.allclose(sample(network, schedule, "x0", settings, noise(1), 8), expected, atol=1e-3)


def test_the_first_official_step_is_not_guided() -> None:
    settings = PLAIN.model_copy(update={"steps": 1, "guidance": 3.0, "rescale": 0.0})
    network, start = affine(0.5), noise(1).normal(8)
    given, free = network(start, 99)
    official = settings.model_copy(update={"official_compat": True})
    assert torch.equal(sample(network, SCHEDULE, "x0", official, noise(1), 8), given)
    assert torch.allclose(sample(network, SCHEDULE, "x0", settings, noise(1), 8), free + 3 * (given - free), atol=1e-5)


def test_a_row_has_its_own_noise() -> None:
    both, alone = noise(1, 2).normal(16), noise(2).normal(16)
    assert torch.equal(both[1], alone[0])
    assert not torch.equal(both[0], both[1])
    numbers = noise(9, places=10_000).uniform(1)
    assert 0 <= float(numbers.min()) <= float(numbers.max()) < 1
    assert float(numbers.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(numbers.var()) == pytest.approx(1 / 12, abs=0.005)
    assert math.isclose(float(noise(4, places=50_000).normal(1).std()), 1, abs_tol=0.02)

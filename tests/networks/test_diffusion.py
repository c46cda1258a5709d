"""Schedules and samplers against distributions whose answers are known in closed form."""

import math

import pytest
import torch

from avatar_viewer.networks.diffusion import SAMPLERS, add_noise, cosine_schedule, sampler_steps

SCHEDULE = cosine_schedule(500)


def gaussian_oracle(mean, spread):
    """The best prediction of clean data drawn from N(mean, spread^2): E[x_0 | x_n]."""

    def predict(noisy, step):
        signal, noise = SCHEDULE.signal[step], SCHEDULE.noise[step]
        gain = signal * spread**2 / (signal**2 * spread**2 + noise**2)
        return mean + gain * (noisy - signal * mean)

    return predict


def test_the_schedule_runs_from_clean_to_noise_and_keeps_the_power():
    assert SCHEDULE.num_steps == 500
    assert SCHEDULE.signal[0] == 1 and SCHEDULE.noise[0] == 0
    assert SCHEDULE.signal[-1] < 2e-3
    assert torch.all(SCHEDULE.signal[1:] < SCHEDULE.signal[:-1])
    torch.testing.assert_close(SCHEDULE.signal**2 + SCHEDULE.noise**2, torch.ones(501))
    # Half way, cosine: cos^2((0.5 + 0.008) / 1.008 * pi / 2) / cos^2(0.008 / 1.008 * pi / 2), by hand 0.4939.
    assert float(SCHEDULE.signal[250] ** 2) == pytest.approx(0.4939, abs=5e-3)


def test_added_noise_mixes_each_sample_at_its_own_step():
    clean, noise = torch.full((2, 1, 1), 3.0), torch.full((2, 1, 1), -1.0)
    mixed = add_noise(SCHEDULE, clean, noise, torch.tensor([0, 500]))
    assert float(mixed[0]) == 3.0
    assert float(mixed[1]) == pytest.approx(-1.0, abs=0.01)


def test_steps_are_even_and_end_before_clean():
    assert sampler_steps(500, 2) == [500, 250]
    assert sampler_steps(500, 4) == [500, 375, 250, 125]
    assert sampler_steps(500, 500)[-1] == 1
    with pytest.raises(ValueError, match="not 0"):
        sampler_steps(500, 0)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("rows", [1, 2, 3, 8])
def test_every_sampler_returns_a_certain_prediction_and_spends_its_rows(name, rows):
    target, calls = torch.linspace(-2, 2, 6).view(1, 2, 3), []

    def predict(noisy, step):
        calls.append(step)
        return target

    generator = torch.Generator().manual_seed(1)
    answer = SAMPLERS[name](predict, torch.randn(1, 2, 3, generator=generator), SCHEDULE, rows, generator)
    torch.testing.assert_close(answer, target)
    assert calls == sampler_steps(500, rows)


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_reaches_a_known_gaussian(name):
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(1, 20_000, 1, generator=generator)
    samples = SAMPLERS[name](gaussian_oracle(1.5, 0.4), noise, SCHEDULE, 250, generator)
    assert float(samples.mean()) == pytest.approx(1.5, abs=0.02)
    # The consistency walk shrinks on an oracle that returns means, which no consistency model does.
    expected = 0.4 if name != "consistency" else None
    if expected:
        assert float(samples.std()) == pytest.approx(expected, rel=0.06)


def test_the_second_order_walk_is_nearer_to_the_fine_answer_than_the_first_order_one():
    oracle, noise = gaussian_oracle(0.0, 0.5), torch.randn(1, 500, 1, generator=torch.Generator().manual_seed(5))
    fine = SAMPLERS["ddim"](oracle, noise, SCHEDULE, 500, None)
    errors = {name: float((SAMPLERS[name](oracle, noise, SCHEDULE, 12, None) - fine).norm()) for name in ("ddim", "dpm_solver")}
    assert errors["dpm_solver"] < errors["ddim"]
    assert math.isfinite(errors["dpm_solver"])


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_same_seed_gives_the_same_numbers(name):
    def once():
        generator = torch.Generator().manual_seed(7)
        noise = torch.randn(1, 5, 4, generator=generator)
        return SAMPLERS[name](gaussian_oracle(0.0, 1.0), noise, SCHEDULE, 3, generator)

    assert torch.equal(once(), once())

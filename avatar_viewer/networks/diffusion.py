"""Noise schedules and samplers: plain functions, one signature for every sampler.

A step n runs from 0 (clean) to N (noise). Networks predict the clean sequence, so a sampler is a way to
turn a few such predictions into one answer. Knows tensors only: no faces, no speech, no windows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

PredictClean = Callable[[Tensor, int], Tensor]  # (noisy [B, T, K], step n) -> clean [B, T, K]
Sampler = Callable[[PredictClean, Tensor, "NoiseSchedule", int, torch.Generator | None], Tensor]


@dataclass(frozen=True)
class NoiseSchedule:
    """x_n = signal[n] * x_0 + noise[n] * eps, with signal^2 + noise^2 = 1 and signal[0] = 1."""

    signal: Tensor  # [N + 1]
    noise: Tensor  # [N + 1]

    @property
    def num_steps(self) -> int:
        return len(self.signal) - 1


def cosine_schedule(num_steps: int, offset: float = 0.008, max_beta: float = 0.999) -> NoiseSchedule:
    """Nichol and Dhariwal's schedule, betas clipped to [1e-4, max_beta] as the base method does.

    A table on the CPU, whatever the default device: arithmetic on torch's meta device imports its compiler, a second.
    """
    times = torch.arange(num_steps + 1, dtype=torch.float64, device="cpu") / num_steps
    curve = torch.cos((times + offset) / (1 + offset) * math.pi / 2) ** 2
    betas = (1 - curve[1:] / curve[:-1]).clamp(1e-4, max_beta)
    kept = torch.cat((times.new_ones(1), torch.cumprod(1 - betas, dim=0)))
    return NoiseSchedule(kept.sqrt().float(), (1 - kept).sqrt().float())


def add_noise(schedule: NoiseSchedule, clean: Tensor, noise: Tensor, step: Tensor) -> Tensor:
    """The forward process at one step a sample: clean, noise [B, T, K], step [B] -> [B, T, K]."""
    scale = (step.shape[0],) + (1,) * (clean.dim() - 1)
    signal = schedule.signal.to(clean.device)[step].view(scale)
    return signal * clean + schedule.noise.to(clean.device)[step].view(scale) * noise


def sampler_steps(num_steps: int, rows: int) -> list[int]:
    """The steps at which `rows` predictions are made: evenly spaced, from N down, 0 excluded."""
    if not 1 <= rows <= num_steps:
        raise ValueError(f"a sampler makes 1 to {num_steps} predictions, not {rows}")
    return [round(num_steps * (rows - i) / rows) for i in range(rows)]


def _walk(schedule: NoiseSchedule, rows: int) -> list[tuple[int, int]]:
    steps = sampler_steps(schedule.num_steps, rows)
    return list(zip(steps, steps[1:] + [0]))


def _fresh(noise: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.randn(noise.shape, generator=generator).to(noise)


def sample_ddim(
    predict_clean: PredictClean,
    noise: Tensor,  # [B, T, K]
    schedule: NoiseSchedule,
    rows: int,
    generator: torch.Generator | None = None,
) -> Tensor:  # [B, T, K]
    """Song et al.'s deterministic walk: keep the noise that the prediction implies."""
    x = noise
    for now, then in _walk(schedule, rows):
        clean = predict_clean(x, now)
        implied = (x - schedule.signal[now] * clean) / schedule.noise[now]
        x = schedule.signal[then] * clean + schedule.noise[then] * implied
    return x


def sample_ddpm(
    predict_clean: PredictClean,
    noise: Tensor,  # [B, T, K]
    schedule: NoiseSchedule,
    rows: int,
    generator: torch.Generator | None = None,
) -> Tensor:  # [B, T, K]
    """Ho et al.'s ancestral walk: the exact posterior between the chosen steps, with fresh noise at each."""
    x = noise
    for now, then in _walk(schedule, rows):
        clean = predict_clean(x, now)
        ratio = (schedule.signal[now] / schedule.signal[then]) ** 2
        variance_now, variance_then = schedule.noise[now] ** 2, schedule.noise[then] ** 2
        from_clean = schedule.signal[then] * (1 - ratio) / variance_now
        from_noisy = ratio.sqrt() * variance_then / variance_now
        spread = ((1 - ratio) * variance_then / variance_now).sqrt()
        x = from_clean * clean + from_noisy * x
        if then > 0:
            x = x + spread * _fresh(noise, generator)
    return x


def sample_dpm_solver(
    predict_clean: PredictClean,
    noise: Tensor,  # [B, T, K]
    schedule: NoiseSchedule,
    rows: int,
    generator: torch.Generator | None = None,
) -> Tensor:  # [B, T, K]
    """DPM-Solver++ (2M): second order in half the log signal-to-noise ratio; its first and last step are of first order."""
    x, previous, previous_gap = noise, None, torch.tensor(0.0)
    for now, then in _walk(schedule, rows):
        clean = predict_clean(x, now)
        if then == 0:
            return clean
        gap = torch.log(schedule.signal[then] / schedule.noise[then]) - torch.log(schedule.signal[now] / schedule.noise[now])
        drift = clean
        if previous is not None:
            drift = clean + (clean - previous) * gap / (2 * previous_gap)
        x = schedule.noise[then] / schedule.noise[now] * x - schedule.signal[then] * torch.expm1(-gap) * drift
        previous, previous_gap = clean, gap
    return x


def sample_consistency(
    predict_clean: PredictClean,
    noise: Tensor,  # [B, T, K]
    schedule: NoiseSchedule,
    rows: int,
    generator: torch.Generator | None = None,
) -> Tensor:  # [B, T, K]
    """Song et al.'s multistep consistency walk: forget the old noise, add new noise to the prediction."""
    clean = predict_clean(noise, schedule.num_steps)
    for step in sampler_steps(schedule.num_steps, rows)[1:]:
        clean = predict_clean(schedule.signal[step] * clean + schedule.noise[step] * _fresh(noise, generator), step)
    return clean


SAMPLERS: dict[str, Sampler] = {
    "ddim": sample_ddim,
    "ddpm": sample_ddpm,
    "dpm_solver": sample_dpm_solver,
    "consistency": sample_consistency,
}

"""How the lips move: gap, agreement with a truth, closures, rest. Formulas only; no files, no networks."""

from __future__ import annotations

import numpy as np

from ..config import SAMPLE_RATE

UP = (0.0, 1.0, 0.0)
SEALED_MM = 1.0
REST_MM = 1.5
CLOSURE_SECONDS = 0.04  # a closure may lie this far from the phone's middle


def lip_gap_mm(
    vertices: np.ndarray,  # [..., V, 3] metres
    lip_upper: np.ndarray,  # [L] inner-lip vertex ids from corner to corner
    lip_lower: np.ndarray,  # [L] their partners
    up: tuple[float, float, float] = UP,
) -> np.ndarray:  # [...] mm
    """Mean over the central third of the inner-lip pairs of max(0, (upper - lower) . up)."""
    centre = central_third(len(lip_upper))
    vertices = np.asarray(vertices)
    between = vertices[..., np.asarray(lip_upper)[centre], :] - vertices[..., np.asarray(lip_lower)[centre], :]
    return np.maximum(0.0, between @ np.asarray(up, dtype=between.dtype)).mean(axis=-1) * 1000.0


def central_third(pairs: int) -> slice:
    """The pairs left when a third is taken off either side; never none."""
    return slice(pairs // 3, max(pairs - pairs // 3, pairs // 3 + 1))


def correlation(a: np.ndarray, b: np.ndarray) -> float:  # two [T]
    """Pearson's r; 0 where either does not vary, as nothing agrees with a constant."""
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    a, b = a - a.mean(), b - b.mean()
    size = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / size) if size > 1e-12 else 0.0


def loudness_curve(samples: np.ndarray, frames: int, fps: float) -> np.ndarray:  # [S] -> [T] dB
    """RMS in 40 ms about each motion frame, floored at -60 dB of full scale."""
    half = SAMPLE_RATE // 50
    squares = np.concatenate(([0.0], np.cumsum(np.asarray(samples, dtype=np.float64) ** 2)))
    centres = np.round(np.arange(frames) / fps * SAMPLE_RATE).astype(int)
    low, high = np.clip(centres - half, 0, len(samples)), np.clip(centres + half, 0, len(samples))
    power = (squares[high] - squares[low]) / np.maximum(high - low, 1)
    return 10 * np.log10(np.maximum(power, 1e-6))


def loudness_baseline(
    samples: np.ndarray,  # [S]
    gap_mm: np.ndarray,  # [T], the truth
    fps: float,
    speaking: np.ndarray | None = None,  # [T] bool; None: all frames
    most_lag: int = 4,  # frames to either side
) -> float:
    """What loudness alone reaches: its best correlation with the gap over small lags. The floor that a model must beat."""
    speaking = np.ones(len(gap_mm), dtype=bool) if speaking is None else np.asarray(speaking, dtype=bool)
    loudness = loudness_curve(samples, len(gap_mm), fps)
    shifted = [np.roll(loudness, lag) for lag in range(-most_lag, most_lag + 1)]
    return max(correlation(curve[speaking], gap_mm[speaking]) for curve in shifted)


def closure_rate(
    gap_mm: np.ndarray,  # [T]
    fps: float,
    middles: np.ndarray,  # seconds, the middles of /p/, /b/, /m/
    sealed_mm: float = SEALED_MM,
) -> float:
    """Share of closures that happen: the gap falls under `sealed_mm` within 40 ms of the phone's middle. NaN without any."""
    if len(middles) == 0:
        return float("nan")
    times = np.arange(len(gap_mm)) / fps
    near = [np.abs(times - middle) <= CLOSURE_SECONDS + 1e-9 for middle in middles]
    return float(np.mean([bool((gap_mm[frames] < sealed_mm).any()) for frames in near]))


def rest_rate(gap_mm: np.ndarray, quiet: np.ndarray, rest_mm: float = REST_MM) -> float:
    """Share of the quiet frames in which the mouth rests; NaN without a quiet frame."""
    quiet = np.asarray(quiet, dtype=bool)
    return float((np.asarray(gap_mm)[quiet] < rest_mm).mean()) if quiet.any() else float("nan")


def sync_offset_ms(gap_mm: np.ndarray, true_gap_mm: np.ndarray, fps: float, most_ms: float = 400.0) -> float:  # two [T]
    """By how much the lips are late (positive) or early, where the two curves agree best; between frames by a parabola.

    NaN where either curve does not move.
    """
    most = min(round(most_ms / 1000 * fps), len(gap_mm) // 2)
    agreement = np.array([_shifted_correlation(gap_mm, true_gap_mm, lag) for lag in range(-most, most + 1)])
    best = int(agreement.argmax())
    if agreement[best] <= 0.0:
        return float("nan")
    shift = 0.0
    if 0 < best < len(agreement) - 1:
        before, here, after = agreement[best - 1 : best + 2]
        curvature = before - 2 * here + after
        shift = 0.5 * (before - after) / curvature if curvature < -1e-12 else 0.0
    return float((best - most + shift) * 1000.0 / fps)


def _shifted_correlation(gap: np.ndarray, truth: np.ndarray, lag: int) -> float:
    """Correlation of `gap`, taken `lag` frames later, with `truth`."""
    late = gap[max(lag, 0) : len(gap) + min(lag, 0)]
    reference = truth[max(-lag, 0) : len(truth) - max(lag, 0)]
    return correlation(late, reference)

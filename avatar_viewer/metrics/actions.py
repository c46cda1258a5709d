"""How well action unit intensities agree with the truth: F1 of activity, mean error, intraclass correlation, by AU.

Also the floor: what loudness alone says of them. Plain arrays; knows no network.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..action_units import AU_NAMES
from .lips import correlation, loudness_curve

ACTIVE = 1.0  # an AU is active from intensity 1 (trace) on
# Those of the lower face that speech moves; AU20, which the paper's set lacks, left out.
SPOKEN_AUS: tuple[str, ...] = ("AU10", "AU12", "AU14", "AU15", "AU17", "AU23", "AU24", "AU25", "AU26")
UPPER_AUS: tuple[str, ...] = ("AU01", "AU02", "AU04", "AU05", "AU06", "AU07", "AU09")


def activity_f1(codes: np.ndarray, truth: np.ndarray, threshold: float = ACTIVE) -> float:  # two [T]
    """F1 of intensity >= threshold; NaN where neither is ever active."""
    found, true = np.asarray(codes) >= threshold, np.asarray(truth) >= threshold
    if not found.any() and not true.any():
        return float("nan")
    return float(2 * (found & true).sum() / (found.sum() + true.sum()))


def intraclass_correlation(codes: np.ndarray, truth: np.ndarray) -> float:  # two [T]
    """ICC(3,1): consistency of two raters over the frames; 0 where nothing varies."""
    ratings = np.stack([np.asarray(codes, np.float64), np.asarray(truth, np.float64)], axis=1)
    count, raters = ratings.shape
    total = ratings - ratings.mean()
    frames = ratings.mean(1) - ratings.mean()
    between = raters * (frames**2).sum() / max(1, count - 1)
    judges = count * ((ratings.mean(0) - ratings.mean()) ** 2).sum()
    residual = ((total**2).sum() - raters * (frames**2).sum() - judges) / max(1, (count - 1) * (raters - 1))
    whole = between + (raters - 1) * residual
    return float((between - residual) / whole) if whole > 1e-12 else 0.0


def agreement(
    codes: np.ndarray,  # [T, K]
    truth: np.ndarray,  # [T, K]
    names: Sequence[str] = AU_NAMES,
) -> dict:
    """Per AU: f1, mae, icc, correlation; and their means, over the spoken AUs and over the upper face."""
    by_au = {
        name: {
            "f1": activity_f1(codes[:, i], truth[:, i]),
            "mae": float(np.abs(codes[:, i] - truth[:, i]).mean()),
            "icc": intraclass_correlation(codes[:, i], truth[:, i]),
            "correlation": correlation(codes[:, i], truth[:, i]),
        }
        for i, name in enumerate(names)
    }
    spoken, upper = [n for n in names if n in SPOKEN_AUS], [n for n in names if n in UPPER_AUS]
    return {
        "macro_f1": _mean(by_au, spoken, "f1"),
        "mae": _mean(by_au, list(names), "mae"),
        "icc": _mean(by_au, spoken, "icc"),
        "upper_correlation": _mean(by_au, upper, "correlation"),
        "by_au": {name: {key: _plain(value) for key, value in row.items()} for name, row in by_au.items()},
    }


def _mean(by_au: dict, names: Sequence[str], key: str) -> float | None:
    """Over the AUs for which it is defined."""
    values = [by_au[name][key] for name in names if not np.isnan(by_au[name][key])]
    return _plain(np.mean(values)) if values else None


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 4)


def loudness_floor(
    sounds: Sequence[np.ndarray],  # each [S] at 16 kHz
    truth: np.ndarray,  # [sum T, K]
    fps: float,
    context: int = 5,  # frames to either side
) -> np.ndarray:  # [sum T, K]
    """The best linear reading of the codes from loudness and its neighbourhood, fitted on the very data: a generous floor."""
    rows = []
    for sound in sounds:
        frames = round(len(sound) / 16_000 * fps)
        padded = np.pad(loudness_curve(sound, frames, fps), context, mode="edge")
        rows.append(np.stack([padded[i : i + frames] for i in range(2 * context + 1)], axis=1))
    curves = np.concatenate(rows)
    curves = (curves - curves.mean(0)) / (curves.std(0) + 1e-6)
    inputs = np.concatenate([curves, np.maximum(curves, 0), np.ones((len(curves), 1))], axis=1)
    weights = np.linalg.solve(inputs.T @ inputs + 1.0 * np.eye(inputs.shape[1]), inputs.T @ truth)
    return np.clip(inputs @ weights, 0.0, 5.0)

"""How a face moves against a truth, and how much of an action unit an animation shows. Formulas only."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.optimize import nnls

from ..action_units import AU_NAMES, MAX_INTENSITY, NUM_AUS


def vertex_rmse_mm(predicted: np.ndarray, truth: np.ndarray) -> float:  # two [T, V, 3] metres
    """Root of the mean squared distance over frames and vertices."""
    return float(np.sqrt(((predicted - truth) ** 2).sum(axis=-1).mean()) * 1000.0)


def lip_vertex_error_mm(predicted: np.ndarray, truth: np.ndarray, lips: np.ndarray) -> float:  # [T, V, 3] metres, [P] ids
    """LVE: mean over frames of the largest distance among the lip vertices."""
    return float(np.linalg.norm(predicted[:, lips] - truth[:, lips], axis=-1).max(axis=-1).mean() * 1000.0)


def upper_face_dynamics_deviation(predicted: np.ndarray, truth: np.ndarray, upper: np.ndarray) -> float:
    """FDD in m^2: mean over the upper face of |std_t(|truth|^2) - std_t(|predicted|^2)| of offsets [T, V, 3] from neutral."""
    spread = [(offsets[:, upper] ** 2).sum(axis=-1).std(axis=0) for offsets in (truth, predicted)]
    return float(np.abs(spread[0] - spread[1]).mean())


def mouth_opening_difference_mm(predicted_gap_mm: np.ndarray, true_gap_mm: np.ndarray) -> float:  # two [T]
    """MOD: mean absolute difference of the mouth opening."""
    return float(np.abs(predicted_gap_mm - true_gap_mm).mean())


def seam_ratio(offsets: np.ndarray, hop_frames: int) -> float:  # [T, V, 3]
    """Mean speed at window borders over mean speed elsewhere: 1 where no seam can be seen."""
    speed = np.sqrt((np.diff(offsets, axis=0) ** 2).sum(axis=-1).mean(axis=-1))
    at_border = np.arange(1, len(offsets)) % hop_frames == 0
    return float(speed[at_border].mean() / max(speed[~at_border].mean(), 1e-12))


def landmark_distance_px(
    predicted: np.ndarray,  # [T, V, 3] metres
    truth: np.ndarray,  # [T, V, 3]
    landmarks: np.ndarray,  # [P] vertex ids
    pixels_per_metre: float,
) -> float:
    """LMD: mean distance of the landmarks seen from the front, after each frame's mean is taken off either set."""
    seen = [points[:, landmarks, :2] - points[:, landmarks, :2].mean(axis=1, keepdims=True) for points in (predicted, truth)]
    return float(np.linalg.norm(seen[0] - seen[1], axis=-1).mean() * pixels_per_metre)


def jitter_mm(offsets: np.ndarray) -> float:  # [T, V, 3] metres
    """Mean length of the second difference a frame."""
    return float(np.linalg.norm(np.diff(offsets, n=2, axis=0), axis=-1).mean() * 1000.0)


def obtained_aus(
    offsets: np.ndarray,  # [T, V, 3] metres
    shapes: Mapping[str, np.ndarray],  # AU and viseme names -> [V, 3] metres at intensity 5, or at weight 1
) -> np.ndarray:  # [T, 17], 0 and up; 0 for an AU without a shape
    """How much of each AU an animation shows: non-negative least squares on the rig's AU and viseme shapes."""
    names = list(shapes)
    matrix = np.stack([np.asarray(shapes[name], dtype=np.float64).reshape(-1) for name in names], axis=1)  # [3 V, shapes]
    # The same minimiser through the triangular factor: 31 equations a frame where 3 V were.
    orthonormal, triangle = np.linalg.qr(matrix)
    projected = offsets.reshape(len(offsets), -1).astype(np.float64) @ orthonormal
    weights = np.stack([nnls(triangle, frame)[0] for frame in projected])
    result = np.zeros((len(offsets), NUM_AUS))
    for column, name in enumerate(names):
        if name in AU_NAMES:
            result[:, AU_NAMES.index(name)] = weights[:, column] * MAX_INTENSITY
    return result


def edit_slope(requested: np.ndarray, obtained: np.ndarray) -> tuple[float, float]:  # two [n] -> slope, R^2
    """Least-squares line of obtained on requested intensities: slope 1 and R^2 1 is full obedience."""
    requested, obtained = np.asarray(requested, dtype=np.float64), np.asarray(obtained, dtype=np.float64)
    slope, intercept = np.polyfit(requested, obtained, 1)
    residual = ((obtained - slope * requested - intercept) ** 2).sum()
    total = ((obtained - obtained.mean()) ** 2).sum()
    return float(slope), float(1 - residual / total) if total > 1e-12 else 0.0


def leakage(difference: np.ndarray, region: np.ndarray) -> float:  # [V, 3], [P] ids
    """Share of an edit's movement that lies outside the AU's own region, by summed distance."""
    distance = np.linalg.norm(difference, axis=-1)
    inside = distance[np.asarray(region)].sum()
    return float(1 - inside / distance.sum()) if distance.sum() > 1e-12 else 0.0

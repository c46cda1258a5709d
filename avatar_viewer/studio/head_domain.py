"""The flat domain of the built-in face: u mm around the vertical axis, v mm down the profile and under the chin.

Where the mouth's line, the lips' borders and the lids' margins run in it. Written with |u|: left and right are alike.
"""

from __future__ import annotations

import numpy as np

UNROLL_RADIUS = 80.0  # mm: u = UNROLL_RADIUS * angle about the vertical axis
MOUTH_HALF_WIDTH = 25.0
MOUTH_SLOT = 1.3  # the domain's mouth is a slot this wide to each side; the neutral mouth is shut
INNER_CANTHUS, OUTER_CANTHUS = np.array([19.8, -2.6]), np.array([50.4, 1.4])


def mouth_line(u: np.ndarray) -> np.ndarray:
    """Height v of the line between the shut lips."""
    a = np.abs(u)
    return (
        -66.0
        - 0.9 * np.exp(-((a / 5.0) ** 2))
        + 0.7 * np.exp(-(((a - 11.0) / 6.0) ** 2))
        + 1.2 * np.clip((a - 17.0) / 8.0, 0, 1.6) ** 2
    )


def vermilion_height(u: np.ndarray, upper: bool) -> np.ndarray:
    """Distance in mm from the contact line to the lip's border; the upper one is a cupid's bow."""
    a = np.abs(u)
    taper = np.clip(1.0 - (a / (MOUTH_HALF_WIDTH + 1.2)) ** 2, 0.0, 1.0)
    if upper:
        return 0.7 + 7.6 * taper**0.85 - 1.5 * np.exp(-((a / 3.0) ** 2)) + 0.5 * np.exp(-(((a - 6.0) / 3.0) ** 2))
    return 0.7 + 9.2 * taper**0.75


def lid_margin(share: np.ndarray, upper: bool) -> np.ndarray:  # [M] 0 inner canthus .. 1 outer -> [M, 2] (u, v)
    bend = 8.6 * np.sin(np.pi * share**0.88) ** 0.80 if upper else -6.3 * np.sin(np.pi * share**1.18) ** 0.85
    return INNER_CANTHUS + share[:, None] * (OUTER_CANTHUS - INNER_CANTHUS) + bend[:, None] * np.array([0.0, 1.0])


def lip_coordinate(uv: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # [P, 2] -> [P], [P] bool
    """Signed distance from the contact line in heights of the lip, and whether a place is above the line."""
    u, v = uv[:, 0], uv[:, 1]
    slot = MOUTH_SLOT * np.clip(1 - (u / MOUTH_HALF_WIDTH) ** 2, 0, 1)
    is_upper = v >= mouth_line(u)
    distance = np.maximum(0.0, np.abs(v - mouth_line(u)) - slot)
    outside = np.maximum(0.0, np.abs(u) - MOUTH_HALF_WIDTH)
    height = np.where(is_upper, vermilion_height(u, True), vermilion_height(u, False))
    coordinate = distance / height + outside / 1.5
    return np.where(is_upper, 1.0, -1.0) * np.minimum(coordinate, 9.0), is_upper


def lid_coordinate(uv: np.ndarray) -> np.ndarray:  # [P, 2] -> [P]
    """Height in mm above the upper margin (+) or below the lower one (-); 99 away from the eyes."""
    share = (np.abs(uv[:, 0]) - INNER_CANTHUS[0]) / (OUTER_CANTHUS[0] - INNER_CANTHUS[0])
    inside = np.clip(share, 0.0, 1.0)
    above = uv[:, 1] - lid_margin(inside, True)[:, 1]
    below = uv[:, 1] - lid_margin(inside, False)[:, 1]
    result = np.where(above >= -1e-6, above, np.where(below <= 1e-6, below, 0.0))
    return np.where((share < -0.6) | (share > 1.7), 99.0, result)


def distance_to_curve(uv: np.ndarray, curve: np.ndarray) -> np.ndarray:  # [P, 2], [K, 2] -> [P] mm
    points = np.stack([np.abs(uv[:, 0]), uv[:, 1]], -1)
    best = np.full(len(points), np.inf)
    for a, b in zip(curve[:-1], curve[1:]):
        axis = b - a
        share = np.clip((points - a) @ axis / max(axis @ axis, 1e-12), 0, 1)
        best = np.minimum(best, np.linalg.norm(points - a - share[:, None] * axis, axis=1))
    return best

"""The built-in head's painted skin: one function of place, shared by the face sheet and the skin around it."""

from __future__ import annotations

import numpy as np
from scipy.interpolate import PchipInterpolator

from .head_domain import INNER_CANTHUS, OUTER_CANTHUS
from .head_template import FaceSheet

BASE = np.array([0.86, 0.66, 0.555])
LIP = np.array([0.74, 0.385, 0.37])
LINER = np.array([0.55, 0.27, 0.25])

_HAIRLINE = np.array(  # degrees around from the front, height in mm
    [
        (0, 75), (18, 74.5), (32, 70), (44, 60), (53, 44), (59, 27), (65, 12), (71, 8), (77, 18), (85, 25), (95, 26), (104, 22),
        (111, 8), (117, -16), (125, -36), (140, -50), (160, -57), (180, -58),
    ]
)  # fmt: skip
HAIRLINE_CURVE = PchipInterpolator(_HAIRLINE[:, 0], _HAIRLINE[:, 1])


def inside_hairline(points: np.ndarray) -> np.ndarray:  # [P, 3] mm -> [P] mm into the hair, negative outside
    around = np.degrees(np.arctan2(np.abs(points[:, 0]), points[:, 2] + 10.0))
    slope = HAIRLINE_CURVE(around, 1) / 1.3  # mm a mm along the head
    return (points[:, 1] - HAIRLINE_CURVE(around)) / np.sqrt(1 + slope**2)


def value_noise(points: np.ndarray, scale: float, seed: int) -> np.ndarray:  # [P, 3] mm -> [P] about -1..1
    """Smooth noise: random values on a lattice of `scale` mm, interpolated."""
    grid = points / scale
    cell = np.floor(grid).astype(np.int64)
    share = grid - cell
    share = share * share * (3 - 2 * share)
    total = np.zeros(len(points))
    for corner in np.ndindex(2, 2, 2):
        at = cell + np.array(corner)
        mixed = (at[:, 0] * 73856093 ^ at[:, 1] * 19349663 ^ at[:, 2] * 83492791 ^ seed * 2654435761) & 0x7FFFFFFF
        mixed = (mixed ^ (mixed >> 13)) * 1274126177 & 0x7FFFFFFF
        value = (mixed ^ (mixed >> 16)) / 0x3FFFFFFF - 1.0
        total += value * np.prod(np.where(np.array(corner), share, 1 - share), axis=1)
    return total


def skin_colors(points: np.ndarray, normals: np.ndarray | None = None) -> np.ndarray:  # [P, 3] mm -> [P, 3] sRGB
    """Warm base, redder cheeks, nose, ears and chin, paler forehead, darker under the eyes and below the jaw, freckles."""
    x, y, z = np.abs(points[:, 0]), points[:, 1], points[:, 2]
    front = np.clip((z - 20) / 40, 0, 1)

    def spot(x0: float, y0: float, rx: float, ry: float) -> np.ndarray:
        return front * np.exp(-(((x - x0) / rx) ** 2 + ((y - y0) / ry) ** 2))

    rosy = 1.0 * spot(40, -28, 17, 14) + 0.75 * spot(0, -33, 11, 12) + 0.3 * spot(0, -98, 16, 9) + 0.25 * spot(13, -41, 6, 6)
    ear = np.exp(-((np.maximum(0, 72 - x) / 5) ** 2)) * np.exp(-(((y + 6) / 30) ** 2)) * (z < 15)
    color = np.tile(BASE, (len(points), 1))
    color += (rosy + 0.6 * ear)[:, None] * np.array([0.005, -0.085, -0.075])
    color += (0.8 * spot(34, -13, 13, 4.5) + 0.8 * spot(17, -4, 5, 7))[:, None] * np.array([-0.065, -0.085, -0.055])
    color += (0.9 * spot(34, 9, 15, 5))[:, None] * np.array([-0.035, -0.075, -0.065])
    color += (0.5 * spot(0, 50, 45, 22))[:, None] * np.array([0.02, 0.022, 0.012])
    color += (0.6 * spot(0, -62, 30, 10) + 0.4 * spot(0, -84, 16, 5))[:, None] * np.array([-0.012, -0.03, -0.022])
    below = np.clip((-108 - y) / 14, 0, 1)[:, None]
    color *= 1 - 0.06 * below
    color += 0.014 * value_noise(points, 17.0, 1)[:, None] * np.array([0.5, 1.0, 1.0])
    color += 0.009 * value_noise(points, 4.0, 2)[:, None] * np.array([0.6, 1.0, 1.0])
    rooted = np.clip((inside_hairline(points) + 5 + 2 * value_noise(points, 3.0, 7)) / 8, 0, 1)[:, None]
    color += rooted * 0.75 * (np.array([0.25, 0.15, 0.11]) - color)
    return np.clip(color, 0, 1)


def face_colors(sheet: FaceSheet) -> np.ndarray:  # -> [V, 3] sRGB
    points = sheet.vertices
    color = skin_colors(points)
    a, v = np.abs(sheet.uv[:, 0]), sheet.uv[:, 1]
    share = np.clip((a - 9.0) / 45.0, 0, 1)
    brow = v - (21.5 + 10.0 * np.sin(np.pi * (0.05 + 0.62 * share)))
    brow = np.exp(-((brow / (4.2 - 2.4 * share)) ** 2)) * np.clip((a - 8) / 5, 0, 1) * np.clip((54 - a) / 5, 0, 1)
    color += (0.5 * brow)[:, None] * (np.array([0.30, 0.19, 0.14]) - color)  # the skin under the brows
    inside = np.clip((a - INNER_CANTHUS[0]) / (OUTER_CANTHUS[0] - INNER_CANTHUS[0]), 0, 1)
    crease = np.exp(-(((sheet.lid - 3.9 - inside) / 0.9) ** 2)) * np.clip((a - 21) / 4, 0, 1) * np.clip((51 - a) / 3, 0, 1)
    color *= 1 - (0.22 * crease)[:, None] * np.array([0.8, 1.0, 1.0])
    freckle = np.clip(value_noise(points, 2.6, 5) - 0.42, 0, 1) * np.exp(-(((a - 22) / 24) ** 2 + ((v + 22) / 13) ** 2))
    color -= freckle[:, None] * np.array([0.10, 0.13, 0.12])
    mole = np.exp(-(((sheet.uv[:, 0] + 24.5) / 0.9) ** 2 + ((v + 56.5) / 0.9) ** 2))[:, None]  # on the -x side, by the mouth
    color += 0.8 * mole * (np.array([0.33, 0.19, 0.15]) - color)
    t = np.abs(sheet.lip)
    red = np.clip((1.12 - t) / 0.22, 0, 1) * np.clip((27.5 - a) / 3.0, 0, 1)
    shade = (
        LIP
        * (1.0 + 0.05 * value_noise(points * np.array([1.0, 0.25, 0.25]), 1.3, 8)[:, None])
        * np.where(sheet.is_upper_lip, 0.93, 1.03)[:, None]
    )
    color += red[:, None] * (shade - color)
    contact = np.exp(-((t / 0.10) ** 2)) * red
    color += contact[:, None] * (LINER - color) * 0.75
    inner = np.clip(sheet.lip_rim / 4, 0, 1)[:, None]
    color = np.where(sheet.lip_rim[:, None] > 0, LINER * (1 - 0.65 * inner), color)
    lid = np.abs(sheet.lid)
    margin = (
        np.exp(-((lid / 1.0) ** 2))
        * np.clip((a - INNER_CANTHUS[0]) / 2.5, 0, 1)
        * np.clip((OUTER_CANTHUS[0] + 1 - a) / 1.5, 0, 1)
    )
    upper = sheet.lid > 0.0
    color *= 1 - (np.where(upper, 0.55, 0.22) * margin)[:, None]
    color = np.where((sheet.lid_rim > 0)[:, None], np.array([0.70, 0.42, 0.38]), color)
    nostril = np.exp(-(((a - 5.6) / 3.0) ** 2 + ((v + 45.0) / 2.2) ** 2))
    color *= 1 - 0.75 * nostril[:, None]
    return np.clip(color, 0.01, 1)

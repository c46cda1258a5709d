"""Where the built-in face wrinkles, and its FACS regions: maps and vertex sets over the face sheet's flat domain."""

from __future__ import annotations

import numpy as np

from .head_domain import MOUTH_HALF_WIDTH
from .head_shapes import Muscles, smoothstep
from .head_wrinkles import (
    ABOVE_LIP,
    BELOW_LIP,
    BRIDGE,
    CHEEK,
    CHIN,
    CROWS_FEET,
    DIMPLE,
    FOREHEAD,
    FROWN,
    MARIONETTE,
    NASOLABIAL,
    NOSE,
    NOSE_WING,
    UNDER_EYE,
    UPPER_LID,
    Curve,
)

LINE_WIDTH, SHADOW_WIDTH = 0.9, 3.2  # mm


def wrinkle_maps(m: Muscles) -> dict[str, np.ndarray]:  # AU -> [V] 0..1
    """A fine line that runs out at its ends, in a wide soft shadow: the look of a fold under soft light."""

    def line(*curves: Curve, shade: float = 0.15, taper: float = 0.3) -> np.ndarray:
        fine = sum(m.along(curve, LINE_WIDTH, taper) for curve in curves)
        soft = sum(m.along(curve, SHADOW_WIDTH, taper) for curve in curves)
        return np.clip(fine + shade * soft, 0.0, 1.0)

    across = 0.42 * line(*FOREHEAD, shade=0.12)
    inner, outer = smoothstep(42, 20, m.a), smoothstep(16, 36, m.a)
    fold, crow = line(NASOLABIAL, shade=0.25), 0.5 * line(*CROWS_FEET, shade=0.05, taper=0.55)
    maps = {
        "AU01": across * inner,
        "AU02": across * outer,
        "AU04": 0.85 * line(FROWN, shade=0.25) + 0.4 * line(BRIDGE),
        "AU05": 0.35 * line(UPPER_LID),
        "AU06": crow + 0.35 * line(UNDER_EYE),
        "AU07": 0.5 * line(UNDER_EYE) + 0.35 * crow,
        "AU09": 0.5 * line(*NOSE, shade=0.25) + 0.5 * line(BRIDGE) + 0.6 * line(NOSE_WING, shade=0.3),
        "AU10": 0.5 * fold + 0.3 * line(NOSE_WING, shade=0.3),
        "AU12": 0.6 * fold + 0.3 * line(CHEEK, taper=0.45) + 0.2 * crow,
        "AU14": 0.75 * line(DIMPLE, shade=0.3, taper=0.5),
        "AU15": 0.55 * line(MARIONETTE, shade=0.2, taper=0.5),
        "AU17": 0.6 * line(CHIN, shade=0.25) + 0.22 * m.bump(0, -98, 10, 7) * (0.5 + 0.5 * np.sin(m.a * 1.9) * np.sin(m.v * 1.7)),
        "AU23": 0.35 * line(*ABOVE_LIP, BELOW_LIP),
        "AU24": 0.4 * m.along(((0, -60.5), (14, -61.5), (23, -64)), 1.1) + 0.4 * m.along(((0, -74.5), (14, -73), (23, -68)), 1.2),
    }
    red = np.abs(m.sheet.lip) < 0.9
    return {name: np.clip(np.where(red & (name != "AU24"), 0, values) * m.fade, 0, 1) for name, values in maps.items()}


def face_regions(m: Muscles) -> dict[str, np.ndarray]:
    """Vertex sets by name: [K] int64 each."""
    a, v, sheet = m.a, m.v, m.sheet
    t = np.abs(sheet.lip)
    mouth = (a < MOUTH_HALF_WIDTH + 1.5) & (t < 1.15)
    lid = (a > 17) & (a < 54) & (v > -13) & (v < 15)

    def box(a0: float, a1: float, v0: float, v1: float) -> np.ndarray:
        return (a >= a0) & (a <= a1) & (v >= v0) & (v <= v1)

    masks = {
        "lips": mouth | (sheet.lip_rim > 0),
        "eyelids": lid | (sheet.lid_rim > 0),
        "upper_face": v > 12,
        "jaw": (m.jaw_weight > 0.985) & ((v < -106) | (a > 24)),
        "nose": box(0, 17, -50, 14),
        "cheeks": box(20, 75, -62, -12),
        "brows": box(4, 58, 14, 34),
        "forehead": box(0, 70, 34, 80),
        "chin": box(0, 24, -116, -84),
        "AU01": box(0, 36, 8, 80),
        "AU02": box(16, 78, 2, 80),
        "AU04": box(0, 62, 2, 46),
        "AU05": box(14, 60, -14, 18) | (sheet.lid_rim > 0),
        "AU06": box(12, 78, -58, 30) | (sheet.lid_rim > 0),
        "AU07": box(12, 62, -18, 18) | (sheet.lid_rim > 0),
        "AU09": box(0, 34, -64, 38),
        "AU10": box(0, 42, -69, -24) & m.upper,
        "AU12": box(0, 76, -86, -6) | (sheet.lip_rim > 0),
        "AU14": box(0, 52, -86, -46),
        "AU15": box(0, 48, -100, -46),
        "AU17": box(0, 34, -124, -52),
        "AU23": box(0, 44, -86, -44) | (sheet.lip_rim > 0),
        "AU24": box(0, 44, -92, -44) | (sheet.lip_rim > 0),
        "AU25": box(0, 34, -94, -44) | (sheet.lip_rim > 0),
        "AU26": (v < -40) & (a < 105),
        "AU45": box(12, 62, -14, 20) | (sheet.lid_rim > 0),
    }
    regions = {name: np.flatnonzero(mask).astype(np.int64) for name, mask in masks.items()}
    regions["lip_upper"], regions["lip_lower"] = sheet.lip_upper.astype(np.int64), sheet.lip_lower.astype(np.int64)
    return regions

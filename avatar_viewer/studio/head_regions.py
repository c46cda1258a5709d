"""Where the built-in face wrinkles, and its FACS regions: maps and vertex sets over the face sheet's flat domain."""

from __future__ import annotations

import numpy as np

from .head_domain import MOUTH_HALF_WIDTH
from .head_shapes import Muscles, smoothstep


def wrinkle_maps(m: Muscles) -> dict[str, np.ndarray]:  # AU -> [V] 0..1
    line = m.along
    forehead = [[(0, y), (22, y + 2), (44, y + 1), (60, y - 4)] for y in (42, 51, 60)]
    across = 0.75 * sum(line(curve, 1.4) for curve in forehead)
    inner, outer = smoothstep(40, 22, m.a), smoothstep(20, 36, m.a)
    fold = 0.6 * line([(17, -36), (24, -45), (31, -55), (35.5, -67)], 1.5)
    crow = sum(line([(54.5, y0), (63, y1)], 1.3) for y0, y1 in ((3, 9), (0, 0), (-3, -8)))
    crow = 0.65 * crow
    maps = {
        "AU01": across * inner,
        "AU02": across * outer,
        "AU04": line([(5.5, 13), (6.5, 34)], 1.5) + 0.6 * line([(0, 10), (8, 9)], 1.4),
        "AU05": 0.5 * line([(24, 9), (35, 13), (47, 8)], 1.2),
        "AU06": crow + 0.5 * line([(24, -9), (36, -12), (48, -8)], 1.3),
        "AU07": 0.7 * line([(24, -8), (36, -10.5), (47, -7)], 1.2) + 0.4 * crow,
        "AU09": line([(4, -2), (13, -10)], 1.3)
        + line([(3, 5), (12, -1)], 1.3)
        + 0.8 * line([(0, 10), (6, 10)], 1.4)
        + 0.7 * line([(12, -27), (20, -40)], 1.6),
        "AU10": fold + 0.4 * line([(10, -32), (17, -38)], 1.5),
        "AU12": fold + 0.4 * line([(34, -60), (35.5, -72)], 1.6) + 0.25 * crow,
        "AU14": line([(29.5, -60), (31, -66), (29, -72)], 1.6),
        "AU15": line([(26.5, -67), (30, -75), (31, -84)], 1.7),
        "AU17": 0.8 * line([(0, -84.5), (10, -85.5), (17, -90)], 1.7)
        + 0.35 * m.bump(0, -98, 10, 7) * (0.5 + 0.5 * np.sin(m.a * 1.9) * np.sin(m.v * 1.7)),
        "AU23": 0.5 * (line([(6, -55), (7, -50)], 1.0) + line([(13, -57), (15, -52)], 1.0) + line([(8, -79), (9, -83)], 1.0)),
        "AU24": 0.6 * line([(0, -60.5), (14, -61.5), (23, -64)], 1.1) + 0.6 * line([(0, -74.5), (14, -73), (23, -68)], 1.2),
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

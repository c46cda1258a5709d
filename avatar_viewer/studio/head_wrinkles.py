"""The lines in which the built-in face wrinkles: curves of the flat domain (|u|, v in mm), by muscle.

The mesh puts vertices on them (`head_topology`), so that a fold is a fine unbroken line and not a row of blotches; the
wrinkle maps and the folds' own movements are laid out along them.
"""

from __future__ import annotations

import numpy as np
from scipy.interpolate import PchipInterpolator

Curve = tuple[tuple[float, float], ...]

FOREHEAD: tuple[Curve, ...] = (
    ((0, 41.0), (10, 42.2), (24, 43.4), (38, 42.6), (50, 39.6), (57, 36.8)),
    ((0, 49.6), (12, 50.6), (26, 51.9), (40, 50.8), (52, 47.2)),
    ((0, 58.0), (11, 58.9), (23, 59.8), (35, 58.8), (43, 56.8)),
)
FROWN: Curve = ((4.6, 13.0), (5.0, 19.0), (5.9, 26.0), (7.4, 33.0))
BRIDGE: Curve = ((0, 9.6), (4, 9.2), (8, 7.6))
NOSE: tuple[Curve, ...] = (((3.0, 3.4), (6.5, 1.8), (10.5, -1.6)), ((3.4, -3.0), (7.4, -5.0), (11.6, -9.4)))
NOSE_WING: Curve = ((11.5, -25.5), (15.5, -31.5), (19.0, -39.0))
CROWS_FEET: tuple[Curve, ...] = (
    ((54.5, 5.0), (60.0, 8.2), (66.5, 10.6)),
    ((55.5, 1.0), (61.5, 1.2), (69.0, 0.2)),
    ((54.5, -3.0), (60.0, -6.2), (66.0, -10.0)),
)
UNDER_EYE: Curve = ((22.5, -8.6), (28, -10.6), (36, -11.8), (44, -10.2), (50, -6.8))
UPPER_LID: Curve = ((24, 9.4), (30, 12.0), (37, 13.0), (45, 10.6))
NASOLABIAL: Curve = ((16.5, -35.0), (20.0, -40.2), (24.6, -45.6), (29.0, -51.4), (32.8, -58.4), (35.2, -67.0))
CHEEK: Curve = ((35.2, -60.0), (36.8, -66.0), (36.4, -73.0))
DIMPLE: Curve = ((29.4, -60.0), (31.0, -65.6), (29.8, -71.5))
MARIONETTE: Curve = ((26.4, -68.6), (29.2, -73.6), (30.8, -79.0), (31.0, -85.0))
CHIN: Curve = ((0, -84.4), (8, -84.9), (14, -87.2), (18, -90.6))
ABOVE_LIP: tuple[Curve, ...] = (((6.2, -55.0), (7.2, -50.6)), ((12.8, -56.4), (14.6, -52.2)))
BELOW_LIP: Curve = ((8.0, -79.4), (8.8, -83.0))
MESHED: tuple[Curve, ...] = (
    *FOREHEAD, FROWN, BRIDGE, *NOSE, NOSE_WING, *CROWS_FEET, UNDER_EYE, UPPER_LID, NASOLABIAL, CHEEK, DIMPLE, MARIONETTE, CHIN,
)  # fmt: skip


def trace(curve: Curve, step: float = 0.5) -> np.ndarray:  # -> [K, 2] mm
    """Points on the smooth curve through the given ones, some `step` mm apart."""
    points = np.asarray(curve, dtype=np.float64)
    lengths = np.r_[0, np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))]
    return PchipInterpolator(lengths, points)(np.linspace(0, lengths[-1], 1 + max(1, round(lengths[-1] / step))))

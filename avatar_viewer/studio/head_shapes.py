"""The built-in head's muscles: 17 AUs, 14 visemes, wrinkle maps and FACS regions on the face sheet, in millimetres.

Every movement is a smooth field over the sheet's flat domain, written with |u|, so left and right are alike.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from .head_domain import INNER_CANTHUS, MOUTH_HALF_WIDTH, OUTER_CANTHUS, mouth_line
from .head_surface import EYE_CENTRE, JAW_HINGE, rotation
from .head_template import FaceSheet
from .head_wrinkles import NASOLABIAL, Curve, trace

JAW_DROP_DEGREES = 11.0  # AU26 at intensity 5


def smoothstep(low: float, high: float, value: np.ndarray) -> np.ndarray:
    share = np.clip((value - low) / (high - low), 0.0, 1.0)
    return share * share * (3.0 - 2.0 * share)


class Muscles:
    """Movement primitives of one sheet; each returns offsets [V, 3] in mm."""

    def __init__(self, sheet: FaceSheet) -> None:
        self.sheet = sheet
        self.points = sheet.vertices
        self.a, self.v = np.abs(sheet.uv[:, 0]), sheet.uv[:, 1]
        self.side = np.where(sheet.uv[:, 0] < 0, -1.0, 1.0) * smoothstep(
            0.0, 6.0, self.a
        )  # fades lateral pulls out in the middle
        self.below = mouth_line(np.minimum(self.a, MOUTH_HALF_WIDTH)) - self.v  # mm under the mouth's line
        self.upper = sheet.is_upper_lip
        outline = sheet.uv[sheet.border]
        dense = np.concatenate(
            [
                outline + share * (np.roll(outline, -1, axis=0) - outline)
                for share in np.linspace(0, 1, 8, endpoint=False)[:, None]
            ]
        )
        inwards = cKDTree(dense).query(sheet.uv)[0]
        self.fade = smoothstep(3.5, 19.0, inwards)
        # Beside the chin the skin under the jaw is short: bone and neck are few mm apart, and only a long fade keeps it from folding over.
        self.jaw_fade = smoothstep(3.5, 34.0 + 30.0 * smoothstep(15.0, 45.0, self.a), inwards)
        self.jaw_weight = self._jaw_weight()
        self._lid_turns = self._fit_lids()

    # fields

    def bump(self, a: float, v: float, reach_a: float, reach_v: float) -> np.ndarray:
        return np.exp(-(((self.a - a) / reach_a) ** 2 + ((self.v - v) / reach_v) ** 2))

    def plateau(self, a: float, v: float, flat: tuple[float, float], reach: tuple[float, float]) -> np.ndarray:
        """A bump that is 1 within `flat` mm of its middle: what it moves, it does not stretch."""
        beyond_a = np.maximum(0.0, np.abs(self.a - a) - flat[0]) / reach[0]
        beyond_v = np.maximum(0.0, np.abs(self.v - v) - flat[1]) / reach[1]
        return np.exp(-(beyond_a**2 + beyond_v**2))

    def along(self, curve: Curve, width: float, taper: float = 0.0) -> np.ndarray:
        """1 on a curve of the domain (both sides), falling off over `width` mm; it runs out over the share `taper` of its
        length at each end that is not in the middle of the face."""
        dense = trace(curve)
        distance, nearest = cKDTree(dense).query(np.stack([self.a, self.v], -1))
        share = nearest / (len(dense) - 1)
        ends = (1.0 if dense[0, 0] <= 0 else smoothstep(-0.01, taper, share)) * smoothstep(1.01, 1.0 - taper, share)
        return np.exp(-((distance / width) ** 2)) * (ends if taper > 0 else 1.0)

    def move(self, weight: np.ndarray, out: float = 0.0, up: float = 0.0, forward: float = 0.0) -> np.ndarray:
        """Everything under `weight` moves by so many mm; `out` is away from the middle."""
        return weight[:, None] * np.stack([out * self.side, np.full_like(weight, up), np.full_like(weight, forward)], -1)

    def _jaw_weight(self) -> np.ndarray:
        lateral_line = -65.0 + 45.0 * np.clip((self.a - MOUTH_HALF_WIDTH) / 72.0, 0, 1)
        lateral = smoothstep(-15.0, 15.0, lateral_line - self.v)
        corner = np.clip(self.a / MOUTH_HALF_WIDTH, 0, 1)
        lower = 1 - 0.5 * corner**3
        lower = lower + (1 - lower) * smoothstep(0, 18, self.below)
        upper = 0.5 * corner**4 * (1 - smoothstep(0, 15, -self.below))
        middle = np.where(self.upper, upper, lower)
        mix = smoothstep(MOUTH_HALF_WIDTH - 3, MOUTH_HALF_WIDTH + 5, self.a)
        return ((1 - mix) * middle + mix * lateral) * self.jaw_fade

    def jaw(self, degrees: float) -> np.ndarray:
        """The mandible turns about its joints; a wide jaw narrows the mouth a little."""
        turned = (self.points - JAW_HINGE) @ rotation(degrees, 0, 0).T + JAW_HINGE
        narrowing = self.move(self.bump(MOUTH_HALF_WIDTH, -68, 10, 12), out=-0.14 * degrees)
        return self.jaw_weight[:, None] * (turned - self.points) + narrowing

    def _lip_share(self) -> tuple[np.ndarray, np.ndarray]:
        """How much the upper and the lower lip follow when lips move as such: full on the vermilion, soft beyond."""
        arch = np.clip(1 - (self.a / (MOUTH_HALF_WIDTH + 1.0)) ** 2, 0, 1) ** 0.6
        upper = np.where(self.upper, arch * (1 - smoothstep(5, 19, -self.below)), 0.0)
        lower = np.where(self.upper, 0.0, arch * (1 - smoothstep(8, 22, self.below)))
        return upper, lower

    def part(self, upper_mm: float, lower_mm: float) -> np.ndarray:
        upper, lower = self._lip_share()
        return self.move(upper, up=upper_mm, forward=0.1 * upper_mm) + self.move(lower, up=-lower_mm, forward=-0.12 * lower_mm)

    def corners(self, out: float, up: float, forward: float, reach: float = 13.0) -> np.ndarray:
        """Pulls at the mouth's corners; the lips between them follow less and less towards the middle."""
        weight = np.exp(
            -(
                (np.maximum(0, self.a - MOUTH_HALF_WIDTH) / reach) ** 2
                + ((self.v - mouth_line(np.minimum(self.a, 26))) / (reach * 1.05)) ** 2
            )
        )
        weight *= np.where(self.a < MOUTH_HALF_WIDTH, np.clip(self.a / MOUTH_HALF_WIDTH, 0, 1) ** 1.9, 1.0)
        return self.move(weight, out=out, up=up, forward=forward)

    def protrude(self, mm: float, narrow: float) -> np.ndarray:
        """Lips forward and the corners `narrow` mm in: the pout of a rounded vowel."""
        near = np.exp(-((self.a / 20.0) ** 2)) * np.exp(-((np.maximum(0, np.abs(self.below) - 5) / 8.5) ** 2))
        squeeze = np.clip(self.a / MOUTH_HALF_WIDTH, 0, 1) * np.exp(
            -((np.maximum(0, self.a - MOUTH_HALF_WIDTH) / 12) ** 2 + (self.below / 13) ** 2)
        )
        return self.move(near, forward=mm) + self.move(squeeze, out=-narrow, forward=0.25 * mm)

    def press(self, upper_roll: float, lower_roll: float, push: float) -> np.ndarray:
        """The red of the lips rolls in by shares of its height, and the lips push against each other by `push` mm."""
        t = np.abs(self.sheet.lip)
        arch = np.clip(1 - (self.a / (MOUTH_HALF_WIDTH + 1.0)) ** 2, 0, 1) ** 0.5
        red = arch * (1 - smoothstep(1.0, 2.1, t)) * smoothstep(-48.0, -54.0, self.v)
        roll = np.where(self.upper, upper_roll, lower_roll) * red
        towards = mouth_line(self.a) - self.v
        inwards = -2.4 * np.exp(-(((t - 0.45) / 0.4) ** 2)) - 0.9 * np.exp(-((t / 0.3) ** 2))
        offsets = self.move(roll * towards, up=1.0) + self.move(roll * inwards, forward=1.0)
        return offsets + self.move(np.where(self.upper, -1.0, 1.0) * red, up=push)

    # lids

    def _fit_lids(self) -> dict[str, np.ndarray]:
        """Rotation vectors about the eye's centre that carry each vertex's piece of margin to where the lids meet."""
        sheet, result = self.sheet, {}
        for name in ("upper", "lower"):
            result[name] = np.zeros((len(self.points), 3))
        for eye, sign in enumerate((-1.0, 1.0)):
            centre = EYE_CENTRE * np.array([sign, 1, 1])
            upper, lower = self.points[sheet.lid_upper[eye]] - centre, self.points[sheet.lid_lower[eye]] - centre
            meet = 0.12 * upper / np.linalg.norm(upper, axis=1, keepdims=True) + 0.88 * lower / np.linalg.norm(
                lower, axis=1, keepdims=True
            )
            meet /= np.linalg.norm(meet, axis=1, keepdims=True)
            mine = np.flatnonzero((sheet.uv[:, 0] * sign > 0) & (self.a > 8) & (self.a < 66))
            for name, margin, ids in (("upper", upper, sheet.lid_upper[eye]), ("lower", lower, sheet.lid_lower[eye])):
                direction = margin / np.linalg.norm(margin, axis=1, keepdims=True)
                axis = np.cross(direction, meet)
                sine = np.linalg.norm(axis, axis=1, keepdims=True)
                turn = axis / np.maximum(sine, 1e-9) * np.arcsin(np.clip(sine, 0, 1))
                along = np.abs(sheet.uv[ids, 0])
                for component in range(3):
                    result[name][mine, component] = np.interp(self.a[mine], along, turn[:, component])
        return result

    def lids(self, upper_close: float, lower_close: float, slant: float = 0.0) -> np.ndarray:
        """Lids slide over the eye: 1, 1 shuts them; negative opens wider. `slant` shuts the upper one more at its outer end
        and opens it by half as much at its inner end."""
        outwards = np.clip((self.a - INNER_CANTHUS[0]) / (OUTER_CANTHUS[0] - INNER_CANTHUS[0]), 0.0, 1.0)
        upper_close = upper_close + slant * (1.5 * smoothstep(0.0, 1.0, outwards) - 0.5)
        height = np.abs(self.sheet.lid)
        upper = np.where(self.sheet.is_lower_lid, 0.0, 1 - smoothstep(2.2, 13.0, height))
        lower = np.where(self.sheet.is_lower_lid, 1 - smoothstep(1.5, 10.0, height), 0.0)
        turn = (upper_close * upper)[:, None] * self._lid_turns["upper"] + lower_close * lower[:, None] * self._lid_turns["lower"]
        near = smoothstep(24.0, 17.0, np.hypot(self.a - 35.0, self.v) * 1.0)
        turn *= near[:, None]
        centre = np.where(self.sheet.uv[:, :1] < 0, -1.0, 1.0) * EYE_CENTRE * np.array([1, 0, 0]) + EYE_CENTRE * np.array(
            [0, 1, 1]
        )
        return _rotate(self.points - centre, turn) + centre - self.points


def _rotate(points: np.ndarray, turns: np.ndarray) -> np.ndarray:
    """Rodrigues, one rotation vector a point."""
    angle = np.linalg.norm(turns, axis=1, keepdims=True)
    axis = turns / np.maximum(angle, 1e-12)
    cosine, sine = np.cos(angle), np.sin(angle)
    return points * cosine + np.cross(axis, points) * sine + axis * (axis * points).sum(1, keepdims=True) * (1 - cosine)


def action_unit_shapes(m: Muscles) -> dict[str, np.ndarray]:  # AU -> [V, 3] mm at intensity 5
    bump, move = m.bump, m.move
    fold = m.along(NASOLABIAL, 2.8)
    apple = bump(36, -30, 15, 14)
    shapes = {
        "AU01": move(m.plateau(9, 26, (3, 5), (14, 10)), out=-0.6, up=7.6, forward=0.6)
        + move(bump(12, 50, 20, 18), up=2.6)
        + m.lids(0.10, 0.06, slant=0.26),
        "AU02": move(m.plateau(43, 25, (5, 4), (12, 10)), up=7.4, out=0.8)
        + move(bump(44, 48, 20, 18), up=3.0)
        + move(bump(40, 11, 13, 6), up=2.0)
        + m.lids(-0.08, 0.0, slant=-0.16),
        "AU04": move(m.plateau(11, 22, (3, 5), (12, 8)), out=-3.6, up=-5.4, forward=1.6)
        + move(bump(36, 24, 16, 9), out=-2.0, up=-4.0, forward=0.8)
        + m.lids(0.10, 0.10, slant=0.06),
        "AU05": m.lids(-0.48, -0.25),
        "AU06": move(apple, up=5.0, out=0.8, forward=2.2)
        + move(bump(54, -3, 9, 11), out=-2.4, up=-0.3, forward=1.0)
        + m.lids(0.08, 1.6)
        + move(bump(36, -13, 15, 5), up=2.2, forward=0.9)
        + move(bump(50, 20, 12, 8), up=-1.2),
        "AU07": m.lids(0.26, 2.2) + move(bump(36, -10, 15, 4), up=1.6, forward=0.3),
        "AU09": move(bump(13, -37, 7, 10), up=5.6, forward=0.8, out=0.8)
        + move(bump(0, 4, 9, 12), up=1.6, forward=1.2)
        + move(bump(12, 0, 7, 14), up=2.6, forward=2.0, out=-1.0)
        + move(bump(12, 20, 11, 9), up=-4.4, out=-2.4)
        + move(np.where(m.upper, bump(11, -57, 14, 9), 0), up=4.2)
        + move(m.along(((12, -26), (19, -38), (25, -50)), 3.0), forward=-1.4)
        + move(bump(26, -22, 10, 10), up=2.4, forward=1.4)
        + m.lids(0.12, 0.9),
        "AU10": m.part(4.6, 0.0)
        + move(np.where(m.upper, bump(16, -48, 11, 9), 0), up=3.4, forward=1.0)
        + move(bump(13, -40, 6, 6), up=1.6, out=1.0)
        + move(bump(28, -38, 8, 9), up=2.2, forward=2.2)
        + move(fold, forward=-1.8),
        "AU12": m.corners(7.5, 8.0, -4.5)
        + move(apple, up=3.4, forward=3.0, out=1.2)
        + move(fold, forward=-1.8, up=1.0)
        + move(np.where(m.upper, bump(0, -58, 16, 8), 0), up=0.2, forward=-1.2)
        + m.lids(0.0, 0.5),
        "AU14": m.corners(2.6, 1.2, -4.6, 9.0)
        + move(bump(31, -65, 4.0, 6.0), forward=-2.2)
        + move(bump(38, -66, 6, 10), forward=1.6)
        + m.press(0.22, 0.22, 0.3),
        "AU15": m.corners(1.2, -7.5, -1.2, 11.0) + move(bump(27, -80, 8, 7), up=-2.5, forward=1.2) + move(fold, forward=-0.6),
        "AU17": move(bump(0, -98, 16, 10), up=6.5, forward=2.6)
        + move(np.where(m.upper, 0, bump(0, -76, 19, 11)), up=5.2, forward=3.2)
        + move(np.where(m.upper, bump(0, -62, 17, 7), 0), up=2.4, forward=1.2)
        + m.corners(0.0, -2.6, 0.0, 8.0),
        "AU23": m.press(0.42, 0.42, 0.15) + m.protrude(0.4, 4.2),
        "AU24": m.press(0.62, 0.62, 1.0)
        + m.corners(0.8, -0.4, -1.2, 8.0)
        + move(np.where(m.upper, bump(0, -56, 20, 4), 0), forward=0.8, up=-1.0)
        + move(np.where(m.upper, 0, bump(0, -81, 18, 4.5)), forward=1.0, up=1.6),
        "AU25": m.part(2.4, 5.4),
        "AU26": m.jaw(JAW_DROP_DEGREES) + m.part(0.4, 1.0),
        "AU45": m.lids(1.0, 1.0) + move(bump(36, 12, 14, 5), up=-0.8),
    }
    return {name: _settle(m, offsets) for name, offsets in shapes.items()}


def viseme_shapes(m: Muscles) -> dict[str, np.ndarray]:  # viseme -> [V, 3] mm at weight 1
    tuck = np.where(m.upper, 0.0, np.exp(-((np.abs(m.a) / 19.0) ** 2)) * (1 - smoothstep(4, 15, m.below)))
    shapes = {
        "PP": m.press(0.42, 0.42, 0.8) + m.protrude(0.6, 0.5),
        "FF": m.jaw(1.2) + m.part(2.6, -1.2) + m.move(tuck, up=2.2, forward=-3.6),
        "TH": m.jaw(3.2) + m.part(1.8, 2.2),
        "DD": m.jaw(2.4) + m.part(1.5, 2.4),
        "kk": m.jaw(4.2) + m.part(1.4, 2.2),
        "CH": m.jaw(1.6) + m.part(2.4, 3.4) + m.protrude(4.2, 3.6),
        "SS": m.jaw(0.8) + m.part(1.8, 3.6) + m.corners(3.0, 0.8, -1.6),
        "nn": m.jaw(1.8) + m.part(1.2, 2.0),
        "RR": m.jaw(2.2) + m.part(1.4, 2.4) + m.protrude(3.4, 3.6),
        "aa": m.jaw(9.6) + m.part(2.0, 3.0),
        "E": m.jaw(4.2) + m.part(1.8, 2.6) + m.corners(3.4, 0.8, -1.6),
        "ih": m.jaw(2.6) + m.part(1.6, 2.6) + m.corners(2.8, 0.8, -1.4),
        "oh": m.jaw(5.6) + m.part(0.3, 0.8) + m.protrude(4.4, 7.0),
        "ou": m.jaw(1.6) + m.part(0.5, 0.9) + m.protrude(7.0, 10.5),
    }
    return {name: _settle(m, offsets) for name, offsets in shapes.items()}


VISEME_AUS: dict[str, dict[str, float]] = {
    "PP": {"AU24": 2.5, "AU23": 0.6},
    "FF": {"AU10": 1.2, "AU25": 1.0, "AU26": 0.5},
    "TH": {"AU25": 2.6, "AU26": 1.5},
    "DD": {"AU25": 2.4, "AU26": 1.1},
    "kk": {"AU25": 2.4, "AU26": 1.9},
    "CH": {"AU25": 3.0, "AU26": 0.7, "AU23": 1.8, "AU10": 0.8},
    "SS": {"AU25": 3.0, "AU26": 0.4, "AU12": 0.8},
    "nn": {"AU25": 1.9, "AU26": 0.8},
    "RR": {"AU25": 2.0, "AU26": 1.0, "AU23": 1.8},
    "aa": {"AU25": 4.0, "AU26": 4.0},
    "E": {"AU25": 2.8, "AU26": 1.9, "AU12": 1.0},
    "ih": {"AU25": 2.6, "AU26": 1.2, "AU12": 0.8},
    "oh": {"AU25": 2.0, "AU26": 2.6, "AU23": 2.4},
    "ou": {"AU25": 1.2, "AU26": 0.9, "AU23": 4.0},
}

TONGUE_POSES: dict[str, tuple[float, float, float]] = {  # pitch rad (tip up), forward m, up m
    "TH": (0.06, 0.013, 0.007),
    "DD": (0.32, 0.003, 0.006),
    "nn": (0.34, 0.003, 0.006),
    "SS": (0.16, 0.002, 0.004),
    "CH": (0.18, 0.000, 0.004),
    "RR": (0.30, -0.005, 0.004),
    "kk": (-0.22, -0.006, 0.006),
    "aa": (-0.10, -0.003, -0.002),
    "E": (0.02, 0.001, 0.003),
    "ih": (0.02, 0.002, 0.004),
    "oh": (-0.08, -0.005, 0.000),
    "ou": (-0.10, -0.006, 0.002),
}


def _settle(m: Muscles, offsets: np.ndarray) -> np.ndarray:
    """Zero at the sheet's border and below a hundredth of a mm, exactly mirrored."""
    offsets = offsets * m.fade[:, None]
    offsets = 0.5 * (offsets + offsets[m.sheet.mirror] * np.array([-1.0, 1.0, 1.0]))
    return np.where(np.linalg.norm(offsets, axis=1, keepdims=True) < 0.01, 0.0, offsets)

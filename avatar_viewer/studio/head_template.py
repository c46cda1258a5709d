"""The built-in head's face sheet: its neutral shape, in millimetres, with the coordinates its muscles are laid out by.

One half of the flat domain is meshed, mirrored and cast on the implicit head, so the sheet is exactly symmetric.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.spatial import cKDTree

from .head_domain import (
    INNER_CANTHUS,
    MOUTH_HALF_WIDTH,
    MOUTH_SLOT,
    OUTER_CANTHUS,
    UNROLL_RADIUS,
    lid_coordinate,
    lid_margin,
    lip_coordinate,
    mouth_line,
)
from .head_surface import EYE_CENTRE, EYE_RADIUS, head_distance, surface_normals
from .head_topology import mesh_half, mirror_half

_BORDER_DIVE = 0.8  # mm: the sheet's edge dips under the skin around it, so that no slit shows
_LIP_GAP = 0.12  # mm between the shut lips
_PROFILE = np.array(  # v, height y, radius about the axis, elevation of the ray in degrees
    [
        (95, 92, 50, 55), (80, 79, 62, 45), (50, 52, 80, 22), (20, 20, 85, 4), (0, 0, 80, 0), (-25, -25, 90, -12),
        (-45, -45, 90, -20), (-66, -66, 88, -6), (-85, -85, 82, -12), (-105, -105, 78, -38), (-120, -115, 64, -72),
        (-135, -113, 48, -95), (-160, -106, 26, -115),
    ]
)[::-1]  # fmt: skip
_PROFILE_CURVE = PchipInterpolator(_PROFILE[:, 0], _PROFILE[:, 1:])


@dataclass(frozen=True)
class FaceSheet:
    """The neutral face with the coordinates by which its muscles are laid out. All arrays are per vertex."""

    vertices: np.ndarray  # [V, 3] mm
    faces: np.ndarray  # [F, 3]
    uv: np.ndarray  # [V, 2] mm in the domain; u < 0 on the -x side; rims share their margin's
    mirror: np.ndarray  # [V] each vertex's twin across x = 0
    lip: np.ndarray  # [V] signed lip coordinate: 0 contact, 1 upper and -1 lower vermilion border; beyond 3 far away
    lip_rim: np.ndarray  # [V] 0 outside, 1.. inner rows of the mouth's rim
    is_upper_lip: np.ndarray  # [V] bool, above the line between the lips (rims included)
    lid: np.ndarray  # [V] mm above (+) or below (-) the lid margin, in the domain; 99 far away
    is_lower_lid: np.ndarray  # [V] bool, moves with the lower lid (rims included)
    lid_rim: np.ndarray  # [V] 0 outside, 1.. rows that turn in to the eye
    lip_upper: np.ndarray  # [P] contact vertices, from the -x corner to the +x corner
    lip_lower: np.ndarray  # [P] their partners
    lid_upper: np.ndarray  # [2, M] margins of the -x and the +x eye
    lid_lower: np.ndarray  # [2, M]
    border: np.ndarray  # [B] the outline, in order


def build_face_sheet(scale: float = 1.0) -> FaceSheet:
    """Mesh, mirror, cast on the head; `scale` multiplies every edge length in the flat domain."""
    half, triangles, chains = mesh_half(scale)
    right, mirrored_of = mirror_half(half)
    uv = np.concatenate([half, right])
    faces = np.concatenate([triangles, mirrored_of[triangles][:, ::-1]])
    mirror = np.empty(len(uv), dtype=np.int64)
    mirror[: len(half)] = mirrored_of
    mirror[mirrored_of] = np.arange(len(half))

    upper = np.concatenate([mirror[chains["lip_upper"][::-1]][:-1], chains["lip_upper"]])  # -x corner .. +x corner
    lower = np.concatenate([mirror[chains["lip_lower"][::-1]][:-1], chains["lip_lower"]])
    lid_upper = np.stack([mirror[chains["lid_upper"]], chains["lid_upper"]])
    lid_lower = np.stack([mirror[chains["lid_lower"]], chains["lid_lower"]])
    lip, is_upper = lip_coordinate(uv)
    is_upper[upper], is_upper[lower[1:-1]] = True, False
    lip[upper], lip[lower] = 0.0, 0.0
    points = _even_out(cast_on_head(uv, is_upper), faces, uv, lip)
    points = _shape_lips(points, uv, lip, is_upper)
    points[upper[1:-1], 1] += 0.5 * _LIP_GAP
    points[lower[1:-1], 1] -= 0.5 * _LIP_GAP
    points = _shape_lids(points, uv)

    is_lower_lid = lid_coordinate(uv) < -1e-6
    is_lower_lid[lid_lower[:, 1:-1]] = True
    is_lower_lid[lid_upper] = False
    sheet = dict(uv=uv, is_lower_lid=is_lower_lid, lip=lip, is_upper_lip=is_upper, mirror=mirror,
                 lip_rim=np.zeros(len(uv), int), lid_rim=np.zeros(len(uv), int))  # fmt: skip
    lip_loop = np.concatenate([upper, lower[-2:0:-1]])
    points, faces, sheet = _turn_in(points, faces, sheet, lip_loop, "lip_rim", _lip_rim_rows(points, lip_loop, is_upper))
    for upper_margin, lower_margin in zip(lid_upper, lid_lower):
        loop = np.concatenate([upper_margin, lower_margin[-2:0:-1]])
        points, faces, sheet = _turn_in(points, faces, sheet, loop, "lid_rim", _lid_rim_rows(points, loop))
    sheet["mirror"] = _pair_by_position(points, sheet["is_upper_lip"])
    border = np.concatenate([mirror[chains["border"][::-1]][:-1], chains["border"][:-1]])
    points[border] -= _BORDER_DIVE * surface_normals(points[border])
    return FaceSheet(
        vertices=points, faces=faces, lid=lid_coordinate(sheet["uv"]), lip_upper=upper[1:-1], lip_lower=lower[1:-1],
        lid_upper=lid_upper, lid_lower=lid_lower, border=border, **sheet,
    )  # fmt: skip


def cast_on_head(uv: np.ndarray, is_upper: np.ndarray | None = None) -> np.ndarray:  # [P, 2] -> [P, 3] mm
    """The head's outermost point on each domain point's ray; the mouth's slot is closed when sides are given."""
    u, v = uv[:, 0], uv[:, 1].copy()
    if is_upper is not None:
        a = np.abs(u)
        slot = MOUTH_SLOT * np.clip(1 - (a / MOUTH_HALF_WIDTH) ** 2, 0, 1)
        away = np.maximum(0.0, np.abs(v - mouth_line(u)) - slot)
        v -= np.where(is_upper, 1.0, -1.0) * slot * np.clip(1 - away / 14.0, 0, 1)
    height, radius, elevation = _PROFILE_CURVE(v).T
    angle, elevation = u / UNROLL_RADIUS, np.radians(elevation)
    around = np.stack([np.sin(angle), np.zeros_like(angle), np.cos(angle)], -1)
    direction = np.cos(elevation)[:, None] * around + np.sin(elevation)[:, None] * np.array([0.0, 1.0, 0.0])
    base = radius[:, None] * around + height[:, None] * np.array([0.0, 1.0, 0.0])
    steps = np.arange(45.0, -75.0, -1.5)
    inside = np.empty((len(uv), len(steps)), bool)
    for column, step in enumerate(steps):
        inside[:, column] = head_distance(base + step * direction) < 0
    first = np.argmax(inside, axis=1)
    assert inside.any(axis=1).all(), "every ray meets the head"
    far, near = steps[np.maximum(first - 1, 0)], steps[first]
    for _ in range(14):
        middle = 0.5 * (far + near)
        hit = head_distance(base + middle[:, None] * direction) < 0
        near, far = np.where(hit, middle, near), np.where(hit, far, middle)
    return base + near[:, None] * direction


def _even_out(points: np.ndarray, faces: np.ndarray, uv: np.ndarray, lip: np.ndarray) -> np.ndarray:
    """Softens what rays sample unevenly (wings of the nose, nostrils); lids, lips and the border stay."""
    edges = np.unique(np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1), axis=0)
    both = np.concatenate([edges, edges[:, ::-1]])
    count = np.bincount(both[:, 0], minlength=len(points))[:, None]
    uses = np.bincount(edges.ravel(), minlength=len(points))
    corner_faces = np.bincount(faces.ravel(), minlength=len(points))
    free = 0.5 * (uses == corner_faces) * (np.abs(lid_coordinate(uv)) > 3.5) * (np.abs(lip) > 1.3)
    for _ in range(4):
        points = points + free[:, None] * (_neighbour_mean(points, both, count) - points)
    under_jaw = (uv[:, 1] < -74) & (np.abs(uv[:, 0]) > 14) & (free > 0)  # rays graze the jaw line: spread out on the surface
    for _ in range(30):
        points[under_jaw] = _neighbour_mean(points, both, count)[under_jaw]
        points[under_jaw] -= (head_distance(points[under_jaw])[:, None]) * surface_normals(points[under_jaw])
    return points


def _neighbour_mean(points: np.ndarray, both: np.ndarray, count: np.ndarray) -> np.ndarray:
    return np.stack([np.bincount(both[:, 0], points[both[:, 1], axis], len(points)) for axis in range(3)], -1) / count


def _shape_lips(points: np.ndarray, uv: np.ndarray, lip: np.ndarray, is_upper: np.ndarray) -> np.ndarray:
    """Volume of the lips: they roll out from the contact line and end in the vermilion border's small ridge."""
    a, t = np.abs(uv[:, 0]), np.abs(lip)
    full = np.sqrt(np.clip(1 - (a / (MOUTH_HALF_WIDTH + 1.0)) ** 2, 0, 1))
    near = (a < MOUTH_HALF_WIDTH + 6) & (t < 4)
    roll = 3.9 * full
    bulge = np.where(is_upper, 2.1, 3.0) * full**1.3
    tubercle = np.where(is_upper, 0.8 * np.exp(-((a / 4.0) ** 2)), -0.5 * np.exp(-((a / 3.0) ** 2)))
    rise = np.clip(t / 0.42, 0, 1)
    forward = -roll * (1 - np.sqrt(np.clip(1 - (1 - rise) ** 2, 0, 1)))
    forward += (bulge + tubercle * full) * np.where(
        t < 0.45, np.sin(np.clip(t / 0.45, 0, 1) * np.pi / 2) ** 0.8, np.exp(-(((t - 0.45) / 0.55) ** 2))
    )
    forward += 0.45 * full * np.exp(-(((t - 1.06) / 0.16) ** 2))
    groove = 1.1 * np.exp(-((a / 2.6) ** 2)) * np.exp(-(((uv[:, 1] + 54.0) / 5.5) ** 2))  # philtrum
    ridge = 0.7 * np.exp(-(((a - 5.2) / 2.2) ** 2)) * np.exp(-(((uv[:, 1] + 55.0) / 5.5) ** 2))
    crease = 1.6 * np.exp(-((a / 20.0) ** 2)) * np.exp(-(((uv[:, 1] + 83.5) / 4.0) ** 2))  # under the lower lip
    corner = 1.5 * np.exp(-(((a - MOUTH_HALF_WIDTH - 0.8) / 2.6) ** 2 + ((uv[:, 1] - mouth_line(a)) / 3.0) ** 2))
    moved = points.copy()
    moved[:, 2] += np.where(near, forward, 0.0) - groove + ridge - crease - corner
    return moved


def _shape_lids(points: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """The upper lid's crease and fold, and the soft groove under the lower lid."""
    u, v = np.abs(uv[:, 0]), uv[:, 1]
    share = (u - INNER_CANTHUS[0]) / (OUTER_CANTHUS[0] - INNER_CANTHUS[0])
    inside = np.clip(share, 0, 1)
    fade = np.exp(-((np.maximum(0, np.abs(share - 0.52) - 0.42) / 0.12) ** 2))
    above = v - lid_margin(inside, True)[:, 1]
    below = lid_margin(inside, False)[:, 1] - v
    depth = 1.5 * np.exp(-(((above - 3.6 - 1.0 * inside) / 1.0) ** 2)) - 0.9 * np.exp(
        -(((above - 6.4 - 1.2 * inside) / 1.9) ** 2)
    )
    depth += 0.5 * np.exp(-(((below - 7.5) / 2.4) ** 2)) - 0.45 * np.exp(-(((below - 3.2) / 1.8) ** 2))
    outwards = (
        points - np.where(points[:, :1] < 0, -1.0, 1.0) * EYE_CENTRE * np.array([1, 0, 0]) - EYE_CENTRE * np.array([0, 1, 1])
    )
    outwards /= np.linalg.norm(outwards, axis=1, keepdims=True)
    near = np.hypot(u - 35, v) < 34
    return points - np.where(near, depth * fade, 0.0)[:, None] * outwards


def _lip_rim_rows(points: np.ndarray, loop: np.ndarray, is_upper: np.ndarray) -> list[np.ndarray]:
    side = np.where(is_upper[loop], 1.0, -1.0)
    x = points[loop, 0]
    open_share = np.sqrt(np.clip(1 - (x / np.abs(x).max()) ** 2, 0, 1))
    rows = []
    for back, away in ((1.6, 0.35), (3.6, 1.4), (6.0, 3.6), (8.0, 6.5)):
        step = np.stack([-0.03 * back * x, side * away * open_share, np.full(len(loop), -back)], -1)
        rows.append(points[loop] + step)
    return rows


def _lid_rim_rows(points: np.ndarray, loop: np.ndarray) -> list[np.ndarray]:
    centre = EYE_CENTRE * np.array([np.sign(points[loop, 0].mean()), 1, 1])
    outwards = points[loop] - centre
    radius = np.linalg.norm(outwards, axis=1, keepdims=True)
    outwards /= radius
    goal = np.minimum(radius, EYE_RADIUS + 0.12)
    return [centre + outwards * (0.5 * radius + 0.5 * goal), centre + outwards * goal]


def _turn_in(points, faces, sheet: dict, loop: np.ndarray, rim: str, rows: list[np.ndarray]):
    """Adds rows of vertices inside a closed loop, with the loop's coordinates; returns the enlarged arrays."""
    ring = loop
    for number, row in enumerate(rows, start=1):
        fresh = len(points) + np.arange(len(loop))
        after_ring, after_fresh = np.roll(ring, -1), np.roll(fresh, -1)
        strip = np.concatenate([np.stack([ring, after_ring, fresh], -1), np.stack([after_ring, after_fresh, fresh], -1)])
        first_edge = (faces == ring[0]).any(1) & (faces == ring[1]).any(1)
        assert first_edge.sum() == 1, "a margin's edge borders one face"
        corners = faces[first_edge][0].tolist()
        if corners[(corners.index(ring[0]) + 1) % 3] == ring[1]:  # neighbours run along a shared edge in opposite directions
            strip = strip[:, ::-1]
        points, faces = np.concatenate([points, row]), np.concatenate([faces, strip])
        for key in ("uv", "lip", "is_upper_lip", "is_lower_lid", "lip_rim", "lid_rim"):
            sheet[key] = np.concatenate([sheet[key], sheet[key][loop]])
        sheet[rim][fresh] = number
        ring = fresh
    return points, faces, sheet


def _pair_by_position(points: np.ndarray, is_upper_lip: np.ndarray) -> np.ndarray:
    """Each vertex's twin across x = 0; lips that touch are told apart by their side of the mouth."""
    keys = np.concatenate([points, 1000.0 * is_upper_lip[:, None]], axis=1)
    distance, twin = cKDTree(keys).query(keys * np.array([-1.0, 1.0, 1.0, 1.0]))
    assert distance.max() < 1e-6 and (twin[twin] == np.arange(len(points))).all(), "the sheet is symmetric"
    return twin

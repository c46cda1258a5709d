"""The built-in head's body as an implicit surface: smooth unions of ellipsoids and tapered capsules, in millimetres.

Symmetric in x. Knows no topology: the face sheet is cast onto it along rays, the rest of the skin is contoured from it.
"""

from __future__ import annotations

import numpy as np

EYE_CENTRE = np.array([32.3, 0.0, 57.4])  # of the +x eye
EYE_RADIUS = 16.6
LID_RADIUS = EYE_RADIUS + 1.5  # the lids' outer skin
JAW_HINGE = np.array([0.0, -12.0, -4.0])  # the axis along x through both temporomandibular joints


def smooth_min(a: np.ndarray, b: np.ndarray, width: float) -> np.ndarray:
    """Union of two distances, rounded over `width` mm."""
    share = np.clip(0.5 + 0.5 * (b - a) / width, 0.0, 1.0)
    return b + (a - b) * share - width * share * (1.0 - share)


def smooth_max(a: np.ndarray, b: np.ndarray, width: float) -> np.ndarray:
    return -smooth_min(-a, -b, width)


def ellipsoid(points: np.ndarray, centre: tuple, radii: tuple, turn: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> np.ndarray:
    """Approximate distance to an ellipsoid; `turn` are its rotations about x, y, z in degrees."""
    local = points - np.asarray(centre)
    if any(turn):
        local = local @ rotation(*turn)
    scaled = np.linalg.norm(local / np.asarray(radii), axis=-1)
    steep = np.linalg.norm(local / np.square(radii), axis=-1)
    return scaled * (scaled - 1.0) / np.maximum(steep, 1e-9)


def rotation(x_degrees: float, y_degrees: float, z_degrees: float) -> np.ndarray:  # -> [3, 3]
    """Rotation about x, then y, then z; column vectors."""
    cx, cy, cz = np.cos(np.radians([x_degrees, y_degrees, z_degrees]))
    sx, sy, sz = np.sin(np.radians([x_degrees, y_degrees, z_degrees]))
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def capsule(points: np.ndarray, start: tuple, end: tuple, start_radius: float, end_radius: float) -> np.ndarray:
    """Distance to a segment with a radius that changes along it."""
    a, axis = np.asarray(start), np.asarray(end) - np.asarray(start)
    share = np.clip((points - a) @ axis / (axis @ axis), 0.0, 1.0)
    return np.linalg.norm(points - a - share[..., None] * axis, axis=-1) - (start_radius + share * (end_radius - start_radius))


def head_distance(points: np.ndarray) -> np.ndarray:  # [P, 3] mm -> [P]
    """Signed distance (negative inside) to the bare head, with lids closed over the eyes and without lips and ears."""
    p = np.array(points, dtype=np.float64)
    p[..., 0] = np.sqrt(p[..., 0] ** 2 + 0.04)  # |x| without a crease in the middle
    d = ellipsoid(p, (0, 40, -14), (74, 80, 95))  # cranium
    d = smooth_min(d, ellipsoid(p, (0, 52, 28), (58, 44, 52)), 26)  # forehead
    d = smooth_min(d, ellipsoid(p, (0, -18, 18), (57, 70, 60)), 24)  # facial mass
    d = smooth_min(d, capsule(p, (44, -50, 4), (14, -97, 65), 13, 12.5), 24)  # jaw line
    d = smooth_min(d, ellipsoid(p, (0, -98, 68.5), (17, 14, 14)), 14)  # chin
    d = smooth_min(d, ellipsoid(p, (43, -20, 47), (20, 15, 20), (0, 0, 18)), 22)  # cheekbone
    d = smooth_min(d, ellipsoid(p, (33, -36, 50), (21, 22, 20)), 20)  # cheek
    d = smooth_min(d, ellipsoid(p, (0, -66, 58), (33, 26, 25)), 20)  # dental arch
    d = smooth_min(d, ellipsoid(p, (30, 22, 62), (24, 7, 13), (0, 18, 0)), 12)  # brow ridge
    d = smooth_min(d, ellipsoid(p, (0, 22, 70), (14, 10, 12)), 12)  # glabella
    d = smooth_max(d, -ellipsoid(p, (34, 0, 82), (20.5, 13, 12), (0, 14, 0)), 12)  # eye socket
    d = smooth_max(d, -ellipsoid(p, (15, 2, 84), (6, 10, 9)), 8)  # inner corner
    d = smooth_min(d, np.linalg.norm(p - EYE_CENTRE, axis=-1) - LID_RADIUS, 4.0)  # lids
    d = smooth_min(d, _nose_distance(p), 7.0)
    d = smooth_max(d, -ellipsoid(p, (5.5, -43.2, 89.2), (2.7, 6.2, 4.6), (-20, 0, 14)), 2.0)  # nostrils
    neck = capsule(p, (0, -40, -28), (0, -195, -38), 41, 43)
    neck = smooth_min(neck, capsule(p, (40, -40, -24), (11, -186, 4), 7, 6.5), 12)  # sternomastoid
    neck = smooth_min(neck, capsule(p, (14, -140, -60), (90, -216, -52), 16, 20), 16)  # trapezius
    return smooth_min(d, neck, 14)


def _nose_distance(p: np.ndarray) -> np.ndarray:
    bridge = capsule(p, (0, 12, 74.5), (0, -24, 89.0), 5.4, 6.0)
    d = smooth_min(bridge, ellipsoid(p, (0, -31.0, 92.2), (8.6, 7.4, 8.4)), 6)  # tip
    d = smooth_min(d, ellipsoid(p, (10.8, -37.0, 84.6), (5.6, 6.4, 8.2), (0, 20, 0)), 4.5)  # wing
    d = smooth_min(d, capsule(p, (0, -36.5, 93), (0, -44, 82.5), 3.4, 3.8), 3.5)  # columella
    return d


def ear_distance(points: np.ndarray) -> np.ndarray:  # [P, 3] mm, x > 0 side -> [P]
    """Signed distance to the +x ear: rim, inner fold, bowl, lobe, tragus."""
    local = to_ear(points)
    d = ellipsoid(local, (0.6, 1, -4), (3.0, 29, 16.5))  # the plate
    d = smooth_max(d, -ellipsoid(local, (4.4, -6, 1), (5.0, 9.5, 7.0)), 2.5)  # bowl
    d = smooth_min(d, _arc(local, centre=(4.2, 5, -4), radii=(25, 16), start=-0.45, end=4.0, thickness=2.5), 2)  # helix
    d = smooth_min(d, _arc(local, centre=(3.0, -4, -2), radii=(17.0, 10.5), start=1.2, end=4.9, thickness=2.2), 2.5)  # antihelix
    d = smooth_min(d, capsule(local, (2.2, 10, 1), (2.8, 2, 12), 1.6, 1.8), 2.5)  # the helix's root
    d = smooth_min(d, ellipsoid(local, (1.8, -25.0, 2.5), (3.6, 8.0, 6.5)), 4)  # lobe
    d = smooth_min(d, ellipsoid(local, (3.2, -6, 10.0), (3.0, 4.6, 3.2)), 3)  # tragus
    return d


def to_ear(points: np.ndarray) -> np.ndarray:
    """Into the +x ear's frame, in which it stands upright and faces +x."""
    return (points - np.array([71.0, -9.0, -13.0])) @ (rotation(0, -22, 0) @ rotation(-10, 0, 0))


def _arc(local: np.ndarray, centre: tuple, radii: tuple, start: float, end: float, thickness: float) -> np.ndarray:
    """Tube along an elliptic arc in the ear's plane; the angle runs from forward (+z) over up (+y) to the back."""
    angles = np.linspace(start, end, 15)
    curve = np.stack([np.full(15, centre[0]), centre[1] + radii[0] * np.sin(angles), centre[2] + radii[1] * np.cos(angles)], -1)
    d = np.full(local.shape[:-1], np.inf)
    for a, b in zip(curve[:-1], curve[1:]):
        d = np.minimum(d, capsule(local, a, b, thickness, thickness))
    return d


def surface_normals(points: np.ndarray, distance=head_distance, step: float = 0.25) -> np.ndarray:  # [P, 3] -> [P, 3]
    gradient = np.stack([distance(points + step * axis) - distance(points - step * axis) for axis in np.eye(3)], -1)
    return gradient / np.maximum(np.linalg.norm(gradient, axis=-1, keepdims=True), 1e-12)

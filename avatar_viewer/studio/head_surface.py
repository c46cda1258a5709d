"""The built-in head's body as an implicit surface: smooth unions of ellipsoids and tapered capsules, in millimetres.

Symmetric in x. Knows no topology: the face sheet is cast onto it along rays, the rest of the skin is contoured from it.
"""

from __future__ import annotations

import numpy as np

EYE_CENTRE = np.array([32.0, 0.0, 58.5])  # of the +x eye
EYE_RADIUS = 15.5
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
    d = smooth_min(d, capsule(p, (50, -52, 2), (15, -99, 66), 12, 12.5), 22)  # jaw line
    d = smooth_min(d, ellipsoid(p, (0, -99, 69), (18, 14.5, 14)), 14)  # chin
    d = smooth_min(d, ellipsoid(p, (43, -20, 47), (20, 15, 20), (0, 0, 18)), 22)  # cheekbone
    d = smooth_min(d, ellipsoid(p, (33, -36, 50), (21, 22, 20)), 20)  # cheek
    d = smooth_min(d, ellipsoid(p, (0, -66, 58), (33, 26, 25)), 20)  # dental arch
    d = smooth_min(d, ellipsoid(p, (30, 22, 62), (24, 7, 13), (0, 18, 0)), 12)  # brow ridge
    d = smooth_min(d, ellipsoid(p, (0, 22, 70), (14, 10, 12)), 12)  # glabella
    d = smooth_max(d, -ellipsoid(p, (34, 0, 82), (20, 12.5, 12), (0, 14, 0)), 12)  # eye socket
    d = smooth_max(d, -ellipsoid(p, (15, 2, 84), (6, 10, 9)), 8)  # inner corner
    d = smooth_min(d, np.linalg.norm(p - EYE_CENTRE, axis=-1) - LID_RADIUS, 4.0)  # lids
    d = smooth_min(d, _nose_distance(p), 7.0)
    d = smooth_max(d, -ellipsoid(p, (5.8, -46.5, 94.5), (2.9, 6.5, 4.6), (-18, 0, 14)), 2.0)  # nostrils
    neck = capsule(p, (0, -40, -28), (0, -190, -42), 50, 52)
    return smooth_min(d, neck, 16)


def _nose_distance(p: np.ndarray) -> np.ndarray:
    bridge = capsule(p, (0, 14, 74), (0, -30, 95), 6.2, 8.2)
    d = smooth_min(bridge, ellipsoid(p, (0, -34.5, 98.0), (10.0, 8.6, 10.0)), 5)  # tip
    d = smooth_min(d, ellipsoid(p, (11.2, -39.0, 87.5), (6.6, 6.8, 9.0), (0, 18, 0)), 4.5)  # wing
    d = smooth_min(d, capsule(p, (0, -40, 98), (0, -46, 84), 4.0, 4.0), 3.5)  # columella
    return d


def ear_distance(points: np.ndarray) -> np.ndarray:  # [P, 3] mm, x > 0 side -> [P]
    """Signed distance to the +x ear: rim, inner fold, bowl, lobe, tragus."""
    frame = rotation(0, -24, 0) @ rotation(-10, 0, 0)  # leans back, stands off
    local = (points - np.array([72.0, -8.0, -12.0])) @ frame
    shell = ellipsoid(local, (2.0, 2, -4), (5.0, 31, 18))
    bowl = ellipsoid(local, (7.0, -2, -2), (6.0, 21, 11.5))
    d = smooth_max(shell, -bowl, 4)
    d = smooth_min(d, _arc(local, centre=(3.0, 6, -4), radii=(24, 15), start=-0.6, end=4.3, thickness=2.9), 2.5)  # helix
    d = smooth_min(d, _arc(local, centre=(3.0, -1, -5), radii=(17, 8.5), start=0.9, end=4.4, thickness=2.4), 3)  # antihelix
    d = smooth_min(d, ellipsoid(local, (1.5, -26, 3), (4.2, 9.5, 7)), 5)  # lobe
    d = smooth_min(d, ellipsoid(local, (1.0, -5, 11), (4.2, 6, 3.6)), 4)  # tragus
    return d


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

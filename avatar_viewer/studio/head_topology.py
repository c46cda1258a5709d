"""Topology of the built-in face sheet: one half of the flat domain as triangles, fine where detail and motion are.

Rows along lips, lids and wrinkles, spring-relaxed points elsewhere, Delaunay between them. Knows no third dimension.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import map_coordinates
from scipy.spatial import Delaunay, cKDTree

from .head_domain import MOUTH_HALF_WIDTH, MOUTH_SLOT, distance_to_curve, lid_margin, mouth_line, vermilion_height
from .head_wrinkles import MESHED, NASOLABIAL, trace

SizeField = Callable[[np.ndarray], np.ndarray]  # [P, 2] -> [P] mm
WRINKLE_EDGE = 1.6  # mm: vertices on a wrinkle's line are at most so far apart
_BORDER = np.array(  # the sheet's outline, from the hairline's middle past the ear to the middle under the chin
    [
        (0, 80),
        (38, 79),
        (66, 70),
        (86, 48),
        (97, 18),
        (103, -14),
        (104, -46),
        (100, -74),
        (86, -104),
        (62, -128),
        (34, -144),
        (0, -150),
    ],
    dtype=np.float64,
)


def edge_length(uv: np.ndarray) -> np.ndarray:  # [P, 2] -> [P] mm
    """How long edges should be at a place of the (+u) half domain: short where detail and motion are."""
    u, v = np.abs(uv[:, 0]), uv[:, 1]
    size = np.full(len(uv), 4.2)
    size = np.minimum(size, 3.1 + 0.05 * np.maximum(0, np.hypot(u, v - 40) - 62))  # forehead and centre
    eye = distance_to_curve(
        uv, np.concatenate([lid_margin(np.linspace(0, 1, 40), True), lid_margin(np.linspace(1, 0, 40), False)])
    )
    size = np.minimum(size, 0.95 + 0.11 * eye)
    mouth = np.hypot(np.maximum(0, u - MOUTH_HALF_WIDTH), np.maximum(0, np.abs(v - mouth_line(u)) - 8.0))
    size = np.minimum(size, 1.05 + 0.11 * mouth)
    size = np.minimum(size, 1.25 + 0.10 * np.maximum(0, np.hypot(u / 1.25, v + 40) - 13))  # nose
    brow = distance_to_curve(uv, np.array([(7, 19), (20, 25), (36, 28), (52, 23)], float))
    size = np.minimum(size, 1.6 + 0.14 * np.maximum(0, brow - 3))
    fold = distance_to_curve(uv, np.asarray(NASOLABIAL, float))
    size = np.minimum(size, 2.1 + 0.12 * fold)
    line = np.min([distance_to_curve(uv, np.asarray(curve, float)) for curve in MESHED], axis=0)
    return np.minimum(size, WRINKLE_EDGE + 0.4 * line)


def mesh_half(scale: float) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    size = _tabulated(edge_length, scale)

    share = 0.5 - 0.5 * np.cos(np.pi * np.linspace(0, 1, 31))  # closer at the corners
    share = 0.35 * share + 0.65 * np.linspace(0, 1, 31)
    mouth_u = MOUTH_HALF_WIDTH * (1 - (1 - np.linspace(0, 1, 28)) ** 1.12)
    slot = MOUTH_SLOT * (1 - (mouth_u / MOUTH_HALF_WIDTH) ** 2)
    line = mouth_line(mouth_u)
    fixed: list[np.ndarray] = []
    names: dict[str, np.ndarray] = {}

    def add(points: np.ndarray) -> np.ndarray:
        start = sum(map(len, fixed))
        fixed.append(points)
        return np.arange(start, start + len(points))

    names["lid_upper"] = add(lid_margin(share, True))
    lower = add(lid_margin(share, False)[1:-1])
    names["lid_lower"] = np.concatenate([names["lid_upper"][:1], lower, names["lid_upper"][-1:]])
    names["lip_upper"] = add(np.stack([mouth_u, line + slot], -1))
    below = add(np.stack([mouth_u, line - slot], -1)[:-1])
    names["lip_lower"] = np.concatenate([below, names["lip_upper"][-1:]])
    border = _walk(_BORDER, size)
    names["border"] = add(border)
    for stop, start in ((line[0] + slot[0], border[0, 1]), (border[-1, 1], line[0] - slot[0])):
        middle = _walk(np.array([(0.0, start), (0.0, stop)]), size)[1:-1]
        add(middle)
    rows = [_lip_rows(mouth_u, line, slot)]
    for upper in (True, False):
        for offset in (0.95, 2.0, 3.2):
            curve = lid_margin(share[1:-1], upper)
            outwards = curve - np.array([34.5, -0.5])
            outwards /= np.linalg.norm(outwards / np.array([1.0, 0.62]), axis=1, keepdims=True)
            rows.append(curve + offset * outwards * np.array([1.0, 1.2]))
    rows += [_walk(trace(curve), size) for curve in MESHED]
    rows = np.concatenate(rows)
    rows = rows[rows[:, 0] > 0.4]
    fixed_points = np.concatenate(fixed)
    rows = _drop_crowded(rows, fixed_points, 0.55 * scale)
    fixed_points = np.concatenate([fixed_points, rows])
    holes = [
        np.concatenate([fixed_points[names["lid_upper"]], fixed_points[names["lid_lower"]][-2:0:-1]]),
        np.concatenate([fixed_points[names["lip_upper"]], fixed_points[names["lip_lower"]][-2::-1]]),
    ]
    outline = np.concatenate([border, [[0.0, border[-1, 1]]]])
    loops = len(np.concatenate(fixed))
    points = _relax(fixed_points, size, outline, holes)
    points = np.concatenate([points[:loops], _drop_encroaching(points[loops:], holes)])
    triangles = _triangulate(points, outline, holes)
    return points, triangles, names


def _drop_encroaching(points: np.ndarray, holes: list[np.ndarray]) -> np.ndarray:
    """Without the points in the circle over a margin's edge, Delaunay keeps that edge."""
    keep = np.ones(len(points), bool)
    for hole in holes:
        for a, b in zip(hole[:-1], hole[1:]):
            keep &= np.linalg.norm(points - 0.5 * (a + b), axis=1) > 0.505 * np.linalg.norm(b - a)
    return points[keep]


def _tabulated(function: SizeField, factor: float, spacing: float = 0.5) -> SizeField:
    """A function of the domain looked up in a table: the springs ask for it some fifty times."""
    u, v = np.arange(-2.0, 112.0, spacing), np.arange(-156.0, 86.0, spacing)
    grid = np.stack(np.meshgrid(u, v, indexing="ij"), -1)
    table = factor * function(grid.reshape(-1, 2)).reshape(grid.shape[:2])

    def look_up(points: np.ndarray) -> np.ndarray:  # [P, 2] -> [P]
        return map_coordinates(table, (points - [u[0], v[0]]).T / spacing, order=1, mode="nearest")

    return look_up


def _lip_rows(mouth_u: np.ndarray, line: np.ndarray, slot: np.ndarray) -> np.ndarray:
    """Rows along both lips: the vermilion, its border and one row beyond."""
    rows = []
    for upper, sign in ((True, 1.0), (False, -1.0)):
        height = vermilion_height(mouth_u, upper)
        count = 7 if upper else 9
        for t in np.arange(1, count + 2) / count:
            rows.append(np.stack([mouth_u, line + sign * (slot + t * height)], -1)[:-1])
    return np.concatenate(rows)


def _walk(polyline: np.ndarray, size: SizeField) -> np.ndarray:
    """Points along a polyline at the wanted edge length, both ends included."""
    lengths = np.r_[0, np.cumsum(np.linalg.norm(np.diff(polyline, axis=0), axis=1))]
    fine = np.linspace(0, lengths[-1], 2000)
    curve = PchipInterpolator(lengths, polyline)(fine)
    curve[:, 0] = np.maximum(curve[:, 0], 0.0)
    edges = np.r_[0, np.cumsum(np.diff(fine) / size(curve[1:]))]
    at = np.interp(np.linspace(0, edges[-1], max(2, int(round(edges[-1])) + 1)), edges, np.arange(2000))
    return curve[np.round(at).astype(int)]


def _drop_crowded(points: np.ndarray, fixed: np.ndarray, spacing: float) -> np.ndarray:
    points = points[cKDTree(fixed).query(points)[0] > spacing]
    keep = np.ones(len(points), bool)
    for a, b in sorted(cKDTree(points).query_pairs(spacing)):
        if keep[a]:
            keep[b] = False
    return points[keep]


def _relax(fixed: np.ndarray, size: SizeField, outline: np.ndarray, holes: list[np.ndarray]) -> np.ndarray:
    """Free points between the fixed ones, pushed apart like springs until edges have the wanted length."""
    random = np.random.default_rng(7)
    spacing = 0.9
    grid_u, grid_v = np.meshgrid(
        np.arange(0.5, outline[:, 0].max(), spacing), np.arange(outline[:, 1].min(), outline[:, 1].max(), spacing * 0.866)
    )
    grid_u[1::2] += spacing / 2
    free = np.stack([grid_u.ravel(), grid_v.ravel()], -1)
    free = free[_is_free(free, outline, holes)]
    wanted = size(free)
    free = free[random.random(len(free)) < (spacing / wanted) ** 2]
    distance = cKDTree(fixed).query(free)[0]
    free = free[distance > 0.62 * size(free)]
    for _ in range(45):
        points = np.concatenate([fixed, free])
        triangles = Delaunay(points).simplices
        edges = np.unique(
            np.sort(np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]), axis=1), axis=0
        )
        along = points[edges[:, 0]] - points[edges[:, 1]]
        length = np.linalg.norm(along, axis=1)
        goal = 1.12 * size(0.5 * (points[edges[:, 0]] + points[edges[:, 1]]))
        push = (np.maximum(goal - length, 0) / np.maximum(length, 1e-9))[:, None] * along
        force = np.stack(
            [
                np.bincount(edges[:, 0], push[:, k], len(points)) - np.bincount(edges[:, 1], push[:, k], len(points))
                for k in (0, 1)
            ],
            -1,
        )
        moved = free + 0.2 * force[len(fixed) :]
        inside = _is_free(moved, outline, holes)
        free = np.where(inside[:, None], moved, free)
    distance = cKDTree(fixed).query(free)[0]
    return np.concatenate([fixed, free[distance > 0.5 * size(free)]])


def _is_free(points: np.ndarray, outline: np.ndarray, holes: list[np.ndarray]) -> np.ndarray:
    free = _contains(outline, points) & (points[:, 0] > 0.3)
    for hole in holes:
        free &= ~_contains(hole, points)
    return free


def _contains(polygon: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Even-odd test, chunk-free: polygons have a few hundred corners."""
    inside = np.zeros(len(points), bool)
    for (u0, v0), (u1, v1) in zip(polygon, np.roll(polygon, -1, axis=0)):
        crosses = (v0 > points[:, 1]) != (v1 > points[:, 1])
        if v0 != v1:
            inside ^= crosses & (points[:, 0] < (u1 - u0) * (points[:, 1] - v0) / (v1 - v0) + u0)
    return inside


def _triangulate(points: np.ndarray, outline: np.ndarray, holes: list[np.ndarray]) -> np.ndarray:
    triangles = Delaunay(points).simplices
    centres = points[triangles].mean(axis=1)
    keep = _contains(outline, centres)
    for hole in holes:
        keep &= ~_contains(hole, centres)
    a, b, c = (points[triangles[:, i]] for i in range(3))
    area = 0.5 * ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0])
    triangles = np.where((area < 0)[:, None], triangles[:, ::-1], triangles)  # all turn the same way: outwards
    return triangles[keep & (np.abs(area) > 1e-3)]


def mirror_half(half: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The other half's own points, and for each point of this half the index of its twin in the whole."""
    own = half[:, 0] > 1e-9
    twin = np.arange(len(half))
    twin[own] = len(half) + np.arange(own.sum())
    return half[own] * np.array([-1.0, 1.0]), twin

"""The built-in head's face sheet: its topology in a flat domain, and its neutral shape, in millimetres.

The domain is the face unrolled: u mm around the vertical axis, v mm down the profile and under the chin. One half is
meshed (rows along lips and lids, spring-relaxed points elsewhere) and mirrored, so the sheet is exactly symmetric.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import map_coordinates
from scipy.spatial import Delaunay, cKDTree

from .head_surface import EYE_CENTRE, EYE_RADIUS, head_distance, surface_normals

UNROLL_RADIUS = 80.0  # mm: u = UNROLL_RADIUS * angle about the vertical axis
MOUTH_HALF_WIDTH = 25.0
INNER_CANTHUS, OUTER_CANTHUS = np.array([19.8, -2.6]), np.array([50.4, 1.4])
_BORDER_DIVE = 0.8  # mm: the sheet's edge dips under the skin around it, so that no slit shows
_LIP_GAP = 0.12  # mm between the shut lips
_MOUTH_SLOT = 1.3  # the domain's mouth is a slot this wide to each side; the neutral mouth is shut
_PROFILE = np.array(  # v, height y, radius about the axis, elevation of the ray in degrees
    [
        (95, 92, 50, 55), (80, 79, 62, 45), (50, 52, 80, 22), (20, 20, 85, 4), (0, 0, 80, 0), (-25, -25, 90, -12),
        (-45, -45, 90, -20), (-66, -66, 88, -6), (-85, -85, 82, -12), (-105, -105, 78, -38), (-120, -115, 64, -72),
        (-135, -113, 48, -95), (-160, -106, 26, -115),
    ]
)[::-1]  # fmt: skip
_PROFILE_CURVE = PchipInterpolator(_PROFILE[:, 0], _PROFILE[:, 1:])
_BORDER = np.array(  # the sheet's outline, from the hairline's middle past the ear to the middle under the chin
    [(0, 80), (38, 79), (66, 70), (86, 48), (97, 18), (103, -14), (104, -46), (100, -74), (86, -104), (62, -128), (34, -144), (0, -150)],
    dtype=np.float64,
)


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


def mouth_line(u: np.ndarray) -> np.ndarray:
    """Height v of the line between the shut lips."""
    a = np.abs(u)
    return -66.0 - 0.9 * np.exp(-((a / 5.0) ** 2)) + 0.7 * np.exp(-(((a - 11.0) / 6.0) ** 2)) + 1.2 * np.clip((a - 17.0) / 8.0, 0, 1.6) ** 2


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


def build_face_sheet(scale: float = 1.0) -> FaceSheet:
    """Mesh, mirror, cast on the head; `scale` multiplies every edge length in the flat domain."""
    half, triangles, chains = _mesh_half(scale)
    right, mirrored_of = _mirror(half)
    uv = np.concatenate([half, right])
    faces = np.concatenate([triangles, mirrored_of[triangles][:, ::-1]])
    mirror = np.empty(len(uv), dtype=np.int64)
    mirror[: len(half)] = mirrored_of
    mirror[mirrored_of] = np.arange(len(half))

    upper = np.concatenate([mirror[chains["lip_upper"][::-1]][:-1], chains["lip_upper"]])  # -x corner .. +x corner
    lower = np.concatenate([mirror[chains["lip_lower"][::-1]][:-1], chains["lip_lower"]])
    lid_upper = np.stack([mirror[chains["lid_upper"]], chains["lid_upper"]])
    lid_lower = np.stack([mirror[chains["lid_lower"]], chains["lid_lower"]])
    lip, is_upper = _lip_coordinate(uv)
    is_upper[upper], is_upper[lower[1:-1]] = True, False
    lip[upper], lip[lower] = 0.0, 0.0
    points = _even_out(cast_on_head(uv, is_upper), faces, uv, lip)
    points = _shape_lips(points, uv, lip, is_upper)
    points[upper[1:-1], 1] += 0.5 * _LIP_GAP
    points[lower[1:-1], 1] -= 0.5 * _LIP_GAP
    points = _shape_lids(points, uv)

    is_lower_lid = _lid_coordinate(uv) < -1e-6
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
        vertices=points, faces=faces, lid=_lid_coordinate(sheet["uv"]), lip_upper=upper[1:-1], lip_lower=lower[1:-1],
        lid_upper=lid_upper, lid_lower=lid_lower, border=border, **sheet,
    )  # fmt: skip


# --- topology -------------------------------------------------------------------------------------------------------


def edge_length(uv: np.ndarray) -> np.ndarray:  # [P, 2] -> [P] mm
    """How long edges should be at a place of the (+u) half domain: short where detail and motion are."""
    u, v = np.abs(uv[:, 0]), uv[:, 1]
    size = np.full(len(uv), 4.2)
    size = np.minimum(size, 3.1 + 0.05 * np.maximum(0, np.hypot(u, v - 40) - 62))  # forehead and centre
    eye = _distance_to_curve(uv, np.concatenate([lid_margin(np.linspace(0, 1, 40), True), lid_margin(np.linspace(1, 0, 40), False)]))
    size = np.minimum(size, 0.95 + 0.11 * eye)
    mouth = np.hypot(np.maximum(0, u - MOUTH_HALF_WIDTH), np.maximum(0, np.abs(v - mouth_line(u)) - 8.0))
    size = np.minimum(size, 1.05 + 0.11 * mouth)
    size = np.minimum(size, 1.25 + 0.10 * np.maximum(0, np.hypot(u / 1.25, v + 40) - 13))  # nose
    brow = _distance_to_curve(uv, np.array([(7, 19), (20, 25), (36, 28), (52, 23)], float))
    size = np.minimum(size, 1.6 + 0.14 * np.maximum(0, brow - 3))
    fold = _distance_to_curve(uv, np.array([(17, -36), (26, -50), (33, -64), (33, -78)], float))
    return np.minimum(size, 2.1 + 0.12 * fold)


def _mesh_half(scale: float) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    size = _tabulated(edge_length, scale)

    share = 0.5 - 0.5 * np.cos(np.pi * np.linspace(0, 1, 31))  # closer at the corners
    share = 0.35 * share + 0.65 * np.linspace(0, 1, 31)
    mouth_u = MOUTH_HALF_WIDTH * (1 - (1 - np.linspace(0, 1, 28)) ** 1.12)
    slot = _MOUTH_SLOT * (1 - (mouth_u / MOUTH_HALF_WIDTH) ** 2)
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


def _tabulated(function, factor: float, spacing: float = 0.5):
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


def _walk(polyline: np.ndarray, size) -> np.ndarray:
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


def _relax(fixed: np.ndarray, size, outline: np.ndarray, holes: list[np.ndarray]) -> np.ndarray:
    """Free points between the fixed ones, pushed apart like springs until edges have the wanted length."""
    random = np.random.default_rng(7)
    spacing = 0.9
    grid_u, grid_v = np.meshgrid(np.arange(0.5, outline[:, 0].max(), spacing), np.arange(outline[:, 1].min(), outline[:, 1].max(), spacing * 0.866))
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
        edges = np.unique(np.sort(np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]), axis=1), axis=0)
        along = points[edges[:, 0]] - points[edges[:, 1]]
        length = np.linalg.norm(along, axis=1)
        goal = 1.12 * size(0.5 * (points[edges[:, 0]] + points[edges[:, 1]]))
        push = (np.maximum(goal - length, 0) / np.maximum(length, 1e-9))[:, None] * along
        force = np.stack([np.bincount(edges[:, 0], push[:, k], len(points)) - np.bincount(edges[:, 1], push[:, k], len(points)) for k in (0, 1)], -1)
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


def _mirror(half: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The other half's own points, and for each point of this half the index of its twin in the whole."""
    own = half[:, 0] > 1e-9
    twin = np.arange(len(half))
    twin[own] = len(half) + np.arange(own.sum())
    return half[own] * np.array([-1.0, 1.0]), twin


def _distance_to_curve(uv: np.ndarray, curve: np.ndarray) -> np.ndarray:
    points = np.stack([np.abs(uv[:, 0]), uv[:, 1]], -1)
    best = np.full(len(points), np.inf)
    for a, b in zip(curve[:-1], curve[1:]):
        axis = b - a
        share = np.clip((points - a) @ axis / max(axis @ axis, 1e-12), 0, 1)
        best = np.minimum(best, np.linalg.norm(points - a - share[:, None] * axis, axis=1))
    return best


# --- shape ----------------------------------------------------------------------------------------------------------


def cast_on_head(uv: np.ndarray, is_upper: np.ndarray | None = None) -> np.ndarray:  # [P, 2] -> [P, 3] mm
    """The head's outermost point on each domain point's ray; the mouth's slot is closed when sides are given."""
    u, v = uv[:, 0], uv[:, 1].copy()
    if is_upper is not None:
        a = np.abs(u)
        slot = _MOUTH_SLOT * np.clip(1 - (a / MOUTH_HALF_WIDTH) ** 2, 0, 1)
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
    free = 0.5 * (uses == corner_faces) * (np.abs(_lid_coordinate(uv)) > 3.5) * (np.abs(lip) > 1.3)
    for _ in range(4):
        points = points + free[:, None] * (_neighbour_mean(points, both, count) - points)
    under_jaw = (uv[:, 1] < -74) & (np.abs(uv[:, 0]) > 14) & (free > 0)  # rays graze the jaw line: spread out on the surface
    for _ in range(30):
        points[under_jaw] = _neighbour_mean(points, both, count)[under_jaw]
        points[under_jaw] -= (head_distance(points[under_jaw])[:, None]) * surface_normals(points[under_jaw])
    return points


def _neighbour_mean(points: np.ndarray, both: np.ndarray, count: np.ndarray) -> np.ndarray:
    return np.stack([np.bincount(both[:, 0], points[both[:, 1], axis], len(points)) for axis in range(3)], -1) / count


def _lip_coordinate(uv: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    u, v = uv[:, 0], uv[:, 1]
    slot = _MOUTH_SLOT * np.clip(1 - (u / MOUTH_HALF_WIDTH) ** 2, 0, 1)
    is_upper = v >= mouth_line(u)
    distance = np.maximum(0.0, np.abs(v - mouth_line(u)) - slot)
    outside = np.maximum(0.0, np.abs(u) - MOUTH_HALF_WIDTH)
    height = np.where(is_upper, vermilion_height(u, True), vermilion_height(u, False))
    coordinate = distance / height + outside / 1.5
    return np.where(is_upper, 1.0, -1.0) * np.minimum(coordinate, 9.0), is_upper


def _shape_lips(points: np.ndarray, uv: np.ndarray, lip: np.ndarray, is_upper: np.ndarray) -> np.ndarray:
    """Volume of the lips: they roll out from the contact line and end in the vermilion border's small ridge."""
    a, t = np.abs(uv[:, 0]), np.abs(lip)
    full = np.sqrt(np.clip(1 - (a / (MOUTH_HALF_WIDTH + 1.0)) ** 2, 0, 1))
    near = (a < MOUTH_HALF_WIDTH + 6) & (t < 4)
    roll = 3.9 * full
    bulge = np.where(is_upper, 2.1, 3.0) * full ** 1.3
    tubercle = np.where(is_upper, 0.8 * np.exp(-((a / 4.0) ** 2)), -0.5 * np.exp(-((a / 3.0) ** 2)))
    rise = np.clip(t / 0.42, 0, 1)
    forward = -roll * (1 - np.sqrt(np.clip(1 - (1 - rise) ** 2, 0, 1)))
    forward += (bulge + tubercle * full) * np.where(t < 0.45, np.sin(np.clip(t / 0.45, 0, 1) * np.pi / 2) ** 0.8, np.exp(-(((t - 0.45) / 0.55) ** 2)))
    forward += 0.45 * full * np.exp(-(((t - 1.06) / 0.16) ** 2))
    groove = 1.1 * np.exp(-((a / 2.6) ** 2)) * np.exp(-(((uv[:, 1] + 54.0) / 5.5) ** 2))  # philtrum
    ridge = 0.7 * np.exp(-(((a - 5.2) / 2.2) ** 2)) * np.exp(-(((uv[:, 1] + 55.0) / 5.5) ** 2))
    crease = 1.6 * np.exp(-((a / 20.0) ** 2)) * np.exp(-(((uv[:, 1] + 83.5) / 4.0) ** 2))  # under the lower lip
    corner = 1.5 * np.exp(-(((a - MOUTH_HALF_WIDTH - 0.8) / 2.6) ** 2 + ((uv[:, 1] - mouth_line(a)) / 3.0) ** 2))
    moved = points.copy()
    moved[:, 2] += np.where(near, forward, 0.0) - groove + ridge - crease - corner
    return moved


def _lid_coordinate(uv: np.ndarray) -> np.ndarray:
    share = (np.abs(uv[:, 0]) - INNER_CANTHUS[0]) / (OUTER_CANTHUS[0] - INNER_CANTHUS[0])
    inside = np.clip(share, 0.0, 1.0)
    above = uv[:, 1] - lid_margin(inside, True)[:, 1]
    below = uv[:, 1] - lid_margin(inside, False)[:, 1]
    result = np.where(above >= -1e-6, above, np.where(below <= 1e-6, below, 0.0))
    return np.where((share < -0.6) | (share > 1.7), 99.0, result)


def _shape_lids(points: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """The upper lid's crease and fold, and the soft groove under the lower lid."""
    u, v = np.abs(uv[:, 0]), uv[:, 1]
    share = (u - INNER_CANTHUS[0]) / (OUTER_CANTHUS[0] - INNER_CANTHUS[0])
    inside = np.clip(share, 0, 1)
    fade = np.exp(-((np.maximum(0, np.abs(share - 0.52) - 0.42) / 0.12) ** 2))
    above = v - lid_margin(inside, True)[:, 1]
    below = lid_margin(inside, False)[:, 1] - v
    depth = 1.5 * np.exp(-(((above - 3.6 - 1.0 * inside) / 1.0) ** 2)) - 0.9 * np.exp(-(((above - 6.4 - 1.2 * inside) / 1.9) ** 2))
    depth += 0.5 * np.exp(-(((below - 7.5) / 2.4) ** 2)) - 0.45 * np.exp(-(((below - 3.2) / 1.8) ** 2))
    outwards = points - np.where(points[:, :1] < 0, -1.0, 1.0) * EYE_CENTRE * np.array([1, 0, 0]) - EYE_CENTRE * np.array([0, 1, 1])
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

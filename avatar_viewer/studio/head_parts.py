"""What surrounds the built-in face: skin of scalp, ears and neck, a garment, eyes, teeth, tongue and the mouth's dark lining.

Everything in millimetres until the rig is put together. Knows the implicit head and the face sheet, not its muscles.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree
from skimage.measure import marching_cubes

from .blendshapes import Mesh, Part
from .head_skin import skin_colors, value_noise
from .head_surface import (
    EYE_CENTRE,
    EYE_RADIUS,
    JAW_HINGE,
    capsule,
    ear_distance,
    ellipsoid,
    head_distance,
    smooth_max,
    smooth_min,
    surface_normals,
    to_ear,
)
from .head_template import FaceSheet

GUM = np.array([0.66, 0.34, 0.34])
TOOTH = np.array([0.97, 0.93, 0.85])
TONGUE = np.array([0.70, 0.36, 0.36])
MUCOSA = np.array([0.50, 0.19, 0.18])
CLOTH = np.array([0.17, 0.30, 0.36])


def contour(distance, low: tuple, high: tuple, spacing: float) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and outward faces of the zero surface within a box."""
    axes = [np.arange(a, b + spacing, spacing) for a, b in zip(low, high)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    values = distance(grid.reshape(-1, 3)).reshape(grid.shape[:3])
    vertices, faces, _, _ = marching_cubes(values, 0.0, spacing=(spacing,) * 3, gradient_direction="ascent")
    return vertices + np.array(low), faces.astype(np.int64)[:, ::-1]


def keep_vertices(vertices: np.ndarray, faces: np.ndarray, keep: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The sub-mesh of faces whose corners are all kept, and the ids of the vertices it still uses."""
    faces = faces[keep[faces].all(axis=1)]
    used, faces = np.unique(faces, return_inverse=True)
    return vertices[used], faces.reshape(-1, 3), used


def to_mesh(vertices: np.ndarray, faces: np.ndarray, colors: np.ndarray) -> Mesh:
    """From authoring millimetres to the rig's metres."""
    colors = np.broadcast_to(colors, vertices.shape)
    return Mesh((vertices / 1000).astype(np.float32), faces.astype(np.int32), np.clip(colors, 0, 1).astype(np.float32))


def metres(point: np.ndarray) -> tuple[float, float, float]:
    x, y, z = (float(value) / 1000 for value in point)
    return x, y, z


def skin_parts(sheet: FaceSheet, border_distance: np.ndarray) -> list[Part]:
    """Scalp, neck and ears; where they run under the face sheet they are tucked a little deeper."""
    vertices, faces = contour(head_distance, (-84, -186, -116), (84, 128, 104), 3.5)
    distance, nearest = cKDTree(sheet.vertices).query(vertices)
    under = border_distance[nearest]
    covered = distance < 9.0
    keep = ~(covered & (under > 6.0))
    vertices, faces, used = keep_vertices(vertices, faces, keep & (vertices[:, 1] > -180))
    tuck = np.where(covered[used], 0.9 * np.maximum(0, under[used] - 1.0), 0.0)
    vertices = vertices - tuck[:, None] * surface_normals(vertices)
    is_neck = (vertices[:, 1] < -78)[faces].any(axis=1)
    parts = []
    for name, chosen in (("scalp", ~is_neck), ("neck", is_neck)):
        used, chosen_faces = np.unique(faces[chosen], return_inverse=True)
        points = vertices[used]
        parts.append(Part(name, to_mesh(points, chosen_faces.reshape(-1, 3), skin_colors(points)), "head"))

    def joined(points: np.ndarray) -> np.ndarray:
        return smooth_min(head_distance(points), ear_distance(points), 4.0)

    ear, ear_faces = contour(joined, (54, -50, -46), (98, 34, 22), 1.2)
    influence = head_distance(ear) - joined(ear)
    ear, ear_faces, _ = keep_vertices(ear, ear_faces, (influence > 0.02) & (ear_distance(ear) < 6) & (ear[:, 0] > 60))
    local = to_ear(ear)
    bowl = np.exp(-(((local[:, 1] + 6) / 9) ** 2 + ((local[:, 2] - 1) / 6.5) ** 2)) * np.clip((4.0 - local[:, 0]) / 2.5, 0, 1)
    groove = np.clip((3.0 - local[:, 0]) / 3.0, 0, 1) * np.clip(
        1.15 - ((local[:, 1] - 2) / 27) ** 2 - ((local[:, 2] + 4) / 15) ** 2, 0, 1
    )
    shade = 1 - ((0.10 * bowl + 0.13 * groove) * (local[:, 0] > -1.5))[:, None] * np.array([0.6, 1.0, 1.0])
    colors = skin_colors(ear) * shade
    for name, sign in (("ear_right", 1.0), ("ear_left", -1.0)):
        flipped = ear_faces if sign > 0 else ear_faces[:, ::-1]
        parts.append(Part(name, to_mesh(ear * np.array([sign, 1, 1]), flipped, colors), "head"))
    return parts


def garment() -> Part:
    """Shoulders and chest in a plain crew-neck jumper, open below the picture."""

    def body(points: np.ndarray) -> np.ndarray:
        p = points.copy()
        p[:, 0] = np.abs(p[:, 0])
        d = capsule(p, (0, -186, -42), (138, -216, -44), 38, 44)
        d = smooth_min(d, ellipsoid(p, (0, -262, -26), (148, 92, 72)), 40)
        d = smooth_min(d, capsule(p, (150, -222, -44), (188, -330, -40), 42, 38), 24)
        tilted = p[:, 1] + 162 + 0.24 * (p[:, 2] + 38)
        collar = smooth_max(np.abs(head_distance(points) - 2.6) - 2.8, np.maximum(tilted - 9.0, -tilted - 44.0), 3)
        return smooth_min(d, collar, 7)

    vertices, faces = contour(body, (-240, -300, -128), (240, -128, 70), 4.5)
    vertices, faces, _ = keep_vertices(vertices, faces, vertices[:, 1] > -294)
    rib = 1 + 0.05 * np.sin(np.arctan2(vertices[:, 0], vertices[:, 2] + 38) * 60) * (vertices[:, 1] > -172)
    colors = CLOTH * (rib + 0.05 * value_noise(vertices, 9.0, 3))[:, None]
    return Part("garment", to_mesh(vertices, faces, colors), "head")


def eye_parts() -> list[Part]:
    polar = np.concatenate([np.linspace(0, 0.56, 30), np.linspace(0.60, 1.9, 22)])
    around = np.linspace(0, 2 * np.pi, 80, endpoint=False)
    angle, turn = np.meshgrid(polar[1:], around, indexing="ij")
    directions = np.stack([np.sin(angle) * np.cos(turn), np.sin(angle) * np.sin(turn), np.cos(angle)], -1).reshape(-1, 3)
    directions = np.concatenate([[[0, 0, 1.0]], directions])
    faces = _fan_and_strips(len(polar) - 1, len(around))
    colors = _eye_colors(directions)
    bulge = 0.45 * np.clip(1 - (np.arccos(np.clip(directions[:, 2], -1, 1)) / 0.5) ** 2, 0, 1)
    parts = []
    for name, sign in (("eye_right", 1.0), ("eye_left", -1.0)):
        centre = EYE_CENTRE * np.array([sign, 1, 1])
        vertices = centre + directions * (EYE_RADIUS + bulge)[:, None]
        parts.append(Part(name, to_mesh(vertices, faces, colors), "eye", pivot=metres(centre), gloss=1.0))
    return parts


def _fan_and_strips(rings: int, sectors: int) -> np.ndarray:
    """Faces of a pole and `rings` rings, facing away from the sphere's centre."""
    first = 1 + np.arange(sectors)
    following = np.roll(first, -1)
    faces = [np.stack([np.zeros(sectors, int), first, following], -1)]
    for ring in range(rings - 1):
        a, b = first + ring * sectors, following + ring * sectors
        faces += [np.stack([a, a + sectors, b], -1), np.stack([b, a + sectors, b + sectors], -1)]
    return np.concatenate(faces)


def _eye_colors(directions: np.ndarray) -> np.ndarray:
    angle = np.arccos(np.clip(directions[:, 2], -1, 1))
    turn = np.arctan2(directions[:, 1], directions[:, 0])
    iris_edge, pupil_edge = 0.515, 0.215
    share = np.clip((angle - pupil_edge) / (iris_edge - pupil_edge), 0, 1)
    fibre = 0.5 + 0.5 * np.sin(turn * 23 + 2.0 * np.sin(turn * 5)) * np.sin(turn * 9 + 1.0)
    outer, inner = np.array([0.16, 0.29, 0.27]), np.array([0.46, 0.46, 0.26])
    iris = inner + (outer - inner) * share[:, None] ** 0.8
    iris *= (0.8 + 0.35 * fibre)[:, None]
    iris *= (1.0 - 0.32 * np.clip(directions[:, 1] / 0.35, -1, 1))[:, None]  # lit from above: the lower half glows
    limbus = np.clip((share - 0.78) / 0.22, 0, 1)[:, None]
    iris += limbus * (np.array([0.06, 0.10, 0.10]) - iris) * 0.85
    white = np.array([0.90, 0.875, 0.85]) - np.clip((angle - 0.55) / 0.6, 0, 1)[:, None] * np.array([0.10, 0.20, 0.20])
    white = white * (1 - 0.26 * np.clip((directions[:, 1] - 0.12) / 0.35, 0, 1))[:, None]  # the upper lid's shadow
    color = np.where((angle < iris_edge)[:, None], iris, white)
    edge = np.clip((angle - iris_edge + 0.02) / 0.04, 0, 1)[:, None]
    color = np.where((np.abs(angle - iris_edge) < 0.02)[:, None], iris * (1 - edge) + white * edge, color)
    color = np.where((angle < pupil_edge)[:, None], np.array([0.025, 0.022, 0.022]), color)
    for x, y, radius, strength in ((-0.15, 0.22, 0.085, 1.0), (0.14, -0.16, 0.04, 0.35)):
        glint = np.clip(1.6 - np.hypot(directions[:, 0] - x, directions[:, 1] - y) / radius, 0, 1)[:, None] * strength
        color = color + glint * (np.array([1.0, 1.0, 1.0]) - color)
    return color


def mouth_parts(sheet: FaceSheet) -> list[Part]:
    """Teeth with gums, tongue and lining, laid out behind the lips."""
    contact_z = float(sheet.vertices[sheet.lip_upper[len(sheet.lip_upper) // 2], 2])
    front = contact_z - 4.0
    upper, lower = (_teeth(front + shift, edge, up, widths) for shift, edge, up, widths in (
        (0.0, -68.6, 1.0, (8.4, 6.6, 7.4, 7.0, 7.0, 9.0)), (-2.6, -68.2, -1.0, (5.6, 6.0, 6.8, 7.0, 7.2))))  # fmt: skip
    return [
        Part("teeth_upper", upper, "head", gloss=0.8, translucency=0.6),
        Part("teeth_lower", lower, "jaw", pivot=metres(JAW_HINGE), gloss=0.8, translucency=0.6),
        _tongue(front),
        *_lining(front),
        _cheek_lining(sheet),
    ]


def _arch(front: float, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points on the dental arch at arc lengths from its middle (+x side) and the outward direction there."""
    t = np.linspace(0, 1, 400)
    curve = np.stack([26.5 * np.sin(t * np.pi / 2) ** 0.95, front - 40.0 * (1 - np.cos(t * np.pi / 2)) ** 1.05], -1)
    along = np.r_[0, np.cumsum(np.linalg.norm(np.diff(curve, axis=0), axis=1))]
    x, z = np.interp(lengths, along, curve[:, 0]), np.interp(lengths, along, curve[:, 1])
    dx, dz = np.interp(lengths + 0.5, along, curve[:, 0]) - x, np.interp(lengths + 0.5, along, curve[:, 1]) - z
    normal = np.stack([-dz, dx], -1)
    return np.stack([x, z], -1), normal / np.linalg.norm(normal, axis=1, keepdims=True)


def _teeth(front: float, edge: float, up: float, widths: tuple) -> Mesh:
    """One jaw's teeth as rounded blocks on an arch, in a rope of gum; `up` is +1 for the upper jaw."""
    meshes = []
    start = 0.0
    for index, width in enumerate(widths):
        at, outward = _arch(front, np.array([start + width / 2]))
        start += width
        height = 9.5 - 0.5 * index if up > 0 else 8.6 - 0.3 * index
        tip = 0.7 if index == 1 else (-0.3 if index == 2 else 0.0)
        tip = tip * (1 if up > 0 else 0.4)
        thick = 3.2 if index < 3 else 6.0
        block, block_faces = _rounded_block(width / 2 * 1.03, height / 2 + 1.0, thick / 2)
        tangent = np.array([outward[0, 1], 0.0, -outward[0, 0]])
        normal = np.array([outward[0, 0], 0.0, outward[0, 1]])
        narrow = 1.0 - 0.16 * np.clip(block[:, 1] * up / (height / 2), -0.2, 1)
        centre = np.array([at[0, 0], edge + up * (height / 2 + 1.0 + tip), at[0, 1]]) - normal * thick / 2
        placed = (
            centre + (block[:, :1] * narrow[:, None]) * tangent + block[:, 1:2] * np.array([0, 1.0, 0]) + block[:, 2:] * normal
        )
        root = np.clip(block[:, 1] * up / height + 0.15, 0, 1)[:, None]
        gap = np.clip((np.abs(block[:, :1]) / (width / 2) - 0.86) / 0.14, 0, 1)
        colors = (TOOTH * (1 - 0.015 * index) - root * np.array([0.02, 0.06, 0.10])) * (1 - 0.28 * gap)
        for sign in (1.0, -1.0):
            meshes.append((placed * np.array([sign, 1, 1]), block_faces if sign > 0 else block_faces[:, ::-1], colors))
    lengths = np.linspace(0, start, 28)
    at, outward = _arch(front, lengths)
    at, outward = np.concatenate([at[:0:-1] * [-1, 1], at]), np.concatenate([outward[:0:-1] * [-1, 1], outward])
    ring = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    scallop = 0.5 * np.cos(np.r_[-lengths[:0:-1], lengths] * 2 * np.pi / 7.2)
    centre = np.stack([at[:, 0], edge + up * (12.6 + 0 * scallop), at[:, 1]], -1) - 2.6 * np.stack(
        [outward[:, 0], 0 * scallop, outward[:, 1]], -1
    )
    thin = 1.0 - 0.4 * (np.r_[lengths[:0:-1], lengths] / start) ** 3  # towards the last molars the jaw's skin is near
    around = np.stack([outward[:, 0], 0 * scallop, outward[:, 1]], -1)
    rope = centre[:, None] + (4.4 * thin)[:, None, None] * np.cos(ring)[None, :, None] * around[:, None]
    rope = rope + ((5.0 * thin + scallop)[:, None] * np.sin(ring))[..., None] * np.array([0, 1.0, 0])
    meshes.append((rope.reshape(-1, 3), grid_faces(len(centre), len(ring)), np.tile(GUM, (rope.shape[0] * rope.shape[1], 1))))
    return join(meshes)


def grid_faces(rows: int, columns: int, closed: bool = True) -> np.ndarray:
    """Faces of a tube (or sheet) of `rows` rings of `columns` vertices."""
    a = np.arange(rows * columns).reshape(rows, columns)
    b = np.roll(a, -1, axis=1) if closed else a[:, 1:]
    a = a if closed else a[:, :-1]
    return np.concatenate(
        [np.stack([a[:-1], a[1:], b[:-1]], -1).reshape(-1, 3), np.stack([b[:-1], a[1:], b[1:]], -1).reshape(-1, 3)]
    )


def join(meshes: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Mesh:
    offsets = np.cumsum([0] + [len(vertices) for vertices, _, _ in meshes])
    return to_mesh(
        np.concatenate([vertices for vertices, _, _ in meshes]),
        np.concatenate([faces + offset for (_, faces, _), offset in zip(meshes, offsets)]),
        np.concatenate([np.broadcast_to(colors, vertices.shape) for vertices, _, colors in meshes]),
    )


def _rounded_block(half_width: float, half_height: float, half_depth: float) -> tuple[np.ndarray, np.ndarray]:
    """A superellipsoid: x width, y height, z depth."""
    latitude, longitude = np.meshgrid(
        np.linspace(-np.pi / 2, np.pi / 2, 12), np.linspace(-np.pi, np.pi, 20, endpoint=False), indexing="ij"
    )

    def power(value: np.ndarray, exponent: float) -> np.ndarray:
        return np.sign(value) * np.abs(value) ** exponent

    x = half_width * power(np.cos(latitude), 0.3) * power(np.sin(longitude), 0.45)
    z = half_depth * power(np.cos(latitude), 0.45) * power(np.cos(longitude), 0.6)
    y = half_height * power(np.sin(latitude), 0.35)
    return np.stack([x, y, z], -1).reshape(-1, 3), grid_faces(12, 20)[:, ::-1]


def _tongue(front: float) -> Part:
    latitude, longitude = np.meshgrid(
        np.linspace(-np.pi / 2, np.pi / 2, 24), np.linspace(-np.pi, np.pi, 28, endpoint=False), indexing="ij"
    )
    z = np.sin(latitude)
    x = np.cos(latitude) * np.sin(longitude)
    y = np.cos(latitude) * np.cos(longitude)
    width = 17.5 * np.clip(1.0 - 0.25 * z, 0.6, 1.2)
    points = np.stack(
        [x * width, -73.0 + 5.5 * y + 2.0 * (1 - z * z) - 1.6 * np.exp(-((x / 0.16) ** 2)) * (y > 0), front - 33.0 + 27.0 * z], -1
    )
    colors = TONGUE * (1 + 0.06 * value_noise(points.reshape(-1, 3), 2.0, 9))[:, None]
    pivot = np.array([0.0, -80.0, front - 54.0])
    return Part(
        "tongue",
        to_mesh(points.reshape(-1, 3), grid_faces(24, 28), colors),
        "tongue",
        pivot=metres(pivot),
        gloss=0.7,
        translucency=0.5,
    )


def _lining(front: float) -> list[Part]:
    """A dark bag behind the teeth: palate and throat, and a floor that goes with the jaw."""
    parts = []
    for name, attachment, low, high in (("mouth_upper", "head", -1.0, 1.57), ("mouth_lower", "jaw", -1.57, 0.0)):
        latitude, longitude = np.meshgrid(
            np.linspace(low, high, 26), np.linspace(-np.pi, np.pi, 48, endpoint=False), indexing="ij"
        )
        across = np.cos(latitude)
        if attachment == "head":  # below the palate a wall, outside the teeth
            across = np.where(latitude < 0, 1.18 + 0.25 * np.sin(latitude), across)
        direction = np.stack([across * np.sin(longitude), np.sin(latitude), across * np.cos(longitude)], -1).reshape(-1, 3)
        if attachment == "head":
            points = np.array([0, -70.0, front - 36.0]) + direction * np.array([27.0, 22.0, 31.0])
        else:  # shallow, so that it stays above the throat when the jaw drops
            points = np.array([0, -70.0, front - 29.0]) + direction * np.array([26.0, 12.0, 24.0])
        faces = grid_faces(26, 48)
        is_wall = (direction[:, 1] < -0.02) & (attachment == "head")
        points, faces, _ = keep_vertices(points, faces, points[:, 2] < front - np.where(is_wall, 20.0, 8.0))
        points = points - np.maximum(0.0, head_distance(points) + 3.0)[:, None] * surface_normals(points)
        parts.append(
            Part(name, to_mesh(points, faces[:, ::-1], 0.55 * MUCOSA), attachment, pivot=metres(JAW_HINGE), translucency=0.3)
        )
    return parts


def _cheek_lining(sheet: FaceSheet) -> Part:
    """The inside of lips and cheeks: a sheet that rides some mm under the skin around the mouth. Where the lips' rims end,
    a look through the open mouth falls on it and not on the back of the skin."""
    a, v = np.abs(sheet.uv[:, 0]), sheet.uv[:, 1]
    near = (a < 33) & (v > -88) & (v < -51) & (np.abs(sheet.lip) > 0.55) & (sheet.lip_rim == 0)
    vertices, faces, _ = keep_vertices(sheet.vertices - 3.0 * surface_normals(sheet.vertices), sheet.faces, near)
    return Part("mouth_cheeks", to_mesh(vertices, faces, MUCOSA), "face", translucency=0.3)

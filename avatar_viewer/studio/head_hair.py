"""The built-in head's hair: a cap of hair over the scalp with clumps combed over it, eyebrows and lashes, in millimetres."""

from __future__ import annotations

import numpy as np

from .blendshapes import Mesh, Part
from .head_parts import contour, grid_faces, join, keep_vertices, to_mesh
from .head_skin import value_noise
from .head_surface import head_distance, surface_normals
from .head_template import FaceSheet, cast_on_head, lid_margin

HAIR_DARK, HAIR_LIGHT = np.array([0.15, 0.085, 0.06]), np.array([0.36, 0.21, 0.135])


def smooth(low: float, high: float, value: np.ndarray) -> np.ndarray:
    share = np.clip((value - low) / (high - low), 0.0, 1.0)
    return share * share * (3.0 - 2.0 * share)


def hair_depth(points: np.ndarray) -> np.ndarray:  # [P, 3] mm -> [P] thickness of the hair there, <= 0 outside the hairline
    x, y, z = np.abs(points[:, 0]), points[:, 1], points[:, 2]
    hairline = 72.0 - 0.004 * x**2  # height of the hairline in front
    front = y - hairline
    side = 18.0 - 0.35 * (y - 40) - z  # behind the temples
    nape = y + 62 + 0.25 * z
    over_ear = np.hypot((y + 6) / 1.15, z + 12) - 27
    inside = np.minimum(np.maximum(front, side), nape)
    inside = np.where(x > 55, np.minimum(inside, over_ear), inside)
    return 11.0 * smooth(0, 26, inside) + np.where(inside < 0, -1.0, 0.0)


def hair_parts() -> list[Part]:
    def distance(points: np.ndarray) -> np.ndarray:
        return head_distance(points) - np.maximum(hair_depth(points), -0.6)

    vertices, faces = contour(distance, (-98, -84, -128), (98, 142, 108), 4.0)
    vertices, faces, _ = keep_vertices(vertices, faces, hair_depth(vertices) > 0.15)
    colors = HAIR_DARK + (HAIR_LIGHT - HAIR_DARK) * (0.3 + 0.3 * value_noise(vertices * np.array([1, 1, 0.2]), 5.0, 4))[:, None]
    return [Part("hair", to_mesh(vertices, faces, colors), "head")]


def strand(path: np.ndarray, across: np.ndarray, width: np.ndarray, thickness: float) -> tuple[np.ndarray, np.ndarray]:
    """A tapering three-sided tube along `path` [S, 3]; `across` [3] is its flat side."""
    tangent = np.gradient(path, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    side = across - (tangent @ across)[:, None] * tangent
    side /= np.maximum(np.linalg.norm(side, axis=1, keepdims=True), 1e-9)
    lift = np.cross(side, tangent)
    ring = np.stack([path + side * width[:, None], path + lift * thickness * width[:, None], path - side * width[:, None]], 1)
    return ring.reshape(-1, 3), grid_faces(len(path), 3)


def eyebrow_parts(sheet: FaceSheet) -> list[Part]:
    random = np.random.default_rng(3)
    strands: list[list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = [[], []]
    count, steps = 330, np.linspace(0, 1, 5)
    share, jitter, lengthen, tint = random.random(count) ** 0.9, random.random(count) - 0.5, random.random(count), random.random(count)
    spread = (1.0 - 0.75 * share**1.5) * (0.55 + 0.45 * np.minimum(1.0, share * 6))
    u0, v0 = 9.0 + 43.0 * share, 18.5 + 9.5 * np.sin(np.pi * (0.06 + 0.62 * share)) + jitter * 8.5 * spread
    lean = np.radians(62 - 62 * np.minimum(1.0, share * 2.2) - 14 * share + 12 * random.standard_normal(count))
    length = (7.0 - 2.5 * share) * (0.8 + 0.4 * lengthen)
    u = u0[:, None] + (length * np.cos(lean))[:, None] * steps
    v = v0[:, None] + (length * np.sin(lean))[:, None] * steps - 1.2 * steps**2
    on_skin = cast_on_head(np.stack([u.ravel(), v.ravel()], -1))
    normals = surface_normals(on_skin).reshape(count, 5, 3)
    paths = on_skin.reshape(count, 5, 3) + normals * (0.15 + 1.1 * np.sin(np.pi * steps * 0.75))[:, None]
    for path, normal, shade in zip(paths, normals, tint):
        points, faces = strand(path, np.cross(normal[0], path[-1] - path[0]), 0.42 * (1.05 - steps), 0.7)
        color = HAIR_DARK * (0.85 + 0.5 * shade)
        for side, sign in enumerate((1.0, -1.0)):
            strands[side].append((points * np.array([sign, 1, 1]), faces if sign > 0 else faces[:, ::-1], color))
    return [Part(name, join(part), "face") for name, part in zip(("eyebrow_right", "eyebrow_left"), strands)]


def lash_parts(sheet: FaceSheet) -> list[Part]:
    """Curved lashes on both margins; the upper ones long and fanned outwards."""
    random = np.random.default_rng(4)
    parts = []
    for name, margin, count, length, up in (("lashes_upper", sheet.lid_upper[1], 64, 7.0, 1.0), ("lashes_lower", sheet.lid_lower[1], 40, 3.4, -1.0)):
        curve = sheet.vertices[margin]
        right, left = [], []
        for index in range(count):
            share = 0.05 + 0.93 * index / (count - 1)
            at = share * (len(curve) - 1)
            low = min(int(at), len(curve) - 2)
            root = curve[low] + (at - low) * (curve[low + 1] - curve[low])
            long = length * (0.55 + 0.6 * share) * (0.85 + 0.3 * random.random()) * min(1.0, 6 * (1.05 - share))
            fan = (share - 0.38) * 1.1 + 0.08 * random.standard_normal()
            steps = np.linspace(0, 1, 6)
            forward = np.array([np.sin(fan) * 0.9, -0.12 * up, 1.0])
            lift = np.array([np.sin(fan) * 0.35, up, 0.1])
            path = root + long * (0.72 * np.outer(np.sin(steps * 1.25), forward) + 0.62 * np.outer(steps**1.8, lift))
            points, faces = strand(path, np.array([1.0, 0, 0]), (0.30 if up > 0 else 0.2) * (1.08 - steps), 0.8)
            right.append((points, faces, np.array([0.05, 0.035, 0.03])))
            left.append((points * np.array([-1, 1, 1]), faces[:, ::-1], np.array([0.05, 0.035, 0.03])))
        parts += [Part(f"{name}_right", join(right), "face"), Part(f"{name}_left", join(left), "face")]
    return parts

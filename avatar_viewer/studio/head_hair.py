"""The built-in head's hair: a cap of hair over the scalp with clumps combed over it, eyebrows and lashes, in millimetres."""

from __future__ import annotations

import numpy as np

from .blendshapes import Part
from .head_parts import contour, grid_faces, join, keep_vertices, to_mesh
from .head_shapes import smoothstep
from .head_skin import HAIRLINE_CURVE, inside_hairline, value_noise
from .head_surface import head_distance, surface_normals
from .head_template import FaceSheet, cast_on_head

HAIR_DARK, HAIR_LIGHT = np.array([0.15, 0.078, 0.050]), np.array([0.60, 0.36, 0.215])
_CROWN = np.array([0.0, 28.0, -12.0])  # clumps are laid out by direction from here
_KNOT = np.array([0.0, -2.0, -124.0])  # the bun's middle


def hair_depth(points: np.ndarray) -> np.ndarray:  # [P, 3] mm -> [P] mm over the skin; below it outside the hairline
    inside = inside_hairline(points)
    return 8.0 * smoothstep(-1, 24, inside) - 3.0 * (1 - smoothstep(-7, 3, inside))


def hair_parts() -> list[Part]:
    def distance(points: np.ndarray) -> np.ndarray:
        return head_distance(points) - hair_depth(points)

    vertices, faces = contour(distance, (-96, -84, -124), (96, 138, 104), 4.0)
    vertices, faces, _ = keep_vertices(vertices, faces, (hair_depth(vertices) > -2.0) & (inside_hairline(vertices) < 400))
    colors = HAIR_DARK + (HAIR_LIGHT - HAIR_DARK) * (0.12 + 0.12 * value_noise(vertices * np.array([1, 1, 0.2]), 5.0, 4))[:, None]
    return [
        Part("hair_cap", to_mesh(vertices, faces, colors), "head"),
        Part("hair", join(_clumps() + _bun() + _loose_locks() + _baby_hair()), "head"),
    ]


def _on_skull(directions: np.ndarray) -> np.ndarray:  # [..., 3] -> [..., 3] mm
    """Where rays from the crown's middle leave the head."""
    directions = directions / np.linalg.norm(directions, axis=-1, keepdims=True)
    flat = directions.reshape(-1, 3)
    near, far = np.full(len(flat), 30.0), np.full(len(flat), 190.0)
    for _ in range(16):
        middle = 0.5 * (near + far)
        inside = head_distance(_CROWN + middle[:, None] * flat) < 0
        near, far = np.where(inside, middle, near), np.where(inside, far, middle)
    return (_CROWN + near[:, None] * flat).reshape(directions.shape)


def _hairline_root(around: float, beyond: float) -> np.ndarray:
    """Direction from the crown's middle to the hairline at so many degrees around, `beyond` mm into the hair."""
    sign, around = np.sign(around), min(179.0, abs(around))
    angle, height = np.radians(around), float(HAIRLINE_CURVE(around)) + beyond
    flat = 80.0
    for _ in range(12):  # walk in or out along the horizontal ray about the hairline's axis
        point = np.array([[np.sin(angle) * flat, height, np.cos(angle) * flat - 10.0]])
        flat -= float(head_distance(point)[0])
    return np.array([sign * np.sin(angle) * flat, height, np.cos(angle) * flat - 10.0]) - _CROWN


def _parting(share: float) -> np.ndarray:
    """Direction to the parting: from the front hairline, off the middle, back over the crown."""
    angle = np.radians(61 - 112 * share)
    return np.array([25.0 - 17 * share, 92 * np.cos(angle), 95 * np.sin(angle)])


def _clumps() -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Combed clumps: from the hairline back to the knot, and over both sides from a parting on the +x side."""
    random = np.random.default_rng(11)
    steps = np.linspace(0, 1, 26)
    knot = _KNOT - _CROWN
    plans = []  # root, control, end (directions), width mm, lift mm, whether it grows out of the hairline
    for around in np.concatenate([np.arange(46, 178, 4.2), -np.arange(46, 178, 4.2)]):  # sides and nape
        root = _hairline_root(around + random.uniform(-1.2, 1.2), 1.0)
        back = 0.5 * (root / np.linalg.norm(root) + knot / np.linalg.norm(knot))
        control = back + np.array([0.18 * np.sign(around), 0.16 * np.clip(1.6 - abs(around) / 70, 0, 1), 0.0])
        plans.append((root, control, knot + random.uniform(-12, 12, 3), 8.5, 1.2, True))
    for layer, count in ((0, 21), (1, 17)):
        for index in range(count):  # from the parting
            share = np.clip((index + random.uniform(-0.25, 0.25)) / (count - 1), 0, 1)
            root = _parting(share)
            for side in (-1.0, 1.0):
                reach = 1.0 if side < 0 else 0.8
                front = np.clip(1 - share * 1.6, 0, 1)
                out = (0.95 + 0.15 * front) * reach * (1 - 0.8 * np.clip((share - 0.55) / 0.45, 0, 1))
                control = np.array([side * out, 0.52 - 0.20 * front + 0.35 * share, 0.62 * front - 0.75 * share])
                end = knot + np.array([side * 13 * (1.1 - share), 16 * share - 4, 0]) + random.uniform(-5, 5, 3)
                plans.append(
                    (
                        root + np.array([side * 0.5, 0, 0]),
                        control,
                        end,
                        11.0 - 1.5 * layer,
                        5.0 + 3.5 * front + 1.4 * layer,
                        False,
                    )
                )
    for root, control, end, _, lift, from_skin in list(plans):  # thin strands that break the clumps' outlines
        shift = 0.06 * np.linalg.norm(root)
        astray = [value + random.uniform(-shift, shift, 3) for value in (root, control * 80.0, end)]
        plans.append((astray[0] if not from_skin else root, astray[1], astray[2], 2.2, lift + 2.2, from_skin))
    meshes = []
    for root, control, end, width, lift, from_skin in plans:
        unit = [value / np.linalg.norm(value) for value in (root, control, end)]
        t = steps[:, None]
        path = _on_skull((1 - t) ** 2 * unit[0] + 2 * t * (1 - t) * unit[1] * 1.05 + t**2 * unit[2])
        outwards = (path - _CROWN) / np.linalg.norm(path - _CROWN, axis=1, keepdims=True)
        height = (
            hair_depth(path) + 0.2 + lift * np.sin(np.pi * np.clip(steps * 1.15 + 0.02, 0, 1)) ** 0.7 + random.uniform(0, 1.6)
        )
        height = np.where(steps < 0.15, np.minimum(height, (0.2 if from_skin else 8.0) + 50 * steps), height)
        path = path + outwards * np.maximum(height, 0.2)[:, None]
        breadth = width * np.minimum(1.0, 0.30 + 4.0 * steps) * (1 - 0.45 * steps**2)
        meshes.append(_clump(path, outwards, breadth, random.uniform(0.0, 1.0), random))
    return meshes


def _clump(
    path: np.ndarray, outwards: np.ndarray, breadth: np.ndarray, tint: float, random
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A flat, ridged tube: thicker in its middle, with lighter ridges and dark edges."""
    ring = np.linspace(0, 2 * np.pi, 14, endpoint=False)
    tangent = np.gradient(path, axis=0)
    tangent /= np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), 1e-9)
    side = np.cross(tangent, outwards)
    side /= np.maximum(np.linalg.norm(side, axis=1, keepdims=True), 1e-9)
    lift = np.cross(side, tangent)
    phase = random.uniform(0, 6.28)
    ridge = 1 + 0.16 * np.cos(5 * ring + phase)
    x, y = np.cos(ring) * 0.5, np.sin(ring) * 0.17 * ridge
    points = path[:, None] + breadth[:, None, None] * (x[None, :, None] * side[:, None] + y[None, :, None] * lift[:, None])
    glow = np.exp(-(((path[:, 1] - 96) / 22) ** 2)) * 0.5 + np.exp(-(((path[:, 1] - 40) / 16) ** 2)) * 0.22 + 0.08
    share = (
        (0.20 * tint + glow)[:, None]
        * (0.45 + 0.55 * np.clip(np.sin(ring), 0, 1) ** 0.7)[None]
        * (0.82 + 0.3 * np.cos(5 * ring + phase))[None]
    )
    share = share * np.minimum(1.0, 0.35 + np.linspace(0, 5, len(path)))[:, None]
    colors = HAIR_DARK + np.clip(share, 0, 1)[..., None] * (HAIR_LIGHT - HAIR_DARK)
    return points.reshape(-1, 3), grid_faces(len(path), len(ring))[:, ::-1], colors.reshape(-1, 3)


def _bun() -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """A knot of twisted clumps over a ball."""
    random = np.random.default_rng(12)
    meshes = []
    steps = np.linspace(0, 1, 26)
    for index in range(16):
        start = 2 * np.pi * index / 16
        latitude = np.linspace(-1.0, 1.5, 26)
        turn = start + 2.6 * steps
        outwards = np.stack([np.cos(turn) * np.cos(latitude), np.sin(turn) * np.cos(latitude), -np.sin(latitude)], -1)
        path = _KNOT + outwards * (np.array([31.0, 28.0, 23.0]) + random.uniform(-1.0, 1.5))
        breadth = 13.0 * np.sqrt(np.clip(np.cos(latitude), 0.16, 1))
        meshes.append(_clump(path, outwards, breadth, random.uniform(0.2, 1.0), random))
    return meshes


def _loose_locks() -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Wisps in front of the ears that frame the face."""
    random = np.random.default_rng(13)
    meshes = []
    steps = np.linspace(0, 1, 22)
    for side, count, length in ((-1.0, 6, 92.0), (1.0, 5, 78.0)):
        base = _hairline_root(57.0, 3.0) + _CROWN
        for index in range(count):
            reach = length * (1 - 0.09 * index) * random.uniform(0.92, 1.05)
            spread = 1.1 * (index - count / 2)
            x = side * (base[0] + 5.0 * np.sin(steps * 2.6) + 2.2 * np.sin(steps * 6.0 + 0.5 * index) + 0.4 * spread * steps)
            z = base[2] - 2.0 + 2 * spread * (1 - 0.6 * steps) - 16 * steps + 5.0 * np.sin(steps * 5.2)
            path = np.stack([x, base[1] + 4 + 9 * steps * (1 - steps) - reach * steps**1.05, z], -1)
            for _ in range(3):
                path += surface_normals(path) * np.maximum(0.0, 2.4 + 0.5 * index - head_distance(path))[:, None]
            outwards = np.tile(np.array([side, 0.0, 0.35]), (len(steps), 1))
            breadth = 4.4 * np.minimum(1, 0.5 + 3 * steps) * (1.03 - steps**2.5)
            meshes.append(_clump(path, outwards, breadth, random.uniform(0.3, 1.0), random))
    return meshes


def _baby_hair() -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Short fine hairs that soften the hairline."""
    random = np.random.default_rng(14)
    around = random.uniform(-112, 112, 260)
    roots = np.stack([_hairline_root(angle, random.uniform(-3.5, 3.0)) for angle in around])
    directions = roots / np.linalg.norm(roots, axis=1, keepdims=True)
    steps = np.linspace(0, 1, 6)
    lean = (
        np.array([0.0, 0.55, -0.5])
        + 0.25 * random.standard_normal((260, 3))
        + 0.35 * np.stack([directions[:, 0], 0 * around, 0 * around], -1)
    )
    length = random.uniform(0.06, 0.14, 260)
    paths = directions[:, None] + (length[:, None] * steps)[..., None] * lean[:, None]
    paths = _on_skull(paths)
    outwards = (paths - _CROWN) / np.linalg.norm(paths - _CROWN, axis=-1, keepdims=True)
    paths = paths + outwards * (0.3 + 5.0 * steps**1.3)[None, :, None]
    meshes = []
    for path, outward, shade in zip(paths, outwards, random.uniform(0.1, 0.6, 260)):
        points, faces = strand(path, np.cross(outward[0], path[-1] - path[0]), 0.34 * (1.05 - steps), 0.7)
        meshes.append((points, faces, HAIR_DARK + shade * 0.5 * (HAIR_LIGHT - HAIR_DARK)))
    return meshes


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
    count, steps = 520, np.linspace(0, 1, 5)
    share, jitter, lengthen, tint = (
        random.random(count) ** 0.9,
        random.random(count) - 0.5,
        random.random(count),
        random.random(count),
    )
    spread = (1.0 - 0.78 * share**1.4) * (0.7 + 0.3 * np.minimum(1.0, share * 6))
    u0, v0 = 9.0 + 43.0 * share, 18.8 + 10.0 * np.sin(np.pi * (0.05 + 0.62 * share)) + jitter * 6.6 * spread
    lean = np.radians(66 - 58 * np.minimum(1.0, share * 2.4) - 20 * share + 6 * random.standard_normal(count))
    length = (7.0 - 2.5 * share) * (0.8 + 0.4 * lengthen)
    u = u0[:, None] + (length * np.cos(lean))[:, None] * steps
    v = v0[:, None] + (length * np.sin(lean))[:, None] * steps - 1.2 * steps**2
    on_skin = cast_on_head(np.stack([u.ravel(), v.ravel()], -1))
    normals = surface_normals(on_skin).reshape(count, 5, 3)
    paths = on_skin.reshape(count, 5, 3) + normals * (0.15 + 1.1 * np.sin(np.pi * steps * 0.75))[:, None]
    for path, normal, shade in zip(paths, normals, tint):
        points, faces = strand(path, np.cross(normal[0], path[-1] - path[0]), 0.27 * (1.05 - steps), 0.6)
        color = HAIR_DARK * (1.15 + 0.8 * shade)
        for side, sign in enumerate((1.0, -1.0)):
            strands[side].append((points * np.array([sign, 1, 1]), faces if sign > 0 else faces[:, ::-1], color))
    return [Part(name, join(part), "face") for name, part in zip(("eyebrow_right", "eyebrow_left"), strands)]


def lash_parts(sheet: FaceSheet) -> list[Part]:
    """Curved lashes on both margins; the upper ones long and fanned outwards."""
    random = np.random.default_rng(4)
    parts = []
    for name, margin, count, length, up in (
        ("lashes_upper", sheet.lid_upper[1], 64, 7.0, 1.0),
        ("lashes_lower", sheet.lid_lower[1], 40, 3.4, -1.0),
    ):
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

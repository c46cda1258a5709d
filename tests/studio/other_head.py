"""A second head for tests, nothing like the built-in one: broad, dark, freckled, its skin wound in rings around the mouth.

As an artist would hand it over: 52 ARKit names less a few, textures through seamed UVs, eyes, teeth, tongue, hair and
shoulders as meshes of their own. Everything is a formula of place; coarse builds take milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

RADII = np.array([0.088, 0.104, 0.096])  # metres
MOUTH = np.array([0.0, -0.5, 1.0])  # direction of the mouth's middle
EYES = np.array([0.036, 0.024])  # x and y of the left eye, metres
EYE_RADIUS = 0.0145
SLIT = 0.30  # radians from the mouth's middle to its corner
BACK = 2.9  # radians from the mouth's middle to the open end under the hair
JAW_HINGE, JAW_DEGREES = np.array([0.0, -0.006, 0.0]), 15.0


@dataclass
class ArtistMesh:
    name: str
    vertices: np.ndarray  # [P, 3]
    faces: np.ndarray  # [F, 3]
    uv: np.ndarray | None = None  # [P, 2] v down
    texture: np.ndarray | None = None  # [H, W, 3] uint8
    targets: dict[str, np.ndarray] = field(default_factory=dict)
    material: str = ""


def build_other_head(around: int = 48, rings: int = 30, texels: int = 256) -> list[ArtistMesh]:
    """Face first; then eyes, teeth, tongue, hair and shoulders."""
    return [_skin(around, rings, texels), *_eyes(texels), *_teeth(), _tongue(), _hair(), _shoulders()]


def step(low: float, high: float, x: np.ndarray) -> np.ndarray:
    share = np.clip((x - low) / (high - low), 0, 1)
    return share * share * (3 - 2 * share)


def _ball(points: np.ndarray, centre: tuple[float, float], width: float, height: float) -> np.ndarray:  # [P, 3] -> [P]
    """A soft spot on the front of the head."""
    bump = np.exp(-(((points[:, 0] - centre[0]) / width) ** 2) - ((points[:, 1] - centre[1]) / height) ** 2)
    return bump * step(0.0, 0.04, points[:, 2])


def _surface(phi: np.ndarray, s: np.ndarray) -> np.ndarray:  # angle about the mouth, -0.1 .. 1 from inside it to the back
    outside = np.maximum(s, 0.0)
    q = np.stack(((SLIT + outside * (BACK - SLIT)) * np.cos(phi), (0.001 + outside**1.15 * (BACK - 0.001)) * np.sin(phi)), -1)
    reach = np.maximum(np.linalg.norm(q, axis=-1), 1e-9)
    front = MOUTH / np.linalg.norm(MOUTH)
    right = np.array([1.0, 0, 0])
    up = np.cross(front, right)
    along = (q[:, :1] * right + q[:, 1:] * up) / reach[:, None]
    points = (np.cos(reach)[:, None] * front + np.sin(reach)[:, None] * along) * RADII
    points[:, 2] += 0.024 * _ball(points, (0, -0.008), 0.013, 0.024) + 0.006 * _ball(points, (0, -0.075), 0.02, 0.014)
    for sign in (1, -1):
        points[:, 2] += 0.008 * _ball(points, (sign * 0.036, 0.05), 0.022, 0.008)  # brows stand out
        points[:, 2] -= 0.016 * _socket(points, sign)
    lips = np.exp(-((outside / 0.035) ** 2))
    points[:, 2] += 0.006 * lips
    inside = np.maximum(-s, 0.0) / 0.1  # the mouth's bag, closed at its end
    points[:, 2] -= 0.045 * inside
    points[:, 1] += 0.007 * np.sin(np.pi * inside) ** 2 * np.sin(phi)
    return points


def _socket(points: np.ndarray, sign: int) -> np.ndarray:  # -> [P] 1 behind the eyeball, 0 beyond its lids
    reach = np.hypot((points[:, 0] - sign * EYES[0]) / 0.015, (points[:, 1] - EYES[1]) / 0.011)
    return (1 - step(0.8, 1.15, reach)) * (points[:, 2] > 0)


def _skin(around: int, rings: int, texels: int) -> ArtistMesh:
    inner = 4
    s_rows = np.concatenate((np.linspace(-0.1, 0, inner, endpoint=False), np.linspace(0, 1, rings) ** 1.35))
    s, u = (grid.ravel() for grid in np.meshgrid(s_rows, np.linspace(0, 1, around + 1), indexing="ij"))  # the seam: u 0 and 1
    phi = 2 * np.pi * u
    vertices = _surface(phi, s)
    vertices[u == 1] = vertices[u == 0]
    corner = (np.arange(len(s_rows) - 1)[:, None] * (around + 1) + np.arange(around)).ravel()
    across, down = corner + 1, corner + around + 1
    faces = np.concatenate((np.stack((corner, down, across), 1), np.stack((across, down, down + 1), 1)))
    v = (s + 0.1) / 1.1
    targets = {name: np.where((u == 1)[:, None], 0, offsets) for name, offsets in _shapes(vertices, phi, s).items()}
    for offsets in targets.values():
        offsets[u == 1] = offsets[u == 0]
    return ArtistMesh("Head_geo", vertices, faces, np.stack((u, v), 1), _paint_skin(texels), targets, "skin")


def _paint_skin(texels: int) -> np.ndarray:
    v, u = ((grid.ravel() + 0.5) / texels for grid in np.meshgrid(np.arange(texels), np.arange(texels), indexing="ij"))
    s, phi = v * 1.1 - 0.1, 2 * np.pi * u
    points = _surface(phi, s)
    color = np.tile([0.43, 0.27, 0.19], (len(u), 1)) * (1 + 0.06 * np.sin(90 * points[:, :1]) * np.sin(110 * points[:, 1:2]))
    freckles = (
        (np.sin(900 * points[:, 0]) * np.sin(800 * points[:, 1]) > 0.86)
        & (np.abs(points[:, 1] + 0.01) < 0.02)
        & (points[:, 2] > 0)
    )
    color[freckles] *= 0.72
    for sign in (1, -1):
        brow = _ball(points, (sign * 0.037, 0.052), 0.017, 0.0035)[:, None]
        color = color * (1 - np.clip(2 * brow, 0, 0.9)) + 0.05 * np.clip(2 * brow, 0, 0.9)
        color *= 1 - 0.45 * _socket(points, sign)[:, None] * 0.5
    lips = (step(-0.005, 0.005, s) * (1 - step(0.03, 0.05, s)))[:, None] * np.minimum(1, 4 * np.abs(np.sin(phi)) + 0.3)[:, None]
    color = color * (1 - lips) + np.array([0.52, 0.17, 0.21]) * lips
    color[s < -0.004] = (0.18, 0.05, 0.05)
    return (np.clip(color, 0, 1).reshape(texels, texels, 3) * 255).astype(np.uint8)


def _shapes(p: np.ndarray, phi: np.ndarray, s: np.ndarray) -> dict[str, np.ndarray]:
    outside = np.maximum(s, 0)
    near = np.exp(-((outside / 0.07) ** 2))  # the lips and what surrounds them
    upper, lower = near * step(-0.1, 0.5, np.sin(phi)), near * step(-0.1, 0.5, -np.sin(phi))
    jaw = step(-0.35, 0.35, -np.sin(phi)) * (1 - step(0.14, 0.42, outside))
    jaw = 0.5 + (jaw - 0.5) * (1 - np.maximum(-s, 0) / 0.1)
    sides = {"Left": p[:, 0] > 0, "Right": p[:, 0] < 0}

    def move(weight: np.ndarray, x: float, y: float, z: float) -> np.ndarray:  # millimetres; x away from the middle
        return weight[:, None] * np.stack((np.sign(p[:, 0]) * x, np.full(len(p), y), np.full(len(p), z)), 1) / 1000

    corner = np.exp(-((np.abs(np.sin(phi)) / 0.5) ** 2)) * np.exp(-((outside / 0.1) ** 2))

    def front(x: float, y: float, width: float, height: float) -> np.ndarray:
        return _ball(p, (x, y), width, height) + _ball(p, (-x, y), width, height)

    lids = _socket(p, 1) + _socket(p, -1)
    depth = np.hypot(p[:, 0] - np.sign(p[:, 0]) * EYES[0], p[:, 1] - EYES[1])
    ball = _eye_depth() + np.sqrt(np.maximum((EYE_RADIUS + 0.003) ** 2 - depth**2, 0)) - p[:, 2]
    both = {
        "eyeBlink": np.stack((0 * ball, 0 * ball, np.maximum(ball, 0)), 1) * lids[:, None],
        "eyeSquint": move(front(0.036, 0.010, 0.016, 0.008) * (1 - lids), 0, 3.0, 0.5),
        "eyeWide": move(front(0.036, 0.038, 0.016, 0.007) * (1 - lids), 0, 3.0, -0.5),
        "browDown": move(front(0.028, 0.052, 0.022, 0.012), -2.5, -6.0, 0.5),
        "browOuterUp": move(front(0.052, 0.052, 0.016, 0.014), 0, 6.5, 0),
        "cheekSquint": move(front(0.045, -0.008, 0.022, 0.018), 0, 5.0, 1.5),
        "noseSneer": move(front(0.014, -0.008, 0.011, 0.016), 0, 4.5, 0.5),
        "mouthSmile": move(corner, 5.5, 8.0, -3.5),
        "mouthFrown": move(corner, 2.0, -7.0, -1.0),
        "mouthDimple": move(corner, 3.5, 0.5, -4.5),
        "mouthStretch": move(corner, 7.0, -1.5, -3.0),
        "mouthPress": move(upper - lower, 0, -0.8, 0) + move(near, 0, 0, -2.0),
        "mouthUpperUp": move(upper, 0, 5.5, 1.0),
        "mouthLowerDown": move(lower, 0, -5.5, 0.5),
    }
    shapes = {name + side: offsets * half[:, None] for name, offsets in both.items() for side, half in sides.items()}
    shapes["jawOpen"] = jaw[:, None] * (carry_jaw(p) - p)
    shapes["browInnerUp"] = move(front(0.014, 0.054, 0.014, 0.016), 0, 7.0, 0)
    shapes["mouthPucker"] = move(corner, -8.0, 0, 3.0) + move(near, 0, 0, 5.0)
    shapes["mouthFunnel"] = move(corner, -5.0, 0, 2.0) + move(upper - lower, 0, 3.0, 0) + move(near, 0, 0, 4.0)
    shapes["mouthRollUpper"] = move(upper, 0, -1.0, -4.0)
    shapes["mouthRollLower"] = move(lower, 0, 1.0, -4.0)
    shapes["mouthShrugLower"] = move(lower + _ball(p, (0, -0.075), 0.018, 0.012), 0, 4.0, 2.0)
    shapes["cheekPuff"] = move(front(0.05, -0.04, 0.025, 0.025), 4.0, 0, 4.0)  # no AU asks for it
    return shapes


def carry_jaw(points: np.ndarray) -> np.ndarray:  # [P, 3] -> [P, 3] with the jaw wide open
    angle = np.radians(JAW_DEGREES)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    return (points - JAW_HINGE) @ turn.T + JAW_HINGE


def _globe(
    centre: np.ndarray, radii: np.ndarray, rows: int, columns: int, top: float = 1.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A sphere with its poles front and back, as far back as `top`; uv from pole to pole."""
    v, u = (grid.ravel() for grid in np.meshgrid(np.linspace(0, top, rows), np.linspace(0, 1, columns + 1), indexing="ij"))
    theta, phi = np.pi * v, 2 * np.pi * u
    points = centre + radii * np.stack((np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)), 1)
    corner = (np.arange(rows - 1)[:, None] * (columns + 1) + np.arange(columns)).ravel()
    faces = np.concatenate(
        (
            np.stack((corner, corner + columns + 1, corner + 1), 1),
            np.stack((corner + 1, corner + columns + 1, corner + columns + 2), 1),
        )
    )
    return points, faces, np.stack((u, v), 1)


def _eye_depth() -> float:
    """z of the eyeballs' middles: their fronts stand where the skin would be."""
    unsunk = np.sqrt(1 - (EYES[0] / RADII[0]) ** 2 - (EYES[1] / RADII[1]) ** 2) * RADII[2]
    return float(unsunk - EYE_RADIUS - 0.003)


def _eyes(texels: int) -> list[ArtistMesh]:
    rows = (np.arange(texels) + 0.5) / texels
    color = np.full((texels, 3), 0.93)
    color[rows < 0.17] = (0.45, 0.30, 0.12)
    color[rows < 0.075] = 0.03
    texture = (np.repeat(color[:, None], texels, 1) * 255).astype(np.uint8)
    eyes = []
    for name, sign in (("Eye_L", 1), ("Eye_R", -1)):
        points, faces, uv = _globe(np.array([sign * EYES[0], EYES[1], _eye_depth()]), np.full(3, EYE_RADIUS), 12, 16)
        eyes.append(ArtistMesh(name, points, faces, uv, texture, material="eyeball"))
    return eyes


def _teeth() -> list[ArtistMesh]:
    angle, ring = np.meshgrid(np.linspace(-1.1, 1.1, 13), np.linspace(0, 2 * np.pi, 7), indexing="ij")
    mouth = _surface(np.array([0.0, np.pi]), np.zeros(2)).mean(axis=0)
    rows = []
    for name, drop in (("Teeth_upper", 0.004), ("Teeth_lower", -0.006)):
        x = (0.022 + 0.002 * np.cos(ring)) * np.sin(angle)
        z = (0.026 + 0.002 * np.cos(ring)) * np.cos(angle) - 0.045 + mouth[2] + 0.012
        points = np.stack((x, mouth[1] + drop + 0.0045 * np.sin(ring), z), -1).reshape(-1, 3)
        corner = (np.arange(12)[:, None] * 7 + np.arange(6)).ravel()
        faces = np.concatenate((np.stack((corner, corner + 7, corner + 1), 1), np.stack((corner + 1, corner + 7, corner + 8), 1)))
        targets = {"jawOpen": carry_jaw(points) - points} if drop < 0 else {}
        rows.append(ArtistMesh(name, points, faces, targets=targets, material="enamel"))
    return rows


def _tongue() -> ArtistMesh:
    mouth = _surface(np.array([0.0, np.pi]), np.zeros(2)).mean(axis=0)
    points, faces, _ = _globe(mouth + np.array([0, -0.004, -0.026]), np.array([0.014, 0.005, 0.018]), 8, 10)
    return ArtistMesh("Tongue", points, faces, material="flesh")


def _hair() -> ArtistMesh:
    points, faces, uv = _globe(np.array([0, 0.016, -0.012]), RADII + np.array([0.008, 0.012, 0.010]), 20, 32)
    keep = (points[:, 1] + 0.35 * points[:, 2] * -1 > 0.035)[faces].all(axis=1)
    points = points * (1 + 0.02 * np.sin(40 * uv[:, :1] * 2 * np.pi))
    return ArtistMesh("Hair_cap", points, faces[keep], material="hair")


def _shoulders() -> ArtistMesh:
    points, faces, _ = _globe(np.array([0, -0.19, -0.03]), np.array([0.17, 0.07, 0.08]), 14, 24)
    neck, more, _ = _globe(np.array([0, -0.12, -0.02]), np.array([0.05, 0.09, 0.05]), 12, 20)
    return ArtistMesh("Body", np.concatenate((points, neck)), np.concatenate((faces, more + len(points))), material="cloth")

"""A crude head for tests: an egg with a face grid in front, two eyes, a neck and a cap of hair; builds in milliseconds."""

from __future__ import annotations

import numpy as np

from avatar_viewer.studio.blendshapes import BlendshapeRig, Mesh, Part

RADII = np.array([0.075, 0.105, 0.09])  # metres


def _grid(
    rows: int, columns: int, azimuth: tuple[float, float], polar: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Directions [P, 3], triangles facing outwards [F, 3] and (u, v) in -1..1 of a spherical grid."""
    v, u = np.meshgrid(np.linspace(-1, 1, rows), np.linspace(-1, 1, columns), indexing="ij")
    phi = np.interp(u, (-1, 1), azimuth)
    theta = np.interp(v, (-1, 1), polar)
    directions = np.stack((np.sin(phi) * np.cos(theta), np.sin(theta), np.cos(phi) * np.cos(theta)), -1).reshape(-1, 3)
    corner = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).reshape(-1)
    faces = np.concatenate(
        (np.stack((corner, corner + 1, corner + columns), 1), np.stack((corner + 1, corner + columns + 1, corner + columns), 1))
    )
    return directions, faces.astype(np.int32), np.stack((u, v), -1).reshape(-1, 2)


def _blob(
    centre: tuple[float, float, float], radii: float | np.ndarray, color: tuple[float, float, float], size: int = 12
) -> Mesh:
    directions, faces, _ = _grid(size, 2 * size, (-np.pi, np.pi), (-np.pi / 2, np.pi / 2))
    vertices = (np.asarray(centre) + directions * radii).astype(np.float32)
    return Mesh(vertices, faces, np.tile(np.float32(color), (len(vertices), 1)))


def build_crude_rig(rows: int = 24, columns: int = 24) -> BlendshapeRig:
    directions, faces, uv = _grid(rows, columns, (-1.15, 1.15), (-0.85, 0.75))
    u, v = uv.T
    nose = np.exp(-((u / 0.12) ** 2 + ((v + 0.05) / 0.2) ** 2))
    bumps = 0.003 * np.cos(5 * u) * np.cos(4 * v)
    vertices = (directions * (RADII + 0.002 + bumps[:, None] + 0.018 * nose[:, None])).astype(np.float32)
    mouth = np.exp(-((u / 0.3) ** 2 + ((v + 0.45) / 0.12) ** 2))
    brow = np.exp(-(((v - 0.45) / 0.05) ** 2)) * (np.abs(np.abs(u) - 0.35) < 0.22)
    skin = np.array([0.80, 0.60, 0.50]) + 0.05 * np.sin(7 * u)[:, None]
    colors = skin * (1 - mouth[:, None]) + np.array([0.70, 0.25, 0.25]) * mouth[:, None]
    colors = colors * (1 - 0.7 * brow[:, None])
    face = Mesh(vertices, faces, colors.clip(0, 1).astype(np.float32))

    lower = np.where(v < -0.45, 1.0, 0.0) * np.exp(-((u / 0.6) ** 2))
    eyes = np.exp(-(((np.abs(u) - 0.35) / 0.15) ** 2 + ((v - 0.25) / 0.1) ** 2))
    corners = np.exp(-(((np.abs(u) - 0.3) / 0.12) ** 2 + ((v + 0.45) / 0.12) ** 2))

    def shape(weight: np.ndarray, direction: tuple[float, float, float]) -> np.ndarray:
        return (weight[:, None] * np.float32(direction)).astype(np.float32)

    shapes = {
        "AU01": shape(brow, (0, 0.008, 0)),
        "AU02": shape(brow, (0, 0.006, 0)),
        "AU12": shape(corners, (0, 0.01, -0.004)),
        "AU25": shape(lower * 0.5, (0, -0.006, 0)),
        "AU26": shape(lower, (0, -0.02, -0.006)),
        "AU45": shape(eyes, (0, -0.008, 0.002)),
        "aa": shape(lower, (0, -0.014, -0.004)),
    }
    row = np.arange(rows * columns).reshape(rows, columns)
    line = int(np.argmin(np.abs(v.reshape(rows, columns)[:, 0] + 0.45)))
    middle = slice(columns // 3, columns - columns // 3)
    regions = {
        "lips": np.flatnonzero(mouth > 0.5),
        "lip_upper": row[line + 1, middle],
        "lip_lower": row[line, middle],
        "eyelids": np.flatnonzero(eyes > 0.5),
        "upper_face": np.flatnonzero(v > 0.1),
        "jaw": np.flatnonzero((v < -0.7) & (np.abs(u) < 0.4)),
    }
    regions |= {name: np.flatnonzero(np.linalg.norm(offsets, axis=1) > 1e-3) for name, offsets in shapes.items()}
    eye_centres = {"eye_left": (0.028, 0.027, 0.07), "eye_right": (-0.028, 0.027, 0.07)}
    parts = [
        Part("scalp", _blob((0, 0, -0.002), RADII - 0.004, (0.35, 0.25, 0.2)), "head"),
        Part("hair", _blob((0, 0.03, -0.03), RADII + np.array([0.004, -0.005, -0.01]), (0.25, 0.15, 0.1)), "head"),
        Part("neck", _blob((0, -0.12, -0.02), np.array([0.045, 0.08, 0.045]), (0.75, 0.55, 0.45)), "head"),
        Part("teeth_lower", _blob((0, -0.05, 0.068), np.array([0.018, 0.004, 0.012]), (0.9, 0.88, 0.8), 6), "jaw"),
    ]
    parts += [Part(name, _blob(centre, 0.0125, (0.9, 0.9, 0.92), 8), "eye", centre, 0.8) for name, centre in eye_centres.items()]
    return BlendshapeRig("crude", face, shapes, tuple(parts), {k: np.asarray(v, dtype=np.int64) for k, v in regions.items()})

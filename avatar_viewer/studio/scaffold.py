"""Where the Gaussians that are not face skin start: points on the visible surfaces of hair, eyes, teeth, clothes...

A point counts as visible if some camera sees it in some pose. Knows meshes, cameras and depth maps; knows no files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from ..types import Camera
from .blendshapes import Part

DEPTH_TOLERANCE = 0.003  # metres: a point this far behind the seen surface is still on it
CANDIDATES = 12  # for each point wanted
SMALLEST_SHARE = 120  # points that even a tiny visible part gets
# Points for an area, relative to hair: where eyes look, Gaussians are dense. The first matching word counts.
DETAIL: tuple[tuple[str, float], ...] = (
    ("lash", 3.0), ("brow", 4.0), ("eye", 6.0), ("teeth", 12.0), ("tongue", 6.0), ("gum", 6.0), ("mouth", 2.0), ("ear", 1.6),
    ("hair", 1.0), ("scalp", 0.6), ("neck", 0.6),
)  # fmt: skip
OTHER_DETAIL = 0.3  # clothes, shoulders, whatever else


@dataclass(frozen=True)
class Scaffold:
    points: np.ndarray  # [P, 3] float32 metres, canonical
    normals: np.ndarray  # [P, 3] float32
    colors: np.ndarray  # [P, 3] float32 sRGB albedo
    parts: np.ndarray  # [P] int32, index into `part_names`
    part_names: tuple[str, ...]
    attachments: tuple[str, ...]  # of each part: face, head, jaw, eye, tongue


@dataclass(frozen=True)
class SurfacePoints:
    """Points fixed on triangles, so that they can be placed again on the posed mesh."""

    part: int
    corners: np.ndarray  # [P, 3] int
    weights: np.ndarray  # [P, 3]

    def on(self, vertices: np.ndarray) -> np.ndarray:  # [M, 3] -> [P, 3]
        return (vertices[self.corners] * self.weights[..., None]).sum(axis=1)


def scatter_points(parts: Sequence[Part], count: int, seed: int) -> list[SurfacePoints]:
    """Candidates on every part: `CANDIDATES` times `count` in all, by area and detail."""
    rng = np.random.default_rng(seed)
    areas = [_triangle_areas(part) for part in parts]
    shares = np.array([area.sum() * detail_of(part.name) for part, area in zip(parts, areas)])
    numbers = np.maximum(SMALLEST_SHARE * 4, (CANDIDATES * count * shares / max(shares.sum(), 1e-12)).astype(int))
    result = []
    for index, (part, area, number) in enumerate(zip(parts, areas, numbers)):
        triangles = rng.choice(len(area), size=number, p=area / area.sum())
        root, share = np.sqrt(rng.random(number)), rng.random(number)
        weights = np.stack((1 - root, root * (1 - share), root * share), axis=1)
        result.append(SurfacePoints(index, part.mesh.faces[triangles], weights))
    return result


def mark_seen(
    points: np.ndarray, camera: Camera, depth: np.ndarray, seen: np.ndarray
) -> None:  # [P, 3], [H, W], [P] bool in and out
    """Set `seen` where `camera` has the point in view and nothing before it; `depth` 0 where nothing is."""
    world_to_camera = camera.viewmat.double().numpy()
    local = points @ world_to_camera[:3, :3].T + world_to_camera[:3, 3]
    pixels = local @ camera.K.double().numpy().T
    x, y = np.floor(pixels[:, :2] / np.maximum(pixels[:, 2:], 1e-6)).astype(int).T
    inside = (local[:, 2] > 0.01) & (x >= 0) & (y >= 0) & (x < depth.shape[1]) & (y < depth.shape[0])
    rows = np.flatnonzero(inside)
    surface = depth[y[rows], x[rows]]
    seen[rows[(surface > 0) & (local[rows, 2] < surface + DEPTH_TOLERANCE)]] = True


def choose_points(
    parts: Sequence[Part], candidates: Sequence[SurfacePoints], seen: Sequence[np.ndarray], count: int, seed: int
) -> Scaffold:
    """`count` points, evenly spread over what was seen, denser where detail is."""
    rng = np.random.default_rng(seed)
    visible = np.array([mask.sum() for mask in seen], dtype=np.float64)  # candidates already lie by area and detail
    wanted = np.minimum(visible, np.maximum(np.minimum(visible, SMALLEST_SHARE), count * visible / max(visible.sum(), 1.0)))
    wanted = np.floor(wanted * min(1.0, count / max(wanted.sum(), 1.0))).astype(int)
    columns: list[tuple[np.ndarray, ...]] = []
    for index, (part, points, mask, number) in enumerate(zip(parts, candidates, seen, wanted)):
        if number == 0:
            continue
        rows = np.flatnonzero(mask)
        places = points.on(part.mesh.vertices)[rows]
        rows = rows[_spread(places, number, rng)]
        chosen = SurfacePoints(index, points.corners[rows], points.weights[rows])
        corners = part.mesh.vertices[chosen.corners]
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
        columns.append((chosen.on(part.mesh.vertices), normals, chosen.on(part.mesh.colors), np.full(number, index)))
    if not columns:
        columns.append((np.zeros((0, 3)), np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0)))
    points_, normals_, colors_, ids = (np.concatenate(column) for column in zip(*columns))
    return Scaffold(
        points_.astype(np.float32), normals_.astype(np.float32), colors_.astype(np.float32), ids.astype(np.int32),
        tuple(part.name for part in parts), tuple(part.attachment for part in parts),
    )  # fmt: skip


def detail_of(name: str) -> float:
    return next((factor for word, factor in DETAIL if word in name.lower()), OTHER_DETAIL)


def _triangle_areas(part: Part) -> np.ndarray:  # [F]
    corners = part.mesh.vertices[part.mesh.faces].astype(np.float64)
    areas = 0.5 * np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    return np.maximum(areas, 1e-14)


def _spread(places: np.ndarray, number: int, rng: np.random.Generator) -> np.ndarray:  # [P, 3] -> rows [number]
    """Random rows with the most crowded dropped until `number` are left."""
    rows = rng.permutation(len(places))[: 4 * number]
    while len(rows) > number:
        distance = cKDTree(places[rows]).query(places[rows], k=2)[0][:, 1]
        surplus = len(rows) - number
        drop = np.argsort(distance + 1e-9 * rng.random(len(rows)))[: min(surplus, max(1, len(rows) // 6))]
        rows = np.delete(rows, drop)
    return np.sort(rows)

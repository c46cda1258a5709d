"""A mesh as an artist's file has it, and what is put right in any such mesh: seams, flaws, islands, too few vertices.

Knows vertices, triangles, textures and morph offsets; knows no file format and nothing of faces.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

Say = Callable[[str], None]
WELD_DIGITS = 6  # of metres: a thousandth of a millimetre
LEAST_AREA = 1e-12  # square metres: a triangle below has no direction


@dataclass
class RawMesh:
    """Units, axes and names are the author's. Colour is a texture through `uv`, or `colors`, or neither."""

    name: str
    vertices: np.ndarray  # [P, 3]
    faces: np.ndarray  # [F, 3]
    colors: np.ndarray | None = None  # [P, 3] sRGB; tints the texture where there is one
    shapes: dict[str, np.ndarray] = field(default_factory=dict)  # name -> [P, 3] offsets
    uv: np.ndarray | None = None  # [P, 2], v down
    texture: np.ndarray | None = None  # [H, W, 3] uint8 sRGB

    def paint(self) -> np.ndarray | None:  # [P, 3] sRGB 0..1
        """The colour of each vertex; None where the file gives none."""
        if self.texture is None or self.uv is None:
            return None if self.colors is None else np.clip(self.colors, 0, 1)
        sampled = sample_texture(self.texture, self.uv)
        return np.clip(sampled if self.colors is None else sampled * self.colors, 0, 1)

    def take(self, triangles: np.ndarray, name: str | None = None) -> RawMesh:  # [K] int or [F] bool
        """The mesh of some triangles, with the vertices that they use."""
        used, faces = np.unique(self.faces[triangles], return_inverse=True)
        return self._with(used, faces.reshape(-1, 3), name)

    def _with(self, rows: np.ndarray, faces: np.ndarray, name: str | None = None) -> RawMesh:
        def pick(values: np.ndarray | None) -> np.ndarray | None:
            return None if values is None else values[rows]

        shapes = {key: values[rows] for key, values in self.shapes.items()}
        return RawMesh(name or self.name, self.vertices[rows], faces, pick(self.colors), shapes, pick(self.uv), self.texture)


def sample_texture(image: np.ndarray, uv: np.ndarray) -> np.ndarray:  # [H, W, 3] uint8, [P, 2] v down -> [P, 3] sRGB
    """Bilinear; the picture repeats, but no colour bleeds in over its border."""
    height, width = image.shape[:2]
    within = np.where((uv >= 0) & (uv <= 1), uv, uv % 1.0)
    x, y = within[:, 0] * width - 0.5, within[:, 1] * height - 0.5
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    across, down = (x - left)[:, None], (y - top)[:, None]

    def texel(dx: int, dy: int) -> np.ndarray:
        return image[np.clip(top + dy, 0, height - 1), np.clip(left + dx, 0, width - 1)] / 255.0

    upper = texel(0, 0) * (1 - across) + texel(1, 0) * across
    lower = texel(0, 1) * (1 - across) + texel(1, 1) * across
    return upper * (1 - down) + lower * down


def subdivide(mesh: RawMesh) -> RawMesh:
    """Each triangle as four, with vertices at the middles of edges; shapes, colours and texture places halve with them."""
    corners = mesh.faces
    edges = np.concatenate((corners[:, [0, 1]], corners[:, [1, 2]], corners[:, [2, 0]]))
    unique, middle = np.unique(np.sort(edges, axis=1), axis=0, return_inverse=True)
    ab, bc, ca = len(mesh.vertices) + middle.reshape(3, -1)
    a, b, c = corners.T
    faces = np.concatenate([np.stack(triangle, axis=1) for triangle in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))])

    def halve(values: np.ndarray | None) -> np.ndarray | None:
        return None if values is None else np.concatenate((values, values[unique].mean(axis=1)))

    shapes = {name: halve(values) for name, values in mesh.shapes.items()}
    return RawMesh(mesh.name, halve(mesh.vertices), faces, halve(mesh.colors), shapes, halve(mesh.uv), mesh.texture)


def weld(mesh: RawMesh, say: Say) -> RawMesh:
    """In metres: one vertex where texture seams made several, painted; flawed triangles and unused vertices dropped."""
    signature = np.concatenate([mesh.vertices, *mesh.shapes.values()], axis=1)
    _, first, back = np.unique(np.round(signature, WELD_DIGITS), axis=0, return_index=True, return_inverse=True)
    back = back.reshape(-1)
    if len(first) < len(mesh.vertices):
        say(f"{mesh.name}: {len(mesh.vertices) - len(first)} seam vertices welded, {len(first)} left")
    painted = mesh.paint()
    if painted is not None:  # both sides of a seam have a say
        count = np.bincount(back)[:, None]
        painted = np.stack([np.bincount(back, channel) for channel in painted.T], axis=1) / count
    shapes = {name: values[first] for name, values in mesh.shapes.items()}
    return drop_flaws(RawMesh(mesh.name, mesh.vertices[first], back[mesh.faces], painted, shapes), say)


def drop_flaws(mesh: RawMesh, say: Say) -> RawMesh:
    """In metres: without degenerate and doubled triangles and vertices that no triangle uses; edges of three and more are only said."""
    corners = mesh.vertices[mesh.faces]
    area = 0.5 * np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    kept = np.flatnonzero(area > LEAST_AREA)
    _, once = np.unique(np.sort(mesh.faces[kept], axis=1), axis=0, return_index=True)
    faces = mesh.faces[kept[np.sort(once)]]
    used, renumbered = np.unique(faces, return_inverse=True)
    counts = {
        "degenerate triangles": len(mesh.faces) - len(kept),
        "doubled triangles": len(kept) - len(once),
        "vertices without a triangle": len(mesh.vertices) - len(used),
    }
    if any(counts.values()):
        say(f"{mesh.name}: " + ", ".join(f"{count} {what}" for what, count in counts.items() if count) + " dropped")
    edges = np.sort(np.concatenate((faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]])), axis=1)
    crowded = int((np.unique(edges, axis=0, return_counts=True)[1] > 2).sum())
    if crowded:
        say(f"{mesh.name}: {crowded} edges are shared by more than two triangles (non-manifold); kept as they are")
    return mesh._with(used, renumbered.reshape(-1, 3))


def find_islands(mesh: RawMesh) -> np.ndarray:  # -> [F] the island of each triangle, 0 the one with most triangles
    """Which triangles hang together, vertices at the same place taken as one."""
    _, back = np.unique(np.round(mesh.vertices, WELD_DIGITS), axis=0, return_inverse=True)
    faces = back.reshape(-1)[mesh.faces]
    count = int(back.max()) + 1
    rows, columns = np.concatenate((faces[:, 0], faces[:, 1])), np.concatenate((faces[:, 1], faces[:, 2]))
    labels = connected_components(coo_matrix((np.ones(len(rows)), (rows, columns)), shape=(count, count)), directed=False)[1]
    names, islands, sizes = np.unique(labels[faces[:, 0]], return_inverse=True, return_counts=True)
    rank = np.empty(len(names), dtype=np.int64)
    rank[np.argsort(-sizes, kind="stable")] = np.arange(len(names))
    return rank[islands.reshape(-1)]

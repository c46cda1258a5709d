"""Draws coloured triangles: nearest surface a sample, several samples a pixel. Knows arrays and cameras only."""

from __future__ import annotations

import numba
import numpy as np

from ..types import Camera

NEAR_METRES = 0.01


def draw_triangles(
    vertices: np.ndarray,  # [P, 3] metres
    faces: np.ndarray,  # [F, 3]
    colors: np.ndarray,  # [P, 3] linear light
    camera: Camera,
    supersampling: int = 1,  # samples a pixel, squared
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # [H, W, 3], [H, W], [H, W]
    """Colour premultiplied by coverage, coverage 0..1, and depth along the view axis of the nearest sample (0: nothing)."""
    viewmat, intrinsics = camera.viewmat.double().numpy(), camera.K.double().numpy() * supersampling
    local = vertices.astype(np.float64) @ viewmat[:3, :3].T + viewmat[:3, 3]
    z = np.maximum(local[:, 2], 1e-9)
    screen = np.stack(
        (local[:, 0] / z * intrinsics[0, 0] + intrinsics[0, 2], local[:, 1] / z * intrinsics[1, 1] + intrinsics[1, 2]), axis=1
    )
    height, width = camera.height * supersampling, camera.width * supersampling
    fine_color, fine_depth = _fill(
        screen.astype(np.float32),
        local[:, 2].astype(np.float32),
        faces.astype(np.int64),
        colors.astype(np.float32),
        height,
        width,
    )
    blocks = (camera.height, supersampling, camera.width, supersampling)
    color = fine_color.reshape(*blocks, 3).mean(axis=(1, 3))
    covered = fine_depth < np.inf
    alpha = covered.reshape(blocks).mean(axis=(1, 3)).astype(np.float32)
    nearest = fine_depth.reshape(blocks).min(axis=(1, 3))
    return color, alpha, np.where(np.isfinite(nearest), nearest, 0).astype(np.float32)


@numba.njit(cache=True, fastmath=False)
def _fill(
    screen: np.ndarray, z: np.ndarray, faces: np.ndarray, colors: np.ndarray, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:  # [H, W, 3], [H, W]
    color = np.zeros((height, width, 3), dtype=np.float32)
    depth = np.full((height, width), np.inf, dtype=np.float32)
    for f in range(len(faces)):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        if z[a] < NEAR_METRES or z[b] < NEAR_METRES or z[c] < NEAR_METRES:
            continue
        ax, ay, bx, by, cx, cy = screen[a, 0], screen[a, 1], screen[b, 0], screen[b, 1], screen[c, 0], screen[c, 1]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if area == 0:
            continue
        left, right = max(0, int(np.ceil(min(ax, bx, cx) - 0.5))), min(width - 1, int(np.floor(max(ax, bx, cx) - 0.5)))
        top, bottom = max(0, int(np.ceil(min(ay, by, cy) - 0.5))), min(height - 1, int(np.floor(max(ay, by, cy) - 0.5)))
        za, zb, zc = 1 / z[a], 1 / z[b], 1 / z[c]
        for y in range(top, bottom + 1):
            for x in range(left, right + 1):
                px, py = x + 0.5, y + 0.5
                wa = ((bx - px) * (cy - py) - (by - py) * (cx - px)) / area
                wb = ((cx - px) * (ay - py) - (cy - py) * (ax - px)) / area
                wc = 1 - wa - wb
                if wa < 0 or wb < 0 or wc < 0:
                    continue
                inverse = wa * za + wb * zb + wc * zc
                distance = 1 / inverse
                if distance < depth[y, x]:
                    depth[y, x] = distance
                    ka, kb, kc = wa * za * distance, wb * zb * distance, wc * zc * distance
                    for k in range(3):
                        color[y, x, k] = ka * colors[a, k] + kb * colors[b, k] + kc * colors[c, k]
    return color, depth

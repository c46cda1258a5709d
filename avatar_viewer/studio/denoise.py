"""Takes the grain out of a path-traced picture without touching its texture.

The light that falls on a surface varies slowly where its normal and depth do, so the light (colour divided by albedo) is
averaged over such neighbours and multiplied onto the albedo again. Knows arrays only.
"""

from __future__ import annotations

import numba
import numpy as np

RADIUS = 4  # pixels
SIGMA = 2.2  # pixels
DEPTH_METRES = 0.004
NORMAL_POWER = 48.0


def remove_grain(
    color: np.ndarray,  # [H, W, 3] linear, premultiplied by coverage
    albedo: np.ndarray,  # [H, W, 3] likewise
    normals: np.ndarray,  # [H, W, 3], zero where nothing is
    depth: np.ndarray,  # [H, W] metres
) -> np.ndarray:  # [H, W, 3]
    """`color` with its light smoothed along surfaces."""
    reflectance = np.maximum(albedo, 1e-3)
    light = (color / reflectance).astype(np.float32)
    length = np.linalg.norm(normals, axis=-1, keepdims=True)
    unit = (normals / np.maximum(length, 1e-6)).astype(np.float32)
    covered = length[..., 0] > 0.5
    return _smooth(light, unit, depth.astype(np.float32), covered) * reflectance


@numba.njit(cache=True, fastmath=True)
def _smooth(light: np.ndarray, normals: np.ndarray, depth: np.ndarray, covered: np.ndarray) -> np.ndarray:
    height, width = depth.shape
    result = light.copy()
    for y in range(height):
        for x in range(width):
            if not covered[y, x]:
                continue
            red, green, blue, total = 0.0, 0.0, 0.0, 0.0
            for j in range(max(0, y - RADIUS), min(height, y + RADIUS + 1)):
                for i in range(max(0, x - RADIUS), min(width, x + RADIUS + 1)):
                    if not covered[j, i]:
                        continue
                    cosine = (
                        normals[y, x, 0] * normals[j, i, 0] + normals[y, x, 1] * normals[j, i, 1] + normals[y, x, 2] * normals[j, i, 2]
                    )
                    if cosine < 0.8:
                        continue
                    squared = (x - i) * (x - i) + (y - j) * (y - j)
                    exponent = -squared / (2 * SIGMA * SIGMA) - abs(depth[y, x] - depth[j, i]) / DEPTH_METRES - NORMAL_POWER * (1 - cosine)
                    weight = np.exp(exponent)
                    red += weight * light[j, i, 0]
                    green += weight * light[j, i, 1]
                    blue += weight * light[j, i, 2]
                    total += weight
            result[y, x, 0] = red / total
            result[y, x, 1] = green / total
            result[y, x, 2] = blue / total
    return result

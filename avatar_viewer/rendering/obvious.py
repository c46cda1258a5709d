"""The obvious CPU rasteriser, kept only to be compared with: what one writes first, and what public CPU renderers do.

Boxes of three sigmas, sorted by depth, walked pixel by pixel in bands of rows over the threads, the exponential from the maths
library, stopping at full opacity. The conventions are those of `reference.py`: the same picture up to tails beyond three sigmas.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from .kernel_cache import kernel
from .reference import ALPHA_MAX, ALPHA_MIN, BLUR, NEAR_PLANE, TRANSMITTANCE_MIN


@kernel()
def _project(means, quats, scales, view, intrinsics, flat):
    """`flat [N, 7]`: centre x y, conic a b c, radius in pixels (0: behind), depth."""
    fx, fy, cx, cy = intrinsics
    for i in range(len(means)):
        x = view[0, 0] * means[i, 0] + view[0, 1] * means[i, 1] + view[0, 2] * means[i, 2] + view[0, 3]
        y = view[1, 0] * means[i, 0] + view[1, 1] * means[i, 1] + view[1, 2] * means[i, 2] + view[1, 3]
        z = view[2, 0] * means[i, 0] + view[2, 1] * means[i, 1] + view[2, 2] * means[i, 2] + view[2, 3]
        flat[i, 5], flat[i, 6] = 0, z
        if z < NEAR_PLANE:
            continue
        qw, qx, qy, qz = quats[i, 0], quats[i, 1], quats[i, 2], quats[i, 3]
        n = 1 / math.sqrt(qw * qw + qx * qx + qy * qy + qz * qz)
        qw, qx, qy, qz = qw * n, qx * n, qy * n, qz * n
        rotation = (
            (1 - 2 * (qy * qy + qz * qz), 2 * (qx * qy - qw * qz), 2 * (qx * qz + qw * qy)),
            (2 * (qx * qy + qw * qz), 1 - 2 * (qx * qx + qz * qz), 2 * (qy * qz - qw * qx)),
            (2 * (qx * qz - qw * qy), 2 * (qy * qz + qw * qx), 1 - 2 * (qx * qx + qy * qy)),
        )
        a = b = c = 0.0
        for axis in range(3):
            column = (rotation[0][axis], rotation[1][axis], rotation[2][axis])
            u = v = w = 0.0
            for k in range(3):
                u += view[0, k] * column[k]
                v += view[1, k] * column[k]
                w += view[2, k] * column[k]
            along_x, along_y = fx / z * (u - x / z * w) * scales[i, axis], fy / z * (v - y / z * w) * scales[i, axis]
            a += along_x * along_x
            b += along_x * along_y
            c += along_y * along_y
        a, c = a + BLUR, c + BLUR
        det = a * c - b * b
        middle = 0.5 * (a + c)
        flat[i, 0], flat[i, 1] = fx * x / z + cx, fy * y / z + cy
        flat[i, 2], flat[i, 3], flat[i, 4] = c / det, -b / det, a / det
        flat[i, 5] = math.ceil(3 * math.sqrt(middle + math.sqrt(max(middle * middle - det, 0.0))))


@kernel(parallel=True)
def _draw(flat, order, opacities, colors, background, threads, color, alpha, rest):
    height, width = alpha.shape
    for thread in numba.prange(threads):
        top, bottom = height * thread // threads, height * (thread + 1) // threads
        color[top:bottom] = 0
        rest[top:bottom] = 1
        for i in order:
            radius = flat[i, 5]
            if radius == 0:
                continue
            for py in range(max(top, int(flat[i, 1] - radius)), min(bottom, int(flat[i, 1] + radius) + 1)):
                for px in range(max(0, int(flat[i, 0] - radius)), min(width, int(flat[i, 0] + radius) + 1)):
                    if rest[py, px] <= np.float32(TRANSMITTANCE_MIN):
                        continue
                    dx, dy = np.float32(px + 0.5) - flat[i, 0], np.float32(py + 0.5) - flat[i, 1]
                    sigma = np.float32(0.5) * (flat[i, 2] * dx * dx + flat[i, 4] * dy * dy) + flat[i, 3] * dx * dy
                    a = min(np.float32(ALPHA_MAX), opacities[i] * math.exp(-sigma))
                    if a < np.float32(ALPHA_MIN):
                        continue
                    weight = a * rest[py, px]
                    for k in range(3):
                        color[py, px, k] += weight * colors[i, k]
                    rest[py, px] -= weight
        for py in range(top, bottom):
            for px in range(width):
                alpha[py, px] = 1 - rest[py, px]
                for k in range(3):
                    color[py, px, k] += rest[py, px] * background[k]


def draw_obviously(inputs, camera, background, threads: int, color, alpha) -> None:
    """As `CpuRasterizer.draw` takes them; `color [H, W, 3]` and `alpha [H, W]` are written."""
    means, quats, scales, opacities, colors = inputs
    K = camera.K.tolist()
    intrinsics = (np.float32(K[0][0]), np.float32(K[1][1]), np.float32(K[0][2]), np.float32(K[1][2]))
    flat = np.empty((len(means), 7), np.float32)
    _project(means, quats, scales, camera.viewmat.numpy(), intrinsics, flat)
    order = np.argsort(flat[:, 6])
    numba.set_num_threads(threads)
    _draw(flat, order, opacities, colors, np.asarray(background, np.float32), threads, color, alpha, np.empty_like(alpha))

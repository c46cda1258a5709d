"""Numba kernels between 3D Gaussians and their 2D records.

A record is one row of 16 floats, one cache line: where a Gaussian lies on the picture and how it falls off there.
In the exponent of base 2, alpha = 2^(level - s^2 - t^2) with s = l11 dx + l12 dy and t = l22 dy, (dx, dy) = pixel - centre.
This factored form has no cancellation: neither the exponent nor l22 and the determinant lose digits for needles.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from .kernel_cache import kernel
from .reference import ALPHA_MIN, BLUR, FAR_PLANE, JACOBIAN_MARGIN, NEAR_PLANE
from .simd import combine_wide, count_bits, first_lanes, floor, larger, log2, lowest_bit, select, smaller, square_root, to_bits
from .simd_ir import LANES
from .simd_memory import load, peek, poke, store
from .simd_rows import find_new_records, find_new_shorts4, load1, load3, load4, store_records, store_shorts4

RECORD = 16  # floats a record
TILE = 16  # pixels, both ways
X, Y, L11, L12, L22, LEVEL, RED, GREEN, BLUE, SLOPE_X, SLOPE_Y = range(11)
LEVEL_MIN = math.log2(ALPHA_MIN)
HALF_LOG2E = 0.5 / math.log(2.0)  # s^2 + t^2 = HALF_LOG2E * squared Mahalanobis distance


@numba.njit
def rotation(w, x, y, z):
    """The nine entries of the rotation matrix of a unit quaternion, row by row."""
    return (
        1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y - w * z), 2.0 * (x * z + w * y),
        2.0 * (x * y + w * z), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z - w * x),
        2.0 * (x * z - w * y), 2.0 * (y * z + w * x), 1.0 - 2.0 * (x * x + y * y),
    )  # fmt: skip


@numba.njit
def tangent_limits(fx, fy, cx, cy, width, height):
    """Lowest and highest x/z, then y/z, that the projection's Jacobian takes."""
    margin_x, margin_y = JACOBIAN_MARGIN * 0.5 * width / fx, JACOBIAN_MARGIN * 0.5 * height / fy
    return -(cx / fx + margin_x), (width - cx) / fx + margin_x, -(cy / fy + margin_y), (height - cy) / fy + margin_y


@numba.njit
def clamp(value, low, high):
    return smaller(larger(value, low), high)


@numba.njit
def _all_finite(total, a, b, c):
    """`total` stays 0 as long as every value is finite."""
    return total + a * 0.0 + b * 0.0 + c * 0.0


@numba.njit
def _mark_tiles(rects, i, rows, tiles_x, dirty):
    """Mark the tiles in the rects of the Gaussians i + each bit of `rows`."""
    while rows != 0:
        base = 4 * (i + lowest_bit(np.uint64(rows)))
        rows &= rows - 1
        first, last = np.int64(peek(rects, base)), np.int64(peek(rects, base + 1))
        for row in range(np.int64(peek(rects, base + 2)), np.int64(peek(rects, base + 3))):
            for tile in range(row * tiles_x + first, row * tiles_x + last):
                poke(dirty, tile, np.uint8(1))


@numba.njit
def _project_16(
    i, valid, means, quats, scales, opacities, colors, view, intrinsics, width, height, records, rects, depths, tracks, dirty
):
    """Rows i..i+15; the number of malformed ones among the first `valid`."""
    fx, fy, cx, cy = intrinsics
    low_x, high_x, low_y, high_y = tangent_limits(fx, fy, cx, cy, width, height)
    mx, my, mz = load3(means, 3 * i, valid)
    w, x, y, z = load4(quats, 4 * i, valid)
    s0, s1, s2 = load3(scales, 3 * i, valid)
    opacity = load1(opacities, i, valid)
    red, green, blue = load3(colors, 3 * i, valid)
    zeros = _all_finite(_all_finite(_all_finite(_all_finite(opacity * 0.0, mx, my, mz), x, y, z), s0, s1, s2), red, green, blue)
    norm2 = w * w + x * x + y * y + z * z
    formed = (zeros == 0.0) & (norm2 > 1e-36) & (norm2 < 1e36)
    formed = formed & (smaller(smaller(s0, s1), s2) >= 0.0) & (larger(larger(s0, s1), s2) > 0.0)

    depth = combine_wide(mx, my, mz, view[2, 0], view[2, 1], view[2, 2], view[2, 3])
    seen = formed & (depth >= NEAR_PLANE) & (depth <= FAR_PLANE) & (opacity >= ALPHA_MIN)
    depth = select(seen, depth, 1.0)
    px = combine_wide(mx, my, mz, view[0, 0], view[0, 1], view[0, 2], view[0, 3])
    py = combine_wide(mx, my, mz, view[1, 0], view[1, 1], view[1, 2], view[1, 3])
    inv_z = 1.0 / depth
    tan_x, tan_y = px * inv_z, py * inv_z
    clip_x, clip_y = clamp(tan_x, low_x, high_x), clamp(tan_y, low_y, high_y)
    inv_norm = 1.0 / square_root(norm2)
    r00, r01, r02, r10, r11, r12, r20, r21, r22 = rotation(w * inv_norm, x * inv_norm, y * inv_norm, z * inv_norm)
    # The rows of J W, then of M = J W R S: the covariance on the picture is M M^T.
    jx, jy = fx * inv_z, fy * inv_z
    a0, a1, a2 = (
        jx * (view[0, 0] - clip_x * view[2, 0]),
        jx * (view[0, 1] - clip_x * view[2, 1]),
        jx * (view[0, 2] - clip_x * view[2, 2]),
    )
    b0, b1, b2 = (
        jy * (view[1, 0] - clip_y * view[2, 0]),
        jy * (view[1, 1] - clip_y * view[2, 1]),
        jy * (view[1, 2] - clip_y * view[2, 2]),
    )
    m00, m01, m02 = (
        (a0 * r00 + a1 * r10 + a2 * r20) * s0,
        (a0 * r01 + a1 * r11 + a2 * r21) * s1,
        (a0 * r02 + a1 * r12 + a2 * r22) * s2,
    )
    m10, m11, m12 = (
        (b0 * r00 + b1 * r10 + b2 * r20) * s0,
        (b0 * r01 + b1 * r11 + b2 * r21) * s1,
        (b0 * r02 + b1 * r12 + b2 * r22) * s2,
    )
    raw_xx, raw_yy = m00 * m00 + m01 * m01 + m02 * m02, m10 * m10 + m11 * m11 + m12 * m12
    xx, xy, yy = raw_xx + BLUR, m00 * m10 + m01 * m11 + m02 * m12, raw_yy + BLUR
    # Cauchy-Binet: a sum of squares, where xx * yy - xy * xy would cancel.
    minor0, minor1, minor2 = m01 * m12 - m02 * m11, m02 * m10 - m00 * m12, m00 * m11 - m01 * m10
    det = minor0 * minor0 + minor1 * minor1 + minor2 * minor2 + BLUR * (raw_xx + raw_yy) + BLUR * BLUR
    centre_x, centre_y = fx * tan_x + cx, fy * tan_y + cy
    sane = (det < 1e30) & (larger(centre_x, -centre_x) < 1e12) & (larger(centre_y, -centre_y) < 1e12)
    malformed = first_lanes(valid) & (~formed | (seen & ~sane))
    seen = seen & sane

    level = log2(select(seen, opacity, 1.0))
    slope_x = xy / yy
    l11 = square_root(HALF_LOG2E * yy / det)
    columns = (centre_x, centre_y, l11, -l11 * slope_x, square_root(HALF_LOG2E / yy), level, red, green, blue, slope_x, xy / xx)
    # Pixels whose centre lies within the opacity-aware extent, with a hair's slack.
    reach = (level - LEVEL_MIN) * (1.0001 / HALF_LOG2E) + 1e-4
    reach_x, reach_y = square_root(reach * xx), square_root(reach * yy)
    first_x, last_x = larger(-floor(reach_x - centre_x + 0.5), 0.0), smaller(floor(centre_x + reach_x - 0.5), width - 1.0)
    first_y, last_y = larger(-floor(reach_y - centre_y + 0.5), 0.0), smaller(floor(centre_y + reach_y - 0.5), height - 1.0)
    seen = seen & (first_x <= last_x) & (first_y <= last_y)
    first_x, last_x = select(seen, floor(first_x * (1.0 / TILE)), 0.0), select(seen, floor(last_x * (1.0 / TILE)) + 1.0, 0.0)
    first_y, last_y = select(seen, floor(first_y * (1.0 / TILE)), 0.0), select(seen, floor(last_y * (1.0 / TILE)) + 1.0, 0.0)
    moved = np.int64(0)
    if tracks:  # where they were, and below where they are
        moved = find_new_records(records, RECORD * i, columns) | to_bits(~(load(depths, i) == depth))
        moved |= find_new_shorts4(rects, 4 * i, first_x, last_x, first_y, last_y)
        _mark_tiles(rects, i, moved, (width + TILE - 1) // TILE, dirty)
    store_records(records, RECORD * i, columns)
    store_shorts4(rects, 4 * i, first_x, last_x, first_y, last_y)
    store(depths, i, depth)
    _mark_tiles(rects, i, moved, (width + TILE - 1) // TILE, dirty)
    return count_bits(to_bits(malformed))


@kernel(parallel=True)
def project(
    means, quats, scales, opacities, colors, view, intrinsics, width, height, threads, records, rects, depths, malformed, tracks, dirty
):  # fmt: skip
    """Fill `records`, `rects` (first and one past the last tile, x then y) and `depths`, all of N rounded up to 16 rows.

    A Gaussian that cannot be seen has an empty rect; one that is malformed too, and is counted in `malformed [threads]`.
    If `tracks`, the three hold the last picture's, by the same camera: the tiles of every Gaussian that differs in any bit,
    where it was and where it is, become 1 in `dirty [tiles]`. The others keep their list, its order and their pixels.
    """
    count = len(means)
    groups = (count + LANES - 1) // LANES
    for thread in numba.prange(threads):
        found = 0
        for group in range(groups * thread // threads, groups * (thread + 1) // threads):
            i = group * LANES
            valid = min(count - i, LANES)
            found += _project_16(
                i, valid, means, quats, scales, opacities, colors, view, intrinsics, width, height,
                records, rects, depths, tracks, dirty,
            )  # fmt: skip
        malformed[thread] = found

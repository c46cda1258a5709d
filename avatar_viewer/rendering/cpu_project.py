"""Numba kernels between 3D Gaussians and their 2D records, forward and backward.

A record is one row of 16 floats, one cache line: where a Gaussian lies on the picture and how it falls off there.
In the exponent of base 2, alpha = 2^(level - s^2 - t^2) with s = l11 dx + l12 dy and t = l22 dy, (dx, dy) = pixel - centre.
This factored form has no cancellation: neither the exponent nor l22 and the determinant lose digits for needles.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from .reference import ALPHA_MIN, BLUR, FAR_PLANE, JACOBIAN_MARGIN, NEAR_PLANE

RECORD = 16  # floats a record
TILE = 16  # pixels, both ways
X, Y, L11, L12, L22, LEVEL, RED, GREEN, BLUE, SLOPE_X, SLOPE_Y = range(11)
LEVEL_MIN = math.log2(ALPHA_MIN)
HALF_LOG2E = 0.5 / math.log(2.0)  # s^2 + t^2 = HALF_LOG2E * squared Mahalanobis distance


@numba.njit(cache=True, parallel=True)
def project(means, quats, scales, opacities, colors, view, intrinsics, width, height, threads, records, rects, depths, dropped):
    """Fill `records [N, 16]`, `rects [N, 4]` (first and one past the last tile, x then y) and `depths [N]`.

    A Gaussian that cannot be seen has an empty rect; one that is malformed too, and is counted in `dropped [threads]`.
    """
    fx, fy, cx, cy = intrinsics[0], intrinsics[1], intrinsics[2], intrinsics[3]
    margin_x, margin_y = JACOBIAN_MARGIN * 0.5 * width / fx, JACOBIAN_MARGIN * 0.5 * height / fy
    low_x, high_x = -(cx / fx + margin_x), (width - cx) / fx + margin_x
    low_y, high_y = -(cy / fy + margin_y), (height - cy) / fy + margin_y
    count = len(means)
    for thread in numba.prange(threads):
        malformed = 0
        for i in range(count * thread // threads, count * (thread + 1) // threads):
            rects[i, 0] = rects[i, 1] = rects[i, 2] = rects[i, 3] = 0
            zeros = means[i, 0] * 0 + means[i, 1] * 0 + means[i, 2] * 0 + opacities[i] * 0
            for k in range(3):
                zeros += scales[i, k] * 0 + colors[i, k] * 0
            w, x, y, z = quats[i, 0], quats[i, 1], quats[i, 2], quats[i, 3]
            zeros += w * 0 + x * 0 + y * 0 + z * 0
            s0, s1, s2 = scales[i, 0], scales[i, 1], scales[i, 2]
            norm = math.sqrt(w * w + x * x + y * y + z * z)
            if zeros != 0 or norm == 0 or min(s0, s1, s2) < 0 or max(s0, s1, s2) == 0:
                malformed += 1
                continue
            opacity = opacities[i]
            mx, my, mz = means[i, 0], means[i, 1], means[i, 2]
            depth = np.float32(view[2, 0] * mx + view[2, 1] * my + view[2, 2] * mz + view[2, 3])
            if not (NEAR_PLANE <= depth <= FAR_PLANE) or opacity < ALPHA_MIN:
                continue
            px = view[0, 0] * mx + view[0, 1] * my + view[0, 2] * mz + view[0, 3]
            py = view[1, 0] * mx + view[1, 1] * my + view[1, 2] * mz + view[1, 3]
            inv_z = 1.0 / depth
            tan_x, tan_y = px * inv_z, py * inv_z
            clip_x, clip_y = min(max(tan_x, low_x), high_x), min(max(tan_y, low_y), high_y)
            w, x, y, z = w / norm, x / norm, y / norm, z / norm
            q00, q01, q02 = (1 - 2 * (y * y + z * z)) * s0, 2 * (x * y - w * z) * s1, 2 * (x * z + w * y) * s2
            q10, q11, q12 = 2 * (x * y + w * z) * s0, (1 - 2 * (x * x + z * z)) * s1, 2 * (y * z - w * x) * s2
            q20, q21, q22 = 2 * (x * z - w * y) * s0, 2 * (y * z + w * x) * s1, (1 - 2 * (x * x + y * y)) * s2
            # The rows of J W.
            jx, jy = fx * inv_z, fy * inv_z
            a0, a1, a2 = jx * (view[0, 0] - clip_x * view[2, 0]), jx * (view[0, 1] - clip_x * view[2, 1]), jx * (view[0, 2] - clip_x * view[2, 2])
            b0, b1, b2 = jy * (view[1, 0] - clip_y * view[2, 0]), jy * (view[1, 1] - clip_y * view[2, 1]), jy * (view[1, 2] - clip_y * view[2, 2])
            m00, m01, m02 = a0 * q00 + a1 * q10 + a2 * q20, a0 * q01 + a1 * q11 + a2 * q21, a0 * q02 + a1 * q12 + a2 * q22
            m10, m11, m12 = b0 * q00 + b1 * q10 + b2 * q20, b0 * q01 + b1 * q11 + b2 * q21, b0 * q02 + b1 * q12 + b2 * q22
            raw_xx, raw_yy = m00 * m00 + m01 * m01 + m02 * m02, m10 * m10 + m11 * m11 + m12 * m12
            xx, xy, yy = raw_xx + BLUR, m00 * m10 + m01 * m11 + m02 * m12, raw_yy + BLUR
            # Cauchy-Binet: a sum of squares, where xx * yy - xy * xy would cancel.
            minor0, minor1, minor2 = m01 * m12 - m02 * m11, m02 * m10 - m00 * m12, m00 * m11 - m01 * m10
            det = minor0 * minor0 + minor1 * minor1 + minor2 * minor2 + BLUR * (raw_xx + raw_yy) + BLUR * BLUR
            centre_x, centre_y = fx * tan_x + cx, fy * tan_y + cy
            level = math.log2(opacity)
            if not (abs(centre_x) < 1e12 and abs(centre_y) < 1e12 and det < 1e30 and det > 0):
                malformed += 1
                continue
            records[i, X], records[i, Y] = centre_x, centre_y
            records[i, L11] = math.sqrt(HALF_LOG2E * yy / det)
            records[i, L12] = -math.sqrt(HALF_LOG2E * yy / det) * xy / yy
            records[i, L22] = math.sqrt(HALF_LOG2E / yy)
            records[i, LEVEL] = level
            records[i, RED], records[i, GREEN], records[i, BLUE] = colors[i, 0], colors[i, 1], colors[i, 2]
            records[i, SLOPE_X], records[i, SLOPE_Y] = xy / yy, xy / xx
            depths[i] = depth
            # Pixels whose centre lies within the opacity-aware extent, with a hair's slack.
            reach = (level - LEVEL_MIN) / HALF_LOG2E * 1.0001 + 1e-4
            reach_x, reach_y = math.sqrt(reach * xx), math.sqrt(reach * yy)
            first_x, last_x = max(math.ceil(max(centre_x - reach_x - 0.5, -1.0)), 0), math.floor(min(centre_x + reach_x - 0.5, width - 1.0))
            first_y, last_y = max(math.ceil(max(centre_y - reach_y - 0.5, -1.0)), 0), math.floor(min(centre_y + reach_y - 0.5, height - 1.0))
            if first_x > last_x or first_y > last_y:
                continue
            rects[i, 0], rects[i, 1] = first_x // TILE, last_x // TILE + 1
            rects[i, 2], rects[i, 3] = first_y // TILE, last_y // TILE + 1
        dropped[thread] = malformed


@numba.njit(cache=True, parallel=True)
def project_backward(
    means, quats, scales, opacities, view, intrinsics, width, height, threads, records, rects, sums, d_means, d_quats, d_scales, d_opacities, d_colors
):
    """Gradients of the five tensors from the `sums [N, 9]` over pixels that `blend.py` describes; every row is written."""
    fx, fy, cx, cy = intrinsics[0], intrinsics[1], intrinsics[2], intrinsics[3]
    margin_x, margin_y = JACOBIAN_MARGIN * 0.5 * width / fx, JACOBIAN_MARGIN * 0.5 * height / fy
    low_x, high_x = -(cx / fx + margin_x), (width - cx) / fx + margin_x
    low_y, high_y = -(cy / fy + margin_y), (height - cy) / fy + margin_y
    count = len(means)
    for thread in numba.prange(threads):
        for i in range(count * thread // threads, count * (thread + 1) // threads):
            d_opacities[i] = 0
            for k in range(3):
                d_means[i, k] = d_scales[i, k] = d_colors[i, k] = 0
            for k in range(4):
                d_quats[i, k] = 0
            if rects[i, 0] == rects[i, 1]:
                continue
            for k in range(3):
                d_colors[i, k] = sums[i, 6 + k]
            d_opacities[i] = sums[i, 0] / opacities[i]
            l11, l12, l22 = records[i, L11], records[i, L12], records[i, L22]
            ln2 = math.log(2.0)
            gs, gt, gss, gst, gtt = sums[i, 1] * ln2, sums[i, 2] * ln2, sums[i, 3] * ln2, sums[i, 4] * ln2, sums[i, 5] * ln2
            d_centre_x = 2 * l11 * gs
            d_centre_y = 2 * (l12 * gs + l22 * gt)
            d_xx = l11 * l11 * gss / HALF_LOG2E
            d_xy = l11 * (l12 * gss + l22 * gst) / HALF_LOG2E  # of each of the two equal entries
            d_yy = (l12 * l12 * gss + 2 * l12 * l22 * gst + l22 * l22 * gtt) / HALF_LOG2E

            mx, my, mz = means[i, 0], means[i, 1], means[i, 2]
            pz = view[2, 0] * mx + view[2, 1] * my + view[2, 2] * mz + view[2, 3]
            px = view[0, 0] * mx + view[0, 1] * my + view[0, 2] * mz + view[0, 3]
            py = view[1, 0] * mx + view[1, 1] * my + view[1, 2] * mz + view[1, 3]
            inv_z = 1.0 / pz
            tan_x, tan_y = px * inv_z, py * inv_z
            clip_x, clip_y = min(max(tan_x, low_x), high_x), min(max(tan_y, low_y), high_y)
            w, x, y, z = quats[i, 0], quats[i, 1], quats[i, 2], quats[i, 3]
            norm = math.sqrt(w * w + x * x + y * y + z * z)
            w, x, y, z = w / norm, x / norm, y / norm, z / norm
            s0, s1, s2 = scales[i, 0], scales[i, 1], scales[i, 2]
            r00, r01, r02 = 1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)
            r10, r11, r12 = 2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)
            r20, r21, r22 = 2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)
            jx, jy = fx * inv_z, fy * inv_z
            a0, a1, a2 = jx * (view[0, 0] - clip_x * view[2, 0]), jx * (view[0, 1] - clip_x * view[2, 1]), jx * (view[0, 2] - clip_x * view[2, 2])
            b0, b1, b2 = jy * (view[1, 0] - clip_y * view[2, 0]), jy * (view[1, 1] - clip_y * view[2, 1]), jy * (view[1, 2] - clip_y * view[2, 2])
            # n = J W R, m = n S.
            n00, n01, n02 = a0 * r00 + a1 * r10 + a2 * r20, a0 * r01 + a1 * r11 + a2 * r21, a0 * r02 + a1 * r12 + a2 * r22
            n10, n11, n12 = b0 * r00 + b1 * r10 + b2 * r20, b0 * r01 + b1 * r11 + b2 * r21, b0 * r02 + b1 * r12 + b2 * r22
            m00, m01, m02, m10, m11, m12 = n00 * s0, n01 * s1, n02 * s2, n10 * s0, n11 * s1, n12 * s2
            d00, d01, d02 = 2 * (d_xx * m00 + d_xy * m10), 2 * (d_xx * m01 + d_xy * m11), 2 * (d_xx * m02 + d_xy * m12)
            d10, d11, d12 = 2 * (d_xy * m00 + d_yy * m10), 2 * (d_xy * m01 + d_yy * m11), 2 * (d_xy * m02 + d_yy * m12)
            d_scales[i, 0] = d00 * n00 + d10 * n10
            d_scales[i, 1] = d01 * n01 + d11 * n11
            d_scales[i, 2] = d02 * n02 + d12 * n12
            d00, d10, d01, d11, d02, d12 = d00 * s0, d10 * s0, d01 * s1, d11 * s1, d02 * s2, d12 * s2  # now of n
            e00, e01, e02 = a0 * d00 + b0 * d10, a0 * d01 + b0 * d11, a0 * d02 + b0 * d12  # of R
            e10, e11, e12 = a1 * d00 + b1 * d10, a1 * d01 + b1 * d11, a1 * d02 + b1 * d12
            e20, e21, e22 = a2 * d00 + b2 * d10, a2 * d01 + b2 * d11, a2 * d02 + b2 * d12
            dw = 2 * (x * (e21 - e12) + y * (e02 - e20) + z * (e10 - e01))
            dx = 2 * (-2 * x * (e11 + e22) + y * (e01 + e10) + z * (e02 + e20) + w * (e21 - e12))
            dy = 2 * (x * (e01 + e10) - 2 * y * (e00 + e22) + z * (e12 + e21) + w * (e02 - e20))
            dz = 2 * (x * (e02 + e20) + y * (e12 + e21) - 2 * z * (e00 + e11) + w * (e10 - e01))
            along = dw * w + dx * x + dy * y + dz * z
            d_quats[i, 0], d_quats[i, 1] = (dw - along * w) / norm, (dx - along * x) / norm
            d_quats[i, 2], d_quats[i, 3] = (dy - along * y) / norm, (dz - along * z) / norm

            da0, da1, da2 = d00 * r00 + d01 * r01 + d02 * r02, d00 * r10 + d01 * r11 + d02 * r12, d00 * r20 + d01 * r21 + d02 * r22
            db0, db1, db2 = d10 * r00 + d11 * r01 + d12 * r02, d10 * r10 + d11 * r11 + d12 * r12, d10 * r20 + d11 * r21 + d12 * r22
            d_clip_x = -jx * (da0 * view[2, 0] + da1 * view[2, 1] + da2 * view[2, 2])
            d_clip_y = -jy * (db0 * view[2, 0] + db1 * view[2, 1] + db2 * view[2, 2])
            d_tan_x = d_centre_x * fx + (d_clip_x if low_x <= tan_x <= high_x else 0.0)
            d_tan_y = d_centre_y * fy + (d_clip_y if low_y <= tan_y <= high_y else 0.0)
            d_px, d_py = d_tan_x * inv_z, d_tan_y * inv_z
            scaled = (da0 * a0 + da1 * a1 + da2 * a2) + (db0 * b0 + db1 * b1 + db2 * b2)  # through 1/z in jx and jy
            d_pz = -inv_z * (scaled + d_tan_x * tan_x + d_tan_y * tan_y)
            for k in range(3):
                d_means[i, k] = view[0, k] * d_px + view[1, k] * d_py + view[2, k] * d_pz

"""Numba kernels from sums over each Gaussian's pixels back to the five tensors: the projection of `cpu_project.py` in reverse."""

from __future__ import annotations

import math

import numba
import numpy as np

from .cpu_project import HALF_LOG2E, RECORD, clamp, rotation, tangent_limits
from .kernel_cache import kernel
from .simd import combine_wide, from_bits, select, square_root
from .simd_ir import LANES
from .simd_memory import peek
from .simd_rows import load1, load3, load4, load_records, store1, store3, store4


@numba.njit
def _project_backward_16(
    i,
    valid,
    means,
    quats,
    scales,
    opacities,
    view,
    intrinsics,
    width,
    height,
    records,
    rects,
    sums,
    d_means,
    d_quats,
    d_scales,
    d_opacities,
    d_colors,
):
    seen = 0
    for lane in range(valid):
        if peek(rects, 4 * (i + lane)) != peek(rects, 4 * (i + lane) + 1):
            seen |= 1 << lane
    drawn = from_bits(seen)
    fx, fy, cx, cy = intrinsics
    low_x, high_x, low_y, high_y = tangent_limits(fx, fy, cx, cy, width, height)
    ln2 = np.float32(math.log(2.0))
    g, gs, gt, gss, gst, gtt, d_red, d_green, d_blue, _, _, _, _, _, _, _ = load_records(sums, RECORD * i)
    store3(d_colors, 3 * i, valid, select(drawn, d_red, 0.0), select(drawn, d_green, 0.0), select(drawn, d_blue, 0.0))
    store1(d_opacities, i, valid, select(drawn, g / select(drawn, load1(opacities, i, valid), 1.0), 0.0))
    gs, gt, gss, gst, gtt = gs * ln2, gt * ln2, gss * ln2, gst * ln2, gtt * ln2
    _, _, l11, l12, l22, _, _, _, _, _, _, _, _, _, _, _ = load_records(records, RECORD * i)
    d_centre_x = 2.0 * l11 * gs
    d_centre_y = 2.0 * (l12 * gs + l22 * gt)
    d_xx = l11 * l11 * gss * (1.0 / HALF_LOG2E)
    d_xy = l11 * (l12 * gss + l22 * gst) * (1.0 / HALF_LOG2E)  # of each of the two equal entries
    d_yy = (l12 * l12 * gss + 2.0 * l12 * l22 * gst + l22 * l22 * gtt) * (1.0 / HALF_LOG2E)

    mx, my, mz = load3(means, 3 * i, valid)
    w, x, y, z = load4(quats, 4 * i, valid)
    s0, s1, s2 = load3(scales, 3 * i, valid)
    depth = select(drawn, combine_wide(mx, my, mz, view[2, 0], view[2, 1], view[2, 2], view[2, 3]), 1.0)
    px = combine_wide(mx, my, mz, view[0, 0], view[0, 1], view[0, 2], view[0, 3])
    py = combine_wide(mx, my, mz, view[1, 0], view[1, 1], view[1, 2], view[1, 3])
    inv_z = 1.0 / depth
    tan_x, tan_y = px * inv_z, py * inv_z
    clip_x, clip_y = clamp(tan_x, low_x, high_x), clamp(tan_y, low_y, high_y)
    inv_norm = 1.0 / square_root(w * w + x * x + y * y + z * z)
    w, x, y, z = w * inv_norm, x * inv_norm, y * inv_norm, z * inv_norm
    r00, r01, r02, r10, r11, r12, r20, r21, r22 = rotation(w, x, y, z)
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
    # N = J W R and M = N S, as on the way there.
    n00, n01, n02 = a0 * r00 + a1 * r10 + a2 * r20, a0 * r01 + a1 * r11 + a2 * r21, a0 * r02 + a1 * r12 + a2 * r22
    n10, n11, n12 = b0 * r00 + b1 * r10 + b2 * r20, b0 * r01 + b1 * r11 + b2 * r21, b0 * r02 + b1 * r12 + b2 * r22
    m00, m01, m02, m10, m11, m12 = n00 * s0, n01 * s1, n02 * s2, n10 * s0, n11 * s1, n12 * s2
    d00, d01, d02 = 2.0 * (d_xx * m00 + d_xy * m10), 2.0 * (d_xx * m01 + d_xy * m11), 2.0 * (d_xx * m02 + d_xy * m12)
    d10, d11, d12 = 2.0 * (d_xy * m00 + d_yy * m10), 2.0 * (d_xy * m01 + d_yy * m11), 2.0 * (d_xy * m02 + d_yy * m12)
    ds0, ds1, ds2 = d00 * n00 + d10 * n10, d01 * n01 + d11 * n11, d02 * n02 + d12 * n12
    store3(d_scales, 3 * i, valid, select(drawn, ds0, 0.0), select(drawn, ds1, 0.0), select(drawn, ds2, 0.0))
    d00, d10, d01, d11, d02, d12 = d00 * s0, d10 * s0, d01 * s1, d11 * s1, d02 * s2, d12 * s2  # of N
    e00, e01, e02 = a0 * d00 + b0 * d10, a0 * d01 + b0 * d11, a0 * d02 + b0 * d12  # of R
    e10, e11, e12 = a1 * d00 + b1 * d10, a1 * d01 + b1 * d11, a1 * d02 + b1 * d12
    e20, e21, e22 = a2 * d00 + b2 * d10, a2 * d01 + b2 * d11, a2 * d02 + b2 * d12
    dw = 2.0 * (x * (e21 - e12) + y * (e02 - e20) + z * (e10 - e01))
    dx = 2.0 * (y * (e01 + e10) + z * (e02 + e20) + w * (e21 - e12) - 2.0 * x * (e11 + e22))
    dy = 2.0 * (x * (e01 + e10) + z * (e12 + e21) + w * (e02 - e20) - 2.0 * y * (e00 + e22))
    dz = 2.0 * (x * (e02 + e20) + y * (e12 + e21) + w * (e10 - e01) - 2.0 * z * (e00 + e11))
    along = dw * w + dx * x + dy * y + dz * z  # a quaternion's length does not matter
    dw, dx, dy, dz = (
        (dw - along * w) * inv_norm,
        (dx - along * x) * inv_norm,
        (dy - along * y) * inv_norm,
        (dz - along * z) * inv_norm,
    )
    store4(d_quats, 4 * i, valid, select(drawn, dw, 0.0), select(drawn, dx, 0.0), select(drawn, dy, 0.0), select(drawn, dz, 0.0))

    da0, da1, da2 = d00 * r00 + d01 * r01 + d02 * r02, d00 * r10 + d01 * r11 + d02 * r12, d00 * r20 + d01 * r21 + d02 * r22
    db0, db1, db2 = d10 * r00 + d11 * r01 + d12 * r02, d10 * r10 + d11 * r11 + d12 * r12, d10 * r20 + d11 * r21 + d12 * r22
    d_clip_x = -jx * (da0 * view[2, 0] + da1 * view[2, 1] + da2 * view[2, 2])
    d_clip_y = -jy * (db0 * view[2, 0] + db1 * view[2, 1] + db2 * view[2, 2])
    d_tan_x = d_centre_x * fx + select((tan_x >= low_x) & (tan_x <= high_x), d_clip_x, 0.0)
    d_tan_y = d_centre_y * fy + select((tan_y >= low_y) & (tan_y <= high_y), d_clip_y, 0.0)
    d_px, d_py = d_tan_x * inv_z, d_tan_y * inv_z
    scaled = da0 * a0 + da1 * a1 + da2 * a2 + db0 * b0 + db1 * b1 + db2 * b2  # through 1/z in jx and jy
    d_pz = -inv_z * (scaled + d_tan_x * tan_x + d_tan_y * tan_y)
    d_mx = view[0, 0] * d_px + view[1, 0] * d_py + view[2, 0] * d_pz
    d_my = view[0, 1] * d_px + view[1, 1] * d_py + view[2, 1] * d_pz
    d_mz = view[0, 2] * d_px + view[1, 2] * d_py + view[2, 2] * d_pz
    store3(d_means, 3 * i, valid, select(drawn, d_mx, 0.0), select(drawn, d_my, 0.0), select(drawn, d_mz, 0.0))


@kernel(parallel=True)
def project_backward(
    means,
    quats,
    scales,
    opacities,
    view,
    intrinsics,
    width,
    height,
    threads,
    records,
    rects,
    sums,
    d_means,
    d_quats,
    d_scales,
    d_opacities,
    d_colors,
):
    """Gradients of the five tensors from the `sums [N, 16]` over pixels that `cpu_blend.py` describes; every row is written."""
    count = len(means)
    groups = (count + LANES - 1) // LANES
    for thread in numba.prange(threads):
        for group in range(groups * thread // threads, groups * (thread + 1) // threads):
            i = group * LANES
            _project_backward_16(
                i, min(count - i, LANES), means, quats, scales, opacities, view, intrinsics, width, height, records, rects, sums,
                d_means, d_quats, d_scales, d_opacities, d_colors,
            )  # fmt: skip

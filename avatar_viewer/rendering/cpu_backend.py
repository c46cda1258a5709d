"""The rasteriser that needs no GPU: tiles, threads and SIMD in numba, forward and backward.

It follows `reference.py` to rounding. One thread at a time may render (numba's threads are shared).
"""

from __future__ import annotations

import numba
import numpy as np
import torch
from torch import Tensor

from ..types import Camera, GaussianFrame, Render
from .cpu_blend import SUMS, add_pairs, blend, blend_backward, count_pairs, fill_pairs
from .cpu_project import RECORD, TILE, project, project_backward


def render_cpu(frame: GaussianFrame, camera: Camera, background: Tensor) -> Render:
    tensors = (frame.means, frame.quats, frame.scales, frame.opacities, frame.colors, background)
    home = frame.means.device
    color, alpha, dropped = _Rasterization.apply(*(t.cpu().contiguous() for t in tensors), camera)
    return Render(color.to(home), alpha.to(home), dropped)


class _Rasterization(torch.autograd.Function):
    @staticmethod
    def forward(ctx, means, quats, scales, opacities, colors, background, camera):
        threads = numba.get_num_threads()
        arrays = [t.detach().numpy() for t in (means, quats, scales, opacities, colors)]
        view = camera.viewmat.detach().cpu().double().numpy()
        K = camera.K.detach().cpu().double().numpy()
        intrinsics = np.array([K[0, 0], K[1, 1], K[0, 2], K[1, 2]])
        count = len(means)
        records, rects = np.zeros((count, RECORD), np.float32), np.empty((count, 4), np.int32)
        depths, dropped = np.full(count, np.inf, np.float32), np.zeros(threads, np.int64)
        project(*arrays, view, intrinsics, camera.width, camera.height, threads, records, rects, depths, dropped)
        order = np.argsort(depths, kind="stable")
        order = order[rects[order, 0] < rects[order, 1]]
        tiles_x, tiles_y = -(-camera.width // TILE), -(-camera.height // TILE)
        starts = np.empty(tiles_x * tiles_y + 1, np.int64)
        count_pairs(rects, order, tiles_x, starts)
        pairs = np.empty(starts[-1], np.int32)
        fill_pairs(rects, order, tiles_x, starts[:-1].copy(), pairs)
        color, alpha = torch.empty(camera.height, camera.width, 3), torch.empty(camera.height, camera.width)
        blend(records, starts, pairs, background.detach().numpy(), tiles_x, threads, color.numpy(), alpha.numpy())
        ctx.save_for_backward(means, quats, scales, opacities, color, alpha)
        ctx.kept = (arrays[:4], view, intrinsics, camera.width, camera.height, threads, records, rects, starts, pairs, tiles_x)
        total = int(dropped.sum())
        return color, alpha, total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, d_color, d_alpha, _):
        means, quats, scales, opacities, color, alpha = ctx.saved_tensors
        arrays, view, intrinsics, width, height, threads, records, rects, starts, pairs, tiles_x = ctx.kept
        d_color, d_alpha = d_color.contiguous(), d_alpha.contiguous()
        pair_sums, sums = np.empty((len(pairs), SUMS), np.float32), np.empty((len(means), SUMS), np.float32)
        pictures = (color.numpy(), alpha.numpy(), d_color.numpy(), d_alpha.numpy())
        blend_backward(records, starts, pairs, tiles_x, threads, *pictures, pair_sums)
        add_pairs(pairs, pair_sums, sums)
        grads = [torch.empty_like(t) for t in (means, quats, scales, opacities, means)]
        project_backward(
            *arrays, view, intrinsics, width, height, threads, records, rects, sums, *(g.numpy() for g in grads)
        )
        d_background = ((1 - alpha)[..., None] * d_color).sum(dim=(0, 1))
        return *grads, d_background, None

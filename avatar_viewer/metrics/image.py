"""How alike two pictures are: PSNR and SSIM, over the whole picture or inside a mask, and how sharp one is.

Pictures are [H, W, 3] in 0..1. SSIM is that of the 3D Gaussian family: 11 x 11 Gaussian window of sigma 1.5, zero padding,
C1 = 0.01^2, C2 = 0.03^2. Differentiable where torch is.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

SSIM_WINDOW = 11  # pixels
SSIM_SIGMA = 1.5  # pixels
_C1, _C2 = 0.01**2, 0.03**2


def psnr(
    image: Tensor,  # [H, W, 3]
    truth: Tensor,  # [H, W, 3]
    mask: Tensor | None = None,  # [H, W] weights 0..1: only what it covers counts
) -> float:
    """Peak signal to noise ratio in dB, 20 log10(1 / rmse); infinite for equal pictures. `ValueError` for an empty mask."""
    squared = (image - truth).double().pow(2).mean(dim=-1)
    mse = _masked_mean(squared, mask)
    return math.inf if mse == 0 else -10.0 * math.log10(mse)


def ssim(image: Tensor, truth: Tensor, mask: Tensor | None = None) -> float:  # [H, W, 3], [H, W, 3], [H, W]
    """Mean structural similarity, 1 for equal pictures."""
    return _masked_mean(ssim_map(image, truth).mean(dim=-1), mask)


def ssim_map(image: Tensor, truth: Tensor) -> Tensor:  # [H, W, 3], [H, W, 3] -> [H, W, 3]
    """Structural similarity around each pixel; differentiable in `image` alone."""
    return _Similarity.apply(image.permute(2, 0, 1), truth.detach().permute(2, 0, 1)).permute(1, 2, 0)


class _Similarity(torch.autograd.Function):
    """With its gradient written out: the window is its own transpose, so three blurs lead back. A third of autograd's time."""

    @staticmethod
    def forward(ctx, x: Tensor, y: Tensor) -> Tensor:  # [3, H, W], [3, H, W] -> [3, H, W]
        mean_x, mean_y, square_x, square_y, product = _blur(torch.cat((x, y, x * x, y * y, x * y))).chunk(5)
        a = 2 * mean_x * mean_y + _C1
        b = 2 * (product - mean_x * mean_y) + _C2
        c = mean_x.square() + mean_y.square() + _C1
        d = (square_x + square_y).sub_(mean_x.square()).sub_(mean_y.square()).add_(_C2)
        similarity = (a * b).div_(c).div_(d)
        ctx.save_for_backward(x, y, mean_x, mean_y, a, b, c, d, similarity)
        return similarity

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        x, y, mean_x, mean_y, a, b, c, d, similarity = ctx.saved_tensors
        share = 2 * gradient / (c * d)
        by_product = share * a
        by_square = -gradient * similarity / d
        by_mean = share * b * mean_y - by_product * mean_y - 2 * mean_x * (by_square + gradient * similarity / c)
        mean, square, product = _blur(torch.cat((by_mean, by_square, by_product))).chunk(3)
        return mean.addcmul_(x, square, value=2).addcmul_(y, product), None


def sharpness(image: Tensor, mask: Tensor | None = None) -> float:  # [H, W, 3], [H, W]
    """Mean length of the grey picture's gradient, in units of full range a pixel."""
    grey = image.mean(dim=-1)
    across = grey[:-1, 1:] - grey[:-1, :-1]
    down = grey[1:, :-1] - grey[:-1, :-1]
    return _masked_mean(torch.hypot(across, down), None if mask is None else mask[:-1, :-1])


def _masked_mean(values: Tensor, mask: Tensor | None) -> float:  # [H, W], [H, W]
    if mask is None:
        return values.double().mean().item()
    weight = mask.double()
    total = weight.sum()
    if total <= 0:
        raise ValueError("the mask covers nothing")
    return ((values.double() * weight).sum() / total).item()


def _blur(channels: Tensor) -> Tensor:  # [C, H, W] -> [C, H, W]
    """Gaussian window with zero padding, in two passes of shifted sums: a tenth of the time that conv2d takes on a CPU."""
    for dim in (2, 1):
        channels = _blur_along(channels, dim)
    return channels


def _blur_along(channels: Tensor, dim: int) -> Tensor:  # [C, H, W] -> [C, H, W]
    half, length = SSIM_WINDOW // 2, channels.shape[dim]
    taps = [math.exp(-0.5 * (tap / SSIM_SIGMA) ** 2) for tap in range(-half, half + 1)]
    edge = list(channels.shape)
    edge[dim] = half
    padded = torch.cat((channels.new_zeros(edge), channels, channels.new_zeros(edge)), dim=dim)
    total = torch.zeros_like(channels, memory_format=torch.contiguous_format)
    for tap, weight in enumerate(taps):
        total.add_(padded.narrow(dim, tap, length), alpha=weight / sum(taps))
    return total

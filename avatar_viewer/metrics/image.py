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
_STRIP = 128  # columns blurred at once
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
    """Structural similarity around each pixel."""
    x, y = image.permute(2, 0, 1), truth.permute(2, 0, 1)
    moments = _blur(torch.cat((x, y, x * x, y * y, x * y)))
    mean_x, mean_y, square_x, square_y, product = moments.chunk(5)
    variance_x, variance_y = square_x - mean_x * mean_x, square_y - mean_y * mean_y
    covariance = product - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + _C1) / (mean_x * mean_x + mean_y * mean_y + _C1)
    structure = (2 * covariance + _C2) / (variance_x + variance_y + _C2)
    return (luminance * structure).permute(1, 2, 0)


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
    """Gaussian window with zero padding, as two passes of one dimension."""
    return _blur_rows(_blur_rows(channels).transpose(1, 2)).transpose(1, 2)


def _blur_rows(channels: Tensor) -> Tensor:  # [C, H, W] -> [C, H, W], along W
    """As products with a banded matrix, strip by strip: a tenth of the time that conv2d takes on a CPU, backward included."""
    half, width = SSIM_WINDOW // 2, channels.shape[2]
    line = torch.exp(-0.5 * (torch.arange(-half, half + 1, dtype=channels.dtype, device=channels.device) / SSIM_SIGMA) ** 2)
    line = line / line.sum()
    band = channels.new_zeros(_STRIP + 2 * half, _STRIP)
    for tap, weight in enumerate(line):
        band.diagonal(-tap).fill_(weight)
    strips = []
    for start in range(0, width, _STRIP):
        end = min(start + _STRIP, width)
        low, high = max(0, start - half), min(width, end + half)
        first = low - (start - half)
        strips.append(channels[:, :, low:high] @ band[first : first + high - low, : end - start])
    return torch.cat(strips, dim=2)

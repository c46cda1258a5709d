"""The maths of HuBERT's convolutional front end as the stream needs it: convolutions, running normalisation, a filter bank."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..config import SAMPLE_RATE
from ..errors import InputError


def convolve(
    x: Tensor,  # [..., T, C], channels last
    conv: nn.Conv1d,
) -> Tensor:  # [..., T', C']
    """An unpadded Conv1d as matrix products, several times faster than the library's on a CPU; layer norm needs no transpose.

    The kernel is cut into runs of `stride` taps: each run is a plain reshape of the input, so the backward pass
    gathers nothing.
    """
    kernel, stride = conv.kernel_size[0], conv.stride[0]
    steps = (x.shape[-2] - kernel) // stride + 1
    weight = conv.weight.permute(2, 1, 0)  # [kernel, C, C']
    total = conv.bias
    for start in range(0, kernel, stride):
        taps = min(stride, kernel - start)
        if taps == stride:
            run = x[..., start : start + steps * stride, :].unflatten(-2, (steps, stride))
        else:
            run = torch.stack([x[..., start + t : start + t + (steps - 1) * stride + 1 : stride, :] for t in range(taps)], dim=-2)
        part = run.flatten(-2) @ weight[start : start + taps].flatten(0, 1)
        total = part if total is None else total + part
    return total


class RunningMoments:
    """Mean and variance over all time heard so far, for a front end that HuBERT normalises over the whole clip."""

    def __init__(self) -> None:
        self._count = 0
        self._sum: Tensor | None = None  # [B, 1, 1, C] float64
        self._square: Tensor | None = None

    def normalise(
        self,
        x: Tensor,  # [B, n, T, C]: n consecutive pieces
        norm: nn.GroupNorm,
        overlap: int,  # first frames of a piece that its predecessor has already counted
    ) -> Tensor:
        """GroupNorm with one channel a group, each piece by the statistics of everything up to its end."""
        if norm.num_groups != norm.num_channels:
            raise InputError(f"a GroupNorm of {norm.num_groups} groups over {norm.num_channels} channels cannot be streamed")
        fresh = (x if self._sum is None else x[:, :, overlap:]).double()
        sums, squares = fresh.sum(2, keepdim=True).cumsum(1), fresh.square().sum(2, keepdim=True).cumsum(1)
        counts = self._count + fresh.shape[2] * torch.arange(1, x.shape[1] + 1, device=x.device).view(1, -1, 1, 1)
        if self._sum is not None:
            sums, squares = sums + self._sum, squares + self._square
        self._count = int(counts.flatten()[-1])
        self._sum, self._square = sums[:, -1:], squares[:, -1:]
        mean = sums / counts
        scale = torch.rsqrt((squares / counts - mean.square()).clamp_min(0) + norm.eps)
        return ((x - mean.to(x.dtype)) * scale.to(x.dtype)) * norm.weight + norm.bias


def gabor_kernels(count: int, taps: int) -> Tensor:  # [count, taps]
    """Gabor kernels, 80 to 7,600 Hz on the mel scale, three phases a band, unit gain at the band's centre.

    Three phases and not a sine and cosine pair: the layer's activation rectifies, and the rectified sum of three
    phases is steady where that of two vanishes in a quarter of the cycle.
    """
    bands = -(-count // 3)
    mel = torch.linspace(2595 * math.log10(1 + 80 / 700), 2595 * math.log10(1 + 7600 / 700), bands, dtype=torch.float64)
    hertz = 700 * (10 ** (mel / 2595) - 1)
    deviation = (SAMPLE_RATE / (2 * math.pi * (0.08 * hertz + 50))).clamp(max=taps / 5)  # samples
    time = torch.arange(taps, dtype=torch.float64) - (taps - 1) / 2
    envelope = torch.exp(-0.5 * (time / deviation[:, None]) ** 2)
    envelope = envelope * 2 / envelope.sum(1, keepdim=True)
    phase = torch.arange(3, dtype=torch.float64) * 2 * math.pi / 3
    kernels = envelope[:, None] * torch.cos(2 * math.pi * hertz[:, None, None] / SAMPLE_RATE * time + phase[:, None])
    return kernels.flatten(0, 1)[:count].float()

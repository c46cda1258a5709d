"""A picture of a `GaussianFrame` seen by a `Camera`: the one door to the rasterisers.

Every back-end follows gsplat 1.5.3 and is differentiable in the five tensors of the frame and in the background.
This module checks the arguments and picks the back-end; it knows nothing of how they draw.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..types import Camera, GaussianFrame, Render, ensure_shape
from . import gsplat_backend

BACKENDS = ("auto", "cpu", "gsplat", "reference")


def rasterize(
    frame: GaussianFrame,
    camera: Camera,
    background: Sequence[float] | Tensor = (1.0, 1.0, 1.0),  # [3] sRGB
    backend: str = "auto",
) -> Render:
    """The picture, on the frame's device.

    "auto" takes gsplat where a CUDA device is present and gsplat loads, and the CPU otherwise. Gaussians that are
    not finite or have no shape are dropped and counted in `Render.dropped`; they get no gradient.
    """
    _check_arguments(frame, camera, backend)
    background = _check_background(background, frame.means)
    if backend == "auto":
        backend = choose_backend()
    dtype_wanted = (torch.float32,) if backend != "reference" else (torch.float32, torch.float64)
    if frame.means.dtype not in dtype_wanted:
        names = " or ".join(str(d).removeprefix("torch.") for d in dtype_wanted)
        raise ValueError(f"frame.means must be {names} for backend {backend!r}, got {frame.means.dtype}")
    if len(frame.means) == 0:
        return _empty_picture(camera, background)
    if backend == "cpu":
        from .cpu_backend import render_cpu  # numba takes 0.2 s to import

        return render_cpu(frame, camera, background)
    kept, dropped = drop_malformed(frame)
    if len(kept.means) == 0:
        return _empty_picture(camera, background, dropped)
    if backend == "reference":
        from .reference import render_reference

        return Render(*render_reference(kept, camera, background), dropped=dropped)
    return Render(*gsplat_backend.render_gsplat(kept, camera, background), dropped=dropped)


def choose_backend() -> str:
    """What "auto" means on this machine: "gsplat" or "cpu"; `gsplat_backend.why_unavailable()` says why not the former."""
    return "cpu" if gsplat_backend.why_unavailable() else "gsplat"


def drop_malformed(frame: GaussianFrame) -> tuple[GaussianFrame, int]:
    """The frame without rows that cannot be drawn, and their number.

    Malformed is: a value that is not finite, a quaternion without length, a negative scale, or no extent at all.
    """
    rows = torch.cat((frame.means, frame.quats, frame.scales, frame.opacities[:, None], frame.colors), dim=1).detach()  # [N, 14]
    scales = frame.scales.detach()
    good = torch.isfinite(rows).all(dim=1)
    good &= (frame.quats.detach() != 0).any(dim=1) & (scales >= 0).all(dim=1) & (scales > 0).any(dim=1)
    dropped = len(rows) - int(good.sum())
    if dropped == 0:
        return frame, 0
    tensors = (frame.means, frame.quats, frame.scales, frame.opacities, frame.colors)
    return GaussianFrame(*(t[good] for t in tensors)), dropped


def _check_arguments(frame: GaussianFrame, camera: Camera, backend: str) -> None:
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    for name, value, kind in (("frame", frame, GaussianFrame), ("camera", camera, Camera)):
        if not isinstance(value, kind):
            raise ValueError(f"{name} must be a {kind.__name__}, got {type(value).__name__}")
    for name in ("means", "quats", "scales", "opacities", "colors"):
        _check_tensor(f"frame.{name}", getattr(frame, name))
    ensure_shape("frame.means", frame.means, (None, 3))
    count = len(frame.means)
    ensure_shape("frame.quats", frame.quats, (count, 4))
    ensure_shape("frame.scales", frame.scales, (count, 3))
    ensure_shape("frame.opacities", frame.opacities, (count,))
    ensure_shape("frame.colors", frame.colors, (count, 3))
    for name in ("quats", "scales", "opacities", "colors"):
        tensor = getattr(frame, name)
        if tensor.dtype != frame.means.dtype:
            raise ValueError(f"frame.{name} must be {frame.means.dtype} like frame.means, got {tensor.dtype}")
        if tensor.device != frame.means.device:
            raise ValueError(f"frame.{name} must be on {frame.means.device} like frame.means, got {tensor.device}")
    for name, shape in (("viewmat", (4, 4)), ("K", (3, 3))):
        matrix = getattr(camera, name)
        _check_tensor(f"camera.{name}", matrix)
        ensure_shape(f"camera.{name}", matrix, shape)
        if matrix.is_complex() or matrix.dtype == torch.bool:
            raise ValueError(f"camera.{name} must hold real numbers, got {matrix.dtype}")
    for name in ("width", "height"):
        size = getattr(camera, name)
        if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= 16384:
            raise ValueError(f"camera.{name} must be a whole number of pixels from 1 to 16384, got {size!r}")
    for name in ("viewmat", "K"):
        if not bool(torch.isfinite(getattr(camera, name)).all()):
            raise ValueError(f"camera.{name} must be finite, got {getattr(camera, name).tolist()}")
    if float(camera.K[0, 0]) <= 0 or float(camera.K[1, 1]) <= 0:
        raise ValueError(f"camera.K must have focal lengths above 0, got {camera.K.tolist()}")


def _check_tensor(name: str, value: object) -> None:
    if not isinstance(value, Tensor):
        raise ValueError(f"{name} must be a torch tensor, got {type(value).__name__}")


def _empty_picture(camera: Camera, background: Tensor, dropped: int = 0) -> Render:
    color = background.expand(camera.height, camera.width, 3).clone()
    return Render(color, torch.zeros(camera.height, camera.width).to(color), dropped)


def _check_background(background: Sequence[float] | Tensor, like: Tensor) -> Tensor:
    try:
        values = background if isinstance(background, Tensor) else torch.tensor(background, dtype=like.dtype)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"background must be three numbers, got {background!r}") from None
    ensure_shape("background", values, (3,))
    if not bool(torch.isfinite(values.detach()).all()):
        raise ValueError(f"background must be finite, got {values.tolist()}")
    return values.to(like)

"""gsplat on a CUDA device; the only home of gsplat.

gsplat compiles its kernels when it is first imported where a CUDA compiler is found, which takes minutes and may fail.
So it is imported only when CUDA is available, and a failure is a normal state: the reason is kept and shown.
"""

from __future__ import annotations

import contextlib
import functools
import subprocess
import sys

import torch
from torch import Tensor

from ..types import Camera, GaussianFrame
from .reference import BLUR, NEAR_PLANE

# What an import that runs a compiler was seen to raise, or may by torch's extension loader.
_LOADING_FAILS = (ImportError, OSError, RuntimeError, AttributeError, TypeError, ValueError, subprocess.SubprocessError)


@functools.cache
def why_unavailable() -> str:
    """One line that says why gsplat cannot be used here; empty when it can. Tried once a process."""
    if not torch.cuda.is_available():
        return "no CUDA device"
    try:
        with contextlib.redirect_stdout(sys.stderr):  # it reports its build on stdout, which may be someone's JSON
            import gsplat
            import gsplat.cuda._backend as compiled
    except _LOADING_FAILS as error:
        return f"gsplat does not load: {' '.join(str(error).split())[:300] or type(error).__name__}"
    if getattr(compiled, "_C", None) is None:
        return f"gsplat {gsplat.__version__} has no compiled kernels: no CUDA toolkit was found to build them"
    return ""


def render_gsplat(
    frame: GaussianFrame,  # every row finite and well formed
    camera: Camera,
    background: Tensor,  # [3]
) -> tuple[Tensor, Tensor]:  # [H, W, 3], [H, W], on the frame's device
    """Colour over the background, and coverage; `RuntimeError` with the reason where gsplat cannot be used."""
    reason = why_unavailable()
    if reason:
        raise RuntimeError(f"the gsplat back-end cannot be used: {reason}; choose backend='cpu'")
    from gsplat import rasterization

    home = frame.means.device
    device = home if home.type == "cuda" else torch.device("cuda")
    frame = frame.to(device)
    color, alpha, _ = rasterization(
        means=frame.means,
        quats=frame.quats,
        scales=frame.scales,
        opacities=frame.opacities,
        colors=frame.colors,
        viewmats=camera.viewmat.to(frame.means)[None],
        Ks=camera.K.to(frame.means)[None],
        width=camera.width,
        height=camera.height,
        near_plane=NEAR_PLANE,
        eps2d=BLUR,
        packed=False,
        backgrounds=background.to(device)[None],
        render_mode="RGB",
        rasterize_mode="classic",
    )
    return color[0].to(home), alpha[0, :, :, 0].to(home)

"""What works on this machine, and what to do about the rest: one line a thing, nothing changed."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path


@dataclass(frozen=True)
class Finding:
    name: str
    state: str  # "ok"; "limited": the product works around it; "broken": something of the main job fails
    detail: str
    remedy: str = ""


def run(avatar_folder: Path, *, as_json: bool = False) -> int:
    """Print the findings; 1 if anything is broken."""
    findings = list(examine(avatar_folder))
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        for finding in findings:
            remedy = f"  -> {finding.remedy}" if finding.remedy else ""
            print(f"{finding.state:8} {finding.name:16} {finding.detail}{remedy}")
    return int(any(finding.state == "broken" for finding in findings))


def examine(avatar_folder: Path) -> Iterator[Finding]:
    """Every check, in the order in which the product needs things."""
    yield Finding("python", "ok", f"{platform.python_version()} on {platform.platform(terse=True)}, {os.cpu_count()} cores")
    for check in (_torch, _gsplat, _cpu_rasteriser, _screen, _sound, _encoders, _synthesisers, _studio):
        yield _guarded(check)
    yield _guarded(lambda: _avatar(avatar_folder))


def _guarded(check: Callable[[], Finding]) -> Finding:
    """A check that itself fails is a finding; a broken native library raises what it likes."""
    try:
        return check()
    except Exception as error:
        name = {"_encoders": "mp4", "<lambda>": "avatar"}.get(check.__name__, check.__name__.strip("_"))
        return Finding(name, "broken", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")


def _torch() -> Finding:
    import torch

    versions = f"torch {torch.__version__}, torchvision {metadata.version('torchvision')}"
    try:
        import torchvision  # noqa: F401  open_clip and transformers import it
    except (ImportError, RuntimeError) as error:
        return Finding("torch", "broken", f"{versions}: {error}", "reinstall both together: pip install --force-reinstall torch torchvision")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA device"
    return Finding("torch", "ok", f"{versions}; {device}")


def _gsplat() -> Finding:
    from .rendering.gsplat_backend import why_unavailable

    reason = why_unavailable()
    if not reason:
        return Finding("gsplat", "ok", f"gsplat {metadata.version('gsplat')} draws on the GPU")
    remedy = "" if "CUDA device" in reason else "pip install 'avatar-viewer[gpu]' where nvcc matches torch's CUDA"
    return Finding("gsplat", "limited", f"{reason}; the CPU rasteriser draws", remedy)


def _cpu_rasteriser() -> Finding:
    import numba
    import torch

    from .geometry import orbit_camera
    from .rendering.rasterize import rasterize
    from .types import GaussianFrame

    dot = GaussianFrame(torch.zeros(1, 3), torch.tensor([[1.0, 0, 0, 0]]), torch.full((1, 3), 0.05), torch.ones(1), torch.zeros(1, 3))
    darkest = float(rasterize(dot, orbit_camera(0, 0, 1, 30, 64, 64), backend="cpu").color.min())
    state = "ok" if darkest < 0.05 else "broken"
    return Finding("cpu rasteriser", state, f"numba {numba.__version__}, {numba.config.NUMBA_NUM_THREADS} threads")


def _screen() -> Finding:
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return Finding("screen", "limited", "no display; run_viewer.py renders the demo clip instead of opening a window")
    return Finding("screen", "ok", f"Dear PyGui {metadata.version('dearpygui')}")


def _sound() -> Finding:
    from .live.device_list import list_devices

    devices, reason = list_devices()
    if not devices:
        return Finding("sound", "limited", f"{reason}; clips play silently, export is not affected")
    outputs, inputs = (sum(1 for device in devices if getattr(device, side)) for side in ("outputs", "inputs"))
    return Finding("sound", "ok", f"{outputs} to play on, {inputs} to listen with")


def _encoders() -> Finding:
    from .live.encoding import available_encoders, has_nvenc

    found = available_encoders()
    missing = {"libx264", "aac"} - set(found)
    if missing:
        return Finding("mp4", "broken", f"PyAV lacks {', '.join(sorted(missing))}", "pip install --force-reinstall av")
    live = "h264_nvenc on the graphics card" if has_nvenc(512, 512) else "libx264"
    return Finding("mp4", "ok", f"PyAV {metadata.version('av')}: {', '.join(found)}; recordings by {live}")


def _synthesisers() -> Finding:
    missing = [name for name in ("flite", "espeak-ng") if shutil.which(name) is None]
    if missing:
        return Finding("synthesisers", "limited", f"{', '.join(missing)} missing; only training needs them", f"apt-get install {' '.join(missing)}")
    return Finding("synthesisers", "ok", "flite, espeak-ng")


def _studio() -> Finding:
    missing = [name for name in ("mitsuba", "trimesh") if importlib.util.find_spec(name) is None]
    if missing:
        return Finding("studio", "limited", f"{', '.join(missing)} missing; only captures need them", "pip install 'avatar-viewer[studio]'")
    return Finding("studio", "ok", f"Mitsuba {metadata.version('mitsuba')}")


def _avatar(folder: Path) -> Finding:
    from .avatar.bundle import load_avatar
    from .errors import InputError

    try:
        avatar = load_avatar(folder)
    except InputError as error:
        return Finding("avatar", "broken", str(error), "avatar-viewer train demo makes one")
    if avatar.missing:
        return Finding("avatar", "limited", "; ".join(avatar.missing))
    return Finding("avatar", "ok", f"{avatar.name}: {avatar.rig.num_gaussians} Gaussians, {avatar.rig.num_face} on the face, {avatar.fps:g} fps")

"""`avatar-viewer bench render`: how fast this machine draws, beside what it is compared with, in turns in one process."""

from __future__ import annotations

import math
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from .geometry import orbit_camera, rotmat_to_quat
from .types import Camera, GaussianFrame, GaussianRig

COUNTS = (20_000, 50_000, 100_000)
SIZES = ((512, 512), (1280, 720), (1920, 1080))
ROUNDS = 7  # of each: thrice the product, twice by a still camera, the baseline, forward and backward
REFERENCE_SCENE = (2_000, 128, 128)  # Gaussians, width, height: what the dense reference can hold


def bench_render(avatar_folder: str | Path | None, quiet: bool = False) -> dict:
    """Every count at every size: phases, work, and the obvious loop in turns; then the dense reference, and gsplat."""
    from .rendering.cpu_backend import CpuRasterizer

    rasterizer = CpuRasterizer()
    scene, source = _choose_scene(avatar_folder)
    machine = _describe_machine(rasterizer.threads) | {"scene": scene}
    has_gpu = machine["backend"] == "gsplat"
    say = (lambda text: None) if quiet else (lambda text: print(text, flush=True))
    say(
        f"{machine['processor']}, {machine['threads']} threads, {scene}; GPU {machine['gpu']}; auto draws with {machine['backend']}"
    )
    say("  ms: median (p95). still: a talking mouth before a still camera. obvious: the obvious loop, and how many times faster;")
    say("  then the same loop in C++ (-O2, OpenMP), where this machine has a compiler.")
    say(
        "  Gaussians  size         whole          project        sort           list           blend          still"
        "  fwd+bwd    pairs  Mlanes  useful  ns/lane  obvious  times      C++  times"
    )
    rows = []
    for count in COUNTS:
        frame = source(count)
        for width, height in SIZES:
            row = _measure_cpu(frame, width, height, rasterizer)
            phases = "  ".join(_pair(row["phase_ms"][name], row["phase_p95_ms"][name]) for name in row["phase_ms"])
            say(
                f"  {count:9d}  {width:4d}x{height:<4d}  {_pair(row['ms'], row['p95_ms'])}  {phases}  {row['still_ms']:5.2f}"
                f"  {row['forward_backward_ms']:7.2f}  {row['pairs']:7d}  {row['lanes'] / 1e6:6.1f}  {row['useful_lanes']:6.1%}"
                f"  {row['ns_per_lane']:7.2f}  {row['obvious_ms']:7.1f}  {row['times_faster']:5.1f}"
                + (f"  {row['obvious_cpp_ms']:7.1f}  {row['times_faster_than_cpp']:5.1f}" if row["obvious_cpp_ms"] else "      none")
            )
            if has_gpu:
                row["gsplat"] = _measure_backend(frame, width, height, "gsplat", "cuda", torch.cuda.synchronize)
                g = row["gsplat"]
                say(
                    f"             gsplat on {machine['gpu']}: {_pair(g['ms'], g['p95_ms'])}, forward and backward"
                    f" {g['forward_backward_ms']:.2f} ms; {g['within_2_of_255']:.3%} of pixels within 2/255 of the CPU's"
                )
            rows.append(row)
    reference = _measure_reference(source)
    say(
        f"  dense reference, {reference['gaussians']} Gaussians, {reference['width']}x{reference['height']}: "
        f"{reference['reference_ms']:.1f} ms; here {reference['ms']:.2f} ms"
    )
    return {"machine": machine, "rows": rows, "reference": reference}


def _pair(median: float, p95: float) -> str:
    return f"{median:6.2f} {f'({p95:.2f})':8}"


def _describe_machine(threads: int) -> dict:
    import numba

    from .rendering.gsplat_backend import why_unavailable
    from .rendering.rasterize import choose_backend

    reason = why_unavailable()
    return {
        "processor": _processor_name(),
        "threads": threads,
        "gpu": f"none ({reason})" if reason else torch.cuda.get_device_name(),
        "backend": choose_backend(),
        "torch": torch.__version__,
        "numba": numba.__version__,
    }


def _choose_scene(avatar_folder: str | Path | None) -> tuple[str, Callable[[int], GaussianFrame]]:
    """The avatar's rig, or a head-like cloud where there is no avatar; both at any number of Gaussians."""
    if avatar_folder is None or not Path(avatar_folder).is_dir():
        return "a synthetic head (no avatar found)", _synthetic_head
    from .avatar.bundle import load_avatar

    avatar = load_avatar(avatar_folder)
    return f"avatar {avatar.name}, {avatar.rig.num_gaussians} Gaussians resampled", lambda count: _resample(avatar.rig, count)


def _resample(rig: GaussianRig, count: int) -> GaussianFrame:
    """The rig at rest with another number of Gaussians that cover the same surface."""
    generator = torch.Generator().manual_seed(0)
    found = rig.num_gaussians
    if count <= found:
        rows = torch.randperm(found, generator=generator)[:count]
    else:
        rows = torch.cat((torch.arange(found), torch.randint(found, (count - found,), generator=generator)))
    scales = torch.exp(rig.log_scales[rows])
    jitter = torch.randn(count, 3, generator=generator) * scales.median(dim=1, keepdim=True).values
    jitter[: min(count, found)] = 0
    opacities = torch.sigmoid(rig.opacity_logits[rows])
    return GaussianFrame(
        rig.means[rows] + jitter, rig.quats[rows], scales * math.sqrt(found / count), opacities, rig.colors[rows]
    )


def _synthetic_head(count: int) -> GaussianFrame:
    """Flat Gaussians on an ellipsoid of a head's size, a quarter of them lifted off it like hair."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    def uniform(*shape):
        return torch.rand(*shape, generator=generator)

    outward = torch.nn.functional.normalize(normal(count, 3), dim=-1)
    lift = (uniform(count) < 0.25) * uniform(count) * 0.01
    means = outward * torch.tensor([0.078, 0.125, 0.098]) + outward * lift[:, None]
    across = torch.nn.functional.normalize(torch.linalg.cross(normal(count, 3), outward), dim=-1)
    rotations = torch.stack((across, torch.linalg.cross(outward, across), outward), dim=-1)
    spacing = 0.1 * math.sqrt(4 * math.pi / count)
    scales = 0.75 * spacing * torch.exp(0.35 * normal(count, 3)) * torch.tensor([1.0, 1.0, 0.2])
    return GaussianFrame(means, rotmat_to_quat(rotations), scales, 0.3 + 0.7 * uniform(count), uniform(count, 3))


def _camera(turn: int, width: int, height: int) -> Camera:
    """A head fills 85 % of the height; each picture from a little elsewhere."""
    return orbit_camera(20 + 0.5 * turn, 5, 0.72, 24, width, height)


def _measure_cpu(frame: GaussianFrame, width: int, height: int, rasterizer) -> dict:
    from .rendering.cpu_backend import CpuRasterizer
    from .rendering.obvious import draw_obviously
    from .rendering.obvious_cpp import build_obvious_cpp

    draw_obviously_in_cpp = build_obvious_cpp()
    inputs, talking, still = _arrays(frame), _arrays(_talk(frame)), CpuRasterizer()
    pictures = [_empty_picture(width, height) for _ in range(3)]
    weights = torch.linspace(-1, 1, height * width * 3).reshape(height, width, 3)
    background, threads = (1.0, 1.0, 1.0), rasterizer.threads
    camera = _camera(0, width, height)
    rasterizer.draw(inputs, camera, background, *pictures[0])
    still.draw(inputs, camera, background, *pictures[1])
    draw_obviously(inputs, camera, background, threads, *pictures[0])
    _forward_backward(frame, camera, weights)
    whole, obvious, obvious_cpp, both, talks, phases = [], [], [], [], [], []
    for turn in range(ROUNDS):
        for again in range(3):
            moving = _camera(3 * turn + again, width, height)
            whole.append(_milliseconds(rasterizer.draw, inputs, moving, background, *pictures[0]))
            phases.append(dict(rasterizer.phase_seconds))
        talks.append(_milliseconds(still.draw, talking, camera, background, *pictures[2], pictures[1]))
        talks.append(_milliseconds(still.draw, inputs, camera, background, *pictures[1], pictures[2]))
        obvious.append(_milliseconds(draw_obviously, inputs, moving, background, threads, *pictures[0]))
        if draw_obviously_in_cpp is not None:
            obvious_cpp.append(_milliseconds(draw_obviously_in_cpp, inputs, moving, background, threads, *pictures[0]))
        both.append(_milliseconds(_forward_backward, frame, moving, weights))
    rasterizer.draw(inputs, moving, background, *pictures[0])
    work = rasterizer.measure_work()
    phase_ms = {name: 1000 * statistics.median(p[name] for p in phases) for name in phases[0]}

    def times_faster(than: list[float]) -> float | None:
        return statistics.median(t / statistics.median(whole[3 * i : 3 * i + 3]) for i, t in enumerate(than)) if than else None

    return {
        "gaussians": len(frame.means),
        "width": width,
        "height": height,
        "ms": statistics.median(whole),
        "p95_ms": _p95(whole),
        "phase_ms": phase_ms,
        "phase_p95_ms": {name: 1000 * _p95([p[name] for p in phases]) for name in phases[0]},
        "still_ms": statistics.median(talks),
        "forward_backward_ms": statistics.median(both),
        "pairs": work["pairs"],
        "lanes": work["lanes"],
        "useful_lanes": work["useful_lanes"] / max(work["lanes"], 1),
        "ns_per_lane": 1e6 * phase_ms["blend"] / max(work["lanes"], 1),
        "obvious_ms": statistics.median(obvious),
        "times_faster": times_faster(obvious),
        "obvious_cpp_ms": statistics.median(obvious_cpp) if obvious_cpp else None,
        "times_faster_than_cpp": times_faster(obvious_cpp),
    }


def _arrays(frame: GaussianFrame) -> list[np.ndarray]:
    return [t.numpy() for t in (frame.means, frame.quats, frame.scales, frame.opacities, frame.colors)]


def _empty_picture(width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    return torch.empty(height, width, 3).numpy(), torch.empty(height, width).numpy()


def _talk(frame: GaussianFrame) -> GaussianFrame:
    """The third of the Gaussians that is nearest to the mouth a little lower: about what speech moves of a head."""
    distance = (frame.means - torch.tensor([0.0, -0.05, 0.09])).norm(dim=1)
    near = distance <= distance.quantile(1 / 3)
    return replace(frame, means=frame.means - near[:, None] * torch.tensor([0.0, 0.0005, 0.0]))


def _p95(values: list[float]) -> float:
    return sorted(values)[math.ceil(0.95 * len(values)) - 1]


def _forward_backward(frame: GaussianFrame, camera: Camera, weights: torch.Tensor, backend: str = "cpu") -> None:
    from .rendering.rasterize import rasterize

    tensors = [t.detach().requires_grad_() for t in (frame.means, frame.quats, frame.scales, frame.opacities, frame.colors)]
    rasterize(GaussianFrame(*tensors), camera, backend=backend).color.backward(weights)


def _measure_reference(source: Callable[[int], GaussianFrame]) -> dict:
    from .rendering.rasterize import rasterize

    count, width, height = REFERENCE_SCENE
    frame, camera = source(count), _camera(0, width, height)
    rasterize(frame, camera, backend="cpu")
    dense, ours = [], []
    for _ in range(3):
        dense.append(_milliseconds(rasterize, frame, camera, backend="reference"))
        ours.append(_milliseconds(rasterize, frame, camera, backend="cpu"))
    times = {"reference_ms": statistics.median(dense), "ms": statistics.median(ours)}
    return {"gaussians": count, "width": width, "height": height} | times


def _measure_backend(
    frame: GaussianFrame, width: int, height: int, backend: str, device: str, finish: Callable[[], object]
) -> dict:
    """A back-end on a device that works on after a call returns: `finish` waits for it."""
    from .rendering.rasterize import rasterize

    camera, on_device = _camera(0, width, height), frame.to(device)
    weights = torch.linspace(-1, 1, height * width * 3, device=device).reshape(height, width, 3)

    def draw(turn: int) -> None:
        with torch.no_grad():
            rasterize(on_device, _camera(turn, width, height), backend=backend)
        finish()

    def draw_and_return(turn: int) -> None:
        _forward_backward(on_device, _camera(turn, width, height), weights, backend)
        finish()

    for turn in range(5):
        draw(turn)
        draw_and_return(turn)
    times = [_milliseconds(draw, turn) for turn in range(50)]
    both = [_milliseconds(draw_and_return, turn) for turn in range(20)]
    error = (rasterize(on_device, camera, backend=backend).color.cpu() - rasterize(frame, camera, backend="cpu").color).abs()
    return {
        "ms": statistics.median(times),
        "p95_ms": _p95(times),
        "forward_backward_ms": statistics.median(both),
        "within_2_of_255": float((error.amax(-1) <= 2 / 255).float().mean()),
    }


def _milliseconds(action: Callable[..., object], *arguments: object, **options: object) -> float:
    started = time.perf_counter()
    action(*arguments, **options)
    return 1000 * (time.perf_counter() - started)


def _processor_name() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()

"""`avatar-viewer bench`: how fast this machine draws, beside what it is compared with, measured in turns in one process."""

from __future__ import annotations

import json
import math
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from .bench_speech import bench_motion, bench_speech
from .errors import InputError
from .geometry import orbit_camera, rotmat_to_quat
from .types import Camera, GaussianFrame, GaussianRig

COUNTS = (20_000, 50_000, 100_000)
SIZES = ((512, 512), (1280, 720), (1920, 1080))
ROUNDS = 7  # of each: product, product, product, baseline
REFERENCE_SCENE = (2_000, 128, 128)  # Gaussians, width, height: what the dense reference can hold


def run(names: list[str], as_json: bool, avatar_folder: str | Path | None) -> int:
    """Run the named benchmarks and print their tables, or one JSON object."""
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        raise InputError(f"bench: unknown benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    results = {name: BENCHMARKS[name](avatar_folder, quiet=as_json) for name in names}
    if as_json:
        print(json.dumps(results, indent=1))
    return 0


def bench_render(avatar_folder: str | Path | None, quiet: bool = False) -> dict:
    """Every count at every size: phases, work, and the obvious loop in turns; then the dense reference, and gsplat."""
    from .rendering.cpu_backend import CpuRasterizer
    from .rendering.gsplat_backend import why_unavailable

    rasterizer = CpuRasterizer()
    scene, source = _choose_scene(avatar_folder)
    threads = rasterizer.threads
    machine = {"processor": _processor_name(), "threads": threads, "scene": scene}
    gpu = why_unavailable()
    machine["gpu"] = f"none: {gpu}" if gpu else torch.cuda.get_device_name()
    say = (lambda text: None) if quiet else (lambda text: print(text, flush=True))
    say(f"{machine['processor']}, {threads} threads, {scene}; GPU {machine['gpu']}")
    say(
        "  Gaussians  size        whole ms (p95)  project  sort  list  blend   pairs"
        "  useful  ns/lane  obvious ms  times  fwd+bwd ms"
    )
    rows = []
    for count in COUNTS:
        frame = source(count)
        for width, height in SIZES:
            row = _measure_cpu(frame, width, height, rasterizer)
            if not gpu:
                row["gsplat_ms"] = _measure_gsplat(frame, width, height)
            rows.append(row)
            p = row["phase_ms"]
            say(
                f"  {count:9d}  {width:4d}x{height:<4d} {row['ms']:10.2f} ({row['p95_ms']:.2f})"
                f"  {p['project']:7.2f}  {p['sort']:4.2f}  {p['list']:4.2f}  {p['blend']:5.2f} {row['pairs']:7d}"
                f"  {row['useful_lanes']:6.0%}  {row['ns_per_lane']:7.2f}  {row['obvious_ms']:10.1f}  {row['times_faster']:5.1f}"
                f"  {row['forward_backward_ms']:10.2f}" + ("" if gpu else f"   gsplat {row['gsplat_ms']:.2f} ms")
            )
    reference = _measure_reference(source)
    say(
        f"  dense reference, {reference['gaussians']} Gaussians, {reference['width']}x{reference['height']}: "
        f"{reference['reference_ms']:.1f} ms; here {reference['ms']:.2f} ms"
    )
    return {"machine": machine, "rows": rows, "reference": reference}


BENCHMARKS: dict[str, Callable[..., dict]] = {"render": bench_render, "speech": bench_speech, "motion": bench_motion}


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
    from .rendering.obvious import draw_obviously

    inputs = [t.numpy() for t in (frame.means, frame.quats, frame.scales, frame.opacities, frame.colors)]
    color, alpha = torch.empty(height, width, 3).numpy(), torch.empty(height, width).numpy()
    weights = torch.linspace(-1, 1, height * width * 3).reshape(height, width, 3)
    background = (1.0, 1.0, 1.0)
    rasterizer.draw(inputs, _camera(0, width, height), background, color, alpha)
    draw_obviously(inputs, _camera(0, width, height), background, rasterizer.threads, color, alpha)
    _forward_backward(frame, _camera(0, width, height), weights)
    whole, obvious, both, phases = [], [], [], []
    for turn in range(ROUNDS):
        for again in range(3):
            camera = _camera(3 * turn + again, width, height)
            whole.append(_milliseconds(rasterizer.draw, inputs, camera, background, color, alpha))
            phases.append(dict(rasterizer.phase_seconds))
        obvious.append(_milliseconds(draw_obviously, inputs, camera, background, rasterizer.threads, color, alpha))
        both.append(_milliseconds(_forward_backward, frame, camera, weights))
    rasterizer.draw(inputs, camera, background, color, alpha)
    work = rasterizer.measure_work()
    phase_ms = {name: 1000 * statistics.median(p[name] for p in phases) for name in phases[0]}
    return {
        "gaussians": len(frame.means),
        "width": width,
        "height": height,
        "ms": statistics.median(whole),
        "p95_ms": sorted(whole)[int(0.95 * (len(whole) - 1))],
        "phase_ms": phase_ms,
        "pairs": work["pairs"],
        "lanes": work["lanes"],
        "useful_lanes": work["useful_lanes"] / max(work["lanes"], 1),
        "ns_per_lane": 1e6 * phase_ms["blend"] / max(work["lanes"], 1),
        "obvious_ms": statistics.median(obvious),
        "times_faster": statistics.median(o / statistics.median(whole[3 * i : 3 * i + 3]) for i, o in enumerate(obvious)),
        "forward_backward_ms": statistics.median(both),
    }


def _forward_backward(frame: GaussianFrame, camera: Camera, weights: torch.Tensor) -> None:
    from .rendering.rasterize import rasterize

    tensors = [t.detach().requires_grad_() for t in (frame.means, frame.quats, frame.scales, frame.opacities, frame.colors)]
    rasterize(GaussianFrame(*tensors), camera, backend="cpu").color.backward(weights)


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


def _measure_gsplat(frame: GaussianFrame, width: int, height: int) -> float:
    from .rendering.rasterize import rasterize

    frame = frame.to("cuda")

    def draw(turn: int) -> None:
        rasterize(frame, _camera(turn, width, height), backend="gsplat")
        torch.cuda.synchronize()

    for turn in range(5):
        draw(turn)
    return statistics.median(_milliseconds(draw, turn) for turn in range(50))


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

"""Stage 1: the canonical Gaussian rig, fitted to pictures of the head without speech and of poses that bare what it hides.

To the supplement's section 1: one face Gaussian a template vertex, its position fixed; a predetermined number of others
whose positions are learned here and then frozen; colour from a triplane, baked to RGB at the end; no spherical harmonics.
Everything that is not the face is carried from pose to pose by the functions that will animate it.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from ..avatar.bundle import save_avatar
from ..avatar.face import FaceTemplate
from ..avatar.skinning import build_skin, turn_skin
from ..errors import InputError
from ..metrics.image import psnr, sharpness, ssim, ssim_map
from ..rendering.rasterize import rasterize
from ..types import Camera, GaussianFrame
from .canonical_model import CanonicalModel, PoseState, build_model
from .checkpoint import RunningAverage, load_checkpoint, save_checkpoint
from .datasets.capture import Capture, Pose, Shot, open_capture

STATE = "rig_training.safetensors"
POLISH_STATE = "rig_polish.safetensors"
PREVIEW = "rig_preview.png"
CHECKPOINT_SECONDS = 60.0


@dataclass(frozen=True)
class RigSettings:
    steps: int
    polish_steps: int
    coarse_share: float = 0.45  # of the steps: pictures at half size
    polish_coarse_share: float = 0.0
    others: int = 29_000  # Gaussians that are not the face, at most
    canonical_share: float = 0.65  # of the pictures shown; the rest are poses
    ssim_weight: float = 0.2
    polish_ssim_weight: float = 0.8  # 0.2 leaves hair and garment blurred
    mask_weight: float = 0.2
    scale_rate: float = 8e-3
    quat_rate: float = 3e-3
    opacity_rate: float = 3e-2
    position_rate: float = 3e-5  # metres
    plane_rate: float = 2e-2
    decoder_rate: float = 3e-3
    polish_geometry: float = 1.5  # of the rates above
    polish_rate: float = 1e-2  # sRGB a step
    seed: int = 0


SCALES: dict[str, RigSettings] = {
    "demo": RigSettings(steps=1500, polish_steps=1500, coarse_share=0.75),
    "dev": RigSettings(steps=250, polish_steps=60, others=6_000),
}


@dataclass(frozen=True)
class TrainingShot:
    pose: int
    camera: Camera
    color: Tensor  # [H, W, 3] uint8 over white
    mask: Tensor  # [H, W] uint8


def train_rig(data: Path, out: Path, *, scale: str = "demo", resume: bool = False, device: str = "auto") -> None:
    """Fit the rig to the capture at `data` and seal it, with the face's mesh, into the avatar folder `out`."""
    if scale not in SCALES:
        raise InputError(f"unknown scale {scale!r}; use {' or '.join(SCALES)}")
    settings, capture, out = SCALES[scale], open_capture(data), Path(out)
    target = torch.device("cuda" if device == "cuda" or device == "auto" and torch.cuda.is_available() else "cpu")
    began = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(settings.seed)
    face = face_template(capture)
    model = build_model(capture, settings.others, settings.seed).to(target)
    if not (resume and (out / POLISH_STATE).is_file()):
        fit_rig(model, capture, settings, out, resume=resume)
    polish_rig(model, capture, settings, out, resume=resume)
    write_preview(model, capture, out / PREVIEW)
    rig = model.bake()
    scores = measure_held_out(model, capture)
    print("rig, held-out cameras, inside the mask: " + ", ".join(f"{k} {v:.3f}" for k, v in scores.items()))
    record = {
        "capture": capture.name, "scale": scale, "settings": asdict(settings), "gaussians": rig.num_gaussians,
        "seconds": round(time.monotonic() - began), "held_out": {k: round(v, 4) for k, v in scores.items()},
    }  # fmt: skip
    save_avatar(out, name=capture.name, fps=capture.fps, face=face, rig=rig, training={"rig": record})
    for state in (STATE, POLISH_STATE):
        (out / state).unlink(missing_ok=True)


def face_template(capture: Capture) -> FaceTemplate:
    regions = {name: ids for name, ids in capture.regions.items() if name not in ("lip_upper", "lip_lower")}
    return FaceTemplate(capture.neutral, capture.faces, regions, capture.regions["lip_upper"], capture.regions["lip_lower"])


def fit_rig(model: CanonicalModel, capture: Capture, settings: RigSettings, out: Path, *, resume: bool) -> None:
    """The first pass: geometry, opacity and the triplane's colour, in place; progress is kept in `out` each minute."""
    colors = [
        (list(model.color.planes.parameters()), settings.plane_rate),
        (list(model.color.decode.parameters()), settings.decoder_rate),
    ]
    groups = _geometry_groups(model, settings, 1.0) + colors
    plan = Pass("rig", settings.steps, settings.coarse_share, settings.ssim_weight, groups, (settings.seed,), out / STATE)
    _run_pass(model, capture, settings, plan, out, resume=resume)


def polish_rig(model: CanonicalModel, capture: Capture, settings: RigSettings, out: Path, *, resume: bool) -> None:
    """The second pass, with each Gaussian's colour freed from the triplane, whose planes leave a grain along their axes: the
    pictures know the colour of one Gaussian well enough by now. Mostly for structure, which is what full-size pictures add."""
    model.free_colors()
    groups = _geometry_groups(model, settings, settings.polish_geometry)
    groups += [([model.polished], settings.polish_rate)]
    weight, seeds, state = settings.polish_ssim_weight, (settings.seed, 1), out / POLISH_STATE
    plan = Pass("polish", settings.polish_steps, settings.polish_coarse_share, weight, groups, seeds, state)
    _run_pass(model, capture, settings, plan, out, resume=resume)


@dataclass(frozen=True)
class Pass:
    """One run through the pictures: how long, at which size, what is learned and how fast."""

    name: str
    steps: int
    coarse_share: float
    ssim_weight: float
    groups: list[tuple[list[Tensor], float]]
    seeds: tuple[int, ...]
    state: Path  # of the progress


def _run_pass(model: CanonicalModel, capture: Capture, settings: RigSettings, plan: Pass, out: Path, *, resume: bool) -> None:
    poses = (capture.canonical, *capture.poses)
    states = pose_states(model, capture, poses)
    shots = load_shots(capture, poses)
    chances = shot_chances(shots, settings)
    groups = [{"params": params, "lr": rate} for params, rate in plan.groups]
    optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99), eps=1e-15, fused=True)
    average = RunningAverage(model, keep=0.98)
    first = load_checkpoint(plan.state, model, average, optimizer) if resume and plan.state.is_file() else 0
    device = model.face_means.device
    saved = time.monotonic()
    with tqdm(range(first, plan.steps), initial=first, total=plan.steps, desc=plan.name, unit="step", mininterval=2.0) as bar:
        for step in bar:
            share = step / plan.steps
            for group, (_, rate) in zip(optimizer.param_groups, plan.groups):
                group["lr"] = rate * rate_share(share)
            rng = np.random.default_rng((*plan.seeds, step))
            shot = shots[rng.choice(len(shots), p=chances)]
            camera, color, mask = prepare_shot(shot, 2 if share < plan.coarse_share else 1, device)
            background = torch.tensor(rng.random(3), dtype=torch.float32, device=device)
            frame = model.forward(states[shot.pose])
            loss = rig_loss(frame, camera, color, mask, background, plan.ssim_weight, settings.mask_weight)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            model.keep_bounds()
            average.update(model, step)
            if step % 20 == 0:
                bar.set_postfix(loss=f"{loss.item():.4f}", refresh=False)
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                save_checkpoint(plan.state, model, average, optimizer, step + 1)
                write_preview(model, capture, out / PREVIEW)
                saved = time.monotonic()
    average.copy_to(model)
    model.keep_bounds()
    write_preview(model, capture, out / PREVIEW)


def shot_chances(shots: list[TrainingShot], settings: RigSettings) -> np.ndarray:  # [shots]
    """How likely each picture is drawn: the canonical frame has its share whatever the number of poses."""
    chances = np.array([settings.canonical_share if shot.pose == 0 else 1 - settings.canonical_share for shot in shots])
    counts = np.bincount([int(shot.pose > 0) for shot in shots], minlength=2)
    chances /= np.array([counts[int(shot.pose > 0)] for shot in shots])
    return chances / chances.sum()


def rig_loss(
    frame: GaussianFrame,
    camera: Camera,
    color: Tensor,  # [H, W, 3] over white
    mask: Tensor,  # [H, W] 0..1
    background: Tensor,  # [3]
    ssim_weight: float,
    mask_weight: float,
) -> Tensor:
    """(1 - l) L1 + l D-SSIM over a random background, which shows every hole, plus L1 of coverage."""
    render = rasterize(frame, camera, background)
    truth = color + (1 - mask[..., None]) * (background - 1)
    structure = (1 - ssim_map(render.color, truth)).mean() / 2
    picture = (1 - ssim_weight) * (render.color - truth).abs().mean() + ssim_weight * structure
    return picture + mask_weight * (render.alpha - mask).abs().mean()


def rate_share(share: float) -> float:
    """A short rise, then a cosine down to a thirtieth."""
    return min(1.0, 40 * share + 0.05) * (0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * share)))


def pose_states(model: CanonicalModel, capture: Capture, poses: tuple[Pose, ...]) -> list[PoseState]:
    """What each pose does to the Gaussians, worked out once."""
    device = model.face_means.device
    tables = build_skin(model.bake(), face_template(capture))
    states = []
    for pose in poses:
        offsets = (pose.vertices - capture.neutral).to(device)
        transforms = torch.eye(4).repeat(len(model.groups), 1, 1) if pose.motion is None else pose.motion.transforms[0]
        states.append(PoseState(offsets, turn_skin(tables, offsets), transforms.to(device)))
    return states


def load_shots(capture: Capture, poses: tuple[Pose, ...], held_out: bool = False) -> list[TrainingShot]:
    """Pictures as bytes in memory, of the cameras that teach or of those that measure."""
    chosen: list[tuple[int, Shot]] = [
        (i, shot) for i, pose in enumerate(poses) for shot in pose.shots if (shot.camera in capture.held_out_cameras) == held_out
    ]
    return [TrainingShot(i, shot.view, *shot.load()) for i, shot in chosen]


def prepare_shot(shot: TrainingShot, divisor: int, device: torch.device) -> tuple[Camera, Tensor, Tensor]:
    """Camera, picture and mask in floats, smaller by `divisor`."""
    color, mask, camera = shot.color.to(device).float() / 255, shot.mask.to(device).float() / 255, shot.camera
    if divisor > 1 and camera.width % divisor == 0 and camera.height % divisor == 0:
        color = F.avg_pool2d(color.permute(2, 0, 1), divisor).permute(1, 2, 0)
        mask = F.avg_pool2d(mask[None], divisor)[0]
        scale = torch.diag(torch.tensor([1 / divisor, 1 / divisor, 1.0]))
        camera = Camera(camera.viewmat, scale @ camera.K, camera.width // divisor, camera.height // divisor)
    return camera, color, mask


@torch.no_grad()
def measure_held_out(model: CanonicalModel, capture: Capture) -> dict[str, float]:
    """PSNR in dB, SSIM and sharpness (relative to the truth's) of the canonical frame, inside the mask, held-out cameras."""
    shots = load_shots(capture, (capture.canonical,), held_out=True)
    if not shots:
        return {}
    rest = pose_states(model, capture, (capture.canonical,))[0]
    rows = []
    for shot in shots:
        camera, truth, mask = prepare_shot(shot, 1, model.face_means.device)
        color = rasterize(model.forward(rest), camera).color
        inside = (mask > 0.5).float()
        rows.append((psnr(color, truth, inside), ssim(color, truth, inside), sharpness(color, inside) / sharpness(truth, inside)))
    return dict(zip(("psnr_db", "ssim", "sharpness"), (float(np.mean(column)) for column in zip(*rows))))


@torch.no_grad()
def write_preview(model: CanonicalModel, capture: Capture, path: Path) -> None:
    """A held-out view beside its truth, and a pose beside its own."""
    poses = (capture.canonical, *capture.poses[:1])
    states = pose_states(model, capture, poses)
    columns = []
    for index, pose in enumerate(poses):
        named = {shot.camera: shot for shot in pose.shots}
        shot = next((named[name] for name in capture.held_out_cameras if name in named), pose.shots[0])
        color, _ = shot.load()
        columns += [color, (rasterize(model.forward(states[index]), shot.view).color.clamp(0, 1) * 255).round().byte().cpu()]
    height = min(len(column) for column in columns)
    unfinished = path.with_suffix(".partial.png")
    Image.fromarray(torch.cat([column[:height] for column in columns], dim=1).numpy()).save(unfinished)
    unfinished.replace(path)


def _geometry_groups(model: CanonicalModel, settings: RigSettings, pace: float) -> list[tuple[list[Tensor], float]]:
    """What is learned beside colour, with its rate."""
    return [
        ([model.face_log_scales, model.other_log_scales], pace * settings.scale_rate),
        ([model.face_quats, model.other_quats], pace * settings.quat_rate),
        ([model.face_opacity_logits, model.other_opacity_logits], pace * settings.opacity_rate),
        ([model.other_means], pace * settings.position_rate),
    ]

"""Stage 0: the canonical rig (C1-C4), from pictures of the face at rest and of poses that bare what rest hides.

Face Gaussians sit on the template's vertices and learn everything but their position; a fixed number of others (OTF)
start on the scaffold, learn position and attributes here, and are frozen afterwards. One triplane gives all colours and
is baked to RGB at the end. Poses move the head through the functions that animate it later.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.spatial import cKDTree
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from ..avatar.binding import NEIGHBOURS, bind, carry, group_transforms
from ..avatar.bundle import save_avatar
from ..avatar.face import FaceTemplate
from ..avatar.skinning import build_skin, turn_skin
from ..errors import InputError
from ..geometry import quat_multiply, rotmat_to_quat
from ..metrics.image import psnr, sharpness, ssim
from ..networks.appearance import TriplaneColor, TriplaneConfig
from ..rendering.rasterize import rasterize
from ..types import GaussianFrame, GaussianRig
from .checkpoint import RunningAverage, load_checkpoint, save_checkpoint
from .datasets.capture import Capture, Pose, Shot, open_capture
from .hull import visual_hull
from .losses import picture_loss
from .under_layer import SHADE, make_under_layer, mean_edge_length, vertex_normals

STATE, PREVIEW = "rig_state.safetensors", "rig_preview.png"
CHECKPOINT_SECONDS = 60.0
LIP_REGIONS = ("lip_upper", "lip_lower")
FLATNESS = 0.3  # of a new Gaussian: thickness over width
FACE_GROWTH = (-1.0, 0.45)  # natural log: how far a face Gaussian's scale may leave the spacing of its vertices
REST_GROWTH = (-1.6, 0.8)
FARTHEST_MOVE = 0.004  # metres that an OTF point may leave its start


@dataclass(frozen=True)
class RigSettings:
    steps: int
    views: int = 3  # pictures a step; colours are decoded once for all of them
    canonical_share: float = 0.5  # of the pictures; the rest are poses
    ssim_weight: float = 0.2
    position_rate: float = 4e-5  # metres
    scale_rate: float = 8e-3
    turn_rate: float = 4e-3
    opacity_rate: float = 4e-2
    plane_rate: float = 2e-2
    decoder_rate: float = 2e-3
    final_rate: float = 0.05  # of every rate, at the last step
    seed: int = 0


SCALES = {"demo": RigSettings(steps=2600), "dev": RigSettings(steps=160, views=2)}


def train_rig(data: Path, out: Path, *, scale: str = "demo", resume: bool = True, device: str = "auto") -> None:
    """Fit the canonical rig to `data` and seal face and rig into `out`; prints PSNR and SSIM on held-out cameras."""
    if scale not in SCALES:
        raise InputError(f"unknown scale {scale!r}; use {' or '.join(SCALES)}")
    settings, capture, out = SCALES[scale], open_capture(data), Path(out)
    target = torch.device("cuda" if device == "cuda" or device == "auto" and torch.cuda.is_available() else "cpu")
    began = time.monotonic()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write the avatar's folder {out}: {error.strerror}") from error
    head = RigModel(capture, settings.seed).to(target)
    fit_rig(head, capture, settings, out, resume=resume)
    rig = head.bake()
    scores = measure_rig(rig, capture)
    print("rig, held-out cameras: " + ", ".join(f"{name} {value:.3f}" for name, value in scores.items()))
    record = {
        "capture": capture.name, "scale": scale, "settings": asdict(settings), "gaussians": rig.num_gaussians,
        "seconds": round(time.monotonic() - began), "held_out": {name: round(value, 4) for name, value in scores.items()},
    }  # fmt: skip
    save_avatar(out, name=capture.name, fps=capture.fps, face=face_template(capture), rig=rig, training={"rig": record})
    (out / STATE).unlink(missing_ok=True)


def face_template(capture: Capture) -> FaceTemplate:
    """The subject's face as the avatar keeps it; `InputError` where the capture does not say which vertices are the lips."""
    missing = [name for name in (*LIP_REGIONS, "lips", "jaw") if name not in capture.regions]
    if missing:
        raise InputError(f"capture {capture.folder}: regions.json lacks {', '.join(missing)}")
    regions = {name: ids for name, ids in capture.regions.items() if name not in LIP_REGIONS}
    return FaceTemplate(capture.neutral, capture.faces, regions, *(capture.regions[name] for name in LIP_REGIONS))


class RigModel(nn.Module):
    """The head while it is fitted: what is learned as parameters, what is given as buffers."""

    def __init__(self, capture: Capture, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        neutral, faces = capture.neutral, capture.faces
        self.num_face = len(neutral)
        self.groups = capture.canonical.motion.groups if capture.canonical.motion else ()
        points, normals, group_ids = _starting_points(capture, [group.name for group in self.groups])
        self.num_free = len(points)
        under = make_under_layer(neutral, faces, torch.zeros_like(neutral))
        spacing = _spacing(points)
        scales = torch.cat((_flat(0.55 * mean_edge_length(neutral, faces)), _flat(0.6 * spacing))).clamp(min=2e-5).log()
        growth = torch.tensor([FACE_GROWTH] * self.num_face + [REST_GROWTH] * self.num_free)
        vertices, weights = bind(points, neutral)
        weights[group_ids >= 0] = 0
        for name, tensor in {
            "neutral": neutral, "faces": faces, "jaw": capture.regions["jaw"], "start": points,
            "start_scales": scales, "least": scales + growth[:, :1], "most": scales + growth[:, 1:],
            "under_means": under.means, "under_quats": under.quats, "under_scales": under.log_scales,
            "binding_vertices": torch.cat((vertices, under.binding_vertices)),
            "binding_weights": torch.cat((weights, under.binding_weights)),
            "group_ids": torch.cat((group_ids, torch.full((self.num_face,), -1))),
        }.items():  # fmt: skip
            self.register_buffer(name, tensor, persistent=False)
        self.moves = nn.Parameter(torch.zeros_like(points))
        self.log_scales = nn.Parameter(scales.clone())
        self.quats = nn.Parameter(rotmat_to_quat(_frames(torch.cat((vertex_normals(neutral, faces), normals)))))
        self.opacity_logits = nn.Parameter(torch.full((self.num_face + self.num_free,), 2.5))
        self.triplane = TriplaneColor(TriplaneConfig(extent=0.13, resolutions=(96, 512), channels=6, hidden=64))

    def colors(self) -> Tensor:  # [Q + free, 3]
        """From the triplane, at rest."""
        return self.triplane(torch.cat((self.neutral, (self.start + self.moves).detach())))

    def canonical(self, colors: Tensor) -> GaussianRig:
        """The rig as it stands; differentiable. The last Q rows are the dark layer beneath the face, which is not learned."""
        count = self.num_face
        under_opacity = torch.full((count,), 4.0, device=colors.device)
        return GaussianRig(
            means=torch.cat((self.neutral, self.start + self.moves, self.under_means)),
            quats=torch.cat((self.quats, self.under_quats)),
            log_scales=torch.cat((self.log_scales, self.under_scales)),
            opacity_logits=torch.cat((self.opacity_logits, under_opacity)),
            colors=torch.cat((colors, SHADE * colors[:count].detach())),
            num_face=count,
            binding_vertices=self.binding_vertices,
            binding_weights=self.binding_weights,
            group_ids=self.group_ids,
            groups=self.groups,
        )

    @torch.no_grad()
    def restrain(self) -> None:
        """Back into bounds after a step: no needles, no holes, no wandering points."""
        self.log_scales.clamp_(self.least, self.most)
        self.moves.clamp_(-FARTHEST_MOVE, FARTHEST_MOVE)

    @torch.no_grad()
    def bake(self) -> GaussianRig:
        rig = self.canonical(self.colors())
        return GaussianRig(**{
            name: value.detach().cpu().clone() if isinstance(value, Tensor) else value for name, value in vars(rig).items()
        } | {"quats": F.normalize(rig.quats, dim=-1).cpu()})  # fmt: skip


@dataclass(frozen=True)
class PosedTarget:
    """One pose of the head, worked out once: how it moves, and the pictures to match."""

    offsets: Tensor  # [V, 3] metres
    turns: Tensor  # [V, 4] of the skin
    transforms: Tensor  # [G, 4, 4]
    shots: tuple[tuple[Shot, Tensor, Tensor], ...]  # with colour over white and mask, uint8


def fit_rig(head: RigModel, capture: Capture, settings: RigSettings, out: Path, *, resume: bool) -> None:
    """Optimise `head` in place; keeps its progress and a preview in `out`, each minute."""
    targets = _gather_targets(head, capture)
    optimizer = torch.optim.Adam(
        [
            {"params": [head.moves], "lr": settings.position_rate},
            {"params": [head.log_scales], "lr": settings.scale_rate},
            {"params": [head.quats], "lr": settings.turn_rate},
            {"params": [head.opacity_logits], "lr": settings.opacity_rate},
            {"params": list(head.triplane.planes), "lr": settings.plane_rate},
            {"params": list(head.triplane.decode.parameters()), "lr": settings.decoder_rate},
        ],
        betas=(0.9, 0.99),
        eps=1e-12,
    )
    rates = [group["lr"] for group in optimizer.param_groups]
    average, state = RunningAverage(head, keep=0.98), out / STATE
    first = load_checkpoint(state, head, average, optimizer) if resume and state.is_file() else 0
    saved = time.monotonic()
    with tqdm(range(first, settings.steps), initial=first, total=settings.steps, desc="rig", unit="step", mininterval=2.0) as bar:
        for step in bar:
            for group, rate in zip(optimizer.param_groups, rates):
                group["lr"] = rate * min(1.0, (step + 1) / 20) * settings.final_rate ** (step / settings.steps)
            loss = _take_step(head, targets, settings, np.random.default_rng((settings.seed, step)), optimizer)
            head.restrain()
            average.update(head, step)
            if step % 20 == 0:
                bar.set_postfix(loss=f"{loss:.4f}")
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                save_checkpoint(state, head, average, optimizer, step + 1)
                _save_preview(head.bake(), capture, out / PREVIEW)
                saved = time.monotonic()
    average.copy_to(head)
    head.restrain()
    _save_preview(head.bake(), capture, out / PREVIEW)


def _take_step(
    head: RigModel, targets: list[PosedTarget], settings: RigSettings, rng: np.random.Generator, optimizer: torch.optim.Optimizer
) -> float:
    """One step on several pictures. Their colour gradients are summed before they pass through the triplane, once."""
    optimizer.zero_grad(set_to_none=True)
    colors = head.colors()
    leaf = colors.detach().requires_grad_()
    total = 0.0
    for _ in range(settings.views):
        is_canonical = len(targets) == 1 or rng.random() < settings.canonical_share
        target = targets[0] if is_canonical else targets[1 + rng.integers(len(targets) - 1)]
        shot, color, mask = target.shots[rng.integers(len(target.shots))]
        background = torch.from_numpy(rng.random(3, dtype=np.float32)).to(leaf.device)
        truth = _over(color.to(leaf.device), mask.to(leaf.device), background)
        image = rasterize(pose_rig(head.canonical(leaf), target), shot.view, background=background).color
        loss = picture_loss(image, truth, settings.ssim_weight) / settings.views
        loss.backward()
        total += float(loss.detach())
    colors.backward(leaf.grad)
    optimizer.step()
    return total


def pose_rig(rig: GaussianRig, target: PosedTarget) -> GaussianFrame:
    """The rig in a pose, carried as the animation carries it; differentiable in all that is learned."""
    count = rig.num_face
    means, quats = carry(
        rig.means[count:], rig.quats[count:], rig.binding_vertices, rig.binding_weights, rig.group_ids, target.transforms, target.offsets
    )
    return GaussianFrame(
        means=torch.cat((rig.means[:count] + target.offsets, means)),
        quats=torch.cat((quat_multiply(target.turns, rig.quats[:count]), quats)),
        scales=rig.log_scales.exp(),
        opacities=torch.sigmoid(rig.opacity_logits),
        colors=rig.colors,
    )


@torch.no_grad()
def measure_rig(rig: GaussianRig, capture: Capture) -> dict[str, float]:
    """PSNR, SSIM and sharpness against the truth's, inside the head's mask, at rest, from cameras that did not train."""
    shots = [shot for shot in capture.canonical.shots if shot.camera in capture.held_out_cameras] or list(capture.canonical.shots)
    frame = _at_rest(rig)
    found = []
    for shot in shots:
        truth, mask = (tensor.float() / 255 for tensor in shot.load())
        image = rasterize(frame, shot.view).color
        found.append((psnr(image, truth, mask), ssim(image, truth, mask), sharpness(image, mask) / max(sharpness(truth, mask), 1e-9)))
    return dict(zip(("psnr_db", "ssim", "sharpness"), np.mean(found, axis=0).tolist()))


def _at_rest(rig: GaussianRig) -> GaussianFrame:
    return GaussianFrame(rig.means, rig.quats, rig.log_scales.exp(), torch.sigmoid(rig.opacity_logits), rig.colors)


def _gather_targets(head: RigModel, capture: Capture) -> list[PosedTarget]:
    """The canonical frame first, then the poses; held-out cameras left out."""
    device = head.neutral.device
    with torch.no_grad():
        rig = head.canonical(head.colors())
        skin = build_skin(rig, face_template(capture))
        return [_target(pose, rig, head, skin, capture.held_out_cameras, device) for pose in (capture.canonical, *capture.poses)]


def _target(pose: Pose, rig: GaussianRig, head: RigModel, skin, held_out: tuple[str, ...], device: torch.device) -> PosedTarget:
    offsets = pose.vertices.to(device) - head.neutral
    if pose.motion is not None:
        transforms = pose.motion.transforms[0].to(device)
    else:
        transforms = group_transforms(rig.groups, head.neutral, head.neutral + offsets, head.jaw, torch.zeros(2, device=device))
    shots = tuple((shot, *shot.load()) for shot in pose.shots if shot.camera not in held_out)
    if not shots:
        raise InputError(f"pose {pose.name} has no pictures from cameras that may train")
    return PosedTarget(offsets, turn_skin(skin, offsets), transforms, shots)


def _over(color: Tensor, mask: Tensor, background: Tensor) -> Tensor:  # [H, W, 3], [H, W] uint8, [3] -> [H, W, 3] 0..1
    """A picture over white, over another background instead."""
    return color.float() / 255 + (1 - mask.float()[..., None] / 255) * (background - 1)


def _starting_points(capture: Capture, groups: list[str]) -> tuple[Tensor, Tensor, Tensor]:
    """Points [P, 3], normals [P, 3] and rigid group ids [P] of everything that is not the face."""
    scaffold = capture.scaffold
    if scaffold is None:
        points, normals = visual_hull(capture)
        return points, normals, torch.full((len(points),), -1)
    of_part = torch.tensor([groups.index(name) if name in groups else -1 for name in scaffold.part_names])
    return scaffold.points, scaffold.normals, of_part[scaffold.parts]


def _spacing(points: Tensor) -> Tensor:  # [P, 3] -> [P] metres to the third neighbour, where that is sensible
    distances, _ = cKDTree(points.double().numpy()).query(points.double().numpy(), k=min(NEIGHBOURS, len(points)))
    far = torch.from_numpy(distances[:, -1]).float()
    return far.clamp(min=2e-4, max=float(far.median()) * 4)


def _flat(width: Tensor) -> Tensor:  # [P] -> [P, 3], thin along the third axis
    return torch.stack((width, width, FLATNESS * width), dim=-1)


def _frames(normals: Tensor) -> Tensor:  # [P, 3] -> [P, 3, 3] with the normal as the third column
    normals = F.normalize(normals, dim=-1)
    tangents = F.normalize(torch.linalg.cross(F.one_hot(normals.abs().argmin(dim=-1), 3).to(normals), normals), dim=-1)
    return torch.stack((tangents, torch.linalg.cross(normals, tangents), normals), dim=-1)


@torch.no_grad()
def _save_preview(rig: GaussianRig, capture: Capture, path: Path) -> None:
    """The first canonical camera, truth and rig side by side."""
    shot = capture.canonical.shots[0]
    truth = shot.load()[0].numpy()
    image = (rasterize(_at_rest(rig), shot.view).color.clamp(0, 1) * 255).round().byte().cpu().numpy()
    unfinished = path.with_suffix(".tmp")
    Image.fromarray(np.concatenate((truth, image), axis=1)).save(unfinished, format="PNG")
    unfinished.replace(path)

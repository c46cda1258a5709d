"""Stage 3: RotNet, feature line and OPCNet, from pictures of a moving face (C10-C13). The canonical rig is frozen.

First RotNet alone learns by plain reconstruction, then opacity joins with its losses (A19). Expressions are drawn so
that rare ones count as much as common ones. Only the face's part of a picture is rendered and compared.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..action_units import MAX_OVER_RANGE
from ..avatar.animation import compose_frame
from ..avatar.bundle import save_avatar
from ..avatar.face import FaceTemplate, load_face
from ..avatar.rig import load_rig
from ..avatar.skinning import SkinTables, build_skin
from ..errors import InputError
from ..networks.appearance import AppearanceChange, AppearanceConfig, AppearanceDecoder
from ..rendering.rasterize import rasterize
from ..types import Camera, GaussianRig
from .checkpoint import RunningAverage, load_checkpoint, save_checkpoint
from .datasets.capture import Capture, GroupMotion, Shot, TalkingSequence, open_capture
from .losses import feature_line_loss, opacity_motion_loss, picture_loss, sparse_opacity_loss, still_opacity_loss

STATE = "appearance_state.safetensors"
CROP_MARGIN = 12  # pixels around the face
WRINKLE_REGIONS = ("AU04", "AU06", "AU09", "AU12")


@dataclass(frozen=True)
class AppearanceSettings:
    steps: int
    rotation_share: float = 0.1  # of the steps, before opacity joins
    line_rate: float = 2e-2
    network_rate: float = 2e-3
    ssim_weight: float = 0.2
    # In squared units of logit; the paper gives none. At 0.01 the moving jaw turns translucent for its sake.
    opacity_motion_weight: float = 1e-4
    still_weight: float = 1e-3
    # Without these two, skin that no picture corrects fades where expressions meet: a cheek grew a dark patch, 0.2 of full
    # scale, whenever a smiling head spoke. The first is for the faces in the pictures, the second for mixtures of two of them.
    # They join when the creases have formed: from the start, they would keep everything at nothing. What they cost: of the
    # 1.2 dB that the stage gains in the demo's wrinkles without them, 0.5 are kept; at three times these weights 0.4, at thirty
    # times 0.2. The smiling cheek, at worst 0.2 darker without them, is 0.08 darker with them.
    sparse_weight: float = 3e-5
    mixed_weight: float = 1e-4
    thrift_shares: tuple[float, float] = (0.4, 0.7)  # of the steps: where they begin, and where they have their whole weight
    clusters: int = 16
    seed: int = 0
    opacity_hears_codes: bool = True


SCALES = {"demo": AppearanceSettings(steps=2400), "dev": AppearanceSettings(steps=200)}


@dataclass(frozen=True)
class DynamicShot:
    """One picture of the moving face, cut down to the face."""

    pose: int  # index of its frame among all poses
    camera: Camera
    color: Tensor  # [h, w, 3] uint8, over white


@dataclass(frozen=True)
class DynamicPose:
    """What the face did when those pictures were taken."""

    codes: Tensor  # [17] 0..5
    offsets: Tensor  # [Q, 3] metres
    gaze: Tensor  # [2] radians
    transforms: Tensor  # [G, 4, 4] of the rig's groups


@dataclass(frozen=True)
class DynamicSet:
    poses: tuple[DynamicPose, ...]
    shots: tuple[DynamicShot, ...]


@dataclass(frozen=True)
class Stage:
    """The frozen head and what may be worked out of it once."""

    rig: GaussianRig
    tables: SkinTables
    backend: str

    def render(self, pose: DynamicPose, camera: Camera, change: AppearanceChange | None) -> Tensor:  # [h, w, 3]
        frame = compose_frame(self.rig, self.tables, pose.offsets, pose.gaze, change, pose.transforms)
        return rasterize(frame, camera, backend=self.backend).color


ABLATIONS = ("no-aus",)  # an opacity decoder that is not told the codes


def train_appearance(
    data: Path, out: Path, *, scale: str = "demo", resume: bool = True, device: str = "auto", ablation: str | None = None
) -> None:
    """Train the appearance decoder on `data` for the rig in `out`, and seal it into `out`; prints what it gains.

    `ablation` names one of `ABLATIONS`: a poorer network, to be held against the full one.
    """
    if scale not in SCALES:
        raise InputError(f"unknown scale {scale!r}; use {' or '.join(SCALES)}")
    if ablation is not None and ablation not in ABLATIONS:
        raise InputError(f"appearance has no ablation {ablation!r}; there is {' and '.join(ABLATIONS)}")
    settings, capture, out = replace(SCALES[scale], opacity_hears_codes=ablation is None), open_capture(data), Path(out)
    if not (out / "rig.safetensors").is_file():
        raise InputError(f"{out} holds no rig yet; run `avatar-viewer train rig --data {data} --out {out}` first")
    rig, face = load_rig(out / "rig.safetensors"), load_face(out / "face.safetensors")
    if face.neutral.shape != capture.neutral.shape:
        raise InputError(
            f"the rig in {out} has {len(face.neutral)} face vertices, the capture {data} {len(capture.neutral)}; train rig first"
        )
    target = torch.device("cuda" if device == "cuda" or device == "auto" and torch.cuda.is_available() else "cpu")
    rig, face = _to_device(rig, face, target)
    stage = Stage(rig, build_skin(rig, face), "gsplat" if target.type == "cuda" else "cpu")
    training, held_out = (gather_shots(capture, split, rig, face) for split in ("train", "test"))
    if not training.shots:
        raise InputError(
            f"capture {data} holds no picture of a talking face (sequences/*/images); the appearance stage needs some"
        )
    began = time.monotonic()
    decoder = fit_appearance(stage, training, settings, state=out / STATE, resume=resume)
    scores = measure_gain(stage, decoder, held_out, face)
    for name, (without, within) in scores.items():
        print(f"appearance, held-out {name}: {without:.2f} dB without, {within:.2f} dB with: {within - without:+.2f} dB")
    record = {
        "capture": capture.name, "scale": scale, "settings": asdict(settings),
        "pictures": len(training.shots), "poses": len(training.poses),
        "seconds": round(time.monotonic() - began), "held_out_psnr_db": {k: [round(x, 3) for x in v] for k, v in scores.items()},
    }  # fmt: skip
    save_avatar(out, appearance=decoder.cpu(), training={"appearance": record})
    (out / STATE).unlink(missing_ok=True)


def fit_appearance(
    stage: Stage,
    data: DynamicSet,
    settings: AppearanceSettings,
    *,
    state: Path | None = None,  # where the progress is kept, each minute
    resume: bool = False,
) -> AppearanceDecoder:
    """A decoder fitted to the pictures; in evaluation mode, the average of its last steps."""
    rig, count = stage.rig, stage.rig.num_face
    device = rig.means.device
    torch.manual_seed(settings.seed)
    config = AppearanceConfig(count, opacity_hears_codes=settings.opacity_hears_codes)
    decoder = AppearanceDecoder(config).to(device)
    networks = [parameter for name, parameter in decoder.named_parameters() if not name.startswith("line.")]
    optimizer = torch.optim.Adam(
        [{"params": [decoder.line.values], "lr": settings.line_rate}, {"params": networks, "lr": settings.network_rate}],
        betas=(0.9, 0.99),
    )
    rates = [group["lr"] for group in optimizer.param_groups]
    average = RunningAverage(decoder, keep=0.98)
    first = load_checkpoint(state, decoder, average, optimizer) if resume and state is not None and state.is_file() else 0
    chances = expression_chances(data, settings)
    gamma = mm_per_unit(data)
    saved = time.monotonic()
    with tqdm(
        range(first, settings.steps), initial=first, total=settings.steps, desc="appearance", unit="step", mininterval=2.0
    ) as bar:
        for step in bar:
            for group, rate in zip(optimizer.param_groups, rates):
                group["lr"] = rate * learning_rate_share(step / settings.steps)
            rng = np.random.default_rng((settings.seed, step))
            shot = data.shots[rng.choice(len(data.shots), p=chances)]
            pose, other = data.poses[shot.pose], data.poses[rng.integers(len(data.poses))]
            has_opacity = step >= settings.rotation_share * settings.steps
            loss = appearance_loss(stage, decoder, pose, shot, settings, gamma, has_opacity)
            if thrift := thrift_share(step / settings.steps, settings):
                mixed = mix_poses(pose, other, float(rng.uniform(0.3, 1.0)))
                loss = loss + thrift * thrift_loss(stage, decoder, pose, mixed, settings)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(networks, 1.0)
            optimizer.step()
            average.update(decoder, step)
            if step % 20 == 0:
                bar.set_postfix(loss=f"{loss.item():.4f}", refresh=False)
            if state is not None and time.monotonic() - saved > 60:
                save_checkpoint(state, decoder, average, optimizer, step + 1)
                saved = time.monotonic()
    average.copy_to(decoder)
    return decoder.eval()


def appearance_loss(
    stage: Stage,
    decoder: AppearanceDecoder,
    pose: DynamicPose,
    shot: DynamicShot,
    settings: AppearanceSettings,
    gamma: float,  # mm of motion a unit of opacity logit
    has_opacity: bool,
) -> Tensor:
    """Reconstruction; with opacity also equations 19 and 21, and A17 in the place of 22."""
    count = stage.rig.num_face
    change = decoder(stage.rig.quats[:count], pose.codes, stage.tables.neutral, pose.offsets)
    if not has_opacity:
        change = replace(change, opacity_logits=torch.zeros_like(change.opacity_logits))
    device = stage.rig.means.device
    truth = shot.color.to(device).float() / 255
    loss = picture_loss(stage.render(pose, shot.camera, change), truth, settings.ssim_weight)
    if not has_opacity:
        return loss
    logits = change.opacity_logits
    loss = loss + feature_line_loss(decoder.line.values)
    loss = loss + opacity_motion_loss(pose.offsets, logits, gamma, settings.opacity_motion_weight / gamma**2)
    return loss + still_opacity_loss(pose.offsets, logits, weight=settings.still_weight)


def mix_poses(pose: DynamicPose, other: DynamicPose, share: float) -> DynamicPose:
    """A face that was never pictured: `share` of another expression on top of one, as prompts and sliders lay them on speech."""
    codes = (pose.codes + share * other.codes).clamp(max=MAX_OVER_RANGE)
    return replace(pose, codes=codes, offsets=pose.offsets + share * other.offsets)


def thrift_loss(
    stage: Stage, decoder: AppearanceDecoder, pose: DynamicPose, mixed: DynamicPose, settings: AppearanceSettings
) -> Tensor:
    """What keeps opacity where no picture says that it must change."""
    quats, neutral = stage.rig.quats[: stage.rig.num_face], stage.tables.neutral
    pictured, unseen = (decoder(quats, face.codes, neutral, face.offsets).opacity_logits for face in (pose, mixed))
    return sparse_opacity_loss(pictured, settings.sparse_weight) + sparse_opacity_loss(unseen, settings.mixed_weight)


def thrift_share(share: float, settings: AppearanceSettings) -> float:
    """How much of `thrift_loss` counts, that share of the steps into the stage."""
    begin, whole = settings.thrift_shares
    return min(1.0, max(0.0, (share - begin) / (whole - begin)))


def learning_rate_share(share: float) -> float:
    """A short rise, then a cosine down to a fiftieth."""
    return min(1.0, 50 * share + 0.02) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share)))


def mm_per_unit(data: DynamicSet) -> float:
    """Gamma of eq. 21 (A17): 95 % of the face's points move less than this while their opacity changes by a unit."""
    moved = torch.stack([pose.offsets.norm(dim=-1) for pose in data.poses]).flatten()
    return max(0.1, 1000 * float(np.quantile(moved.cpu().numpy(), 0.95)))


def expression_chances(data: DynamicSet, settings: AppearanceSettings) -> np.ndarray:  # [shots]
    """How likely each picture is drawn: every cluster of expressions equally often (A19)."""
    labels = cluster_expressions(torch.stack([pose.codes for pose in data.poses]).cpu(), settings.clusters).numpy()
    of_shots = labels[[shot.pose for shot in data.shots]]
    weights = 1.0 / np.bincount(of_shots)[of_shots]
    return weights / weights.sum()


def cluster_expressions(codes: Tensor, clusters: int) -> Tensor:  # [P, 17] -> [P] int64
    """k-means from centres that are as far apart as can be; the same answer every time."""
    centres = codes[:1]
    while len(centres) < min(clusters, len(codes)):
        distances = torch.cdist(codes, centres).amin(dim=1)
        if distances.max() < 1e-6:
            break
        centres = torch.cat((centres, codes[distances.argmax()][None]))
    for _ in range(10):
        labels = torch.cdist(codes, centres).argmin(dim=1)
        centres = torch.stack(
            [codes[labels == n].mean(dim=0) if bool((labels == n).any()) else centre for n, centre in enumerate(centres)]
        )
    return torch.cdist(codes, centres).argmin(dim=1)


@torch.no_grad()
def measure_gain(
    stage: Stage, decoder: AppearanceDecoder, held_out: DynamicSet, face: FaceTemplate
) -> dict[str, tuple[float, float]]:
    """PSNR in dB without and with the decoder, averaged over pictures: over the face, and where it wrinkles."""
    count = stage.rig.num_face
    everywhere = torch.arange(count, device=stage.rig.means.device)
    wrinkled = torch.cat([face.regions[name] for name in WRINKLE_REGIONS if name in face.regions] or [everywhere]).unique()
    found: dict[str, list[tuple[float, float]]] = {"face": [], "wrinkle regions": []}
    for shot in held_out.shots:
        pose = held_out.poses[shot.pose]
        truth = shot.color.to(stage.rig.means.device).float() / 255
        change = decoder(stage.rig.quats[:count], pose.codes, stage.tables.neutral, pose.offsets)
        errors = [(stage.render(pose, shot.camera, c) - truth).square().mean(-1) for c in (None, change)]
        for name, rows in (("face", everywhere), ("wrinkle regions", wrinkled)):
            where = _region_mask(stage, pose, shot.camera, rows)
            if int(where.sum()) > 50:
                found[name].append(tuple(-10 * math.log10(max(1e-10, float(error[where].mean()))) for error in errors))
    return {name: tuple(float(np.mean(column)) for column in zip(*pairs)) for name, pairs in found.items() if pairs}


def _region_mask(stage: Stage, pose: DynamicPose, camera: Camera, rows: Tensor) -> Tensor:  # -> [h, w] bool
    """The pixels in which these face Gaussians are seen."""
    frame = compose_frame(stage.rig, stage.tables, pose.offsets, pose.gaze, None, pose.transforms)
    marks = torch.zeros_like(frame.colors).index_fill(0, rows, 1.0)
    return rasterize(replace(frame, colors=marks), camera, background=(0.0, 0.0, 0.0), backend=stage.backend).color[..., 0] > 0.5


def gather_shots(capture: Capture, split: str, rig: GaussianRig, face: FaceTemplate) -> DynamicSet:
    """Every picture of talking in `split`; pictures of held-out cameras count as test whatever their sequence."""
    poses: list[DynamicPose] = []
    shots: list[DynamicShot] = []
    for sequence in capture.sequences:
        if not sequence.pictured or not sequence.has_meshes:
            continue
        meshes, motion = sequence.meshes(), sequence.groups() if (sequence.folder / "groups.npz").exists() else None
        for frame in sequence.pictured:
            chosen = [shot for shot in capture.shots(sequence, frame) if _is_in_split(shot, sequence, capture, split)]
            if not chosen:
                continue
            pose = _pose_at(sequence, meshes[frame], motion, frame, rig, face)
            cropped = [_crop(shot, face.neutral + pose.offsets, len(poses)) for shot in chosen]
            shots += [shot for shot in cropped if shot is not None]
            poses.append(pose)
    return DynamicSet(tuple(poses), tuple(shots))


def _is_in_split(shot: Shot, sequence: TalkingSequence, capture: Capture, split: str) -> bool:
    is_test = sequence.split == "test" or shot.camera in capture.held_out_cameras
    return is_test == (split == "test")


def _pose_at(
    sequence: TalkingSequence, vertices: Tensor, motion: GroupMotion | None, frame: int, rig: GaussianRig, face: FaceTemplate
) -> DynamicPose:
    device = rig.means.device
    transforms = torch.eye(4).repeat(len(rig.groups), 1, 1)
    gaze = torch.zeros(2)
    if motion is not None:
        gaze = motion.gaze[frame]
        names = [group.name for group in motion.groups]
        for index, group in enumerate(rig.groups):
            if group.name in names:
                transforms[index] = motion.transforms[frame, names.index(group.name)]
    codes = sequence.au_codes.values[frame]
    return DynamicPose(codes.to(device), vertices.to(device) - face.neutral, gaze.to(device), transforms.to(device))


def _crop(shot: Shot, vertices: Tensor, pose: int) -> DynamicShot | None:
    """The part of a picture that shows the face, with the camera that sees just that; None where it shows none."""
    camera = shot.view
    seen = vertices.cpu() @ camera.viewmat[:3, :3].T + camera.viewmat[:3, 3]
    if float(seen[:, 2].min()) < 0.01:
        return None
    pixels = (seen / seen[:, 2:]) @ camera.K.T
    low, high = pixels[:, :2].amin(0) - CROP_MARGIN, pixels[:, :2].amax(0) + CROP_MARGIN
    left, top = max(0, int(low[0])), max(0, int(low[1]))
    right, bottom = min(camera.width, int(high[0]) + 1), min(camera.height, int(high[1]) + 1)
    if right - left < 16 or bottom - top < 16:
        return None
    color, _ = shot.load()
    intrinsics = camera.K.clone()
    intrinsics[0, 2] -= left
    intrinsics[1, 2] -= top
    part = (slice(top, bottom), slice(left, right))
    return DynamicShot(pose, Camera(camera.viewmat, intrinsics, right - left, bottom - top), color[part].clone())


def _to_device(rig: GaussianRig, face: FaceTemplate, device: torch.device) -> tuple[GaussianRig, FaceTemplate]:
    moved_rig = replace(rig, **{k: v.to(device) for k, v in vars(rig).items() if isinstance(v, Tensor)})
    regions = {name: region.to(device) for name, region in face.regions.items()}
    tensors = {k: v.to(device) for k, v in vars(face).items() if isinstance(v, Tensor)}
    return moved_rig, replace(face, **tensors, regions=regions)

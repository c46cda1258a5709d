"""Stage 3: rotation and opacity learned from pictures of a moving face."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from avatar_viewer.action_units import AU_NAMES
from avatar_viewer.avatar.animation import compose_frame
from avatar_viewer.avatar.bundle import save_avatar
from avatar_viewer.avatar.manifest import read_manifest
from avatar_viewer.avatar.skinning import build_skin
from avatar_viewer.errors import InputError
from avatar_viewer.geometry import orbit_camera
from avatar_viewer.networks.appearance import AppearanceChange
from avatar_viewer.rendering.rasterize import rasterize
from avatar_viewer.training import appearance as stage3
from avatar_viewer.training.appearance import (
    AppearanceSettings,
    DynamicPose,
    DynamicSet,
    DynamicShot,
    Stage,
    expression_chances,
    fit_appearance,
    gather_shots,
    measure_gain,
    mix_poses,
    mm_per_unit,
    train_appearance,
)
from avatar_viewer.training.datasets.capture import open_capture

BROW = AU_NAMES.index("AU04")
CAMERA = orbit_camera(0.0, 0.0, 0.6, 24.0, 48, 48)


def opaque(rig):
    """The tiny rig with bright skin over dark insides, so that a dip in opacity shows."""
    colors = torch.full_like(rig.colors, 0.1)
    colors[: rig.num_face] = 0.8
    return replace(rig, colors=colors, log_scales=rig.log_scales + 0.25)


def frown_pose(face, amount: float) -> DynamicPose:
    codes, offsets = torch.zeros(17), torch.zeros_like(face.neutral)
    codes[BROW] = amount
    offsets[face.regions["AU04"], 1] = -0.0006 * amount
    return DynamicPose(codes, offsets, torch.zeros(2), torch.eye(4).repeat(3, 1, 1))


def wrinkled(face, amount: float) -> AppearanceChange:
    """What the truth does: opacity falls along the brows with AU04."""
    logits = torch.zeros(len(face.neutral))
    logits[face.regions["AU04"]] = -0.9 * amount
    return AppearanceChange(torch.tensor([1.0, 0, 0, 0]).expand(len(logits), 4), logits)


def pictures(stage: Stage, face, amounts) -> DynamicSet:
    poses = tuple(frown_pose(face, amount) for amount in amounts)
    truths = [stage.render(pose, CAMERA, wrinkled(face, amount)) for pose, amount in zip(poses, amounts)]
    shots = tuple(DynamicShot(i, CAMERA, (truth * 255).round().to(torch.uint8)) for i, truth in enumerate(truths))
    return DynamicSet(poses, shots)


@pytest.fixture
def stage(tiny_rig, tiny_face) -> Stage:
    rig = opaque(tiny_rig)
    return Stage(rig, build_skin(rig, tiny_face), "cpu")


def test_wrinkles_that_come_with_a_unit_are_learned_and_held_out_strengths_gain(stage, tiny_face):
    training, held_out = pictures(stage, tiny_face, (0.0, 2.0, 5.0)), pictures(stage, tiny_face, (3.5,))
    decoder = fit_appearance(stage, training, AppearanceSettings(steps=40, line_rate=1e-1, network_rate=2e-2))
    without, within = measure_gain(stage, decoder, held_out, tiny_face)["wrinkle regions"]
    assert within > without + 3
    count = stage.rig.num_face
    change = decoder(stage.rig.quats[:count], held_out.poses[0].codes, stage.tables.neutral, held_out.poses[0].offsets)
    others = torch.ones(count, dtype=torch.bool)
    others[tiny_face.regions["AU04"]] = False
    assert change.opacity_logits[~others].mean() < 3 * change.opacity_logits[others].mean().clamp(max=0) - 0.3


def test_a_mixture_adds_up_codes_and_movements(stage, tiny_face):
    five, two = frown_pose(tiny_face, 5.0), frown_pose(tiny_face, 2.0)
    mixed = mix_poses(five, two, 0.5)
    torch.testing.assert_close(mixed.codes, five.codes + 0.5 * two.codes)
    torch.testing.assert_close(mixed.offsets, five.offsets + 0.5 * two.offsets)
    assert mix_poses(five, five, 1.0).codes.max() == 7.0  # what can be asked of an action unit at most


def test_skin_does_not_fade_where_expressions_meet_that_were_never_pictured_together(stage, tiny_face):
    training, count = pictures(stage, tiny_face, (0.0, 2.0, 5.0)), stage.rig.num_face
    # Forty steps and not 2,400, so that what keeps opacity must pull harder.
    settings = AppearanceSettings(steps=40, line_rate=1e-1, network_rate=2e-2, sparse_weight=1e-3, mixed_weight=3e-3)
    smile = frown_pose(tiny_face, 0.0)
    smile.codes[AU_NAMES.index("AU12")] = 5.0
    smile.offsets[:, 1] = 0.003  # all the skin moves, and no picture shows it
    training = replace(training, poses=(*training.poses, smile))
    mixed = mix_poses(training.poses[2], smile, 1.0)
    changes = []
    for chosen in (settings, replace(settings, sparse_weight=0.0, mixed_weight=0.0)):
        decoder = fit_appearance(stage, training, chosen)
        change = decoder(stage.rig.quats[:count], mixed.codes, stage.tables.neutral, mixed.offsets).opacity_logits.abs()
        outside = torch.ones(count, dtype=torch.bool)
        outside[tiny_face.regions["AU04"]] = False
        changes.append(change[outside].mean().item())
    assert changes[0] < 0.5 * changes[1]


def test_opacity_joins_only_after_the_rotation_share(stage, tiny_face):
    training = pictures(stage, tiny_face, (0.0, 5.0))
    decoder = fit_appearance(stage, training, AppearanceSettings(steps=4, rotation_share=1.0))
    assert not decoder.line.values.any() and not decoder.opacity.mlp.last.weight.any()
    assert decoder.rotation.mlp.last.weight.any()


def test_a_stopped_run_goes_on_where_it_was(stage, tiny_face, tmp_path, monkeypatch):
    training, settings = pictures(stage, tiny_face, (0.0, 5.0)), AppearanceSettings(steps=8, rotation_share=0.0)
    whole = fit_appearance(stage, training, settings)
    clock = iter(range(0, 10_000, 61))
    monkeypatch.setattr(stage3.time, "monotonic", lambda: next(clock))  # each look at the clock is a minute later
    original, seen = stage3.appearance_loss, []

    def stop_at_the_fifth(*args):
        seen.append(1)
        if len(seen) == 5:
            raise KeyboardInterrupt
        return original(*args)

    monkeypatch.setattr(stage3, "appearance_loss", stop_at_the_fifth)
    with pytest.raises(KeyboardInterrupt):
        fit_appearance(stage, training, settings, state=tmp_path / "state.safetensors")
    monkeypatch.setattr(stage3, "appearance_loss", original)
    resumed = fit_appearance(stage, training, settings, state=tmp_path / "state.safetensors", resume=True)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, atol=1e-5, rtol=1e-4, msg=name)


def test_rare_expressions_are_drawn_as_often_as_common_ones(tiny_face):
    poses = tuple(frown_pose(tiny_face, amount) for amount in (0.0,) * 8 + (5.0,) * 2)
    shots = tuple(DynamicShot(i, CAMERA, torch.zeros(1)) for i in range(10))
    chances = expression_chances(DynamicSet(poses, shots), AppearanceSettings(steps=1))
    assert chances[:8].sum() == pytest.approx(0.5) and chances[8:].sum() == pytest.approx(0.5)


def test_gamma_is_the_motion_that_nearly_all_points_stay_under(tiny_face):
    pose = frown_pose(tiny_face, 0.0)
    offsets = torch.zeros_like(pose.offsets)
    offsets[:50, 0] = 0.004
    assert mm_per_unit(DynamicSet((replace(pose, offsets=offsets),), ())) == pytest.approx(4.0)


# ------------------------------------------------------------------------------------------------------------ captures


def write_capture(folder: Path, rig, face, tables) -> None:
    """A capture of three pictured sequences in the neutral layout, rendered from the rig itself."""
    sequences = {"sweep": ("train", (0.0, 3.0, 5.0)), "talk": ("train", (1.0, 4.0)), "exam": ("test", (2.5,))}
    cameras = {"front": CAMERA, "held": orbit_camera(15.0, 0.0, 0.6, 24.0, 48, 48)}
    stage = Stage(rig, tables, "cpu")
    (folder / "canonical").mkdir(parents=True)
    lines = ["v " + " ".join(f"{x:.9f}" for x in vertex) for vertex in face.neutral.tolist()]
    lines += ["f " + " ".join(str(i + 1) for i in triangle) for triangle in face.faces.tolist()]
    (folder / "template.obj").write_text("\n".join(lines))
    regions = {name: region.tolist() for name, region in face.regions.items()}
    regions |= {"lip_upper": face.lip_upper.tolist(), "lip_lower": face.lip_lower.tolist()}
    (folder / "regions.json").write_text(json.dumps(regions))
    entries = {
        name: {
            "K": c.K.tolist(),
            "D": [0.0] * 5,
            "camera_to_world": torch.linalg.inv(c.viewmat.double()).tolist(),
            "width": 48,
            "height": 48,
        }
        for name, c in cameras.items()
    }
    (folder / "cameras.json").write_text(json.dumps(entries))
    index = {"format": 1, "name": "tiny", "units": "metres", "fps": 25.0, "cameras": list(cameras), "poses": [], "sequences": {}}
    index["split"] = {"held_out_cameras": ["held"], "held_out_voices": []}
    save_picture(folder / "canonical" / "front.png", stage.render(frown_pose(face, 0.0), CAMERA, None))
    for name, (split, amounts) in sequences.items():
        place = folder / "sequences" / name
        poses = [frown_pose(face, amount) for amount in amounts]
        place.mkdir(parents=True)
        (place / "audio.wav").write_bytes(b"")
        header = ",".join(["frame", "timestamp", *(f" {au}_r" for au in AU_NAMES)])
        rows = [",".join([str(i), f"{i / 25:.3f}", *(f"{v:.3f}" for v in pose.codes.tolist())]) for i, pose in enumerate(poses)]
        (place / "au.csv").write_text("\n".join([header, *rows]))
        np.savez(place / "meshes.npz", vertices=torch.stack([face.neutral + pose.offsets for pose in poses]).numpy())
        index["sequences"][name] = {"split": split, "fps": 25.0, "frames": len(poses), "pictured": list(range(len(poses)))}
        for frame, (pose, amount) in enumerate(zip(poses, amounts)):
            for camera, view in cameras.items():
                if camera == "front" or split == "test":
                    save_picture(place / "images" / camera / f"{frame:05d}.png", stage.render(pose, view, wrinkled(face, amount)))
    (folder / "capture.json").write_text(json.dumps(index))


def save_picture(path: Path, picture: torch.Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((picture.clamp(0, 1) * 255).round().to(torch.uint8).numpy()).save(path)


@pytest.fixture
def capture(tmp_path, tiny_face, stage) -> Path:
    write_capture(tmp_path / "capture", stage.rig, tiny_face, stage.tables)
    return tmp_path / "capture"


def test_pictures_are_cut_to_the_face_and_their_cameras_with_them(capture, stage, tiny_face):
    training = gather_shots(open_capture(capture), "train", stage.rig, tiny_face)
    assert (len(training.poses), len(training.shots)) == (5, 5)
    shot, pose = training.shots[0], training.poses[0]
    assert shot.color.shape[:2] == (shot.camera.height, shot.camera.width) and shot.camera.height <= 48
    again = stage.render(pose, shot.camera, None)
    torch.testing.assert_close(again, shot.color.float() / 255, atol=0.01, rtol=0)


def test_held_out_cameras_and_test_sequences_are_never_trained_on(capture, stage, tiny_face):
    held_out = gather_shots(open_capture(capture), "test", stage.rig, tiny_face)
    assert [round(pose.codes[BROW].item(), 1) for pose in held_out.poses] == [2.5] and len(held_out.shots) == 2


def test_the_stage_seals_its_part_prints_its_gain_and_leaves_nothing_behind(
    capture, stage, tiny_face, tmp_path, capsys, monkeypatch
):
    monkeypatch.setitem(stage3.SCALES, "dev", AppearanceSettings(steps=25, line_rate=1e-1, network_rate=2e-2))
    save_avatar(tmp_path / "out", name="tiny", face=tiny_face, rig=stage.rig)
    train_appearance(capture, tmp_path / "out", scale="dev", resume=False, device="cpu")
    assert "held-out wrinkle regions" in capsys.readouterr().out
    manifest = read_manifest(tmp_path / "out", [])
    without, within = manifest["training"]["appearance"]["held_out_psnr_db"]["wrinkle regions"]
    assert within > without + 0.5
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert files == ["appearance.safetensors", "avatar.json", "face.safetensors", "rig.safetensors"]


def test_a_capture_of_another_head_is_refused(capture, stage, tiny_face, tmp_path):
    save_avatar(tmp_path / "out", face=tiny_face, rig=stage.rig)
    lines = (capture / "template.obj").read_text() + "\nv 0 0 0"
    (capture / "template.obj").write_text(lines)
    with pytest.raises(InputError, match="train rig first"):
        train_appearance(capture, tmp_path / "out", scale="dev", resume=False, device="cpu")


def test_the_frozen_head_is_what_animation_shows(stage, tiny_face):
    pose = frown_pose(tiny_face, 3.0)
    frame = compose_frame(stage.rig, stage.tables, pose.offsets, pose.gaze, wrinkled(tiny_face, 3.0), pose.transforms)
    assert torch.equal(rasterize(frame, CAMERA, backend="cpu").color, stage.render(pose, CAMERA, wrinkled(tiny_face, 3.0)))

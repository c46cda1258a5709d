"""The canonical stage on a crude capture: it learns, keeps its promises, resumes, and writes a rig that loads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from studio.crude_capture import write_crude_capture

from avatar_viewer.avatar.rig import load_rig
from avatar_viewer.metrics.image import psnr
from avatar_viewer.rendering.rasterize import rasterize
from avatar_viewer.training import rig as stage
from avatar_viewer.training.canonical_model import FACE_TANGENT, LINING_DEPTH, build_model, distance_to_border, spacing
from avatar_viewer.training.datasets.capture import Capture, open_capture
from avatar_viewer.training.visual_hull import carve_points
from avatar_viewer.types import Camera

pytest.importorskip("mitsuba")
QUICK = stage.RigSettings(steps=60, others=250, polish_steps=4)


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Capture:
    out = tmp_path_factory.mktemp("capture") / "crude"
    write_crude_capture(out)
    return open_capture(out)


def _front_psnr(model: stage.CanonicalModel, capture: Capture) -> float:
    rest = stage.pose_states(model, capture, (capture.canonical,))[0]
    shot = next(shot for shot in stage.load_shots(capture, (capture.canonical,), held_out=True))
    camera, truth, mask = stage.prepare_shot(shot, 1, torch.device("cpu"))
    with torch.no_grad():
        return psnr(rasterize(model.forward(rest), camera).color, truth, (mask > 0.5).float())


def test_training_improves_a_held_out_view_and_keeps_face_positions_and_bounds(capture: Capture, tmp_path: Path):
    torch.manual_seed(0)
    model = build_model(capture, QUICK.others, 0)
    before, hair_before = _front_psnr(model, capture), model.other_means.detach().clone()
    stage.fit_rig(model, capture, QUICK, tmp_path, resume=False)
    assert _front_psnr(model, capture) > before + 3
    rig = model.bake()
    assert torch.equal(rig.means[: rig.num_face], capture.neutral)  # C1: in place
    assert not torch.equal(model.other_means, hair_before)  # C2: learned
    ratio = (model.face_log_scales[:, :2] - model.face_spacing[:, None]).exp()
    assert ratio.min() >= FACE_TANGENT[0] - 1e-4 and ratio.max() <= FACE_TANGENT[1] + 1e-4
    assert (tmp_path / stage.PREVIEW).exists()


def test_the_stage_seals_a_rig_that_loads_with_its_groups(capture: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(stage.SCALES, "dev", replace(QUICK, steps=3))
    stage.train_rig(capture.folder, tmp_path / "avatar", scale="dev")
    rig = load_rig(tmp_path / "avatar" / "rig.safetensors")
    assert rig.num_face == len(capture.neutral)
    assert [group.name for group in rig.groups] == ["teeth_lower", "eye_left", "eye_right"]
    assert {0, 1, 2} >= set(rig.group_ids.unique().tolist()) - {-1}
    assert (rig.binding_weights.sum(dim=1) <= 1.01).all()
    assert ((rig.colors >= 0) & (rig.colors <= 1)).all()


def test_an_interrupted_training_goes_on_where_it_was(capture: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    six = replace(QUICK, steps=6)
    torch.manual_seed(0)
    whole = build_model(capture, QUICK.others, 0)
    stage.fit_rig(whole, capture, six, tmp_path, resume=False)
    monkeypatch.setattr(stage, "CHECKPOINT_SECONDS", 0.0)
    interrupted = tmp_path / "interrupted"
    interrupted.mkdir()
    torch.manual_seed(0)
    model = build_model(capture, QUICK.others, 0)
    calls = iter(range(100))
    real = stage.rig_loss

    def stops(*arguments: object) -> torch.Tensor:
        if next(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(stage, "rig_loss", stops)
    with pytest.raises(KeyboardInterrupt):
        stage.fit_rig(model, capture, six, interrupted, resume=False)
    monkeypatch.setattr(stage, "rig_loss", real)
    fresh = build_model(capture, QUICK.others, 0)
    stage.fit_rig(fresh, capture, six, interrupted, resume=True)
    assert torch.allclose(fresh.face_log_scales, whole.face_log_scales, atol=1e-6)


def test_an_interrupted_polish_goes_on_without_the_first_pass(capture: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(stage.SCALES, "dev", replace(QUICK, steps=3, polish_steps=4))
    monkeypatch.setattr(stage, "CHECKPOINT_SECONDS", 0.0)
    real, calls = stage.rig_loss, []

    def stops(*arguments: object) -> torch.Tensor:
        calls.append(arguments)
        if len(calls) == 3 + 3:  # two steps of the polish are done
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(stage, "rig_loss", stops)
    with pytest.raises(KeyboardInterrupt):
        stage.train_rig(capture.folder, tmp_path / "halves", scale="dev")
    stage.train_rig(capture.folder, tmp_path / "halves", scale="dev", resume=True)
    assert len(calls) == 3 + 3 + 2  # what was left of the polish, and nothing else
    monkeypatch.setattr(stage, "rig_loss", real)
    stage.train_rig(capture.folder, tmp_path / "whole", scale="dev")
    halves, whole = (load_rig(tmp_path / name / "rig.safetensors") for name in ("halves", "whole"))
    assert torch.allclose(halves.colors, whole.colors, atol=2e-3) and torch.allclose(
        halves.log_scales, whole.log_scales, atol=1e-2
    )
    assert not list((tmp_path / "halves").glob("rig_*.safetensors"))  # progress is not part of an avatar


def test_freed_colors_start_from_the_triplane_and_are_kept_in_range(capture: Capture):
    model = build_model(capture, QUICK.others, 0)
    rest = stage.pose_states(model, capture, (capture.canonical,))[0]
    before = model.forward(rest).colors.detach()
    model.free_colors()
    assert torch.equal(model.forward(rest).colors, before)
    with torch.no_grad():
        model.polished += 2
    model.keep_bounds()
    assert model.polished.max() == 1


def test_the_under_layer_is_spread_evenly_behind_the_skin_and_keeps_off_the_border(capture: Capture):
    model = build_model(capture, QUICK.others, 0)
    chosen = set(model.lining.tolist())
    assert chosen
    assert not any(len({a, b, c} & chosen) > 1 for a, b, c in capture.faces.tolist())  # no two are neighbours
    behind = (capture.neutral[model.lining] - model.lining_means).norm(dim=1)
    assert torch.allclose(behind, torch.full_like(behind, LINING_DEPTH), atol=1e-5)
    assert distance_to_border(capture.neutral, capture.faces)[model.lining].min() > 2 * LINING_DEPTH


def test_half_size_pictures_show_the_same_scene(capture: Capture):
    shot = stage.load_shots(capture, (capture.canonical,))[0]
    camera, color, _ = stage.prepare_shot(shot, 2, torch.device("cpu"))
    assert (camera.width, camera.height) == (24, 24) and color.shape == (24, 24, 3)
    assert torch.allclose(color[0, 0], shot.color[:2, :2].float().mean(dim=(0, 1)) / 255)
    full, half = shot.camera, camera
    point = torch.tensor([0.02, 0.03, 0.05])

    def pixel(view: Camera) -> torch.Tensor:
        p = view.K @ (view.viewmat[:3, :3] @ point + view.viewmat[:3, 3])
        return p[:2] / p[2]

    assert torch.allclose(pixel(full), 2 * pixel(half), atol=1e-4)


def test_without_a_scaffold_the_masks_are_carved(capture: Capture):
    points, normals = carve_points(capture, 200, 0)
    assert points.shape == normals.shape == (200, 3)
    assert (torch.cdist(points, capture.neutral).amin(dim=1) > 0.001).all()
    assert points[:, 2].min() < -0.03  # the back of the head is there
    assert points.norm(dim=1).median() < 0.25


def test_spacing_is_the_distance_to_the_third_neighbour():
    line = torch.tensor([[0.0, 0, 0], [0.001, 0, 0], [0.003, 0, 0], [0.006, 0, 0], [0.010, 0, 0]])
    assert spacing(line).tolist() == pytest.approx([0.006, 0.005, 0.003, 0.005, 0.009])

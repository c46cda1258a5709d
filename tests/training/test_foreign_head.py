"""A head that the studio did not make goes from its file through a capture to a trained rig that loads and moves."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from studio.crude_capture import write_crude_capture
from studio.other_head import build_other_head
from studio.rig_files import write_glb

from avatar_viewer.avatar.face import load_face
from avatar_viewer.avatar.rig import load_rig
from avatar_viewer.avatar.skinning import build_skin, place_gaussians
from avatar_viewer.studio import import_rig as importing
from avatar_viewer.training import rig as stage
from avatar_viewer.training.datasets.capture import open_capture

pytest.importorskip("mitsuba")


def test_from_glb_to_a_rig_whose_teeth_follow_the_jaw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importing, "FACE_VERTICES", 1000)  # as the file has it: the path is tested here, not the detail
    monkeypatch.setattr(importing, "PART_VERTICES", 400)
    write_glb(tmp_path / "head.glb", build_other_head(24, 16, 64), 100.0)
    rig = importing.import_rig(tmp_path / "head.glb", lambda line: None)
    write_crude_capture(tmp_path / "capture", rig=rig)
    capture = open_capture(tmp_path / "capture")
    monkeypatch.setitem(stage.SCALES, "dev", stage.RigSettings(steps=3, polish_steps=2, others=250))
    stage.train_rig(tmp_path / "capture", tmp_path / "avatar", scale="dev")
    trained, face = load_rig(tmp_path / "avatar" / "rig.safetensors"), load_face(tmp_path / "avatar" / "face.safetensors")
    assert torch.equal(trained.means[: trained.num_face], capture.neutral)
    kinds = {group.name: (group.parent, group.follows_gaze) for group in trained.groups}
    assert sorted(kinds.values()) == [("head", True), ("head", True), ("jaw", False), ("jaw", False)]  # eyes; teeth, tongue
    opened = torch.from_numpy(rig.shapes["AU26"])
    tables = build_skin(trained, face)
    quats = trained.quats[: trained.num_face]
    rest, moved = (
        place_gaussians(tables, trained, offsets, torch.zeros(2), quats)[0] for offsets in (torch.zeros_like(opened), opened)
    )
    drop = (rest - moved)[trained.num_face :, 1]
    ids = trained.group_ids
    teeth = next(index for index, group in enumerate(trained.groups) if "teeth" in group.name)
    still = [index for index, group in enumerate(trained.groups) if group.follows_gaze]
    assert drop[ids == teeth].mean() > 0.01
    assert drop[torch.isin(ids, torch.tensor(still))].abs().max() < 1e-6

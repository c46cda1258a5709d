"""The studio writes captures that the reader accepts, resumes them, and refuses to mix two; the reader names every fault."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from studio.crude_capture import write_crude_capture
from studio.crude_rig import build_crude_rig

from avatar_viewer.action_units import AU_NAMES
from avatar_viewer.config import SAMPLE_RATE
from avatar_viewer.errors import InputError
from avatar_viewer.geometry import fit_rigid
from avatar_viewer.studio import capture
from avatar_viewer.studio.blendshapes import RIG_CHANNELS
from avatar_viewer.studio.capture import run_studio
from avatar_viewer.studio.takes import read_sentences
from avatar_viewer.training.datasets.capture import open_capture
from avatar_viewer.training.datasets.openface import read_openface_csv
from avatar_viewer.training.datasets.undistort import Undistortion

pytest.importorskip("mitsuba")


@pytest.fixture(scope="module")
def capture_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("capture") / "crude"
    write_crude_capture(out)
    return out


def test_what_the_studio_writes_the_reader_accepts(capture_folder: Path):
    capture = open_capture(capture_folder)
    rig = build_crude_rig()
    assert torch.allclose(capture.neutral, torch.from_numpy(rig.face.vertices), atol=1e-6)
    assert torch.equal(capture.faces, torch.from_numpy(rig.face.faces).long())
    assert capture.held_out_cameras == ("test_front",)
    assert capture.held_out_voices == ("espeak:x",)
    assert len(capture.canonical.shots) == len(capture.cameras) == 8
    assert [pose.name for pose in capture.poses] == ["jaw_wide", "open_aa"]
    assert capture.scaffold is not None and 100 < len(capture.scaffold.points) <= 300
    train, test = capture.split("train"), capture.split("test")
    assert [s.name for s in train] == ["train_000"] and [s.name for s in test] == ["test_000"]
    assert len(capture.shots(train[0], 2)) == 2 and not capture.shots(train[0], 3)
    for frame in (2, 8):
        assert "close" in [shot.camera for shot in capture.shots(train[0], frame)], "every talking frame is seen near by"
    assert json.loads((capture_folder / "capture.json").read_text())["complete"]


def test_a_sequence_keeps_its_sound_phones_codes_and_coefficients(capture_folder: Path):
    sequence = open_capture(capture_folder).split("train")[0]
    assert len(sequence.samples) == round(0.4 * SAMPLE_RATE)
    assert sequence.phones == ((0.0, 0.1, "pau"), (0.1, 0.4, "aa"))
    assert sequence.text == "Ah."
    codes = sequence.au_codes
    assert codes.names == AU_NAMES
    assert codes.values[9, AU_NAMES.index("AU26")] == pytest.approx(5.0)
    assert codes.values[:, AU_NAMES.index("AU12")].tolist() == pytest.approx([2.0] * 10)
    values, channels = sequence.performance
    assert channels == RIG_CHANNELS and values.shape == (10, len(RIG_CHANNELS))


def test_the_teeth_of_a_pose_follow_the_jaw(capture_folder: Path):
    capture = open_capture(capture_folder)
    pose = capture.poses[0]
    names = [group.name for group in pose.motion.groups]
    jaw = capture.regions["jaw"]
    rotation, shift = fit_rigid(capture.neutral[jaw], pose.vertices[jaw])
    transform = pose.motion.transforms[0, names.index("teeth_lower")]
    assert shift.norm() > 0.005
    assert torch.allclose(transform[:3, :3], rotation, atol=1e-4) and torch.allclose(transform[:3, 3], shift, atol=1e-5)
    assert torch.equal(pose.motion.transforms[0, names.index("eye_left")], torch.eye(4))


def test_pictures_show_the_head_over_white_where_the_camera_says(capture_folder: Path):
    capture = open_capture(capture_folder)
    shot = next(shot for shot in capture.canonical.shots if shot.camera == "front")
    color, mask = shot.load()
    assert color.shape == (48, 48, 3) and (color[0, 0] == 255).all() and mask[0, 0] == 0
    nose = capture.neutral[capture.neutral[:, 2].argmax()]
    pixel = shot.view.K @ (shot.view.viewmat[:3, :3] @ nose + shot.view.viewmat[:3, 3])
    column, row = (pixel[:2] / pixel[2]).long().tolist()
    assert mask[row, column] == 255
    red, green, blue = color[row, column].tolist()
    assert 90 < red < 250 and red > green > blue  # lit skin, neither black nor burnt out


def test_a_second_run_writes_nothing_anew_and_a_lost_picture_comes_back_the_same(capture_folder: Path):
    lost = capture_folder / "canonical" / "front.png"
    before = lost.read_bytes()
    lost.unlink()
    kept = {path: path.stat().st_mtime_ns for path in capture_folder.rglob("*.png") if path.name != "front.png"}
    write_crude_capture(capture_folder)
    assert lost.read_bytes() == before
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in kept.items())


def test_a_folder_of_another_capture_is_refused(capture_folder: Path, tmp_path: Path):
    with pytest.raises(InputError, match="seed"):
        write_crude_capture(capture_folder, seed=1)
    (tmp_path / "holiday.txt").write_text("not a capture")
    with pytest.raises(InputError, match="not empty"):
        write_crude_capture(tmp_path)


def test_the_reader_lists_every_fault_at_once(capture_folder: Path, tmp_path: Path):
    broken = tmp_path / "broken"
    shutil.copytree(capture_folder, broken)
    (broken / "sequences" / "test_000" / "audio.wav").unlink()
    regions = json.loads((broken / "regions.json").read_text())
    regions["jaw"].append(10**6)
    (broken / "regions.json").write_text(json.dumps(regions))
    cameras = json.loads((broken / "cameras.json").read_text())
    del cameras["front"]["K"]
    (broken / "cameras.json").write_text(json.dumps(cameras))
    with pytest.raises(InputError) as caught:
        open_capture(broken)
    for word in ("audio.wav", "jaw", "front"):
        assert word in str(caught.value)
    with pytest.raises(InputError, match="no capture"):
        open_capture(tmp_path)


def test_a_damaged_picture_is_named(capture_folder: Path, tmp_path: Path):
    shutil.copytree(capture_folder, tmp_path / "c")
    (tmp_path / "c" / "canonical" / "front.png").write_bytes(b"\x89PNG but not for long")
    shot = next(shot for shot in open_capture(tmp_path / "c").canonical.shots if shot.camera == "front")
    with pytest.raises(InputError, match="front.png"):
        shot.load()
    Image.new("RGB", (20, 20)).save(tmp_path / "c" / "canonical" / "front.png")
    with pytest.raises(InputError, match="20 x 20"):
        shot.load()


def test_openface_columns_are_joined_by_name_and_failed_frames_filled(tmp_path: Path):
    path = tmp_path / "au.csv"
    path.write_text("frame, success, AU20_r, AU12_r, AU01_c\n1, 1, 3.0, 1.0, 1\n2, 0, 9.0, 5.0, 0\n3, 1, 3.0, 3.0, 1\n")
    codes = read_openface_csv(path)
    assert codes.values[:, AU_NAMES.index("AU12")].tolist() == [1.0, 2.0, 3.0]
    assert codes.values.sum() == 6.0  # AU20 drives nothing
    path.write_text("frame,success\n1,1\n")
    with pytest.raises(InputError, match="no AU intensity"):
        read_openface_csv(path)


def test_distortion_is_taken_out():
    K = np.array([[50.0, 0, 32], [0, 50.0, 32], [0, 0, 1]])
    D = np.array([0.2, 0.0, 0.0, 0.0, 0.0])
    x = np.mgrid[0:64, 0:64][1]
    picture = (4 * x).clip(0, 255).astype(np.uint8)
    flat = Undistortion(K, D, 64, 64).apply(picture, 0)
    # The ray at pixel centre 48.5 has x = 0.33; the lens drew it at 0.33 (1 + 0.2 r^2), r^2 = 0.33^2 + 0.01^2.
    ray = 16.5 / 50
    source = ray * (1 + 0.2 * (ray**2 + 0.01**2)) * 50 + 32 - 0.5
    assert flat[32, 48] == pytest.approx(4 * source, abs=1)
    assert np.array_equal(Undistortion(K, np.zeros(5), 64, 64).apply(picture, 0), picture)


def test_sentences_after_the_mark_are_held_out(tmp_path: Path):
    path = tmp_path / "s.txt"
    path.write_text("# note\nOne.\nTwo.\n# test\nThree.\n")
    assert read_sentences(path) == (["One.", "Two."], ["Three."])
    with pytest.raises(InputError, match="cannot read"):
        read_sentences(tmp_path / "none.txt")


@pytest.fixture
def ten_sentences(tmp_path: Path) -> Path:
    path = tmp_path / "ten.txt"
    path.write_text("".join(f"Sentence number {n}.\n" for n in range(10)))
    return path


@pytest.mark.parametrize("text", ["", "# only a note\n", "One.\nTwo.\n", "# test\nOne.\n"])
def test_too_few_sentences_are_refused_and_leave_nothing(tmp_path: Path, text: str):
    (tmp_path / "few.txt").write_text(text)
    with pytest.raises(InputError, match="few.txt holds . sentences to train on and . to test"):
        run_studio("builtin", tmp_path / "capture", "dev", tmp_path / "few.txt")
    assert not (tmp_path / "capture").exists()


def test_other_sentences_are_not_mixed_into_a_capture(tmp_path: Path, ten_sentences: Path, monkeypatch):
    made = []
    monkeypatch.setattr(capture, "open_rig", lambda source, say: build_crude_rig())
    monkeypatch.setattr(capture, "_write_capture", lambda rig, out, takes, *rest: made.append(capture._claim_folder(out, rest[2])))
    out = tmp_path / "capture"
    run_studio("builtin", out, "dev", ten_sentences)
    run_studio("builtin", out, "dev", ten_sentences)  # goes on
    ten_sentences.write_text(ten_sentences.read_text().replace("number 3", "without a number"))
    for sentences in (ten_sentences, None):
        with pytest.raises(InputError, match="holds a capture made with"):
            run_studio("builtin", out, "dev", sentences)
    assert len(made) == 2


def test_a_folder_with_other_things_is_refused_before_the_rig_is_built(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(capture, "open_rig", None)
    (tmp_path / "capture").mkdir()
    (tmp_path / "capture" / "made_with.json").write_text("half writ")
    with pytest.raises(InputError, match="does not say"):
        run_studio("builtin", tmp_path / "capture", "dev")
    (tmp_path / "capture" / "made_with.json").rename(tmp_path / "capture" / "holiday.jpg")
    with pytest.raises(InputError, match="holds no capture"):
        run_studio("builtin", tmp_path / "capture", "dev")

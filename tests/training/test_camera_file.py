"""The camera that a clip is rendered from, out of a file: read as a capture's, and refused in one line where it is none."""

import json

import numpy as np
import pytest
import soundfile
import torch

from avatar_viewer.cli import main
from avatar_viewer.errors import InputError
from avatar_viewer.geometry import orbit_camera
from avatar_viewer.training.datasets.camera_file import read_camera, read_cameras


@pytest.fixture
def entry() -> dict:
    view = orbit_camera(30, 10, 0.9, 24, 96, 64)
    pose = torch.linalg.inv(view.viewmat.double())
    return {"K": view.K.tolist(), "camera_to_world": pose.tolist(), "width": 96, "height": 64}


def write(path, value):
    path.write_text(json.dumps(value))
    return path


def test_an_entry_is_read_with_and_without_its_name(entry, tmp_path):
    expected = orbit_camera(30, 10, 0.9, 24, 96, 64)
    for value in (entry, {"left": entry}, entry | {"D": [0.1, 0, 0, 0, 0]}):
        camera = read_camera(write(tmp_path / "camera.json", value))
        torch.testing.assert_close(camera.viewmat, expected.viewmat, atol=1e-5, rtol=0)
        torch.testing.assert_close(camera.K, expected.K)
        assert (camera.width, camera.height) == (96, 64)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"K": None}, "K"),
        ({"K": [[1, 0], [0, 1]]}, "3 x 3"),
        ({"K": [[-50, 0, 48], [0, 50, 32], [0, 0, 1]]}, "-50"),
        ({"camera_to_world": [[float("nan")] * 4] * 4}, "camera_to_world must be"),
        ({"camera_to_world": [[2, 0, 0, 0], [0, 2, 0, 0], [0, 0, 2, 1], [0, 0, 0, 1]]}, "rotation"),
        ({"camera_to_world": [[0] * 4] * 4}, "rotation"),
        ({"width": 0}, "0 x 64"),
        ({"height": "tall"}, "tall"),
    ],
)
def test_a_camera_that_is_none_is_named(entry, change, said, tmp_path):
    with pytest.raises(InputError, match=said):
        read_camera(write(tmp_path / "camera.json", entry | change))
    faults = []
    assert read_cameras(write(tmp_path / "cameras.json", {"left": entry | change, "right": entry}), faults)[0].keys() == {"right"}
    assert len(faults) == 1 and "left" in faults[0]


def test_a_file_of_many_cameras_or_of_none_is_refused(entry, tmp_path):
    with pytest.raises(InputError, match="2 cameras there .left, right"):
        read_camera(write(tmp_path / "camera.json", {"left": entry, "right": entry}))
    for value in ([], {}, 7, "camera"):
        with pytest.raises(InputError, match="camera.json"):
            read_camera(write(tmp_path / "camera.json", value))
    del entry["K"]
    with pytest.raises(InputError, match="K"):
        read_camera(write(tmp_path / "camera.json", {"left": entry}))
    with pytest.raises(InputError, match="nowhere.json"):
        read_camera(tmp_path / "nowhere.json")


def test_a_clip_is_rendered_from_it(entry, tiny_avatar_folder, tmp_path, capsys):
    sound, camera = tmp_path / "tone.wav", write(tmp_path / "camera.json", entry)
    soundfile.write(sound, 0.2 * np.sin(np.arange(3200) / 20), 16_000)
    arguments = ["render", "--audio", str(sound), "--avatar", str(tiny_avatar_folder), "--size", "48x32", "--out"]
    assert main([*arguments, str(tmp_path / "front")]) == 0
    assert main([*arguments, str(tmp_path / "side"), "--camera", str(camera)]) == 0
    front, side = (sorted((tmp_path / name).glob("*.png")) for name in ("front", "side"))
    assert len(front) == len(side) == 5 and front[0].read_bytes() != side[0].read_bytes()
    assert main([*arguments, str(tmp_path / "none"), "--camera", str(tmp_path / "nowhere.json")]) == 2
    assert "nowhere.json" in capsys.readouterr().err and not (tmp_path / "none").exists()

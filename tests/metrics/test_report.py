"""`evaluate`: an avatar that is held against its own motion and its own pictures is perfect, and the report says so."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from avatar_viewer.action_units import AU_NAMES
from avatar_viewer.avatar.animation import Animator
from avatar_viewer.avatar.speech_motion import speak
from avatar_viewer.errors import InputError
from avatar_viewer.geometry import orbit_camera
from avatar_viewer.metrics import speech_report
from avatar_viewer.metrics.report import evaluate
from avatar_viewer.metrics.speech_report import measure_edits, measure_take
from avatar_viewer.rendering.rasterize import rasterize
from avatar_viewer.training.datasets.capture import open_capture
from avatar_viewer.types import AUEdit, MotionFrame

SECONDS = 1.4
CAMERA = orbit_camera(10.0, 0.0, 0.6, 24.0, 96, 96)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_avatar) -> Path:
    return write_own_capture(tmp_path_factory.mktemp("report") / "capture", tiny_avatar)


def write_own_capture(folder: Path, avatar) -> Path:
    """A capture whose truth is what this avatar does and looks like: one camera, one held-out take, two pictures."""
    face, rng = avatar.face, np.random.default_rng(0)
    place = folder / "sequences" / "exam"
    place.mkdir(parents=True)
    samples = (0.2 * rng.standard_normal(int(SECONDS * 16_000)) * (np.sin(np.arange(SECONDS * 16_000) / 1500) > 0)).astype(np.float32)
    soundfile.write(place / "audio.wav", samples, 16_000, subtype="FLOAT")
    window = speak(avatar, torch.from_numpy(samples), blinks=False)
    (place / "text.txt").write_text("ba")
    (place / "phones.csv").write_text("start,end,phone\n0.0,0.2,pau\n0.2,0.4,b\n0.4,1.0,aa\n1.0,1.4,pau\n")
    header = ",".join(["frame", "timestamp", *(f" {au}_r" for au in AU_NAMES)])
    rows = [",".join([str(i), f"{i / 25:.3f}", *(f"{v:.4f}" for v in codes)]) for i, codes in enumerate(window.au_codes.tolist())]
    (place / "au.csv").write_text("\n".join([header, *rows]))
    np.savez(place / "meshes.npz", vertices=(face.neutral + window.offsets).numpy())
    lines = ["v " + " ".join(f"{x:.9f}" for x in vertex) for vertex in face.neutral.tolist()]
    lines += ["f " + " ".join(str(i + 1) for i in triangle) for triangle in face.faces.tolist()]
    (folder / "template.obj").write_text("\n".join(lines))
    regions = {name: ids.tolist() for name, ids in face.regions.items()}
    regions |= {"lip_upper": face.lip_upper.tolist(), "lip_lower": face.lip_lower.tolist()}
    (folder / "regions.json").write_text(json.dumps(regions))
    camera = {"K": CAMERA.K.tolist(), "D": [0.0] * 5, "width": 96, "height": 96}
    camera["camera_to_world"] = torch.linalg.inv(CAMERA.viewmat.double()).tolist()
    (folder / "cameras.json").write_text(json.dumps({"held": camera}))
    index = {"format": 1, "name": "own", "units": "metres", "fps": 25.0, "cameras": ["held"], "poses": []}
    index["split"] = {"held_out_cameras": ["held"], "held_out_voices": []}
    index["sequences"] = {"exam": {"split": "test", "fps": 25.0, "frames": len(window.offsets), "pictured": [12], "kind": "performed"}}
    (folder / "capture.json").write_text(json.dumps(index))
    animator, still = Animator(avatar), torch.zeros_like(face.neutral)
    resting = MotionFrame(0.0, torch.zeros(17), torch.zeros(17), 0.0, still, torch.zeros(2))
    parts = (window.au_codes[12], window.au_applied[12], float(window.voice[12]), window.offsets[12], window.gaze[12])
    pictures = {"canonical/held.png": resting, "sequences/exam/images/held/00012.png": MotionFrame(12 / 25, *parts)}
    for name, frame in pictures.items():
        picture = rasterize(animator.pose(frame, AUEdit()), CAMERA)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((picture.color * 255).round().to(torch.uint8).numpy()).save(folder / name)
    mask = folder / "masks" / "held.png"
    mask.parent.mkdir()
    Image.fromarray(np.full((96, 96), 255, np.uint8)).save(mask)
    return folder


def test_an_avatar_is_perfect_against_its_own_truth(folder, tiny_avatar_folder, tmp_path):
    report = evaluate(tiny_avatar_folder, folder, tmp_path / "report")
    assert json.loads((tmp_path / "report" / "report.json").read_text()) == report
    assert report["canonical"]["psnr"] > 45 and report["talking"]["psnr"] > 45
    assert report["canonical"]["sharpness_ratio"] == pytest.approx(1.0, abs=0.05)
    mean = report["mean"]
    assert mean["lve_mm"] < 1e-3 and mean["vertex_rmse_mm"] < 1e-3 and mean["au_mae"] < 1e-3
    if mean["lip_excursion_mm"] > 0.1:
        assert mean["lip_gap_correlation"] == pytest.approx(1.0, abs=1e-4)
    assert report["aus"]["voice"]["mae"] < 1e-3 < report["aus"]["loudness_only"]["mae"]
    assert set(report["robustness"]) == set(speech_report.DISTURBANCES)
    assert report["edits"] == {} and any("no rig" in note for note in report["notes"])
    page = (tmp_path / "report" / "report.html").read_text()
    assert "<svg" in page and "data:image/jpeg" in page and "lip_gap_correlation" in page


def test_sliders_are_measured_against_the_shapes_of_a_rig(folder, tiny_avatar, monkeypatch):
    """The shapes are what the avatar's own denoiser adds for a unit, so the unit moves, and nothing is asked of the others."""
    monkeypatch.setattr(speech_report, "EDIT_LEVELS", (2.0, 4.0))
    sequence = open_capture(folder).split("test")[0]
    take = measure_take(tiny_avatar, sequence, (sequence.meshes() - tiny_avatar.face.neutral).numpy())
    offset = torch.zeros(17)
    offset[AU_NAMES.index("AU12")] = 4.0
    track = speech_report.EditTrack.constant(replace(AUEdit(), offset=offset))
    moved = speak(tiny_avatar, torch.from_numpy(sequence.samples), track, blinks=False).offsets - take.window.offsets
    edits = measure_edits(tiny_avatar, [take], {"AU12": moved.mean(dim=0).numpy() * 5 / 4})
    assert edits["by_au"]["AU12"]["obtained_at_most"] == pytest.approx(4.0, rel=1e-3)
    assert edits["by_au"]["AU12"]["requested_at_most"] <= 4.0 and 0 <= edits["leakage_mean"] <= 1


def test_disturbances_keep_the_length_and_do_what_they_say():
    tone = (0.4 * np.sin(2 * np.pi * 100 * np.arange(16_000) / 16_000)).astype(np.float32)
    found = {name: disturb(tone) for name, disturb in speech_report.DISTURBANCES.items()}
    assert all(len(sound) == len(tone) and np.isfinite(sound).all() for sound in found.values())
    assert np.abs(found["18 dB softer"]).max() == pytest.approx(0.4 * 10 ** (-0.9), rel=1e-3)
    assert (np.abs(found["6 dB louder, clipped"]) == 1.0).mean() > 0.3
    assert np.abs(found["telephone"][4000:]).max() < 0.02  # 100 Hz does not pass
    noise = found["noise at 20 dB"] - tone
    assert 10 * np.log10((tone**2).mean() / (noise**2).mean()) == pytest.approx(20, abs=0.3)


def test_another_subjects_capture_is_refused_in_one_line(folder, tiny_avatar_folder, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for path in folder.iterdir():
        (other / path.name).symlink_to(path)
    (other / "template.obj").unlink()
    (other / "template.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    (other / "regions.json").unlink()
    (other / "regions.json").write_text(json.dumps({"lips": [0], "lip_upper": [0], "lip_lower": [1], "upper_face": [2], "jaw": [0]}))
    with pytest.raises(InputError, match="own subject"):
        evaluate(tiny_avatar_folder, other, tmp_path / "report")

"""A clip is as long as its sound, shows what the networks said, and leaves nothing half-written."""

import math

import av
import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from avatar_viewer.action_units import au_index
from avatar_viewer.avatar.animation import pose_gaussians
from avatar_viewer.avatar.edit_track import EditTrack
from avatar_viewer.avatar.speech_motion import speak
from avatar_viewer.errors import InputError
from avatar_viewer.live.export import BACKGROUND, export_clip, export_motion
from avatar_viewer.live.handoff import MotionTimeline
from avatar_viewer.rendering.orbit import OrbitCamera
from avatar_viewer.rendering.rasterize import rasterize
from avatar_viewer.types import AUEdit

SIZE = (64, 48)


def voice(seconds):
    time = torch.arange(int(seconds * 16_000)) / 16_000
    return 0.3 * torch.sin(2 * math.pi * 180 * time) * (0.5 + 0.5 * torch.sin(2 * math.pi * 3 * time))


def smile(amount):
    offset = torch.zeros(17)
    offset[au_index("AU12")] = amount
    return EditTrack.constant(AUEdit(offset=offset))


def frames_of(folder):
    return [np.asarray(Image.open(path)) for path in sorted(folder.glob("frame_*.png"))]


@pytest.mark.parametrize(("rate", "seconds"), [(16_000, 0.73), (44_100, 1.01), (8_000, 0.5)])
def test_video_and_sound_have_the_sounds_length(tiny_avatar, tmp_path, rate, seconds):
    soundfile.write(tmp_path / "voice.wav", np.sin(np.arange(int(rate * seconds)) * 0.05) * 0.3, rate)
    done = export_clip(tiny_avatar, tmp_path / "voice.wav", tmp_path / "clip.mp4", size=SIZE, show_progress=False)
    assert done.frames == math.ceil(round(seconds * 16_000) * 25 / 16_000)
    with av.open(str(done.path)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert (video.frames, video.width, video.height) == (done.frames, *SIZE)
        assert abs(float(video.duration * video.time_base) - seconds) <= 0.04
        assert abs(float(audio.duration * audio.time_base) - seconds) <= 0.005
        assert audio.start_time == 0


def test_frames_are_those_of_one_shot_speech(tiny_avatar, tmp_path):
    samples, edits = voice(0.6), smile(3.0)
    export_clip(tiny_avatar, samples, tmp_path / "frames", edits=edits, size=SIZE, seed=4, show_progress=False)
    shown = frames_of(tmp_path / "frames")
    assert len(shown) == 15
    timeline = MotionTimeline(len(tiny_avatar.face.neutral))
    timeline.extend(speak(tiny_avatar, samples, edits, seed=4))
    for index in (0, 7, 14):
        frame = pose_gaussians(tiny_avatar, timeline.at(index / 25), edits.at(index / 25))
        color = rasterize(frame, OrbitCamera().camera(*SIZE), BACKGROUND).color
        assert np.abs(shown[index].astype(int) - (color * 255 + 0.5).byte().numpy()).max() <= 1


def test_edits_and_camera_change_the_picture(tiny_avatar, tmp_path):
    everything = EditTrack.constant(AUEdit(offset=torch.full((17,), 7.0), limit=7.0))  # far beyond what the random encoder hears
    near = OrbitCamera(distance=0.3, target=(0.0, 0.0, 0.09))
    for name, edits, camera in (("plain", None, near), ("edited", everything, near), ("aside", None, OrbitCamera(30.0, distance=0.3))):
        export_clip(tiny_avatar, voice(0.2), tmp_path / name, edits=edits, camera=camera, size=(128, 96), show_progress=False)
    plain, edited, aside = (frames_of(tmp_path / name)[4].astype(int) for name in ("plain", "edited", "aside"))
    assert (np.abs(plain - edited).max(axis=2) > 0).mean() > 0.3
    assert (np.abs(plain - aside).max(axis=2) > 20).mean() > 0.2


def test_the_rate_of_the_video_is_free(tiny_avatar, tmp_path):
    done = export_clip(tiny_avatar, voice(0.5), tmp_path / "a.mp4", size=SIZE, fps=60, show_progress=False)
    with av.open(str(done.path)) as container:
        assert container.streams.video[0].frames == done.frames == 30
        assert container.streams.video[0].average_rate == 60


def test_motion_of_a_take_is_rendered_as_it_is(tiny_avatar, tmp_path):
    samples, edits = voice(0.4), smile(4.0)
    motion = speak(tiny_avatar, samples, edits, seed=1)
    export_clip(tiny_avatar, samples, tmp_path / "spoken", edits=edits, size=SIZE, seed=1, show_progress=False)
    export_motion(tiny_avatar, motion, tmp_path / "taken", size=SIZE, show_progress=False)
    for spoken, taken in zip(frames_of(tmp_path / "spoken"), frames_of(tmp_path / "taken"), strict=True):
        assert np.abs(spoken.astype(int) - taken.astype(int)).max() <= 1


def test_a_contact_sheet_shows_twelve_moments(tiny_avatar, tmp_path):
    export_clip(tiny_avatar, voice(1.0), tmp_path / "a.mp4", size=SIZE, contact_sheet=tmp_path / "sheet.png", show_progress=False)
    assert Image.open(tmp_path / "sheet.png").size == (4 * SIZE[0], 3 * SIZE[1])


@pytest.mark.parametrize(
    ("out", "options", "words"),
    [
        ("clip.mov", {}, "only .mp4"),
        ("none/clip.mp4", {}, "does not exist"),
        ("none/frames", {}, "does not exist"),
        ("clip.mp4", {"size": (65, 48)}, "even size"),
        ("clip.mp4", {"fps": float("nan")}, "fps is nan"),
        ("clip.mp4", {"steps": 0}, "steps is 0"),
    ],
)
def test_what_cannot_be_written_is_said_and_nothing_is_left(tiny_avatar, tmp_path, out, options, words):
    with pytest.raises(InputError, match=words):
        export_clip(tiny_avatar, voice(0.2), tmp_path / out, **{"size": SIZE, "show_progress": False, **options})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("folder", ["precious", "precious.partial"])
def test_a_folder_with_other_things_is_not_touched(tiny_avatar, tmp_path, folder):
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "notes.txt").write_text("keep")
    with pytest.raises(InputError, match="holds other things"):
        export_clip(tiny_avatar, voice(0.2), tmp_path / "precious", size=SIZE, show_progress=False)
    assert (tmp_path / folder / "notes.txt").read_text() == "keep"


def test_a_failure_on_the_way_leaves_nothing(tiny_avatar, tmp_path, monkeypatch):
    from avatar_viewer.live import export

    calls = []

    def failing(*arguments):
        calls.append(1)
        if len(calls) > 3:
            raise RuntimeError("out of memory")
        return rasterize(*arguments)

    monkeypatch.setattr(export, "rasterize", failing)
    for out in ("clip.mp4", "frames"):
        calls.clear()
        with pytest.raises(RuntimeError):
            export_clip(tiny_avatar, voice(0.4), tmp_path / out, size=SIZE, show_progress=False)
    assert list(tmp_path.iterdir()) == []

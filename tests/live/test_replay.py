"""A live take, performed again from its take file, gives the pictures that were seen, bit for bit."""

import json
import time
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from avatar_viewer.action_units import au_index
from avatar_viewer.cli import main
from avatar_viewer.errors import InputError
from avatar_viewer.live import recording
from avatar_viewer.live.clock import SteppedClock
from avatar_viewer.live.export import BACKGROUND, export_take
from avatar_viewer.live.session import Session
from avatar_viewer.live.take_file import TakeFile, parse_log
from avatar_viewer.live.take_folder import LOG, TakeFolder
from avatar_viewer.rendering.orbit import OrbitCamera
from avatar_viewer.rendering.rasterize import rasterize
from avatar_viewer.types import AUEdit

SIZE = (64, 48)
STEP = 0.04


def voice(seconds):
    time_ = np.arange(int(seconds * 44_100)) / 44_100
    return (0.3 * np.sin(2 * np.pi * 150 * time_) * (0.5 + 0.5 * np.sin(2 * np.pi * 2.3 * time_))).astype(np.float32)


def smile(amount):
    offset = torch.zeros(17)
    offset[au_index("AU12")] = amount
    return AUEdit(offset=offset)


class Stage:
    """A session on a stepped clock that draws a picture a frame, as the window does, and keeps those of the take."""

    def __init__(self, avatar, folder, monkeypatch, voice_seconds=4.0):
        self.wall = 100.0
        monkeypatch.setattr(recording, "time", SimpleNamespace(monotonic=lambda: self.wall, strftime=time.strftime))
        soundfile.write(folder / "voice.wav", voice(voice_seconds), 44_100)  # another rate: nothing is a round number
        self.session = Session(clock=SteppedClock(), has_sound_output=False)
        self.session.use_avatar(avatar)
        self.camera = OrbitCamera(distance=0.5)
        self.shown = []
        self.session.open_sound(folder / "voice.wav")
        self.until(lambda: self.session.clock.is_playing, "playing")

    def until(self, condition, what):
        deadline = time.monotonic() + 60
        while not condition():
            self.session.update()
            assert time.monotonic() < deadline, f"{what}: did not happen; {self.session.messages}"
            time.sleep(0.002)

    def has_motion(self):
        timeline = self.session.timeline
        return timeline.is_over or (timeline.end_seconds or -1.0) > self.session.now() + 0.08

    def draw(self, frames):
        session = self.session
        for _ in range(frames):
            self.until(self.has_motion, "motion")
            frame = session.animator.pose(session.motion(), session.edit_now())
            with torch.inference_mode():
                render = rasterize(frame, self.camera.camera(*SIZE), BACKGROUND)
            if session.is_recording:
                self.shown.append((render.color * 255 + 0.5).byte().numpy())
            session.offer(render, self.camera)
            session.clock.advance(STEP)
            self.wall += STEP
            session.update()

    def finish(self):
        self.session.stop_recording()
        self.until(lambda: self.session.last_take is not None, "the take")
        return self.session.last_take.with_suffix(".take")


@pytest.fixture
def stage(tiny_avatar, tmp_path, monkeypatch):
    stage = Stage(tiny_avatar, tmp_path, monkeypatch)
    yield stage
    monkeypatch.undo()
    stage.session.close()


def pictures(avatar, take, folder, **options):
    export_take(avatar, take, folder, show_progress=False, **options)
    return [np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png"))]


def test_a_take_with_edits_seeks_and_camera_moves_comes_back_bit_for_bit(stage, tiny_avatar, tmp_path):
    session = stage.session
    stage.draw(12)
    session.start_recording(tmp_path, SIZE, 25)
    stage.draw(9)
    session.set_edit(smile(4.0))
    session.set_prompt("a smile")
    stage.draw(9)
    stage.camera.drag(80, 20)
    stage.draw(4)
    session.seek(2.0)
    stage.until(lambda: session.clock.is_playing and session.timeline.end_seconds is not None, "playing after the seek")
    stage.draw(10)
    take = stage.finish()
    again = pictures(tiny_avatar, take, tmp_path / "frames")
    assert abs(len(again) - len(stage.shown)) <= 1
    same = [np.array_equal(a, b) for a, b in zip(again, stage.shown)]
    assert all(same), f"pictures that differ: {[i for i, s in enumerate(same) if not s]}"
    assert len({picture.tobytes() for picture in stage.shown}) > 15, "a still picture proves nothing"


def test_size_rate_and_camera_of_a_take_are_free(stage, tiny_avatar, tmp_path):
    stage.session.start_recording(tmp_path, SIZE, 25)
    stage.draw(10)
    take = stage.finish()
    again = pictures(tiny_avatar, take, tmp_path / "large", size=(128, 96), fps=50, camera=OrbitCamera(40.0))
    assert len(again) == 20 and again[0].shape == (96, 128, 3)


def test_the_command_renders_a_take_at_its_own_size_or_another(stage, tiny_avatar_folder, tmp_path, capsys):
    stage.session.start_recording(tmp_path, SIZE, 25)
    stage.draw(5)
    command = ["render", "--take", str(stage.finish()), "--avatar", str(tiny_avatar_folder)]
    assert main([*command, "--out", f"{tmp_path}/own/"]) == 0
    assert main([*command, "--out", f"{tmp_path}/other/", "--size", "32x32", "--fps", "50", "--yaw", "30"]) == 0
    shapes = [[Image.open(path).size for path in (tmp_path / name).iterdir()] for name in ("own", "other")]
    assert shapes == [[SIZE] * 5, [(32, 32)] * 10]
    assert main([*command, "--out", f"{tmp_path}/none/", "--prompt", "a smile"]) == 2
    assert "says itself" in capsys.readouterr().err and not (tmp_path / "none").exists()


def test_a_take_file_is_an_ordinary_zip_of_ordinary_files(stage, tmp_path):
    stage.session.start_recording(tmp_path, SIZE, 25)
    stage.session.set_edit(smile(2.0))
    stage.draw(10)
    take = stage.finish()
    with zipfile.ZipFile(take) as archive:
        assert archive.namelist() == ["log.jsonl", "heard.flac", "speech.wav"]
        lines = [json.loads(line) for line in archive.read("log.jsonl").splitlines()]
        archive.extractall(tmp_path / "open")
    assert lines[0]["avatar"]["name"] == "tiny" and len(lines[0]["avatar"]["sha256"]) == 64
    assert {"play", "speak", "hop", "edit", "look"} <= {line["does"] for line in lines[1:]}
    heard, rate = soundfile.read(tmp_path / "open" / "heard.flac")
    assert rate == 48_000 and len(heard) / rate == pytest.approx(0.4, abs=0.001)
    truth = voice(1.0)[: len(heard) * 44_100 // 48_000]
    assert np.corrcoef(np.interp(np.arange(len(truth)) * 48_000 / 44_100, np.arange(len(heard)), heard[:, 0]), truth)[0, 1] > 0.98
    assert not TakeFolder(take.with_suffix(".mp4")).path.exists()


def test_another_head_performs_the_same_take_and_it_is_said(stage, tiny_avatar, tmp_path):
    import dataclasses

    stage.session.start_recording(tmp_path, SIZE, 25)
    stage.draw(4)
    take = stage.finish()
    manifest = {**tiny_avatar.manifest, "files": {"rig.safetensors": {"bytes": 1, "sha256": "0" * 64}}}
    other = dataclasses.replace(tiny_avatar, manifest=manifest)
    assert export_take(tiny_avatar, take, tmp_path / "a", show_progress=False).notes == ()
    assert "another head" in export_take(other, take, tmp_path / "b", show_progress=False).notes[0]


HEADER = {"format": "avatar-viewer take", "version": 1, "avatar": {"name": "a", "sha256": "0"}, "size": [64, 48], "fps": 25}


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([], "format is None"),
        ([{**HEADER, "version": 2}], "version 2"),
        ([{**HEADER, "size": [0, 48]}], "0 x 48"),
        ([{**HEADER, "fps": "many"}], "many"),
        ([HEADER, {"at": 0, "does": "fly"}], "'fly'"),
        ([HEADER, {"at": -1, "does": "rest"}], "-1"),
        ([HEADER, {"at": 0, "does": "play"}], "expected from"),
        ([HEADER, {"at": 0, "does": "play", "from": 0.5}], "from is '0.5'"),
        ([HEADER, {"at": 0, "does": "edit", "seconds": 0, "ease_seconds": 0, "edit": {"offset": 3}}], "offset"),
        ([HEADER, {"at": 0, "does": "hop", "seconds": 0, "edit": {"offset": {"AU99": 3}}}], "AU99"),
        ([HEADER, [1, 2]], "not an object"),
    ],
)
def test_a_wrong_log_is_refused_by_line(lines, words):
    data = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    with pytest.raises(InputError, match=words) as caught:
        parse_log(data, "x.take")
    assert "\n" not in str(caught.value)


def test_a_line_torn_by_a_kill_is_left_out():
    whole = json.dumps(HEADER) + "\n" + json.dumps({"at": 0, "does": "rest"}) + "\n"
    assert parse_log(f'{whole}{{"at": 4800, "does": "pl'.encode(), "x").entries == parse_log(whole.encode(), "x").entries


def test_damaged_take_files_are_input_errors(stage, tmp_path):
    stage.session.start_recording(tmp_path, SIZE, 25)
    stage.draw(4)
    whole = stage.finish().read_bytes()
    random = np.random.default_rng(0)
    damaged = tmp_path / "damaged.take"
    for _ in range(120):
        mutant = bytearray(whole)
        for place in random.integers(len(whole), size=3):
            mutant[place] ^= int(random.integers(1, 256))
        damaged.write_bytes(mutant)
        try:
            with TakeFile(damaged):
                pass
        except InputError as error:
            assert "\n" not in str(error)
    for length in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        damaged.write_bytes(whole[:length])
        with pytest.raises(InputError):
            TakeFile(damaged)
    with zipfile.ZipFile(damaged, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("log.jsonl", "heard.flac", "speech.wav"):
            archive.writestr(name, bytes(1 << 20))
    with pytest.raises(InputError, match="compressed"):
        TakeFile(damaged)


def test_a_take_cut_short_by_a_crash_is_packed_from_its_folder(stage, tmp_path):
    from avatar_viewer.live.take_file import pack_take

    path = stage.session.start_recording(tmp_path, SIZE, 25)
    stage.draw(10)
    folder = TakeFolder(path)
    assert (folder / LOG).exists()
    with TakeFile(pack_take(folder)) as take:
        assert take.seconds == pytest.approx(0.36, abs=0.05) and take.log.entries

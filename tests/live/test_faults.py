"""What goes wrong around a session, and costs no take: children killed and frozen, a full disk, a decoder that hangs."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import torch

from avatar_viewer.live import decoding, recorder
from avatar_viewer.live.clock import SteppedClock
from avatar_viewer.live.recorder import is_playable
from avatar_viewer.live.session import Session
from avatar_viewer.live.take_file import TakeFile
from avatar_viewer.types import Render

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
PICTURE = Render(torch.full((48, 64, 3), 0.5), torch.ones(48, 64))


@pytest.fixture
def session(tiny_avatar):
    session = Session(clock=SteppedClock(), has_sound_output=False)
    session.use_avatar(tiny_avatar)
    yield session
    session.close()


def until(session, condition, what, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        session.update()
        session.offer(PICTURE)
        assert time.monotonic() < deadline, f"{what}: did not happen; {session.messages}"
        time.sleep(0.02)


def record_until(session, folder, pictures):
    session.start_recording(folder, (64, 48), 25)
    until(session, lambda: session.recorder.frames_written >= pictures, "recording")


def texts(session):
    return " / ".join(message.text for message in session.messages)


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
def test_a_take_goes_on_when_its_encoder_does_not(session, tmp_path, monkeypatch, fault):
    record_until(session, tmp_path, 40)
    monkeypatch.setitem(recorder._HANG_SECONDS, False, 1.0)
    first = session.recorder
    os.kill(first._process.pid, fault)
    until(session, lambda: session.recorder is not None and session.recorder is not first, "another encoder")
    monkeypatch.setitem(recorder._HANG_SECONDS, False, 20.0)
    assert session.is_recording and "goes on in" in texts(session)
    until(session, lambda: session.recorder.frames_written >= 20, "recording again")
    session.stop_recording()
    until(session, lambda: session.recorder is None, "the end")
    until(session, lambda: len(list(tmp_path.glob("*.take"))) == 2, "both take files")
    videos = sorted(tmp_path.glob("*.mp4"))
    assert len(videos) == 2 and all(is_playable(video) for video in videos)
    until(session, lambda: not list(tmp_path.glob("*.partial")), "the folder being cleared away")
    with av.open(str(first.path)) as container:
        pictures = sum(1 for _ in container.decode(video=0))
    with TakeFile(first.path.with_suffix(".take")) as take:
        # A picture is due from half a frame before its time on, so the sound may end so much before the last one.
        assert pictures >= 40 - 25 and take.seconds >= (first.frames_written - 1.5) / 25, "at most a second of picture is lost, no sound"


def test_an_encoder_that_dies_again_and_again_ends_the_take(session, tmp_path, monkeypatch):
    monkeypatch.setattr("avatar_viewer.live.recording._MAX_CONTINUED", 1)
    session.start_recording(tmp_path, (64, 48), 25)
    for _ in range(2):
        os.kill(session.recorder._process.pid, signal.SIGKILL)
        before = session.recorder
        until(session, lambda: session.recorder is not before, "the loss being seen")
    assert session.recorder is None and not session.is_recording


def test_closing_with_a_frozen_encoder_keeps_the_take(tiny_avatar, tmp_path, monkeypatch):
    session = Session(clock=SteppedClock(), has_sound_output=False)
    session.use_avatar(tiny_avatar)
    record_until(session, tmp_path, 40)
    monkeypatch.setitem(recorder._HANG_SECONDS, False, 1.0)
    os.kill(session.recorder._process.pid, signal.SIGSTOP)
    session.close()
    (video,) = tmp_path.glob("*.mp4")
    assert is_playable(video) and list(tmp_path.glob("*.take"))


def test_a_nearly_full_disk_stops_the_take_and_keeps_it(session, tmp_path, monkeypatch):
    record_until(session, tmp_path, 10)
    monkeypatch.setattr("avatar_viewer.live.recording.free_bytes", lambda folder: 100 << 20)
    until(session, lambda: session.recorder is None, "the end")
    assert "nearly full (105 MB left)" in texts(session)
    assert is_playable(session.last_take)
    from avatar_viewer.errors import InputError

    with pytest.raises(InputError, match="105 MB left"):
        session.start_recording(tmp_path, (64, 48), 25)


FULL_DISK = """
import sys, time, torch
from pathlib import Path
from avatar_viewer.avatar.bundle import load_avatar
from avatar_viewer.live import recording
from avatar_viewer.live.clock import SteppedClock
from avatar_viewer.live.recorder import is_playable
from avatar_viewer.live.session import Session
from avatar_viewer.types import Render
if __name__ == "__main__":
    torch.set_num_threads(1)
    folder, avatar = Path(sys.argv[1]), sys.argv[2]
    recording.LOW_DISK_BYTES = 0  # so that the disk really fills
    recording.LOW_DISK_SECONDS = 0.0
    session = Session(clock=SteppedClock(), has_sound_output=False)
    session.use_avatar(load_avatar(avatar))
    session.start_recording(folder, (256, 256), 25)
    while not session.recorder.codec:  # until the encoder has started, nothing is seen or heard
        session.update()
        time.sleep(0.02)
    until = time.monotonic() + 60
    while session.is_recording and time.monotonic() < until:
        session.update()
        session.offer(Render(torch.rand(256, 256, 3), torch.ones(256, 256)))
        time.sleep(0.02)
    for _ in range(20):
        session.update()
        time.sleep(0.02)
    print("messages:", " / ".join(message.text for message in session.messages))
    print("playable:", bool(session.last_take) and is_playable(session.last_take), "recording:", session.is_recording)
    session.close()
    print("closed")
"""


def test_a_full_disk_ends_the_take_and_not_the_program(tmp_path, tiny_avatar_folder):
    """A disk of 6 MB of our own, in a mount namespace."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "full.py").write_text(FULL_DISK)
    mount = f"mount -t tmpfs -o size=6m none {tmp_path / 'disk'} && exec {sys.executable} {tmp_path / 'full.py'} {tmp_path / 'disk'} {tiny_avatar_folder}"
    command = ["unshare", "-rm", "sh", "-c", mount]
    try:
        trial = subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("unshare is not installed")
    if trial.returncode:
        pytest.skip(f"no mount namespaces here: {trial.stderr.decode().strip()}")
    answer = subprocess.run(command, capture_output=True, text=True, timeout=180, env=ENVIRONMENT, check=False)
    assert answer.returncode == 0 and "closed" in answer.stdout, answer.stderr[-2000:]
    assert "No space left" in answer.stdout, answer.stdout
    assert "playable: True recording: False" in answer.stdout, answer.stdout


@pytest.fixture
def sound_file(tmp_path):
    soundfile.write(tmp_path / "voice.wav", 0.2 * np.sin(np.arange(32_000) / 20), 16_000)
    return tmp_path / "voice.wav"


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
def test_a_decoder_that_dies_or_hangs_is_a_message_and_the_old_sound_stays(session, sound_file, monkeypatch, fault):
    session.open_sound(sound_file, plays=False)
    until(session, lambda: session.sound is not None and session.sound.is_complete, "the first sound")
    monkeypatch.setattr(decoding, "_PATIENCE_SECONDS", 0.5)
    session.open_sound(sound_file)
    os.kill(session.playback._opening._process.pid, fault)
    until(session, lambda: session.messages, "a message")
    assert "voice.wav" in texts(session) and "decoder" in texts(session)
    assert session.sound is not None and not session.is_opening
    monkeypatch.undo()
    session.open_sound(sound_file)
    until(session, lambda: session.is_playing, "playing after all")


def test_networks_that_give_nonsense_are_told_and_the_face_rests(session, sound_file, monkeypatch):
    session.open_sound(sound_file)
    until(session, lambda: session.clock.is_playing, "playing")
    monkeypatch.setattr(session._motion, "_denoise", lambda *_: torch.full((5, 12), torch.nan))

    def advance():
        session.clock.advance(0.02)
        return session.messages

    until(session, advance, "a message")
    assert "eases to rest" in texts(session) and torch.isfinite(session.motion().offsets).all()


def test_floods_of_prompts_and_sliders_end_in_the_last_one(session):
    from avatar_viewer.types import AUEdit

    for number in range(10_000):
        session.set_edit(AUEdit(offset=torch.full((17,), number % 50 / 10), suppress=number / 10_000))
    assert session.edit_now().suppress == pytest.approx(0.9999)
    assert len(session.edits.events) <= 10_001

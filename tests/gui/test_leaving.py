"""The window left in the middle of anything: nobody stays behind, and what was recorded is there. With `-s` it says how long it took."""

import os
import signal
import time
from pathlib import Path

import av
import pytest

from avatar_viewer.live.take_file import TakeFile
from avatar_viewer.live.take_folder import find_abandoned

pytestmark = [pytest.mark.window, pytest.mark.sound]


def descendants(pid):
    try:
        children = [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]
    except OSError:
        return []
    return [*children, *(further for child in children for further in descendants(child))]


def command(pid):
    """What a process runs; empty once it has ended, though it may be a zombie whose parent has not looked."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def encoder_of(window):
    return next(pid for pid in descendants(window.process.pid) if os.path.exists(f"/proc/{pid}/fd") and any("picture.mp4" in name for name in handles(pid)))


def handles(pid):
    try:
        return [os.readlink(entry.path) for entry in os.scandir(f"/proc/{pid}/fd")]
    except OSError:
        return []


def leave(window, how):
    """Leave and see that nobody stays; how long it took."""
    family = {pid: command(pid) for pid in descendants(window.process.pid)}
    began = time.monotonic()
    if how is None:
        window.ask_to_close()
    else:
        window.process.send_signal(how)
    assert window.process.wait(60) == 0, window.log()
    spent = time.monotonic() - began
    deadline = time.monotonic() + 10.0  # the system's own time to take a killed process away
    while left := [line for pid, line in family.items() if line and command(pid) == line]:
        assert time.monotonic() < deadline, f"still there: {left}"
        time.sleep(0.05)
    assert "Traceback" not in window.log()
    return spent


def record(window, pictures):
    window.wait(lambda state: state["playing"] and not state["loading"], "playing")
    window.move(*window.place("stage"))
    window.key("r")
    window.wait(lambda state: state["recording"] and state["recorded"] >= pictures, "recording")


def test_leaving_while_the_avatar_is_loaded(open_window, voice):
    window = open_window("--audio", voice, ready=lambda state: True)
    print(f"\nloading: {leave(window, signal.SIGTERM):.2f} s")


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, None], ids=["term", "ctrl-c", "closed"])
def test_leaving_while_it_plays(open_window, voice, sound_server, how):
    window = open_window("--audio", voice, environment=sound_server.environment)
    window.wait(lambda state: state["playing"] and state["now"] > 0.3, "playing")
    print(f"\nplaying, {how}: {leave(window, how):.2f} s")


def test_leaving_while_listening(open_window, sound_server):
    window = open_window("--mic", environment=sound_server.environment)
    window.wait(lambda state: state["microphone"] and state["now"] > 0.3, "listening")
    print(f"\nlistening: {leave(window, signal.SIGTERM):.2f} s")


def test_leaving_while_the_sound_server_hangs(open_window, voice, sound_server):
    window = open_window("--audio", voice, environment=sound_server.environment)
    window.wait(lambda state: state["playing"] and state["now"] > 0.3 and not state["silent"], "playing")
    sound_server.freeze()
    try:
        print(f"\nfrozen sound server: {leave(window, signal.SIGTERM):.2f} s")
    finally:
        sound_server.thaw()


@pytest.mark.parametrize("how", [signal.SIGTERM, None], ids=["term", "closed"])
def test_leaving_while_recording_finishes_the_take(open_window, voice, how):
    window = open_window("--audio", voice)
    record(window, 40)
    print(f"\nrecording, {how}: {leave(window, how):.2f} s")
    (video,) = (window.folder / "takes").glob("*.mp4")
    with av.open(str(video)) as container:
        assert container.streams.video[0].frames >= 40
    with TakeFile(video.with_suffix(".take")) as take:
        assert take.seconds >= 39 / 25
    assert not find_abandoned(window.folder / "takes")


def test_leaving_as_soon_as_recording_is_asked_for_loses_nothing_that_was_heard(open_window, voice):
    window = open_window("--audio", voice)
    window.wait(lambda state: state["playing"] and not state["loading"], "playing")
    window.move(*window.place("stage"))
    window.key("r")
    window.wait(lambda state: state["recording"], "recording")
    print(f"\nrecording just begun: {leave(window, signal.SIGTERM):.2f} s")
    (take,) = (window.folder / "takes").glob("*.take")  # with a picture or, where its encoder had not come up, without
    with TakeFile(take) as found:
        assert found.seconds > 0


def test_leaving_while_the_encoder_hangs_keeps_what_it_wrote(open_window, voice):
    window = open_window("--audio", voice)
    record(window, 40)
    os.kill(encoder_of(window), signal.SIGSTOP)
    print(f"\nfrozen encoder: {leave(window, signal.SIGTERM):.2f} s")
    (video,) = (window.folder / "takes").glob("*.mp4")
    with av.open(str(video)) as container:
        assert sum(1 for _ in container.decode(video=0)) >= 40 - 25, "at most a second of picture is lost"
    with TakeFile(video.with_suffix(".take")) as take:
        assert take.seconds >= 39 / 25

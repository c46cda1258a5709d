"""The real window on a virtual screen, driven by mouse and keys as a person does; what it did is read from its trace."""

import os
import shutil

import av
import numpy as np
import pytest
from interrupted_take import interrupt_take

pytestmark = pytest.mark.window
RESIZES = int(os.environ.get("AVATAR_VIEWER_RESIZES", "20"))  # 200 once in a while


def test_mouse_orbits_pans_and_zooms_and_keys_bring_the_camera_back(open_window):
    window = open_window()
    start = window.state["camera"]
    x, y = window.place("stage")
    window.drag((x, y), (x + 120, y + 20))
    window.wait(lambda state: state["camera"] != start, "orbiting")
    window.settle()
    turned = window.state["camera"]
    assert turned[:3] != start[:3], "the view must have turned"
    window.drag((x, y), (x + 40, y + 60), button=3)
    window.wait(lambda state: state["camera"] != turned, "panning")
    window.settle()
    panned = window.state["camera"]
    assert panned[:3] == turned[:3] and panned[3:] != turned[3:], "panning must not turn"
    window.move(x, y)
    window.xdotool("click", 4)
    window.wait(lambda state: state["camera"][11] < panned[11], "zooming in")
    window.key("shift+f")
    window.wait(lambda state: state["camera"] == start, "resetting the camera")
    assert window.close() == 0, window.log()


def test_typing_a_prompt_moves_nothing_and_is_taken(open_window, voice):
    window = open_window("--audio", voice)
    window.wait(lambda state: state["playing"] and state["now"] > 0.2, "playing")
    before = window.state
    window.click(*window.place("prompt"))
    window.wait(lambda state: state["typing"], "the cursor in the prompt box")
    window.xdotool("type", "--delay", "60", "far from sad, m o r f l")
    window.wait(lambda state: state["prompt"] == "far from sad, m o r f l", "the prompt")
    after = window.state
    assert after["camera"] == before["camera"] and after["playing"] and not after["recording"] and not after["microphone"]
    assert not any(after["offsets"])
    window.key("Return", "Escape")
    window.wait(lambda state: not state["typing"], "leaving the box")
    window.click(*window.place("prompt"))
    window.xdotool("type", "--delay", "60", " x")
    window.wait(lambda state: state["prompt"].endswith("x"), "more of the prompt")
    window.key("Escape")
    window.wait(lambda state: not state["typing"], "leaving the box by Esc")
    window.settle()
    assert "x" in window.state["prompt"], "Esc must not take back what was typed"
    window.key("space")
    window.wait(lambda state: not state["playing"], "Space pausing again")
    assert window.close() == 0, window.log()


def test_sliders_playing_and_recording_go_together(open_window, voice):
    window = open_window("--audio", voice)
    window.wait(lambda state: state["playing"] and state["now"] > 0.2, "playing")
    x, y = window.place("AU01")
    window.drag((x, y), (x + 40, y))
    window.wait(lambda state: state["offsets"][0] > 0.5, "the slider of AU01")
    assert not any(window.state["offsets"][1:])
    window.move(*window.place("stage"))
    window.key("r")
    window.wait(lambda state: state["recording"] and state["recorded"] >= 40, "recording")
    window.key("r")
    take = window.wait(lambda state: state["last_take"], "the take")["last_take"]
    with av.open(str(window.folder / take)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert (video.width, video.height) == (256, 256)
        length = float(video.duration * video.time_base)
        assert length >= 1.5 and abs(length - float(audio.duration * audio.time_base)) <= 0.05
        picture = next(container.decode(video)).to_ndarray(format="rgb24")
        assert picture.std() > 10, "the head must be in the picture"
    assert window.close() == 0, window.log()


def test_without_sound_output_it_says_so_in_one_line_and_plays_on(open_window, voice):
    window = open_window("--audio", voice)
    state = window.wait(lambda state: state["silent"] and state["now"] > 1.0, "silent playing")
    assert state["playing"] and "No sound output" in state["message"]
    assert "Traceback" not in window.log()


def test_closing_while_recording_keeps_the_take(open_window, voice):
    window = open_window("--audio", voice)
    window.wait(lambda state: state["playing"], "playing")
    window.move(*window.place("stage"))
    window.key("r")
    window.wait(lambda state: state["recording"] and state["recorded"] >= 30, "recording")
    assert window.close() == 0, window.log()
    (take,) = (window.folder / "takes").glob("*.mp4")
    assert not take.name.endswith(".partial.mp4")
    with av.open(str(take)) as container:
        assert container.streams.video[0].frames >= 30


def test_a_broken_avatar_is_a_message_and_the_window_stays(open_window, tmp_path, tiny_avatar_folder):
    broken = tmp_path / "broken"
    shutil.copytree(tiny_avatar_folder, broken)
    (broken / "rig.safetensors").write_bytes(b"garbage")
    (broken / "denoiser.safetensors").unlink()
    window = open_window(avatar=broken, ready=lambda state: "rig.safetensors" in state["message"] and not state["loading"])
    assert "denoiser.safetensors" in window.state["message"]
    window.settle()
    assert window.close() == 0, window.log()


def test_a_window_that_changes_its_size_and_hides_leaves_the_take_alone(open_window, voice):
    window = open_window("--audio", voice)
    window.wait(lambda state: state["playing"], "playing")
    window.move(*window.place("stage"))
    window.key("r")
    window.wait(lambda state: state["recording"] and state["recorded"] >= 10, "recording")
    random = np.random.default_rng(0)
    for turn in range(RESIZES):
        window.xdotool("windowsize", window.id, int(random.integers(200, 1300)), int(random.integers(150, 850)))
        if turn % 5 == 4:
            window.xdotool("windowunmap", window.id)
            window.xdotool("windowmap", window.id)
    window.settle()
    assert window.close() == 0, window.log()
    (take,) = (window.folder / "takes").glob("*.mp4")
    with av.open(str(take)) as container:
        sizes = {(frame.width, frame.height) for frame in container.decode(video=0)}
        length = float(container.streams.video[0].duration * container.streams.video[0].time_base)
    assert sizes == {(256, 256)} and length >= 1.0


def test_an_interrupted_take_is_offered_and_recovered(open_window, tmp_path):
    (tmp_path / "takes").mkdir()
    folder = interrupt_take(tmp_path / "takes", "lost.mp4")
    window = open_window(ready=lambda state: state["interrupted"] == 1 and state["avatar"] is not None)
    window.settle()
    assert folder.path.exists(), "looking changes nothing"
    window.click(*window.place("recover_all"))
    window.wait(lambda state: state["interrupted"] == 0 and "Recovered" in state["message"], "the recovery")
    assert sorted(path.name for path in (tmp_path / "takes").iterdir()) == ["lost.mp4", "lost.take"]
    assert window.close() == 0, window.log()


FAILING_RASTERISER = """
import sys
import run_viewer
from avatar_viewer.gui import app
if __name__ == "__main__":
    real, count = app.rasterize, 0
    def failing(*arguments):
        global count
        count += 1
        if 5 <= count < 25:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return real(*arguments)
    app.rasterize = failing
    sys.exit(run_viewer.main())
"""


def test_a_rasteriser_that_fails_costs_pictures_and_nothing_else(open_window, voice, tmp_path):
    (tmp_path / "failing.py").write_text(FAILING_RASTERISER)
    window = open_window("--audio", voice, program=tmp_path / "failing.py")
    window.wait(lambda state: "could not be drawn" in state["message"], "the message")
    count = window.state["pictures"]
    window.wait(lambda state: state["pictures"] > count + 30 and state["playing"], "drawing again")
    assert window.close() == 0, window.log()
    assert "Traceback" not in window.log()


def test_a_folder_of_odd_names_is_listed_and_an_odd_file_played(open_window, voice):
    folder = voice.parent
    odd = [b"caf\xe9 \xff.wav", "\u202egnp.wav".encode(), "👩‍👩‍👧 ünï.wav".encode(), b"two\nlines.wav", b"%s%n{}.wav", b"x" * 250 + b".wav", b"-rf.wav"]
    odd += [bytes([number % 255 + 1 if number % 255 + 1 != 47 else 95]) + f"{number}.wav".encode() for number in range(190)]
    for name in odd:
        (folder / os.fsdecode(name)).touch()
    played = folder / os.fsdecode(b"\xff played \xc3.wav")
    shutil.copy(voice, played)
    window = open_window("--audio", played)
    window.wait(lambda state: state["playing"] and state["now"] > 0.1 and "played" in state["sound"], "playing")
    window.move(*window.place("stage"))
    window.key("o")
    window.settle()
    window.key("Escape")
    window.settle()
    assert window.close() == 0, window.log()

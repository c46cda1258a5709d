"""The real window on a virtual screen, driven by mouse and keys as a person does; what it did is read from its trace."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from interrupted_take import interrupt_take

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.window
RESIZES = int(os.environ.get("AVATAR_VIEWER_RESIZES", "20"))  # 200 once in a while
TIMEOUT = 90.0  # generous: CI machines are slow, and shared


class Window:
    """The viewer as a process of its own, with empty folders."""

    def __init__(
        self, folder, screen, avatar, *arguments, environment=None, ready=lambda state: state["avatar"] is not None, program=ROOT / "run_viewer.py"
    ):  # fmt: skip
        self.folder, self._screen = folder, screen
        self._trace = folder / "trace.jsonl"
        self._log = open(folder / "log.txt", "w")
        self._environment = {
            **os.environ, "DISPLAY": screen, "LIBGL_ALWAYS_SOFTWARE": "1", "PYTHONPATH": str(ROOT), "PULSE_SERVER": "unix:/nowhere",
            **(environment or {}),
        }  # fmt: skip
        command = [sys.executable, "-X", "faulthandler", str(program), "--avatar", avatar, "--trace", self._trace, *arguments]
        self.process = subprocess.Popen([str(part) for part in command], cwd=folder, env=self._environment, stdout=self._log, stderr=self._log)
        self.wait(ready, "the window being ready")
        self.id = self.xdotool("search", "--onlyvisible", "--name", "Avatar viewer").split()[0]
        self.xdotool("windowfocus", "--sync", self.id)
        geometry = dict(line.split("=") for line in self.xdotool("getwindowgeometry", "--shell", self.id).split())
        self._corner = int(geometry["X"]), int(geometry["Y"])

    def xdotool(self, *arguments):
        answer = subprocess.run(["xdotool", *map(str, arguments)], env=self._environment, capture_output=True, text=True, timeout=20)
        return answer.stdout.strip()

    def lines(self):
        text = self._trace.read_text() if self._trace.exists() else ""
        return [json.loads(line) for line in text.splitlines() if line.endswith("}")]

    @property
    def state(self):
        return self.lines()[-1]

    def wait(self, condition, what, seconds=TIMEOUT):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                pytest.fail(f"{what}: the viewer ended with {self.process.returncode}: {self.log()[-3000:]}")
            lines = self.lines()
            if lines and condition(lines[-1]):
                return lines[-1]
            time.sleep(0.1)
        pytest.fail(f"{what}: did not happen; last: {self.lines()[-1:]} {self.log()[-2000:]}")

    def log(self):
        return (self.folder / "log.txt").read_text()

    def settle(self):
        """Let two lines of trace pass: what was done is in the state."""
        count = len(self.lines())
        self.wait(lambda state: len(self.lines()) >= count + 3, "the trace going on")

    def move(self, x, y):
        self.xdotool("mousemove", self._corner[0] + x, self._corner[1] + y)
        time.sleep(0.25)

    def drag(self, start, end, button=1):
        self.move(*start)
        self.xdotool("mousedown", button)
        time.sleep(0.3)
        for step in range(1, 6):
            self.move(*(a + (b - a) * step // 5 for a, b in zip(start, end)))
        time.sleep(0.3)
        self.xdotool("mouseup", button)
        time.sleep(0.3)

    def click(self, x, y, button=1):
        self.move(x, y)
        self.xdotool("mousedown", button)
        time.sleep(0.25)
        self.xdotool("mouseup", button)
        time.sleep(0.25)

    def key(self, *names):
        for name in names:
            self.xdotool("key", name)
            time.sleep(0.3)

    def place(self, name):
        """Middle of an item, in pixels of the window, as the trace tells it."""
        return tuple(int(value) for value in self.state["places"][name])

    def close(self):
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(30)
        finally:
            if self.process.poll() is None:
                self.process.kill()
            self._log.close()


@pytest.fixture
def voice(tmp_path):
    seconds = np.arange(16_000 * 20) / 16_000
    samples = 0.3 * np.sin(2 * np.pi * 160 * seconds) * (0.5 + 0.5 * np.sin(2 * np.pi * 2 * seconds))
    soundfile.write(tmp_path / "voice.wav", samples.astype(np.float32), 16_000)
    return tmp_path / "voice.wav"


@pytest.fixture
def open_window(tmp_path, screen, tiny_avatar_folder):
    opened = []

    def opener(*arguments, avatar=tiny_avatar_folder, **options):
        opened.append(Window(tmp_path, screen, avatar, "--size", "256x256", *arguments, **options))
        return opened[-1]

    yield opener
    for window in opened:
        window.close()


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

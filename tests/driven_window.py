"""The viewer as a person has it: a process with a window, driven by mouse and keys, and its trace to read what it did."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).parents[1]
_TAIL_BYTES = 1 << 16  # some lines of trace
TIMEOUT = 90.0  # generous: CI machines are slow, and shared


_ASK_TO_CLOSE = """
import ctypes, sys
class ClientMessage(ctypes.Structure):
    _fields_ = [("type", ctypes.c_int), ("serial", ctypes.c_ulong), ("send_event", ctypes.c_int), ("display", ctypes.c_void_p),
                ("window", ctypes.c_ulong), ("message", ctypes.c_ulong), ("format", ctypes.c_int), ("data", ctypes.c_long * 5), ("room", ctypes.c_long * 20)]
x11 = ctypes.CDLL("libX11.so.6")
x11.XOpenDisplay.restype = ctypes.c_void_p
x11.XInternAtom.restype = ctypes.c_ulong
display, window = ctypes.c_void_p(x11.XOpenDisplay(None)), ctypes.c_ulong(int(sys.argv[1]))
protocols, delete = (x11.XInternAtom(display, name, 0) for name in (b"WM_PROTOCOLS", b"WM_DELETE_WINDOW"))
event = ClientMessage(33, 0, 1, display, window, protocols, 32, (ctypes.c_long * 5)(delete, 0, 0, 0, 0))
assert x11.XSendEvent(display, window, 0, ctypes.c_long(0), ctypes.byref(event))
x11.XCloseDisplay(display)
"""


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
        """The newest line that is whole; the rest of a long trace is not read for it."""
        with open(self._trace, "rb") as trace:
            trace.seek(max(0, os.fstat(trace.fileno()).st_size - _TAIL_BYTES))
            lines = trace.read().decode().splitlines()
        return json.loads(next((line for line in reversed(lines) if line.startswith("{") and line.endswith("}")), "null"))

    def wait(self, condition, what, seconds=TIMEOUT):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                pytest.fail(f"{what}: the viewer ended with {self.process.returncode}: {self.log()[-3000:]}")
            if self._trace.exists() and (state := self.state) and condition(state):
                return state
            time.sleep(0.1)
        pytest.fail(f"{what}: did not happen; last: {self.lines()[-1:]} {self.log()[-2000:]}")

    def log(self):
        return (self.folder / "log.txt").read_text()

    def settle(self):
        """Let two lines of trace pass: what was done is in the state."""
        seconds = self.state["seconds"]
        seen = set()
        self.wait(lambda state: state["seconds"] > seconds and (seen.add(state["seconds"]) or len(seen) >= 3), "the trace going on")

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

    def ask_to_close(self):
        """As a window manager does when the cross is clicked: xdotool's own way destroys the window instead."""
        subprocess.run([sys.executable, "-c", _ASK_TO_CLOSE, self.id], env=self._environment, timeout=20, check=True)

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

"""A screen and a sound card of our own for tests: Xvfb with Mesa's software GL, PulseAudio with null sinks.

Tests that need them carry the markers `window` or `sound`. Where a program is missing they skip with the reason, unless
AVATAR_VIEWER_REQUIRE_DEVICES=1 (as in CI), where that is a failure.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

SCREEN_SIZE = (1400, 900)


def _require(*programs: str) -> None:
    missing = [name for name in programs if shutil.which(name) is None]
    if not missing:
        return
    reason = f"not installed: {', '.join(missing)}"
    if os.environ.get("AVATAR_VIEWER_REQUIRE_DEVICES") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def _wait_for(condition, seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"{what} did not start within {seconds:.0f} s")
        time.sleep(0.05)


def _end(process: subprocess.Popen) -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(5)


@pytest.fixture(scope="session")
def screen():
    """DISPLAY of a virtual screen."""
    _require("Xvfb", "xdotool")
    read_end, write_end = os.pipe()
    command = ["Xvfb", "-displayfd", str(write_end), "-screen", "0", f"{SCREEN_SIZE[0]}x{SCREEN_SIZE[1]}x24", "+extension", "GLX"]
    process = subprocess.Popen(command, pass_fds=(write_end,), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.close(write_end)
    with os.fdopen(read_end) as answer:
        number = answer.readline().strip()
    if not number:
        _end(process)
        pytest.fail("Xvfb did not start")
    yield f":{number}"
    _end(process)


@dataclass(frozen=True)
class SoundServer:
    """A private PulseAudio: a speaker to play to, a microphone to play into."""

    environment: dict[str, str]
    process: subprocess.Popen

    def pactl(self, *arguments: str) -> str:
        command = ["pactl", *arguments]
        return subprocess.run(command, env={**os.environ, **self.environment}, capture_output=True, text=True, timeout=10).stdout

    def speak(self, wav: Path) -> subprocess.Popen:
        """Play a file into the virtual microphone."""
        return subprocess.Popen(["paplay", "--device=into_microphone", str(wav)], env={**os.environ, **self.environment})

    def freeze(self) -> None:
        os.kill(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)


@pytest.fixture(scope="session")
def sound_server():
    """Sound devices of our own for children that get its `environment`."""
    _require("pulseaudio", "pactl", "paplay")
    folder = tempfile.mkdtemp(prefix="pulse-")  # short: the socket's path has a limit of 108 bytes
    socket = f"{folder}/socket"
    environment = {"PULSE_SERVER": f"unix:{socket}", "XDG_RUNTIME_DIR": folder, "PULSE_STATE_PATH": folder}
    modules = (
        f"module-native-protocol-unix socket={socket} auth-anonymous=1",
        "module-null-sink sink_name=speaker rate=48000 channels=2",
        "module-null-sink sink_name=into_microphone rate=48000 channels=1",
        "module-remap-source master=into_microphone.monitor source_name=microphone",
    )
    command = ["pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1", "--system=false"]
    command += [part for module in modules for part in ("-L", module)]
    process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    server = SoundServer(environment, process)
    _wait_for(lambda: "microphone" in server.pactl("list", "short", "sources"), 15, "PulseAudio")
    server.pactl("set-default-sink", "speaker")
    server.pactl("set-default-source", "microphone")
    yield server
    server.thaw()
    _end(process)
    shutil.rmtree(folder, ignore_errors=True)

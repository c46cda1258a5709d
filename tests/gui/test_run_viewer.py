"""The door: help is quick, mistakes are one line, and a machine without a screen still gets its clip."""

import os
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).parents[2]


def run(*arguments, **environment):
    without_screen = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    command = [sys.executable, str(ROOT / "run_viewer.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env={**without_screen, **environment})


def test_help_is_quick_and_loads_no_torch():
    began = time.monotonic()
    answer = run("--help")
    assert answer.returncode == 0 and "--avatar" in answer.stdout and "--mic" in answer.stdout
    assert time.monotonic() - began < 2.0
    check = "import sys; sys.argv = ['x', '--help']\ntry: import runpy; runpy.run_path(%r, run_name='__main__')\nexcept SystemExit: pass\n"
    check += "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", check % str(ROOT / "run_viewer.py")], capture_output=True).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--avatar", "nowhere"), "nowhere: no avatar there"),
        (("--size", "512"), "is not a size"),
        (("--size", "9x9"), "out of range"),
        (("--audio", "a.wav", "--mic"), "not allowed with"),
        (("--takes", __file__), "is a file, not a folder"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(arguments, words):
    answer = run(*arguments)
    assert answer.returncode == 2 and words in answer.stderr and len(answer.stderr.splitlines()) == 1


def test_without_a_screen_the_clip_and_a_contact_sheet_are_rendered(tiny_avatar_folder, tmp_path, monkeypatch):
    samples = (0.3 * np.sin(np.arange(8000) * 0.1)).astype(np.float32)
    soundfile.write(tmp_path / "half.wav", samples, 16_000)
    monkeypatch.chdir(tmp_path)
    answer = run("--avatar", tiny_avatar_folder, "--audio", "half.wav", "--size", "64x64", PYTHONPATH=str(ROOT))
    assert answer.returncode == 0, answer.stderr
    assert "No screen (DISPLAY is not set)" in answer.stdout.splitlines()[0]
    with av.open("avatar_viewer_demo.mp4") as container:
        assert container.streams.video[0].frames == 13 and container.streams.audio
    assert (tmp_path / "avatar_viewer_demo.png").stat().st_size > 500


def test_without_a_window_a_microphone_is_said_not_to_be_heard(tiny_avatar_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "avatar_viewer_demo.mp4").mkdir()  # so that nothing long is rendered
    answer = run("--avatar", tiny_avatar_folder, "--mic", PYTHONPATH=str(ROOT))
    assert answer.returncode == 2 and "demo_speech.flac; a sound file of yours goes with --audio" in answer.stdout


def test_a_screen_that_does_not_answer_is_no_screen(tiny_avatar_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answer = run("--avatar", tiny_avatar_folder, "--audio", tmp_path, DISPLAY=":987")
    assert answer.returncode == 2  # the sound is a folder; but the reason for no screen is found without a crash
    check = "from avatar_viewer.gui.screen import why_no_screen; print(why_no_screen())"
    said = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, env={**os.environ, "DISPLAY": ":987", "PYTHONPATH": str(ROOT)})
    assert "cannot be opened" in said.stdout

"""Mouse and keys sensed without drawing, so that an idle window can rest."""

import subprocess

import pytest

from avatar_viewer.gui.screen import InputSense, why_no_screen

pytestmark = pytest.mark.window
ALL = (0, 0, 1400, 900)


@pytest.fixture
def sense(screen, monkeypatch):
    monkeypatch.setenv("DISPLAY", screen)
    assert why_no_screen() == ""
    sense = InputSense()
    yield sense
    sense.close()


def xdotool(*arguments):
    subprocess.run(["xdotool", *map(str, arguments)], check=True, timeout=20)


def test_it_tells_of_the_mouse_within_the_window_and_of_keys_anywhere(sense):
    xdotool("mousemove", 300, 300)
    sense.has_changed(*ALL)
    assert sense.is_able and not sense.has_changed(*ALL)
    xdotool("mousemove", 320, 300)
    assert sense.has_changed(*ALL) and not sense.has_changed(*ALL)
    sense.has_changed(600, 600, 100, 100)
    xdotool("mousemove", 340, 300)
    assert not sense.has_changed(600, 600, 100, 100), "the mouse is elsewhere"
    xdotool("keydown", "a")
    assert sense.has_changed(600, 600, 100, 100)
    xdotool("keyup", "a")
    assert sense.has_changed(600, 600, 100, 100)


def test_without_a_screen_it_does_not_claim_that_nothing_happened(monkeypatch):
    monkeypatch.setenv("DISPLAY", ":none")
    sense = InputSense()
    assert not sense.is_able and sense.has_changed(*ALL)

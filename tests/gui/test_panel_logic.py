"""What panels compute, without a window."""

import os

import numpy as np
import pytest

from avatar_viewer.gui.file_list import list_folder
from avatar_viewer.gui.gate import clean_text, finite
from avatar_viewer.gui.shortcuts import SHORTCUTS, find_action
from avatar_viewer.gui.status import FrameRate
from avatar_viewer.gui.transport import clock_text, wave_heights
from avatar_viewer.live.spool import SpoolFormat, SpoolWriter


@pytest.mark.parametrize(
    "text",
    [os.fsdecode(b"caf\xe9\xff.wav"), "\ud800", "a\x00b", "x" * 1_000_000, "😀" * 300_000, "\u202eabc", "%s%n{}", "", "e\u0301", "\x1b[31m", "👩‍👩‍👧"],
)
def test_any_text_becomes_text_that_the_toolkit_survives(text):
    clean = clean_text(text)
    clean.encode("utf-8")
    assert "\x00" not in clean and "\x1b" not in clean and len(clean) <= 20_000


def test_ordinary_text_is_left_alone():
    assert clean_text("Ein Lächeln, 半分の笑顔, 👍\n\tok") == "Ein Lächeln, 半分の笑顔, 👍\n\tok"


@pytest.mark.parametrize(("value", "expected"), [(float("nan"), 0.0), (float("inf"), 0.0), (-9.0, -5.0), (2.5, 2.5), (99, 5.0)])
def test_any_number_becomes_one_within_bounds(value, expected):
    assert finite(value, -5, 5) == expected


def test_every_shortcut_is_found_and_no_two_share_keys():
    bindings = [(s.key, s.ctrl, s.shift) for s in SHORTCUTS]
    assert len(bindings) == len(set(bindings))
    for shortcut in SHORTCUTS:
        assert find_action(shortcut.key, ctrl=shortcut.ctrl, shift=shortcut.shift) == shortcut.action
    assert find_action("space", ctrl=True, shift=False) is None


def test_frame_rate_is_a_median_that_one_slow_frame_does_not_move():
    rate = FrameRate()
    now = 0.0
    for frame in range(60):
        now += 0.5 if frame == 30 else 0.025
        rate.tick(now)
    assert rate.fps == pytest.approx(40, rel=0.01)


def test_times_are_written_as_people_read_them():
    assert [clock_text(s) for s in (0, 5.26, 59.96, 61, 600)] == ["0:00.0", "0:05.3", "1:00.0", "1:01.0", "10:00.0"]


def test_the_waveform_shows_where_it_is_loud(tmp_path):
    spool = SpoolFormat(str(tmp_path / "s"), 16_000, 1, "float32")
    samples = np.zeros((16_000, 1), np.float32)
    samples[8_000:12_000] = 0.5
    SpoolWriter(spool).append(samples)
    heights = wave_heights(spool, 1.0, 8)
    assert heights.tolist() == [0, 0, 0, 0, 1, 1, 0, 0]


def test_a_folder_lists_what_can_be_opened_or_entered(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / ".hidden.wav").touch()
    for name in (b"b.wav", b"a\xff.wav", b"notes.txt"):
        (tmp_path / os.fsdecode(name)).touch()
    entries = list_folder(tmp_path, lambda path: path.suffix == ".wav")
    assert [(os.fsencode(path.name), pick) for path, pick in entries] == [(b"sub", False), (b"a\xff.wav", True), (b"b.wav", True)]
